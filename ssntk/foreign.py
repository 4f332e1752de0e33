"""Call a user's own code from the command line. Every error in it is reported in one sentence, with its file and line.

This file imports nothing that imports JAX, since the command line must configure JAX first.
"""

import contextlib
import inspect
import os
import pathlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class UsageError(Exception):
    """The command cannot be carried out as it was given: exit status 2."""


class _Left(BaseException):
    """Raised in place of `os._exit` in a user's code. No `except Exception` there catches it."""


@contextlib.contextmanager
def foreign(
    what: str,
    *through: type[BaseException],
    function: Callable[..., object] | None = None,
    hint: Callable[[BaseException], str] | None = None,
) -> Iterator[None]:
    """Turn every error inside this context into a `UsageError` such as `what: KeyError: 'n' (net.py:3)`.

    An attempt to end the process becomes one too.

    **Arguments:** `through`: exceptions that are not mistakes, and pass unchanged. `function`: if no line of the user's code
    raised the error, the message names the first line of this function. `hint`: a function of the error that returns an
    addition to the message.
    """
    leave, own = os._exit, os.getpid()

    def left(code: int) -> Any:
        # Processes that the user's code forked may end.
        if os.getpid() != own:
            leave(code)
        raise _Left(f"os._exit({code!r})")

    os._exit = left
    try:
        yield
    except (KeyboardInterrupt, UsageError, *through):
        raise
    except BaseException as error:
        said = f"{type(error).__name__}: {_message(error)}".removesuffix(": ")
        if isinstance(error, SystemExit):
            said = f"it ends the process, by sys.exit({_message(error)})"
        elif isinstance(error, _Left):
            said = f"it ends the process, by {error}"
        elif type(error) is ValueError or type(error).__module__.startswith("ssntk."):
            said = _message(error)
        where = _where(error) or _first_line(function)
        said += f" ({where})" if where else ""
        raise UsageError(f"{what}: {said}" + ("" if hint is None else hint(error))) from error
    finally:
        os._exit = leave


def _message(error: BaseException) -> str:
    """The message of an error. If making the message raises an error itself, the result says so."""
    try:
        return repr(error.code) if isinstance(error, SystemExit) else str(error)
    except BaseException as other:
        return f"its message cannot be made, which raises {type(other).__name__}"


def argument_of(function: Callable[..., object]) -> str | None:
    """The name of the argument by which a factory of models is called, such as `key` or `seed`; `None` if it has no name.

    Raises `ValueError` if it needs more than one, or takes none.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    needed = [
        one for one in parameters if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if not parameters or len(needed) > 1:
        names = "".join(f" {one.name}," for one in needed)
        took = f"it takes {len(needed)} positional arguments" + (f",{names}" if names else "")
        raise ValueError(f"{took} and must take one, called key or seed")
    first = (needed or parameters)[0]
    return first.name if first.kind in (first.POSITIONAL_OR_KEYWORD, first.KEYWORD_ONLY) else None


def about_keys(error: BaseException) -> str:
    """What to do about an error of a factory that was given a key, if the key may be to blame."""
    if isinstance(error, IndexError):
        return "; its argument is a jax.random.key, which has no parts key[0] or key[-1]: use jax.random.split(key)"
    if isinstance(error, TypeError):
        return "; its argument is a jax.random.key, or an int if it is called seed"
    return ""


def _where(error: BaseException) -> str | None:
    """The file and the line of the user's code at which an error was raised; `None` if it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f"{error.filename}:{error.lineno}"
    places = [place for place in traceback.extract_tb(error.__traceback__) if not _installed(place.filename)]
    return f"{places[-1].filename}:{places[-1].lineno}" if places else None


def _first_line(function: Any) -> str | None:
    """The file and the line at which a function or a class begins; `None` if that is not known."""
    try:
        code = inspect.unwrap(function)
        return f"{inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]}"
    except (TypeError, ValueError, OSError):
        return None


def _installed(file: str) -> bool:
    """Whether a file belongs to this package, to Python or to an installed package."""
    paths = sysconfig.get_paths()
    known = [pathlib.Path(__file__).parent, *(pathlib.Path(paths[name]).resolve() for name in ("stdlib", "purelib"))]
    # Code that Cython compiled names its source by the path on the machine where it was built.
    return (
        file.startswith("<")
        or file.endswith((".pyx", ".pxd"))
        or any(folder in pathlib.Path(file).resolve().parents for folder in known)
    )


@contextlib.contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Reserve standard output for this program's own lines, which are written to the returned file.

    Everything else that is written to standard output goes to standard error. If standard output is that of the process,
    this holds until the process ends, and also for threads, child processes and functions that run at exit. If Python has
    replaced standard output, as in a test, the replacement is restored at the end of this context.
    """
    given = sys.stdout
    try:
        own = given is sys.__stdout__ and given.fileno() == 1
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:
        with contextlib.redirect_stdout(sys.stderr):
            yield given
        return
    given.flush()
    with open(os.dup(1), "w", encoding=given.encoding, errors=given.errors) as kept:
        try:
            os.dup2(2, 1)
        except OSError:
            # If there is no standard error, discard the text.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        yield kept
