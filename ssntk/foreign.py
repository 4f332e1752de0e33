"""A user's own code, called by the command line: whatever it does is said in a sentence, with its file and its line."""

import contextlib
import pathlib
import sysconfig
import traceback
from collections.abc import Iterator

from ssntk.errors import NumericalError


class UsageError(Exception):
    """What was asked for cannot be understood: exit status 2."""


@contextlib.contextmanager
def foreign(what: str) -> Iterator[None]:
    """Whatever is raised meanwhile becomes a `UsageError`, `what: KeyError: 'n' (net.py:3)`; so does leaving the process."""
    try:
        yield
    except (KeyboardInterrupt, UsageError, NumericalError):
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        if isinstance(error, SystemExit):
            said = f"it ends the process, by sys.exit({error.code!r})"
        elif type(error) is ValueError or type(error).__module__.startswith("ssntk."):
            said = str(error)
        where = _where(error)
        raise UsageError(f"{what}: {said}" + (f" ({where})" if where else "")) from error


def _where(error: BaseException) -> str | None:
    """The file and the line of the user's code at which an error was raised; `None` where that was not in it."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    places = [place for place in traceback.extract_tb(error.__traceback__) if not _installed(place.filename)]
    return f"{places[-1].filename}:{places[-1].lineno}" if places else None


def _installed(file: str) -> bool:
    """Whether a file is of this package, of Python or of what is installed."""
    paths = sysconfig.get_paths()
    known = [pathlib.Path(__file__).parent, *(pathlib.Path(paths[name]).resolve() for name in ("stdlib", "purelib"))]
    return file.startswith("<") or any(folder in pathlib.Path(file).resolve().parents for folder in known)
