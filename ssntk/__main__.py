"""`python -m ssntk` is the command line."""

from ssntk.cli import main

main()
