"""`python -m iqt` is the command line."""

from iqt.cli import main

main()
