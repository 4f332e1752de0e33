"""Limit cycles: Newton's iteration in units of LAPACK's dgesv of as many unknowns as states, and warm branches.

`pytest -m slow tests/benchmarks/test_cycles.py -s -n 0` prints the ratios. Nothing else should run at the same time: threads
and other work change both sides, but not alike. A study on a quiet core needed 4.0 ms for a Newton iteration of 64 steps of
order 5 at n = 32, and 72 ms at n = 100; 22 cycles at n = 2 took 37 ms warm. Measured here on a loaded machine: 383, 473
and 496 dgesv by shooting at n = 32, 100 and 256 (3.0, 45 and 394 ms), and 54, 14 and 5 for residuals alone.
"""

import statistics
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import timed
from oscillators import network

import ssntk
from ssntk.cycles.discrete import Collocation, Shooting, System, as_orbit

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
INTERVALS = 32


def over_gain(n, seed=1):
    """A network of n units whose weights grow by 0.3 of themselves."""
    model = network(seed, n)
    weight, bias, *rest = model.params
    return ssntk.Family.between(model, ssntk.VectorField(model.fn, (1.3 * weight, bias, *rest), n, 0))


def bautin(t, x, u, mu):
    squared = x @ x
    growth, turning = mu + squared - squared**2, 2.0 - 0.7 * squared
    return jnp.stack([growth * x[0] - turning * x[1], turning * x[0] + growth * x[1]])


def solved(n):
    """A call that solves as many dense systems as take about a millisecond, and their number."""
    rng, count = np.random.default_rng(0), max(1, int(1e7 / (n + 30) ** 3))
    matrix, right = rng.normal(size=(n, n)), rng.normal(size=n)

    def call():
        for _ in range(count):
            scipy.linalg.lapack.dgesv(matrix, right)

    return call, count


@eqx.filter_jit
def linearised(method, system, orbit):
    """What a Newton iteration costs, besides the solution of n + 2 equations."""
    segments = method.segments(system, orbit)
    around = method.round(segments)
    return around.first, around.second, around.right, around.points(orbit.ends[0], orbit.ends[0], jnp.ones(3))


@eqx.filter_jit
def residuals(method, system, orbit):
    return method.residuals(system, orbit)


@pytest.mark.parametrize("n", [2, 32, 100, 256])
def test_newtons_iteration_in_dense_solutions(n):
    """On a rough orbit: what it costs does not depend on the orbit."""
    rng = np.random.default_rng(0)
    family = ssntk.Family(ssntk.VectorField(bautin, -0.1, 2, 0), "params") if n == 2 else over_gain(n)
    one = jnp.ones(())
    system = System(family, jnp.zeros(0), jnp.ones(n), one, 0 * one, one)
    mesh, ends = np.linspace(0, 1, INTERVALS + 1), 0.5 * rng.normal(size=(INTERVALS, n))
    within = 0.5 * rng.normal(size=(INTERVALS, 4, n))
    ways = {
        "shooting": (linearised, Shooting(1), as_orbit(mesh, ends, within[:, :0], 6.0)),
        "shooting, residuals alone": (residuals, Shooting(1), as_orbit(mesh, ends, within[:, :0], 6.0)),
    }
    if n <= 100:
        ways["collocation of degree 4"] = (linearised, Collocation(4), as_orbit(mesh, ends, within, 6.0))
    cold = {}
    for name, (call, method, orbit) in ways.items():
        began = time.perf_counter()
        jax.block_until_ready(call(method, system, orbit))
        cold[name] = time.perf_counter() - began
    unit, count = solved(n)
    calls = [lambda call=call, rest=rest: call(rest[0], system, rest[1]) for call, *rest in ways.values()]
    dense, *warm = timed(unit, *calls, rounds=9 if n < 256 else 5)
    dense /= count
    print(f"\nn = {n}, {INTERVALS} intervals: dgesv {dense * 1e6:.1f} us", end="")
    for name, taken in zip(ways, warm, strict=True):
        print(f"; {name} {taken * 1e3:.2f} ms, {taken / dense:.0f} dgesv, cold {cold[name]:.1f} s", end="")
    # Derivatives that are known are used again, since a residual is so much cheaper.
    assert n < 32 or warm[1] < 0.3 * warm[0]


@pytest.mark.parametrize("n", [2, 32, 100])
def test_a_branch_with_stability_and_events(n):
    if n == 2:
        family, span = ssntk.Family(ssntk.VectorField(bautin, -0.5, 2, 0), "params"), (-0.5, 0.5)
        start = ssntk.locate(family, "hopf", parameter=0.01, x=[0.0, 0.0])
    else:
        family, span = over_gain(n), (0.0, 1.0)
        start = ssntk.limit_cycle(family(0.0), 0.1 * np.ones(n))
    unit, count = solved(n)
    began = time.perf_counter()
    branch = ssntk.cycle_continuation(family, start, span)
    cold, taken, dense = time.perf_counter() - began, [], []
    for _ in range(5):
        dense += timed(unit, rounds=5)
        began = time.perf_counter()
        ssntk.cycle_continuation(family, start, span)
        taken.append(time.perf_counter() - began)
    each, unit = statistics.median(taken) / len(branch), statistics.median(dense) / count
    events = len(branch.bifurcations)
    print(f"\nbranch, n = {n}: {len(branch)} cycles, {events} events, warm {each * 1e3:.2f} ms a cycle,", end=" ")
    print(f"{each / unit:.0f} dgesv of {unit * 1e6:.1f} us; cold {cold:.1f} s", end="")
    assert branch.unresolved == ()


def test_leading_multipliers_of_a_large_network():
    """Steps with the leading multipliers and with all, on the same branch. The first and the last cycle have all of them."""
    n, steps = 256, 30
    family = over_gain(n)
    start = ssntk.limit_cycle(family(0.0), 0.1 * np.ones(n))
    taken = {}
    for count in (None, n - 1):
        for most in (2, steps) * 2:
            began = time.perf_counter()
            branch = ssntk.cycle_continuation(family, start, (0.0, 1.0), step=0.01, n_multipliers=count, max_steps=most)
            taken[count, most] = time.perf_counter() - began
            assert len(branch) == most
    few, every = ((taken[count, steps] - taken[count, 2]) / (steps - 2) for count in (None, n - 1))
    print(
        f"\nn = {n}, a cycle: all multipliers {every * 1e3:.0f} ms, leading ones {few * 1e3:.0f} ms: 1 / {every / few:.1f}"
    )
    assert few < every


@pytest.mark.parametrize("n", [4, 16, 32, 100])
def test_the_kernel_of_a_cycle_against_one_jacobian_over_a_period(n):
    """At most twice the time up to 32 units was asked for. The spectrum, which is computed on demand, is apart."""
    model = network(0, n)
    orbit = ssntk.limit_cycle(model, 0.5 * np.random.default_rng(1).normal(size=n))
    probe = ssntk.Probe(np.linspace(0, orbit.period, len(orbit.ts) + 1), x0=orbit.x[0])
    steps = ssntk.Integrator(diffrax.Dopri8(), dt=orbit.period / orbit.intervals)

    def lens(model):
        return model.params[:2]

    def plain():
        return ssntk.parameter_jacobian(model, probe, wrt=lens, integrator=steps)

    def adaptive():
        return ssntk.parameter_jacobian(model, probe, wrt=lens)

    def kernel():
        return ssntk.cycle_ntk(model, orbit, wrt=lens).period_gradient

    def spectrum():
        return ssntk.cycle_ntk(model, orbit, wrt=lens).shape.eigenvalues

    one, other, whole, both = timed(plain, adaptive, kernel, spectrum, rounds=5)
    print(
        f"\nn = {n}, {orbit.method}: kernel of the cycle {whole * 1e3:.1f} ms, {whole / one:.1f} times a Jacobian on as "
        f"many steps, {whole / other:.1f} times one on adaptive steps; with its spectrum {both * 1e3:.1f} ms"
    )


def test_twenty_cycles_against_jaxcont():
    """Fixed meshes of 32 intervals of degree 4, as jaxcont has them, with stability, from the same cycle."""
    theirs = pytest.importorskip("jaxcont")
    from jaxcont.core.collocation import Collocation as Mesh
    from jaxcont.problems.periodic import periodic_orbit_problem

    begin, end, steps = 0.1, 0.5, 20
    model = ssntk.VectorField(bautin, begin, 2, 0)
    family, start = ssntk.Family(model, "params"), ssntk.limit_cycle(model, [1.0, 0.0])
    times, states = np.append(start.ts, start.period), np.vstack([start.x, start.x[:1]])

    def other():
        # It promotes types as JAX does by default.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return followed()

    def followed():
        problem = periodic_orbit_problem(
            lambda x, p, args: bautin(0.0, x, None, p), states, times, start.period, begin, Mesh(32, 4)
        )
        options = theirs.ContinuationPar(max_steps=steps, ds=0.05, ds_max=0.05, newton_tol=1e-8)
        return theirs.continuation(problem, p_span=(begin, end), settings=options, events=[theirs.Fold()])

    def ours():
        return ssntk.cycle_continuation(family, start, (begin, end), max_steps=steps, step=0.02)

    assert len(ours()) == steps
    jax.block_until_ready(jax.tree.leaves(other().branch))
    slow, fast = timed(lambda: jax.tree.leaves(other().branch), ours, rounds=3)
    print(f"\n{steps} cycles, n = 2, warm: jaxcont {slow:.2f} s, here {fast:.3f} s: {slow / fast:.0f} times")
    assert fast < slow
