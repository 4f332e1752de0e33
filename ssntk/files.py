"""Files that are there as a whole or not at all."""

import contextlib
import os
import pathlib
import secrets

from ssntk.notices import warn_once


def write_whole(file: str | os.PathLike[str], data: bytes, mode: int = 0o666) -> pathlib.Path:
    """Write under another name, flush to the disk, then rename: a reader sees all of the old file or all of the new one.

    `mode`: before the umask, as of any new file. Raises `OSError` if that cannot be done, as on a full disk; nothing is
    left behind then, and what was there before stays.
    """
    file = pathlib.Path(file)
    part = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as written:
            written.write(data)
            written.flush()
            os.fsync(written.fileno())
        os.replace(part, file)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return file


def append_line(file: str | os.PathLike[str], text: str) -> None:
    """Append a whole line, in one write. A line that an earlier process left torn is ended first.

    Raises `OSError` if that cannot be done.
    """
    with open(file, "ab+", buffering=0) as log:
        end = log.seek(0, os.SEEK_END)
        torn = False
        if end:
            log.seek(end - 1)
            torn = log.read(1) != b"\n"
        log.write(b"\n" * torn + text.encode() + b"\n")


def is_private(folder: str | os.PathLike[str], *, within: bool = False) -> bool:
    """Whether nobody else may write into a folder, whose files are run; it is made if there is none. If not, it warns.

    `within`: what lies in it directly was not written by others either, as it may be where they can enter.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        held = os.stat(folder)
        own = owned(held)
        if own and within and held.st_mode & 0o011:
            with os.scandir(folder) as files:
                own = all(_owned_or_gone(file) for file in files)
    except OSError:
        return False
    if not own:
        warn_once(
            f"{folder} is not used: others may write into it, and what is kept there is run; chmod 700 makes it private"
        )
    return own


def owned(held: os.stat_result) -> bool:
    """Whether a file is the user's own, and nobody else may write to it."""
    return not hasattr(os, "getuid") or (held.st_uid == os.getuid() and not held.st_mode & 0o022)


def _owned_or_gone(file: "os.DirEntry[str]") -> bool:
    # Others may be dropping what they have not used.
    with contextlib.suppress(FileNotFoundError):
        return owned(file.stat())
    return True


def legible(name: str) -> str:
    """A name as text that can be written everywhere: names of files may hold bytes that are not text."""
    return name.encode("utf-8", "backslashreplace").decode()
