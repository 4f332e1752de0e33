"""Run the command line."""

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable

from ssntk.cli.app import app
from ssntk.files import is_private
from ssntk.foreign import UsageError


def keep_compiled_code() -> None:
    """Keep compiled code between runs: in the folder that `SSNTK_CACHE` names, or in the user's; not if it is "off"."""
    from ssntk.cache import default_folder, keep_compiled

    folder = None if os.environ.get("JAX_COMPILATION_CACHE_DIR") else default_folder()
    if folder is not None and is_private(folder, within=True):
        keep_compiled(folder)


def main(tokens: list[str] | None = None) -> None:
    """Run the command line: exit status 0, 1 for a failure, 2 for a usage error, 130 when stopped by the keyboard."""
    # This must be set before JAX starts. Equinox's compiled checks cannot be cached, and solves are checked on the host
    # anyway.
    os.environ.setdefault("EQX_ON_ERROR", "off")
    keep_compiled_code()
    # Some daemons start their programs without these streams.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    # Names of files need not be valid text. Characters that cannot be printed are printed as their numbers.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    # Tracing makes millions of small objects that stay alive. Searching them for garbage takes a seventh of the start-up
    # time.
    gc.set_threshold(100_000, 20, 20)
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        guarded(lambda: app(tokens))
    except SystemExit as stopped:
        leave(stopped.code)
        raise


def leave(code: int | str | None) -> None:
    """End the process. If code is still being compiled in advance, end at once: it cannot be stopped, and is not needed."""
    run = sys.modules.get("ssntk.sweep.run")
    if run is not None and any(thread.name == run.PREPARING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        # `code` means what it means to `sys.exit`: None is success; a text is printed, and means failure.
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr, flush=True)
        os._exit(code if isinstance(code, int) else int(code is not None))


def guarded(call: Callable[[], object]) -> None:
    """Turn every foreseen error into a sentence instead of a traceback."""
    from ssntk.errors import NumericalError
    from ssntk.sweep.store import StoreError

    try:
        call()
    except KeyboardInterrupt:
        print("ssntk: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except UsageError as error:
        print(f"ssntk: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (NumericalError, StoreError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"ssntk: {error}", file=sys.stderr)
        raise SystemExit(1) from None
