"""`ssntk check` with factories that take a seed or a key, with PyTorch networks, and with factories that fail.

Compiles: the verdict on a map of 3 units.
"""

import contextlib
import io
import json
import sys

import pytest

from ssntk import cli
from ssntk.cli import entry

FACTORIES = """
import jax, jax.random as jr, numpy as np

def random(generator, scale):
    return {"weight_ih_l0": np.zeros((3, 1)), "weight_hh_l0": scale * np.linalg.qr(generator.normal(size=(3, 3)))[0]}

class Net:
    def __init__(self, seed):
        self.held = random(np.random.default_rng(seed), 0.95)
    def state_dict(self):
        return self.held
    def named_modules(self):
        return []

def of_a_seed(seed):
    assert type(seed) is int
    return random(np.random.default_rng(seed), 0.95)

def of_a_seed_with_more(scale=0.5, *, seed):
    return random(np.random.default_rng(seed), scale)

def of_a_key(key, scale=0.5):
    return {"weight_ih_l0": np.zeros((3, 1)), "weight_hh_l0": scale * jr.orthogonal(key, 3)}

def old_key(key):
    return random(np.random.default_rng(int(key[-1])), 0.5)

def number(key):
    return random(np.random.default_rng(key), 0.5)

def two(key, n):
    return None

def nothing(key):
    return 3.0

def bidirectional(seed):
    return random(np.random.default_rng(0), 0.5) | {"weight_hh_l0_reverse": np.eye(3)}

class Cell:
    __module__ = "equinox.nn"
    def __call__(self, u, h):
        return h

def cell(key):
    return Cell()
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """(status, standard output, standard error) of the command for one of the factories."""
    tmp_path.joinpath("own_networks.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                entry.guarded(lambda: cli.app(["check", f"own_networks:{name}", "--seeds", "2", *arguments]))
            except SystemExit as ended:
                code = ended.code or 0
        return code, out.getvalue(), err.getvalue()

    yield run
    sys.modules.pop("own_networks", None)
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]


@pytest.mark.parametrize(
    ("factory", "radius"),
    # The Jacobian of h <- tanh(scale Q h) at zero is normal, with all multipliers at a distance 1 - scale from the circle.
    [("of_a_seed", 0.05), ("Net", 0.05), ("of_a_seed_with_more", 0.5), ("of_a_key", 0.5)],
)
def test_networks_of_pytorch_by_a_seed_or_a_key(check, factory, radius):
    code, out, _ = check(factory, "--json")
    verdicts = json.loads(out)
    assert [one["stability_radius"] for one in verdicts] == pytest.approx(2 * [radius], rel=1e-9)
    assert code == (1 if any(one["near"] for one in verdicts) else 0)
    assert code or radius == 0.5


def line(text):
    """The file and line of a text in a factory."""
    return f"own_networks.py:{FACTORIES[: FACTORIES.index(text)].count(chr(10)) + 1})"


@pytest.mark.parametrize(
    ("factory", "said", "where"),
    [
        ("old_key", "a jax.random.key, which has no parts key[0] or key[-1]: use jax.random.split(key)", "int(key[-1])"),
        ("number", "its argument is a jax.random.key, or an int if it is called seed", "default_rng(key)"),
        ("two", "it takes 2 positional arguments, key, n, and must take one, called key or seed", "def two"),
        ("nothing", "the model that it returns must be an ssntk.AbstractStateSpaceModel, got float", "def nothing"),
        ("bidirectional", "the model that it returns is no network that from_torch takes: ", "def bidirectional"),
        ("cell", "wrap it by ssntk.from_cell(cell, n_state=..., n_input=...)", "def cell"),
    ],
)
def test_what_a_factory_does_wrong_is_said_with_its_line(check, factory, said, where):
    code, out, err = check(factory)
    assert (code, out) == (2, "")
    assert said in err
    assert line(where) in err
    assert "Traceback" not in err
