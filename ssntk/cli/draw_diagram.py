"""`ssntk diagram`: follow all branches over a parameter, and draw them."""

import pathlib
from typing import Annotated, Any

import cyclopts

from ssntk.cli.app import app, check_figure, check_folder
from ssntk.foreign import UsageError


@app.command
def diagram(
    file: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The TOML file: [model], [family], [diagram]; or [model], [plane].")
    ] = None,
    *,
    parameter: Annotated[str | None, cyclopts.Parameter(help="An attribute of the model, instead of [family].")] = None,
    span: Annotated[tuple[float, float] | None, cyclopts.Parameter(help="Its first and last value.")] = None,
    cycles: Annotated[
        bool | None, cyclopts.Parameter(help="Follow the limit cycles that are born at Hopf points too.")
    ] = None,
    out: Annotated[
        pathlib.Path | None,
        cyclopts.Parameter(help="A figure: .png, .svg, .pdf; a page: .html; default results/<name>/diagram.png."),
    ] = None,
    schema: Annotated[bool, cyclopts.Parameter(negative=(), help="Print every key of both tables, with defaults.")] = False,
) -> None:
    """Follow all branches of equilibria over a parameter, or all bifurcations over two, and draw them.

    The numbers are written beside the figure.
    """
    from ssntk.sweep import diagram_file, plane_file

    if schema:
        print(f"{diagram_file.SCHEMA}\n{plane_file.SCHEMA}", end="")
        return
    if file is None:
        raise UsageError("name a file with a table [diagram] or [plane], or ask for --schema")
    figure = pathlib.Path("results", file.stem, "diagram.png") if out is None else out
    if out is not None:
        check_folder(figure)
    if figure.suffix.lower() != ".html":
        check_figure(figure)
    found, drawn = _found(file, parameter, span, cycles)
    import matplotlib

    matplotlib.use("agg")
    from ssntk import plot
    from ssntk.explained.explain import explain
    from ssntk.files import write_whole
    from ssntk.plot.canvas import saved
    from ssntk.report.diagram_page import page_of
    from ssntk.saved import save
    from ssntk.sweep.dataset import write_netcdf

    print(found)
    print(said := explain(found))
    figure.parent.mkdir(parents=True, exist_ok=True)
    print(f"Numbers  {save(figure.with_suffix('.npz'), found)} (ssntk.load)")
    kind = figure.suffix[1:].lower()
    with plot.style("paper"):
        drawing: Any = found.plot(**drawn).figure
        image = saved(drawing, "svg" if kind == "html" else kind, dpi=300.0)
    write_whole(figure, page_of(found, image, said, file.stem).encode() if kind == "html" else image)
    print(f"{'Page' if kind == 'html' else 'Figure':<8} {figure}")
    try:
        write_netcdf(found.to_xarray(), figure.with_suffix(".nc"))
        print(f"netCDF   {figure.with_suffix('.nc')}")
    except ImportError as error:
        print(f"No netCDF: {error}")


def _found(
    file: pathlib.Path, parameter: str | None, span: tuple[float, float] | None, cycles: bool | None
) -> tuple[Any, dict[str, Any]]:
    """The diagram that a file describes, over one parameter or two, and the arguments of its figure."""
    from ssntk.sweep import diagram_file, plane_file

    try:
        if not plane_file.has_plane(file):
            return diagram_file.diagram_of(file, parameter, span, cycles)
        if (parameter, span, cycles) != (None, None, None):
            raise ValueError(f"{file}: --parameter, --span and --cycles are for [diagram], and the file has [plane]")
        return plane_file.plane_diagram_of(file)
    except ValueError as error:
        raise UsageError(str(error)) from error
