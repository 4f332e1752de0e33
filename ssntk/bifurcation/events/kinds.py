"""The kinds of bifurcation: their names, and how tables, pictures and sentences present each.

Each kind is defined once, here. Code that draws or describes a kind looks it up, and has a fallback for kinds that it does
not know, such as a user's own.
"""

from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of bifurcation.

    - `name`: the word in `Bifurcation.kind`. `aliases`: other names for it.
    - `title`: its name in legends. `symbol`: its marker in pictures, as in matplotlib. `hue`: its colour in the palette.
    - `letter`: the name of its coefficient in textbooks. `meaning`: a clause that says what happens there.
    - `modes`: the number of eigenvalues that meet the edge of stability.
    - `criticality`: whether points of this kind can be supercritical or subcritical.

    **Example:**

    ```python
    kind = ssntk.Kind("neutral-saddle", title="Neutral saddle", modes=2)
    print(kind.name, kind.modes)  # neutral-saddle 2
    ```
    """

    name: str
    title: str = ""
    letter: str = ""
    meaning: str = ""
    symbol: str = "*"
    hue: str = "black"
    modes: int = 1
    criticality: bool = False
    aliases: tuple[str, ...] = ()


SADDLE_NODE = Kind(
    "saddle-node", "Saddle-node", "a", "two equilibria meet there and vanish", "s", "red", aliases=("fold", "lp", "sn")
)
TRANSCRITICAL = Kind(
    "transcritical",
    "Transcritical",
    "a",
    "two equilibria pass through each other there and exchange their stability",
    "^",
    "green",
)
PITCHFORK = Kind(
    "pitchfork",
    "Pitchfork",
    "b3",
    "two mirrored equilibria leave the middle one there",
    "v",
    "orange",
    criticality=True,
)
HOPF = Kind("hopf", "Hopf", "l1", "an oscillation is born there", "o", "blue", modes=2, criticality=True, aliases=("hb",))
FLIP = Kind("flip", "Flip", "c3", "a cycle of two steps is born there", "P", "sky", criticality=True, aliases=("pd",))
NEIMARK_SACKER = Kind(
    "neimark-sacker",
    "Neimark-Sacker",
    "d",
    "an oscillation of the map is born there",
    "o",
    "blue",
    modes=2,
    criticality=True,
    aliases=("ns",),
)
# Two branches cross, but it is not decided whether at a transcritical or at a pitchfork.
BRANCH_POINT = Kind("branch-point", "Branch point", symbol="D", hue="pink", aliases=("bp",))
# In this order: several real eigenvalues are zero at once; a coefficient that distinguishes kinds is zero; unknown.
DOUBLE = Kind("double", "Double", symbol="d", hue="pink")
DEGENERATE = Kind("degenerate", "Degenerate", symbol="h", hue="pink")
UNKNOWN = Kind("unknown", "Unresolved", symbol="X", hue="yellow")
# Bifurcations of limit cycles.
CYCLE_FOLD = Kind(
    "cycle-fold", "Fold of cycles", meaning="two limit cycles meet there and vanish", symbol="s", hue="sky", aliases=("lpc",)
)
CYCLE_BRANCH_POINT = Kind(
    "cycle-branch-point", "Branch point of cycles", meaning="two branches of limit cycles cross there", symbol="D", hue="sky"
)
PERIOD_DOUBLING = Kind(
    "period-doubling", "Period doubling", meaning="a limit cycle of twice the period is born there", symbol="P", hue="pink"
)
TORUS = Kind(
    "torus",
    "Torus",
    meaning="a torus is born there around the limit cycle",
    symbol="o",
    hue="yellow",
    modes=2,
    aliases=("tr",),
)
SADDLE_NODE_ON_CYCLE = Kind(
    "saddle-node on a cycle",
    "Saddle-node on a cycle",
    meaning="two equilibria are born there on a limit cycle, whose period grows without bound",
    symbol="s",
    hue="red",
    aliases=("snic", "sniper", "saddle-node-on-a-cycle", "saddle-node-on-an-invariant-circle"),
)
# Of piecewise-linear models, at whose borders one column of the Jacobian jumps. delta is det J' / det J.
NONSMOOTH_FOLD = Kind(
    "nonsmooth-fold",
    "Nonsmooth fold",
    "delta",
    "two equilibria meet there on a border and vanish, and no eigenvalue warns of it",
    "s",
    "orange",
    aliases=("border-fold",),
)
BOUNDARY_HOPF = Kind(
    "boundary-hopf",
    "Boundary Hopf",
    "delta",
    "a pair of eigenvalues jumps over the axis there, on a border",
    "o",
    "sky",
    modes=2,
    aliases=("discontinuous-hopf",),
)
BORDER_COLLISION = Kind(
    "border-collision",
    "Border collision",
    "delta",
    "the stability or the cycles beside it change there, on a border",
    "D",
    "yellow",
)
TO_INFINITY = Kind(
    "to-infinity",
    "To infinity",
    meaning="the equilibrium leaves for infinity there, where an eigenvalue is zero (a degenerate transcritical)",
    symbol="^",
    hue="black",
    aliases=("dtb", "degenerate-transcritical"),
)
DEGENERATE_FLIP = Kind(
    "degenerate-flip",
    "Degenerate flip",
    "c3",
    "a multiplier is -1 there, and a segment of cycles of two steps surrounds it",
    "P",
    "pink",
)
OF_BORDERS = (NONSMOOTH_FOLD, BOUNDARY_HOPF, BORDER_COLLISION, TO_INFINITY, DEGENERATE_FLIP)
OF_CYCLES = (CYCLE_FOLD, PERIOD_DOUBLING, TORUS, CYCLE_BRANCH_POINT, SADDLE_NODE_ON_CYCLE)
KINDS = (
    SADDLE_NODE,
    HOPF,
    TRANSCRITICAL,
    PITCHFORK,
    FLIP,
    NEIMARK_SACKER,
    BRANCH_POINT,
    DOUBLE,
    DEGENERATE,
    *OF_BORDERS,
    UNKNOWN,
)
_BY_NAME = {kind.name: kind for kind in (*KINDS, *OF_CYCLES)}
# The kinds of users' own events, by name.
_OWN: dict[str, Kind] = {}
# The names in AUTO, MatCont, XPPAUT and textbooks, in lower case.
_ALIASES = {alias: kind.name for kind in (*KINDS, *OF_CYCLES) for alias in kind.aliases}


def known(kind: Kind) -> None:
    """Register a kind, so that it is found by its name; a name of this package's own kinds is left as it is."""
    _OWN[kind.name] = kind if kind.title else kind._replace(title=kind.name)


def kind_named(name: str) -> Kind:
    """The kind with this name. If it is not registered, a kind that has its name as its title and nothing else."""
    return _BY_NAME.get(name) or _OWN.get(name) or Kind(name, name)


def is_of(name: str, kind: str) -> bool:
    """Whether a bifurcation with this name is of a kind. A degenerate flip is a flip."""
    return name == kind or (name == DEGENERATE_FLIP.name and kind == FLIP.name)


def kind_of(value: Any) -> Any:
    """The name that results use for a kind of bifurcation or an alias; any other value is returned as it is."""
    if not isinstance(value, str):
        return value
    plain = value.lower().replace("_", "-").replace(" ", "-")
    return _ALIASES.get(plain, plain)


def as_kind(value: object, name: str, choices: tuple[str, ...]) -> str:
    """The name, one of `choices`, for a kind of bifurcation or an alias such as "LP"; `ValueError` for anything else."""
    kind = kind_of(value)
    if isinstance(kind, str) and kind in choices:
        return kind
    meant = "" if kind == value else f", which is {kind!r}"
    if kind == BRANCH_POINT.name:
        meant = ", a branch point, which is 'transcritical' or 'pitchfork'"
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{meant}")
