"""Plans are distinguished by their structure. Compiles one grid of 2 points (3 units). Sweeps are hashed, not measured."""

import enum
import os
import pty
import subprocess
import sys
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optimistix
import pytest
from helpers import ROOT, fold_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

import ssntk
from ssntk.sweep.identity import Traced, digest

GRID = """
[model]
n_state = 3
n_input = 1
n_output = 1
[grid]
gain = [0.3, 0.5]
[probe]
ts = { start = 0.0, stop = 2.0, num = 3 }
"""


def in_terminal(arguments, **rest):
    """Run a command whose standard output is a terminal; what it prints."""
    parent, child = pty.openpty()
    with subprocess.Popen(arguments, stdout=child, stderr=subprocess.STDOUT, **rest) as process:
        os.close(child)
        text = b""
        while True:
            try:
                piece = os.read(parent, 4096)
            except OSError:
                break
            if not piece:
                break
            text += piece
    os.close(parent)
    return process.returncode, text.decode()


@pytest.mark.slow
def test_what_is_begun_in_a_terminal_goes_on_in_a_pipe(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID.replace("[grid]", "seed = 1\n[grid]"))
    command = [sys.executable, "-m", "ssntk", "sweep", "grid.toml", "--out", "s"]
    code, text = in_terminal(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert code == 0, text
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    status = subprocess.run(
        [*command, "--status"], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert "2 of 2 done" in status.stdout


class Sharp(eqx.Module):
    """A norm that is a module and not a function."""

    power: float = 2.0

    def __call__(self, x):
        return jnp.max(jnp.abs(x)) ** self.power


SIZE = 3.0


def scaled(x):
    return SIZE * jnp.max(jnp.abs(x))


def kvaerno(rtol=1e-9, norm=optimistix.max_norm):
    return diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=rtol, atol=1e-9, norm=norm))


def by(solver, **rest):
    return fold_sweep(integrator=ssntk.Integrator(solver, **rest))


def test_arrays_and_functions_inside_a_solver_count():
    same = [kvaerno(jnp.array(1e-9)), kvaerno(jnp.array(1e-9)), kvaerno(jnp.asarray(np.array(1e-9)))]
    assert len({by(solver).hash() for solver in same}) == 1
    # One function that is written twice, and a third time with other names of its variables.
    norms = [lambda x: jnp.max(jnp.abs(x)), lambda x: jnp.max(jnp.abs(x)), lambda other: jnp.max(jnp.abs(other))]
    assert len({by(kvaerno(norm=norm)).hash() for norm in norms}) == 1
    powers = [lambda x, p=p: jnp.max(jnp.abs(x)) ** p for p in (1.0, 2.0)]
    different = [
        kvaerno(),
        kvaerno(jnp.array(1e-9)),
        kvaerno(jnp.array(1e-1)),
        kvaerno(norm=optimistix.rms_norm),
        kvaerno(norm=norms[0]),
        kvaerno(norm=lambda x: jnp.sum(jnp.abs(x))),
        kvaerno(norm=scaled),
        kvaerno(norm=Sharp()),
        kvaerno(norm=Sharp(3.0)),
        *(kvaerno(norm=norm) for norm in powers),
        diffrax.Tsit5(),
        diffrax.Dopri5(),
    ]
    assert len({by(solver).hash() for solver in different}) == len(different)


def test_what_a_function_refers_to_counts(monkeypatch):
    before = digest(scaled)
    assert digest(scaled) == before
    monkeypatch.setitem(globals(), "SIZE", 4.0)
    assert digest(scaled) != before


def test_a_function_that_jax_calls_back_counts():
    def model(factor):
        def host(x):
            return factor * np.tanh(x)

        def fn(t, x, u, p):
            return p - x + jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

        return fn

    arguments = [jnp.zeros(())] + [jnp.ones(2)] * 3
    same, other = ([digest(Traced(model(f), *arguments)) for f in fs] for fs in ((1.0, 1.0), (2.0, 3.0)))
    assert same[0] == same[1]
    assert len({same[0], *other}) == 3


def test_what_is_computed_counts_and_not_how_it_is_called():
    x = jnp.ones(3)

    def plain(x):
        return jnp.sum(jnp.tanh(x) * 2)

    @jax.jit
    def named(values):
        jax.debug.print("x {}", values)
        return jnp.sum(jnp.tanh(values) * 2)

    assert digest(Traced(plain, x)) == digest(Traced(named, x)) == digest(Traced(jax.jit(jax.jit(plain)), x))
    others = [
        lambda x: jnp.sum(jnp.tanh(x) * 3),
        lambda x: jnp.sum(jnp.sinh(x) * 2),
        lambda x: jnp.sum(jnp.tanh(x)[::-1] * 2),
        lambda x: jax.lax.scan(lambda c, y: (c + jnp.tanh(y) * 2, None), 0.0, x)[0],
        lambda x: jax.lax.cond(x[0] > 0, plain, lambda x: 0.0, x),
        lambda x: jax.lax.cond(x[0] > 0, plain, lambda x: 1.0, x),
        lambda x: jnp.sum(jnp.tanh(x) * jnp.array([2.0, 2.0, 3.0])),
        lambda x: jnp.sum(jnp.tanh(x) * jnp.array([2.0, 3.0, 2.0])),
    ]
    assert len({digest(Traced(one, x)) for one in (plain, *others)}) == len(others) + 1
    assert digest(Traced(plain, x)) != digest(Traced(plain, jnp.ones(4)))
    # Operands in the opposite order.
    y = jnp.ones(3)
    assert digest(Traced(lambda x, y: x - y, x, y)) != digest(Traced(lambda x, y: y - x, x, y))


KEY = jr.key(0)


def test_a_key_that_is_held_counts_and_its_grid_is_measured(tmp_path):
    def grid(key):
        probe = ssntk.Probe(np.linspace(0.0, 2.0, 3))
        return ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=key), {"gain": [0.3, 0.5]}, probe=probe)

    assert grid(KEY).hash() == grid(jr.key(0)).hash()
    assert len({grid(key).hash() for key in (KEY, jr.key(1), jr.key(0, impl="rbg"))}) == 3
    store = ssntk.run(grid(KEY), ssntk.Store(tmp_path), progress=False)
    assert len(store.status().done) == 2
    weight = np.asarray(ssntk.CTRNN(3, 1, 1, gain=0.5, key=KEY).weight)
    expected = np.sort_complex(np.linalg.eigvals(0.5 * weight - np.eye(3)))
    np.testing.assert_allclose(np.sort_complex(store.arrays()["jacobian_eigenvalues"][1]), expected, atol=1e-12)


def test_a_refusal_says_what_differs(tmp_path):
    ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    with pytest.raises(ssntk.StoreError, match=r"another plan .*: step, integrator differ|: integrator, step differ"):
        ssntk.run(fold_sweep(step=0.04, integrator=ssntk.Integrator(rtol=1e-7)), ssntk.Store(tmp_path), progress=False)


NETWORK = ssntk.CTRNN(3, 1, 1, gain=0.5, key=jr.key(0))
PROBE = ssntk.Probe(np.linspace(0.0, 2.0, 3))


def gains(make=lambda gain: eqx.tree_at(lambda m: m.gain, NETWORK, gain), **rest):
    return ssntk.Grid(make, {"gain": [0.3, 0.5]}, **{"probe": PROBE} | rest)


def towards(**rest):
    return ssntk.Sweep(
        ssntk.Family.input(NETWORK, [1.0]),
        towards="saddle-node",
        distances=[1e-1],
        **{"probe": PROBE, "span": (-2.0, 2.0)} | rest,
    )


@pytest.mark.parametrize("plan", [gains, towards])
def test_the_order_of_blocks_counts(plan):
    """Records hold the results of the blocks in their order."""
    one, other, again = (plan(blocks=names) for names in (["weight", "bias"], ["bias", "weight"], ["weight", "bias"]))
    assert one.hash() == again.hash() != other.hash()
    assert [name for name in one.identity if one.identity[name] != other.identity[name]] == ["blocks"]
    lenses = {"weight": lambda m: m.weight, "bias": lambda m: m.bias}
    assert plan(blocks=lenses).hash() == one.hash()
    assert plan(blocks=lenses | {"weight": lambda m: m.input_weight}).hash() != one.hash()


@pytest.mark.parametrize(
    ("plan", "one", "other"),
    [
        (gains, {"scale": 2.0}, {"scale": [2.0, 2.0, 2.0]}),
        (gains, {"scale": 1.0}, {}),
        (gains, {"scale": [1.0, 1.0, 1.0]}, {}),
        (gains, {"u": [0.0]}, {}),
        (gains, {"x0": np.zeros(3)}, {}),
        (gains, {"probe": ssntk.Probe(PROBE.ts, [[0.0]])}, {}),
        (gains, {"u": [0.0], "x0": [0, 0, 0], "scale": 1, "modes": 2}, {"modes": 2}),
        (towards, {"scale": 2.0}, {"scale": [2.0, 2.0, 2.0]}),
        (towards, {"scale": 1.0}, {}),
        (towards, {"u": [0.0]}, {}),
        (towards, {"probe": ssntk.Probe(PROBE.ts, [[0.0]])}, {}),
        (towards, {"span": np.array([-2, 2], ">i4")}, {}),
        (towards, {"x0": np.ones(3, ">f8")}, {"x0": [1, 1, 1]}),
    ],
)
def test_plans_that_measure_the_same_are_one(plan, one, other):
    assert plan(**one).hash() == plan(**other).hash()


@pytest.mark.parametrize(
    ("plan", "one", "other"),
    [
        (gains, {"scale": [2.0, 2.0, 1.0]}, {"scale": 2.0}),
        (gains, {"u": [1e-300]}, {}),
        (gains, {"x0": [0.0, 0.0, 1e-300]}, {}),
        (gains, {"probe": ssntk.Probe(PROBE.ts, [[0.0], [0.0]])}, {}),
        (gains, {"probe": ssntk.Probe(PROBE.ts, x0=np.zeros(3))}, {}),
        (towards, {"x0": np.zeros(3)}, {}),
        (towards, {"probe": ssntk.Probe(PROBE.ts, x0=np.zeros(3))}, {}),
    ],
)
def test_plans_that_are_not_the_same_for_certain_are_two(plan, one, other):
    assert plan(**one).hash() != plan(**other).hash()


def test_how_random_numbers_are_drawn_counts():
    def drawn(gain):
        return ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0))

    def hashes():
        # JAX does not reuse a trace under another setting.
        return gains(drawn).hash(), gains().hash()

    before = hashes()
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        other = hashes()
    assert before[0] != other[0]
    assert before[1] == other[1]
    assert hashes() == before


class Slope(dict):
    """A dict whose entries are also attributes, as many libraries define it."""

    def __init__(self, **entries):
        super().__init__(**entries)
        self.__dict__ = self


def test_what_a_model_calls_back_counts_with_all_that_it_holds():
    def grid(config):
        def host(x):
            return config.slope * np.tanh(x)

        def field(t, x, u, p):
            return p - x + jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")

        return gains(lambda gain: ssntk.VectorField(field, jnp.asarray(gain), 2))

    assert grid(Slope(slope=1.0)).hash() == grid(Slope(slope=1.0)).hash() != grid(Slope(slope=0.2)).hash()


def test_a_part_that_cannot_be_told_from_others_is_named():
    steps = (i for i in range(3))
    with pytest.raises(ValueError, match=r"integrator cannot be told from others: it holds .*generator"):
        by(kvaerno(norm=lambda x: next(steps) * jnp.max(jnp.abs(x)))).hash()


numbers = st.floats(0.01, 0.9, allow_subnormal=False)
FIELDS = {
    "distances": st.lists(numbers, min_size=1, max_size=3, unique=True).map(lambda values: sorted(values, reverse=True)),
    "step": numbers,
    "index": st.integers(0, 3),
    "of": st.sampled_from(["state", "readout"]),
    "span": st.tuples(numbers, numbers.map(lambda end: -end)),
    "x0": st.lists(numbers, min_size=1, max_size=1),
    "scale": st.one_of(st.none(), numbers),
    "modes": st.one_of(st.none(), st.just(1)),
    "rtol": st.sampled_from([1e-6, 1e-7, 1e-8]),
    "end": st.integers(1, 3),
    # Objects that the solver may hold: a closure over an array, a container, a member of an enumeration.
    "norm": st.tuples(st.sampled_from(["array", "list", "attributes", "member"]), st.sampled_from([1.0, 2.0])),
    "blocks": st.sampled_from([None, "ab", "ba", "a"]),
}


class Kept(list):
    pass


def norm_of(kind, scale):
    kept = Kept()
    kept.scale = scale
    held: Any = {"array": jnp.array(scale), "list": [scale], "attributes": kept, "member": enum.Enum("Own", {"A": scale}).A}[
        kind
    ]
    of = {"array": lambda: held, "list": lambda: held[0], "attributes": lambda: held.scale, "member": lambda: held.value}[
        kind
    ]
    return lambda x: of() * optimistix.max_norm(x)


LENSES = {"a": lambda m: m.mu, "b": lambda m: m.h}
TWO = ssntk.Family(ssntk.normal_forms.pitchfork(0.0, 0.1), "mu")


@settings(max_examples=25, deadline=None)
@given(st.fixed_dictionaries(FIELDS), st.fixed_dictionaries({}, optional=FIELDS))
def test_two_plans_are_one_if_and_only_if_they_measure_the_same(fields, changes):
    def plan(rtol, end, norm, blocks, **rest):
        probe, solver = ssntk.Probe(np.linspace(0.0, end, 3)), kvaerno(norm=norm_of(*norm))
        blocks = None if blocks is None else {name: LENSES[name] for name in blocks}
        return ssntk.Sweep(
            TWO, towards="saddle-node", integrator=ssntk.Integrator(solver, rtol=rtol), probe=probe, blocks=blocks, **rest
        )

    changed = fields | changes
    assert (plan(**fields).hash() == plan(**changed).hash()) == (fields == changed)
