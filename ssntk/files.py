"""Files that are there as a whole or not at all."""

import os
import pathlib
import secrets


def write_whole(file: str | os.PathLike[str], data: bytes, mode: int = 0o666) -> pathlib.Path:
    """Write under another name, flush to the disk, then rename: a reader sees all of the old file or all of the new one.

    `mode`: before the umask, as of any new file. Raises `OSError` where that cannot be done, as on a full disk; nothing is
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

    Raises `OSError` where that cannot be done.
    """
    with open(file, "ab+", buffering=0) as log:
        end = log.seek(0, os.SEEK_END)
        torn = False
        if end:
            log.seek(end - 1)
            torn = log.read(1) != b"\n"
        log.write(b"\n" * torn + text.encode() + b"\n")
