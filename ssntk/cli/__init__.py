"""The command line, one file for each command. Importing it imports no JAX."""

from ssntk.cli.app import app as app
from ssntk.cli.check_models import check as check
from ssntk.cli.draw_diagram import diagram as diagram
from ssntk.cli.entry import main as main
from ssntk.cli.run_sweep import sweep as sweep
from ssntk.cli.stores import export as export
from ssntk.cli.stores import merge as merge
from ssntk.cli.stores import plot as plot
from ssntk.cli.stores import report as report
