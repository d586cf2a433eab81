"""What every stage reads and writes: names, volumes, tables, label maps, batches, and what ships with the package."""
