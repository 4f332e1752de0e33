"""`ssntk diagram`: follow all branches over a parameter, and draw them."""

import pathlib
from typing import Annotated, Any

import cyclopts

from ssntk.cli.app import app, check_figure, check_folder
from ssntk.foreign import UsageError


@app.command
def diagram(
    file: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The TOML file, with [model], [family], [diagram].")
    ] = None,
    *,
    parameter: Annotated[str | None, cyclopts.Parameter(help="An attribute of the model, instead of [family].")] = None,
    span: Annotated[tuple[float, float] | None, cyclopts.Parameter(help="Its first and last value.")] = None,
    cycles: Annotated[
        bool | None, cyclopts.Parameter(help="Follow the limit cycles that are born at Hopf points too.")
    ] = None,
    out: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The figure: .png, .svg or .pdf; default results/<name>/diagram.png.")
    ] = None,
    schema: Annotated[bool, cyclopts.Parameter(negative=(), help="Print every key of [diagram], with defaults.")] = False,
) -> None:
    """Follow all branches of equilibria over a parameter, and draw them. The numbers are written beside the figure."""
    from ssntk.sweep.diagram_file import SCHEMA, diagram_of

    if schema:
        print(SCHEMA, end="")
        return
    if file is None:
        raise UsageError("name a file with a table [diagram], or ask for --schema")
    figure = pathlib.Path("results", file.stem, "diagram.png") if out is None else out
    if out is not None:
        check_folder(figure)
    check_figure(figure)
    try:
        found, drawn = diagram_of(file, parameter, span, cycles)
    except ValueError as error:
        raise UsageError(str(error)) from error
    import matplotlib

    matplotlib.use("agg")
    from ssntk import plot
    from ssntk.explained import explain
    from ssntk.files import write_whole
    from ssntk.plot.canvas import saved
    from ssntk.saved import save
    from ssntk.sweep.dataset import write_netcdf

    print(found)
    print(explain(found))
    figure.parent.mkdir(parents=True, exist_ok=True)
    print(f"Numbers  {save(figure.with_suffix('.npz'), found)} (ssntk.load)")
    with plot.style("paper"):
        drawing: Any = plot.bifurcation_diagram(found, **drawn).figure
        write_whole(figure, saved(drawing, figure.suffix[1:].lower(), dpi=300.0))
    print(f"Figure   {figure}")
    try:
        write_netcdf(found.to_xarray(), figure.with_suffix(".nc"))
        print(f"netCDF   {figure.with_suffix('.nc')}")
    except ImportError as error:
        print(f"No netCDF: {error}")
