"""Results as arrays: fields that came later, and stores that earlier versions wrote."""

import dataclasses
import enum
import pathlib
import shutil

import jax
import numpy as np
import pytest
from helpers import fold_sweep

import ssntk
from ssntk.sweep.codec import decode, encode

# Two stores that were written before quantities declared their variables, with the version of JAX in their plan.json: a fold
# at distances 0.1, 0.01 and 0.001, whose branch has no scales and outputs, and a grid of 2 gains and 2 seeds with one block.
FORMAT_2 = pathlib.Path(__file__).parent / "format2"


class Colour(enum.Enum):
    red = "a warm one"


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    at: float
    given: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
    x: np.ndarray
    parts: tuple[Part, ...]
    steps: tuple[int, ...]
    said: str
    flag: bool = False
    colour: Colour = Colour.red
    states: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    parent: tuple[int, int] | None = None


WHOLE = Whole(
    np.arange(3.0),
    (Part("a", 1.5), Part("b", -2.0, np.ones((2, 1), complex))),
    (1, 4),
    "why",
    True,
    Colour.red,
    {"orbit": np.eye(2)},
    (3, 1),
)


def test_what_is_written_is_read_again():
    found = decode(Whole, encode(WHOLE))
    np.testing.assert_array_equal(found.x, WHOLE.x)
    assert (found.steps, found.said, found.flag, found.colour, found.parent) == ((1, 4), "why", True, Colour.red, (3, 1))
    assert [(part.name, part.at) for part in found.parts] == [("a", 1.5), ("b", -2.0)]
    assert found.parts[0].given is None
    np.testing.assert_array_equal(found.parts[1].given, np.ones((2, 1)))
    np.testing.assert_array_equal(found.states["orbit"], np.eye(2))
    empty = dataclasses.replace(WHOLE, parts=(), steps=(), parent=None)
    assert (decode(Whole, encode(empty)).parts, decode(Whole, encode(empty)).steps) == ((), ())
    assert decode(Whole, encode(empty)).parent is None


def test_a_field_that_came_later_takes_its_default_and_one_that_went_is_passed_over():
    held = encode(WHOLE)
    old = {name: array for name, array in held.items() if name.partition(".")[0] in ("x", "parts", "steps", "said")}
    found = decode(Whole, old | {"gone": np.zeros(2)})
    assert (found.flag, found.colour, found.states, found.parent) == (False, Colour.red, {}, None)
    del old["parts.1.given"]
    assert decode(Whole, old).parts[1].given is None
    for name in ("x", "parts.0.name"):
        with pytest.raises(KeyError, match=name.rpartition(".")[2]):
            decode(Whole, {key: array for key, array in held.items() if key != name})
    with pytest.raises(ValueError, match="one value"):
        decode(Whole, held | {"parts.0.at": np.zeros(2)})


@pytest.fixture
def old(tmp_path):
    return pathlib.Path(shutil.copytree(FORMAT_2, tmp_path / "old"))


def test_a_store_of_an_earlier_version_is_read(old):
    data = ssntk.Store(old / "fold").to_xarray()
    assert (data.status == "done").all()
    # dx/dt = mu - x^2 at x = sqrt(mu): A = -2 sqrt(mu), and K* of the one parameter mu is 1 / A^2 = 1 / (4 mu).
    np.testing.assert_allclose(data.steady_state_eigenvalues[:, 0], 1 / (4 * data.distance), rtol=1e-9)
    store = ssntk.Store(old / "fold")
    assert (store.bifurcation().kind, store.bifurcation().multiplicity) == ("saddle-node", 1)
    np.testing.assert_allclose(store.bifurcation().parameter, 0.0, atol=1e-12)
    branch = store.branch()
    assert branch.scale is None or np.isfinite(branch.scale).all()
    np.testing.assert_allclose(branch.x[:, 0] ** 2, branch.parameter, atol=1e-9)
    grid = ssntk.Store(old / "grid").to_xarray()
    assert (grid.trace.dims, grid.block.values.tolist()) == (("gain", "seed"), ["weight"])
    assert np.isfinite(grid.block_eigenvalues[..., 0]).all()


@pytest.mark.parametrize(("name", "figure"), [("fold", "collapse.png"), ("grid", "phase_diagram.png")])
def test_a_store_of_an_earlier_version_is_reported_drawn_and_printed(old, name, figure, capsys):
    from ssntk.cli import plot, report

    plot(old / name)
    report(old / name)
    assert (old / name / figure).stat().st_size > 10_000
    assert "ssntk" in (old / name / "report.html").read_text()
    from ssntk.report.tables import print_store

    print_store(ssntk.Store(old / name))
    assert "steady-state NTK" in capsys.readouterr().out


def test_a_store_of_an_earlier_version_goes_on(old):
    sweep, store = fold_sweep(distances=[1e-1, 1e-2, 1e-3], integrator=None), ssntk.Store(old / "fold")
    # Only the version of JAX that wrote the store is known to trace the same operations.
    if jax.__version__ != store.plan()["versions"]["jax"]:
        pytest.skip("written under another version of JAX")
    (old / "fold" / "points" / "00001.npz").unlink()
    before = (old / "fold" / "points" / "00000.npz").read_bytes()
    ssntk.run(sweep, store, progress=False)
    assert store.status().missing == ()
    assert (old / "fold" / "points" / "00000.npz").read_bytes() == before
