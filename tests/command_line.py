"""Commands of the command line, run in this process."""

import contextlib
import io

from ssntk import cli
from ssntk.cli import entry


def run_here(*arguments):
    """The status and the output of a command that is run in this process."""
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            entry.guarded(lambda: cli.app([str(argument) for argument in arguments]))
        except SystemExit as ended:
            code = ended.code or 0
    return code, said.getvalue()
