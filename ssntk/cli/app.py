"""The application to which each command adds itself, and checks that commands share."""

import pathlib

import cyclopts

from ssntk.foreign import UsageError

app = cyclopts.App(name="ssntk", help="Bifurcations of recurrent networks, and what they do to learning.")


def check_folder(file: pathlib.Path) -> None:
    """`UsageError` unless the folder of a file exists."""
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent} is not a folder")


def check_figure(file: pathlib.Path) -> None:
    """`UsageError` unless a file can be a figure."""
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{file}: a figure must end in .png, .svg or .pdf")
