"""What the Snakefile plans with; no stage imports it."""
