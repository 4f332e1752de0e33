"""`ssntk merge`, `export`, `plot` and `report`: what is done with the results of a sweep."""

import pathlib
from typing import Annotated, Any

import cyclopts

from ssntk.cli.app import app, check_figure, check_folder
from ssntk.foreign import UsageError


@app.command
def merge(
    folders: Annotated[list[pathlib.Path], cyclopts.Parameter(help="Stores of one plan, such as those of its parts.")],
    *,
    out: Annotated[pathlib.Path, cyclopts.Parameter(help="The store that takes over their records.")],
) -> None:
    """Put the stores of several machines together. What is there already stays as it is."""
    from ssntk.sweep.store import Store

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
    store = Store(out)
    store.merge(*map(Store, folders))
    print_status(store)


@app.command
def export(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[pathlib.Path, cyclopts.Parameter(help="The netCDF file, .nc.")],
) -> None:
    """Write a sweep's results as netCDF 4, for other programs. A complex variable becomes two, _real and _imag."""
    check_folder(out)
    if out.suffix != ".nc":
        raise UsageError(f"{out}: a netCDF file must end in .nc")
    _opened(folder).to_netcdf(out)
    print(out)


@app.command
def plot(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The figure: .png, .svg or .pdf; default as sweep draws it, there.")
    ] = None,
) -> None:
    """Draw the figure of a sweep's results again."""
    print(draw(_opened(folder), out))


@app.command
def report(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[pathlib.Path | None, cyclopts.Parameter(help="The page; default report.html there.")] = None,
) -> None:
    """Write one self-contained HTML page of a sweep's results: to look through, to print, to send."""
    from ssntk.report.page import write_page

    page = folder / "report.html" if out is None else out
    check_folder(page)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page}: a page must end in .html")
    print(write_page(_opened(folder), page))


def _opened(folder: pathlib.Path) -> Any:
    from ssntk.sweep.store import Store

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    return Store(folder)


def draw(store: Any, out: pathlib.Path | None = None) -> pathlib.Path:
    from ssntk.sweep.coverage import coverage_of

    figure = coverage_of(store.plan()).figure
    file = out or pathlib.Path(store.path, f"{figure}.png")
    check_figure(file)
    import matplotlib

    matplotlib.use("agg")
    from ssntk import plot
    from ssntk.files import write_whole
    from ssntk.plot.canvas import saved

    axes = getattr(plot, figure)(store)
    return write_whole(file, saved(axes[0].figure, file.suffix[1:].lower()))


def print_status(store: Any) -> None:
    state = store.status()
    print(f"{store.path}: {len(state.done)} of {state.total} done, {len(state.failed)} failed, {len(state.missing)} missing")
    for index, reason in state.failed.items():
        print(f"  point {index} failed: {reason}")
    for name in state.set_aside:
        print(f"  no record of this plan: {name}")
