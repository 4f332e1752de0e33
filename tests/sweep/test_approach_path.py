"""Sweeps whose path is the result of `approach`: all parameters move."""

import dataclasses
import functools
import os
import pickle
import subprocess
import sys

import cloudpickle
import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import ROOT

import ssntk
from ssntk.collapse.exponent import measured_exponent

PROBE = ssntk.Probe([0.0, 1.0])
A0, B0 = 0.2, 1.0


def cubic(t, x, u, p):
    return p["a"] + p["b"] * x - x**3


def cubic_states(a, b):
    """The equilibria of the cubic, ascending."""
    roots = np.roots([-1.0, 0.0, b, a])
    return np.sort(roots.real[np.abs(roots.imag) < 1e-9])


@functools.cache
def cubic_path(a=A0, b=B0, min_coefficient=None):
    """From the lowest state of x' = a + b x - x^3 to the nearest fold."""
    model = ssntk.VectorField(cubic, {"a": a, "b": b}, 1)
    x = cubic_states(a, b)[:1]
    return ssntk.approach(model, "saddle-node", x=x, n_starts=2, min_coefficient=min_coefficient)


def cubic_fold():
    """Folds lie at (a, b) = (-2 s^3, 3 s^2), x = s: the nearest one has (b0 - 3 s^2) = s (a0 + 2 s^3)."""
    roots = np.roots([2.0, 0.0, 3.0, A0, -B0])
    s = roots.real[np.abs(roots.imag) < 1e-12]
    points = np.stack([-2 * s**3, 3 * s**2], axis=1)
    away = np.hypot(points[:, 0] - A0, points[:, 1] - B0)
    return away.min(), points[away.argmin()], s[away.argmin()]


@functools.cache
def network_path(seed, kind):
    model = ssntk.CTRNN(8, 1, 1, gain=2.0 if kind == "saddle-node" else 0.8, key=jr.key(seed))
    return ssntk.approach(model, kind, u=[0.3], n_starts=2)


def network_sweep(seed, kind, distances):
    return ssntk.Sweep(network_path(seed, kind), distances=distances, probe=PROBE)


def points_of(sweep):
    """(model, x) of each point, the farthest first."""
    side = sweep.side(sweep.follow())
    points = [side.at_distance(float(distance)) for distance in sweep.distances]
    return [(sweep.family(parameter), x) for parameter, x in points]


def network_jacobian(model, x):
    return (-np.eye(len(x)) + float(model.gain) * np.asarray(model.weight) * (1 - np.tanh(x) ** 2)) / float(model.tau)


@pytest.mark.slow
def test_the_nearest_fold_of_a_cubic_by_its_closed_form(tmp_path):
    path = cubic_path()
    distance, fold, s = cubic_fold()
    np.testing.assert_allclose(path.distance, distance, rtol=1e-9)
    sweep = ssntk.Sweep(path, distances=[0.5 * distance, 1e-2, 1e-4, 1e-6], probe=PROBE)
    assert (sweep.towards, sweep.index, sweep.span) == ("saddle-node", 0, (0.0, 2 * path.distance))
    data = ssntk.run(sweep, ssntk.Store(tmp_path), progress=False).to_xarray()
    assert (data.status == "done").all()
    np.testing.assert_allclose(data.parameter, path.distance - data.distance, rtol=1e-12)
    for i, away in enumerate(data.distance.values):
        a, b = fold + away * (np.array([A0, B0]) - fold) / distance
        # The state next to the fold, beyond it as seen from 0.
        x = cubic_states(a, b)[0 if s < 0 else -1]
        rate = b - 3 * x**2
        # The root is known to rounding error / its rate, and the rate in proportion to that.
        rtol = 1e-13 / rate**2 + 1e-10
        np.testing.assert_allclose(data.jacobian_eigenvalues[i, 0], rate, rtol=rtol)
        # df/d(a, b) = (1, x).
        np.testing.assert_allclose(data.steady_state_eigenvalues[i, 0], (1 + x**2) / rate**2, rtol=2 * rtol)


def test_the_fold_of_the_approach_is_chosen_among_earlier_ones():
    # Along a = p - 1, b = 1 the lower state dies at a = A, the branch turns back to a = -A, and the upper state goes on.
    model = ssntk.VectorField(cubic, {"a": -1.0, "b": 1.0}, 1)
    arrays = eqx.filter(model, eqx.is_inexact_array)
    family = ssntk.Family.line(
        model, eqx.tree_at(lambda m: m.params, arrays, {"a": jnp.asarray(1.0), "b": jnp.asarray(0.0)})
    )
    a = 2 / np.sqrt(27)
    for index, (sign, at) in enumerate(((1, 1 + a), (-1, 1 - a))):
        end, x_start = np.array([-sign / np.sqrt(3)]), cubic_states(-1.0, 1.0)
        path = dataclasses.replace(cubic_path(), family=family, distance=at, x=end, x_start=x_start)
        sweep = ssntk.Sweep(path, distances=[0.1], probe=PROBE, span=(0.0, 3.0))
        assert sweep.index == index
        parameter, x = sweep.side(sweep.follow()).at_distance(0.1)
        np.testing.assert_allclose(parameter, at - sign * 0.1, rtol=1e-12)
        assert abs(x[0]) > 1 / np.sqrt(3)
        other = ssntk.Sweep(path, distances=[0.1], probe=PROBE, span=(0.0, 3.0), index=1 - index)
        with pytest.raises(ValueError, match=f"index must be {index}, .* got {1 - index}"):
            other.hash()


def test_the_nearest_hopf_point_by_its_closed_form():
    def field(t, x, u, p):
        return (p["mu"] - x @ x) * x + p["w"] * jnp.stack([-x[1], x[0]])

    path = ssntk.approach(ssntk.VectorField(field, {"mu": -0.3, "w": 2.0}, 2), "hopf", x=[0.0, 0.0], n_starts=1)
    sweep = ssntk.Sweep(path, distances=[0.2, 1e-3], probe=PROBE)
    np.testing.assert_allclose(path.distance, 0.3, rtol=1e-10)
    for distance, (model, x) in zip(sweep.distances, points_of(sweep), strict=True):
        np.testing.assert_allclose([model.params["mu"], model.params["w"]], [-distance, 2.0], rtol=1e-9)
        np.testing.assert_allclose(x, 0.0, atol=1e-12)


# On 1 another fold comes first, and the stable side lies beyond.
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 4))])
def test_the_slope_law_holds_when_all_parameters_move(seed):
    path = network_path(seed, "saddle-node")
    # Folds at the edge of bistability lie 1e-5 and more apart: the law holds much closer than that.
    sweep = network_sweep(seed, "saddle-node", np.geomspace(1e-7, 1e-10, 7))
    tops = []
    for distance, (model, x) in zip(sweep.distances, points_of(sweep), strict=True):
        jacobian = network_jacobian(model, x)
        assert np.linalg.eigvals(jacobian).real.max() < 0
        change = [
            np.asarray(getattr(model, name) - getattr(path.model, name)) for name in ("weight", "input_weight", "bias")
        ]
        # theta itself is rounded.
        np.testing.assert_allclose(np.sqrt(sum((part**2).sum() for part in change)), distance, atol=1e-15)
        # df/dtheta df/dtheta^T = (gain^2 |phi|^2 + |u|^2 + 1) times the identity.
        drive = float(model.gain) ** 2 * (np.tanh(x) ** 2).sum() + 0.3**2 + 1
        tops.append(drive / np.linalg.svd(jacobian, compute_uv=False)[-1] ** 2)
    # The rest after the O(sqrt(distance)) term is of order distance over the gap to the next fold, 1e-7 / 1e-5.
    assert abs(measured_exponent(sweep.distances, np.array(tops), next_order=0.5) + 1) < 0.01


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_the_growth_rate_of_a_hopf_point_is_in_proportion_to_the_distance(seed):
    sweep = network_sweep(seed, "hopf", [1e-4, 1e-6])
    frequency = network_path(seed, "hopf").frequency
    rates = []
    for model, x in points_of(sweep):
        values = np.linalg.eigvals(network_jacobian(model, x))
        rates.append(values[values.real.argmax()])
    assert max(rate.real for rate in rates) < 0
    np.testing.assert_allclose(np.abs(rates[-1].imag), frequency, rtol=1e-3)
    # The next term is of relative order distance; eigenvalues of 1e-6 are known to 1e-14.
    np.testing.assert_allclose(rates[0].real / rates[1].real, 100.0, rtol=1e-2)


GOOD = """
distances = [1e-3, 1e-4]
u = [0.3]
[model]
n_state = 8
n_input = 1
n_output = 1
gain = 2.0
seed = 0
[approach]
kind = "saddle-node"
n_starts = 2
[probe]
ts = [0.0, 1.0]
"""


def test_toml_and_python_and_the_line_itself_are_the_same_plan(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(GOOD)
    path, distances = network_path(0, "saddle-node"), [1e-3, 1e-4]
    found = ssntk.Sweep.from_toml(file)
    plans = [
        found,
        network_sweep(0, "saddle-node", distances),
        ssntk.Sweep(
            path, distances=distances, probe=PROBE, towards="saddle-node", span=found.span, u=[0.3], index=found.index
        ),
        ssntk.Sweep(
            path.family,
            towards="saddle-node",
            span=(0.0, 2 * path.distance),
            distances=distances,
            probe=PROBE,
            x0=path.x_start,
            u=[0.3],
            index=found.index,
        ),
    ]
    assert len({plan.hash() for plan in plans}) == 1
    assert network_sweep(0, "hopf", distances).hash() != found.hash()


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("n_starts", "n_start", "unknown key approach.n_start; did you mean approach.n_starts"),
        ('kind = "saddle-node"', "", "approach.kind is missing"),
        ('kind = "saddle-node"', 'kind = "cusp"', "kind must be one of"),
        ("n_starts = 2", "n_starts = 0", "n_starts"),
        ("n_starts = 2", "seed = -1", r"approach\.seed"),
        ("n_starts = 2", 'wrt = ["weights"]', "approach.wrt names 'weights'"),
        ("n_starts = 2", "metric = { weight = -1.0 }", "metric must be positive"),
        ("n_starts = 2", "signs = { weights = 1 }", r"signs\['weights'\]"),
        ("u = [0.3]", "u = [0.3]\nx0 = [0.0]", "x0 must have shape"),
        ("[probe]", '[family]\nattribute = "gain"\n[probe]', "exactly one of the tables"),
    ],
)
def test_bad_toml_names_the_key(tmp_path, old, new, match):
    file = tmp_path / "sweep.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=match):
        ssntk.Sweep.from_toml(file)


@pytest.mark.parametrize(
    ("path", "plan", "match"),
    [
        ({"kind": "cusp"}, {}, "ask for a 'saddle-node'"),
        ({"kind": "Bogdanov-Takens boundary"}, {}, "omega_min"),
        ({"reached": False}, {}, "does not come to"),
        ({"x": np.array([3.0])}, {}, "does not come to"),
        ({"family": None, "distance": 0.0}, {}, "already"),
        ({}, {"towards": "hopf"}, "towards must be 'saddle-node'"),
        ({}, {"span": (0.0, 1e-3)}, "span must hold"),
        ({}, {"span": 1.0}, "span"),
        ({}, {"u": [1.0]}, "u must"),
        ({}, {"x0": [1.0, 2.0]}, "x0"),
        ({}, {"index": 3}, "index must be 0"),
        ({}, {"index": -1}, "index must be at least"),
        ({}, {"distances": []}, "distances"),
    ],
)
def test_what_does_not_fit_is_refused(path, plan, match):
    with pytest.raises(ValueError, match=match):
        # Errors that only the branch shows are raised when it is followed.
        ssntk.Sweep(dataclasses.replace(cubic_path(), **path), **({"distances": [0.1], "probe": PROBE} | plan)).settle()


def test_a_plan_along_an_approach_follows_its_branch_once_and_not_before_it_must(monkeypatch):
    from ssntk.sweep import plan as plans

    followed = []

    def counted(*args, **kwargs):
        followed.append(args)
        return continuation(*args, **kwargs)

    continuation = plans.continuation
    monkeypatch.setattr(plans, "continuation", counted)
    sweep = ssntk.Sweep(cubic_path(), distances=[1e-2], probe=PROBE)
    assert (sweep.towards, len(followed)) == ("saddle-node", 0)
    assert sweep.index == 0
    sweep.hash()
    sweep.follow()
    assert len(followed) == 1
    again = pickle.loads(cloudpickle.dumps(sweep))
    assert (again.index, again.hash(), len(followed)) == (0, sweep.hash(), 1)
    assert dataclasses.replace(sweep, step=0.04).index == 0


@pytest.mark.slow
def test_a_path_that_is_not_reached_can_be_swept_from_its_other_side():
    # From a single state, at b < 0, the nearest generic fold is where another state is born.
    path = cubic_path(-0.05, -0.1, 1.0)
    assert path.reached is False
    with pytest.raises(ValueError, match="does not come to"):
        ssntk.Sweep(path, distances=[1e-2], probe=PROBE)
    beyond = path.family(2 * path.distance).params
    states = cubic_states(float(beyond["a"]), float(beyond["b"]))
    x0 = states[states * path.x > 0][[-1 if path.x > 0 else 0]]
    span = 2 * path.distance, 0.5 * path.distance
    sweep = ssntk.Sweep(path, distances=[1e-2, 1e-4], probe=PROBE, span=span, x0=x0)
    for distance, (moved, x) in zip(sweep.distances, points_of(sweep), strict=True):
        a, b = float(moved.params["a"]), float(moved.params["b"])
        np.testing.assert_allclose(np.hypot(a - path.model.params["a"], b - path.model.params["b"]), distance, rtol=1e-9)
        # Of three states the outer ones are stable, here that on the fold's side.
        states = cubic_states(a, b)
        assert len(states) == 3
        np.testing.assert_allclose(x, states[[-1 if path.x > 0 else 0]], rtol=1e-9)


@pytest.mark.slow
def test_the_shipped_file_has_one_hash_in_every_process():
    code = (
        "import jax; jax.config.update('jax_enable_x64', True); import ssntk; "
        "print(ssntk.Sweep.from_toml('sweeps/all_parameters.toml').hash())"
    )
    hashes = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""
