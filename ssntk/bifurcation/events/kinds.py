"""The kinds of bifurcation: their names, and what tables, pictures and sentences say of each.

A kind stands here once. What is drawn, written or explained looks it up, and says something sensible of kinds that it never
heard of, such as a user's own.
"""

from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of bifurcation.

    - `name`: the word in `Bifurcation.kind`; `aliases`: what others call it.
    - `title`: as legends write it. `symbol`: the marker of pictures, matplotlib's; `hue`: which of the palette's colours.
    - `letter`: what textbooks call its coefficient. `meaning`: what happens there, a clause.
    - `modes`: how many eigenvalues meet the edge of stability.
    - `criticality`: whether it is supercritical or subcritical.
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
# Two branches cross: a transcritical or a pitchfork, as long as it is not told which.
BRANCH_POINT = Kind("branch-point", "Branch point", symbol="D", hue="pink", aliases=("bp",))
# Several real eigenvalues vanish at once; a coefficient vanishes that tells the kinds apart; what cannot be told.
DOUBLE = Kind("double", "Double", symbol="d", hue="pink")
DEGENERATE = Kind("degenerate", "Degenerate", symbol="h", hue="pink")
UNKNOWN = Kind("unknown", "Unresolved", symbol="X", hue="yellow")
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
    UNKNOWN,
)
_BY_NAME = {kind.name: kind for kind in KINDS}
# Those of users' own events.
_OWN: dict[str, Kind] = {}
# What AUTO, MatCont, XPPAUT and textbooks call them, in small letters.
_ALIASES = {alias: kind.name for kind in KINDS for alias in kind.aliases}


def known(kind: Kind) -> None:
    """From now on, this kind is found by its name, unless the name is one of ours."""
    _OWN[kind.name] = kind if kind.title else kind._replace(title=kind.name)


def kind_named(name: str) -> Kind:
    """The kind with this name. One that nobody has made known has its name for a title, and no more."""
    return _BY_NAME.get(name) or _OWN.get(name) or Kind(name, name)


def kind_of(value: Any) -> Any:
    """A kind of bifurcation under the name that results have; anything else as it is."""
    if not isinstance(value, str):
        return value
    plain = value.lower().replace("_", "-").replace(" ", "-")
    return _ALIASES.get(plain, plain)


def as_kind(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """A kind of bifurcation, or an alias of it such as "LP", under the name that is one of `choices`."""
    kind = kind_of(value)
    if isinstance(kind, str) and kind in choices:
        return kind
    meant = "" if kind == value else f", which is {kind!r}"
    if kind == BRANCH_POINT.name:
        meant = ", a branch point, which is 'transcritical' or 'pitchfork'"
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}{meant}")
