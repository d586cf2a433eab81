"""What the Snakefile plans with: nothing here is run by a job."""
