"""Write files completely or not at all, and check who may write to them."""

import contextlib
import os
import pathlib
import secrets

from ssntk.notices import warn_once


def write_whole(file: str | os.PathLike[str], data: bytes, mode: int = 0o666) -> pathlib.Path:
    """Write a file under another name, flush it to the disk, then rename it.

    A reader sees either the old file or the new one, each complete. `mode`: the permissions of the file, to which the umask
    applies. Raises `OSError` if the file cannot be written, as on a full disk. Then an earlier file stays as it was, and
    nothing else is left behind.
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
    """Append a line in a single write. If an earlier process left an incomplete line, that line is ended first.

    Raises `OSError` if the file cannot be written to.
    """
    with open(file, "ab+", buffering=0) as log:
        end = log.seek(0, os.SEEK_END)
        torn = False
        if end:
            log.seek(end - 1)
            torn = log.read(1) != b"\n"
        log.write(b"\n" * torn + text.encode() + b"\n")


def is_private(folder: str | os.PathLike[str], *, within: bool = False) -> bool:
    """Whether only this user may write into a folder whose files are run. If not, there is a warning.

    The folder is made if it does not exist. `within`: if others can enter the folder, check the files in it too.
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
    """Whether a file belongs to this user, and nobody else may write to it."""
    return not hasattr(os, "getuid") or (held.st_uid == os.getuid() and not held.st_mode & 0o022)


def _owned_or_gone(file: "os.DirEntry[str]") -> bool:
    # Another process may delete the file in the meantime.
    with contextlib.suppress(FileNotFoundError):
        return owned(file.stat())
    return True


def legible(name: str) -> str:
    """A file's name as text that can always be printed. Names of files may hold bytes that are not valid text."""
    return name.encode("utf-8", "backslashreplace").decode()
