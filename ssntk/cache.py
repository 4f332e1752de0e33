"""Keep compiled code between runs. The command line does so by default, other programs by calling `enable_cache`."""

import os
import pathlib
from typing import Any

from ssntk.files import is_private

# The largest size of the cache [bytes].
ROOM = 2**30


def keep_compiled(folder: str | os.PathLike[str]) -> None:
    """Set the environment variables that JAX and this package read when they start, for this process and its children."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("SSNTK_TRACED", os.path.join(folder, "traced"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(ROOM))


def default_folder() -> str | None:
    """The folder that `SSNTK_CACHE` names, or the user's cache folder if it is not set; `None` if it is "off"."""
    where = os.environ.get("SSNTK_CACHE", "")
    if where.lower() == "off":
        return None
    import platformdirs

    return where or platformdirs.user_cache_dir("ssntk")


def enable_cache(folder: Any = None) -> pathlib.Path | None:
    """Keep compiled code between runs, so that the first calls of the next run take a fraction of the time.

    The command line does this by default. In a program, call it once, before the first computation. It sets JAX's
    persistent compilation cache, which then keeps your own compiled code too. The functions that this package traces are
    kept next to it. Processes that this one starts do the same.

    **Arguments:** `folder`: where to keep the code, up to a gigabyte. It is made if it does not exist. It must be private,
    since the code in it is run. Default: JAX's cache folder if it has one, else the one that `SSNTK_CACHE` names, else
    the user's cache folder.

    **Returns:** the folder, or `None` if `SSNTK_CACHE` is "off" and no folder is given.

    Raises `ValueError`, which names `folder`, if it is not a path, is not private, or cannot be made or written to.

    **Example:**

    ```python
    import ssntk

    ssntk.enable_cache()  # the first line of a script or notebook
    ```
    """
    if folder is not None and not isinstance(folder, (str, os.PathLike)):
        raise ValueError(f"folder must be a path, got {type(folder).__name__}")
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from ssntk import compiled

    own = default_folder()
    if folder is None and own is None:
        return None
    path = pathlib.Path(folder or jax.config.jax_compilation_cache_dir or own or "").absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder {path} cannot be made: {error}") from error
    if not os.access(path, os.W_OK):
        raise ValueError(f"folder {path} cannot be written to")
    if not is_private(path, within=True):
        raise ValueError(f"folder {path} must be private, and others may write into it: chmod 700 makes it so")
    keep_compiled(path)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if jax.config.jax_compilation_cache_max_size < 0:
        jax.config.update("jax_compilation_cache_max_size", ROOM)
    # If something was compiled before, JAX has decided that there is no cache: make it look again.
    compilation_cache.reset_cache()
    compiled.keep_traced(os.path.join(path, "traced"))
    return path
