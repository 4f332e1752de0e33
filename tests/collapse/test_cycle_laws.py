"""The laws of limit cycles on random systems: normal forms in random coordinates (tests/scrambled.py), and networks.

What the laws predict follows from closed forms of the normal forms; for networks and loops from NumPy and SciPy. The figures
of the ten seeds are in docs/limit_cycles.md.
"""

import functools

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from helpers import seeds
from oscillators import network, units
from scrambled import (
    N,
    Radial,
    all_of_it,
    bend,
    bent,
    coordinates,
    forces,
    leaf,
    only_forces,
    only_mu,
    system,
)

import ssntk
from ssntk import laws
from ssntk.collapse.exponent import measured_exponent

FINE = ssntk.Integrator(rtol=1e-9, atol=1e-11, max_steps=400_000)
# The number of save times is the same for every horizon, so that a model is compiled once. It is 40 to a period or more.
TIMES = 1601
SEEDS = seeds(1, 10)
# Horizons of hundreds of periods, finer meshes and other models are compiled for long.
SLOW = seeds(0, 10)


def generator(seed, law):
    return np.random.default_rng([seed, law])


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def k_int(model, x0, horizon, wrt):
    """The largest eigenvalue of K_int."""
    probe = ssntk.Probe(np.linspace(0.0, horizon, TIMES), x0=np.asarray(x0)[None])
    found = ssntk.ntk_spectrum(model, probe, wrt=wrt, weights="trapezoid", integrator=FINE, eigenvectors=False)
    return float(found.eigenvalues[0])


def to_the_limit(ratio, horizon):
    """The ratio of a kernel to a law that holds up to O(1 / T): at T, and extrapolated from T / 2 and T."""
    half, whole = ratio(horizon / 2), ratio(horizon)
    return whole, 2 * whole - half


def hopf_like(rng):
    """Parameters of a stable circle, and mu."""
    return np.array([-rng.uniform(0.5, 2), 0.0, rng.uniform(1, 3), rng.uniform(0.3, 0.8), 0.0]), rng.uniform(0.1, 0.4)


@functools.cache
def phase_of_a_form(seed):
    rng = generator(seed, 1)
    c, (form, mu) = coordinates(rng), hopf_like(rng)
    model, known = system("radial", rng, c, form, mu), Radial(c, form, mu)
    kernel = ssntk.cycle_ntk(model, ssntk.limit_cycle(model, known.x[0], known.period), wrt=all_of_it)
    size = np.linalg.norm(known.gradient)

    def ratio(horizon):
        law = laws.phase_channel(size, known.period, known.speed, horizon)
        return k_int(model, known.x[0], horizon, all_of_it) / law

    whole, limit = to_the_limit(ratio, 40 * known.period)
    return {
        "gradient": np.abs(kernel.period_gradient - known.gradient).max(),
        "multiplier": np.abs(kernel.exponents - known.exponent).min() * known.period,
        "predicted": kernel.predicted_top(7.0) / laws.phase_channel(size, known.period, known.speed, 7.0) - 1,
        "at 40 P": whole,
        "limit": limit,
    }


@pytest.mark.parametrize("seed", SLOW)
def test_the_phase_channel(seed):
    found = phase_of_a_form(seed)
    assert found["gradient"] < 1e-10
    assert found["multiplier"] < 1e-9
    assert abs(found["predicted"]) < 1e-9
    # What is left is of second order in P / T.
    assert abs(found["limit"] - 1) < 5e-3


@functools.cache
def phase_of_a_network(seed):
    model = network(seed, 8)
    start, period = settled(model.params[0], model.params[1])
    kernel = ssntk.cycle_ntk(model, ssntk.limit_cycle(model, start, period), wrt=weights_of)

    def ratio(horizon):
        return k_int(model, kernel.x[0], horizon, weights_of) / kernel.predicted_top(horizon)

    whole, limit = to_the_limit(ratio, 40 * kernel.period)
    return {"at 40 P": whole, "limit": limit}


def weights_of(model):
    return model.params[0]


def settled(weight, bias, time=200.0):
    """A state on the cycle of a network, and about its period, by SciPy."""
    weight, bias = np.asarray(weight), np.asarray(bias)
    field = lambda t, x: -x + weight @ np.tanh(x) + bias  # noqa: E731
    x = scipy.integrate.solve_ivp(field, (0, time), 0.1 * np.ones(len(bias)), rtol=1e-9, atol=1e-10).y[:, -1]
    flow = field(0.0, x)
    crossing = lambda t, y: flow @ (y - x) if t > 0.5 else -1.0  # noqa: E731
    crossing.direction = 1
    found = scipy.integrate.solve_ivp(field, (0, 60), x, rtol=1e-9, atol=1e-10, events=crossing)
    away = np.linalg.norm(found.y_events[0] - x, axis=1)
    return x, found.t_events[0][np.flatnonzero(away < 0.05 * np.abs(found.y).max())[0]]


@pytest.mark.parametrize("seed", SLOW)
def test_the_phase_channel_of_networks(seed):
    assert abs(phase_of_a_network(seed)["limit"] - 1) < 1e-2


@functools.cache
def amplitude_of_a_form(seed):
    rng = generator(seed, 2)
    c, (form, mu) = coordinates(rng), hopf_like(rng)
    # From a horizon that the mode does not notice, to one of many of its decay times.
    mu = mu * 10.0 ** rng.uniform(-2.5, 0)
    model, known = system("radial", rng, c, form, mu), Radial(c, form, mu)
    horizon = 40 * known.period
    probe = ssntk.Probe(np.linspace(0.0, horizon, TIMES), x0=known.x[:1])
    rows = np.asarray(ssntk.parameter_jacobian(model, probe, wrt=all_of_it, integrator=FINE)).reshape(TIMES, N, -1)
    # The amplitude's vector r lies on an isochron: Z^T r = 0.
    bias = known.shear / (known.exponent)
    y = orbit_points(known, np.linspace(0.0, horizon, TIMES))
    slopes = np.asarray(bent(c, y)[1])
    around = np.stack([-y[:, 1], y[:, 0], 0 * y[:, 0], 0 * y[:, 0]], axis=1)
    right = y / (2 * known.size) + bias * around
    # l^T S for the gradient l of |z|^2.
    left = 2 * np.einsum("kj,kjp->kp", y, np.linalg.solve(slopes, rows))
    part = np.einsum("kij,kj->ki", slopes, right)[:, :, None] * left[:, None]
    weights = np.full(TIMES, horizon / (TIMES - 1))
    weights[[0, -1]] /= 2
    top = np.linalg.norm((part * np.sqrt(weights)[:, None, None]).reshape(TIMES * N, -1), 2) ** 2
    mean = (known.push(known.y / (2 * known.size) + bias * known.around) ** 2).sum(1).mean()
    drive = np.sqrt(mean) * np.linalg.norm(known.drive)
    return {"ratio": top / laws.channel(drive, known.exponent, horizon), "decay": -known.exponent * horizon}


def orbit_points(known, times):
    phases = known.speed_of_phase * times
    y = np.zeros((len(times), N))
    y[:, 0], y[:, 1] = np.sqrt(known.size) * np.cos(phases), np.sqrt(known.size) * np.sin(phases)
    return y


@pytest.mark.parametrize("seed", SLOW)
def test_the_amplitude_channel(seed):
    # |r|^2 is not constant over the period, of which the horizon holds 40.
    assert abs(amplitude_of_a_form(seed)["ratio"] - 1) < 0.02


def bautin_like(rng):
    b, d = rng.uniform(1.5, 2.5), -rng.uniform(0.8, 1.2)
    return np.array([b, d, rng.uniform(3, 4), -rng.uniform(0.7, 1.3), 0.0]), -(b**2) / (4 * -d)


@functools.cache
def at_a_cycle_fold(seed):
    found = {}
    for name, amount in (("rotated", 0.0), ("bent", 0.4)):
        rng = generator(seed, 3)
        form, fold = bautin_like(rng)
        c = coordinates(rng, amount)
        model, known = system("radial", rng, c, form, fold), Radial(c, form, fold)
        shear = known.shear / known.speed_of_phase

        def ratio(horizon, model=model, known=known, shear=shear):
            law = laws.cycle_fold(known.speed, shear, known.drive[0], horizon)
            return k_int(model, known.x[0], horizon, only_mu) / law

        if amount == 0:
            found[name] = ratio(300.0)
            # At a distance at which the mode lasts for some part of the horizon.
            distance = rng.uniform(1e-5, 1e-3)
            model, known = system("radial", rng, c, form, fold + distance), Radial(c, form, fold + distance)
            shear = known.shear / known.speed_of_phase
            law = laws.cycle_fold(known.speed, shear, known.drive[0], 300.0, known.exponent)
            found["near"], found["decay"] = k_int(model, known.x[0], 300.0, only_mu) / law, -300 * known.exponent
        else:
            found[name] = ratio(300.0)
    return found


@pytest.mark.parametrize("seed", SLOW)
def test_at_a_cycle_fold(seed):
    found = at_a_cycle_fold(seed)
    assert abs(found["rotated"] - 1) < 1e-4
    assert abs(found["near"] - 1) < 1e-3
    # In bent coordinates f and r are not orthogonal: O(P / T), with some 150 periods.
    assert abs(found["bent"] - 1) < 1e-2


DISTANCES = np.geomspace(1e-2, 1e-5, 4)


@functools.cache
def near_a_cycle_fold(seed):
    rng = generator(seed, 4)
    form, fold = bautin_like(rng)
    c = coordinates(rng)
    rows = []
    for distance in DISTANCES:
        model, known = system("radial", rng, c, form, fold + distance), Radial(c, form, fold + distance)
        kernel = ssntk.cycle_ntk(model, ssntk.limit_cycle(model, known.x[0], known.period), wrt=all_of_it)
        rate, drive = kernel.exponents[0].real, np.linalg.norm(known.drive)
        period = np.linalg.norm(kernel.period_gradient) / kernel.period
        shape = kernel.shape.eigenvalues[0]
        rows.append(
            (
                period**2,
                shape,
                np.abs(kernel.period_gradient[:5] / known.gradient[:5] - 1).max(),
                period / (abs(known.shear) / known.speed_of_phase * drive / abs(rate)),
                shape / (known.least(known.y / (2 * known.size)) * (drive / rate) ** 2),
            )
        )
    period, shape, error, period_ratio, shape_ratio = np.array(rows).T
    return {
        # The next term is of relative order sqrt(distance).
        "period slope": measured_exponent(DISTANCES, period, next_order=0.5),
        "shape slope": measured_exponent(DISTANCES, shape, next_order=0.5),
        "error": error.max(),
        "period": period_ratio[-1],
        "shape": shape_ratio[-1],
    }


@pytest.mark.parametrize("seed", SLOW)
def test_near_a_cycle_fold(seed):
    found = near_a_cycle_fold(seed)
    assert found["error"] < 1e-6
    assert abs(found["period slope"] + 1) < 0.01
    assert abs(found["shape slope"] + 1) < 0.01
    assert abs(found["period"] - 1) < 0.02
    assert abs(found["shape"] - 1) < 0.02


GAPS = np.geomspace(1e-2, 1e-4, 3)


def moebius_like(rng, kind, gap):
    """Parameters for a multiplier at the distance `gap` from the unit circle."""
    om = rng.uniform(1.5, 3)
    period = 2 * np.pi / om
    slow, other, shear, turn = np.log1p(-gap) / period, rng.uniform(0.3, 0.8), rng.uniform(-1, 1), rng.uniform(0.15, 0.35)
    form = [slow - other, om / 2, other, om, shear] if kind == "doubling" else [slow, turn * om, 0.0, om, shear]
    return np.array(form), period


def modes(form, phases):
    """The frequency, the right and the left vector of the slow mode in y, at phases of the circle."""
    s, nu, d, om, shear = form
    wave, e = np.exp(1j * phases / 2), np.stack([np.cos(phases), np.sin(phases)])
    if d:
        # Real vectors that change sign from round to round.
        out, up, turned = wave.real, wave.imag, (shear * wave / (s + d + 1j * om / 2)).real
        left = np.stack([out * e[0], out * e[1], up, 0 * up])
        frequency = om / 2
    else:
        one = np.ones_like(phases)
        out, up, turned = one / 2, -0.5j * one, one * shear / (2 * (s + 1j * nu))
        # It turns back from round to round.
        left = np.exp(-1j * nu * phases / om) * np.stack([e[0] + 0j, e[1] + 0j, 1j * one, 0 * one])
        frequency = nu
    right = np.stack([out * e[0] - turned * e[1], out * e[1] + turned * e[0], up, 0 * up])
    return frequency, right.T, left.T


@functools.cache
def driven(kind, seed):
    responses, shapes, periods, ratios, errors = [], [], [], [], []
    for gap in GAPS:
        rng = generator(seed, 5)
        c = coordinates(rng)
        form, period = moebius_like(rng, kind, gap)
        model = system("moebius", rng, c, form)
        phases = np.linspace(0, 2 * np.pi, 512, endpoint=False)
        y = np.stack([np.cos(phases), np.sin(phases), 0 * phases, 0 * phases], axis=1)
        x, slopes = (np.asarray(part) for part in bent(c, y))
        frequency, right, left = modes(form, phases)
        pushed = np.linalg.solve(slopes, np.asarray(jax.vmap(lambda one, m=model: forces(m.params, one).T)(x)))
        wave = np.exp(1j * frequency * phases / form[3])
        drive = period * np.linalg.norm(np.einsum("k,kj,kjp->kp", wave, left, pushed).mean(0))
        size = (np.abs(np.einsum("kij,kj->ki", slopes, right)) ** 2).sum(1).mean() ** 0.5
        orbit = ssntk.limit_cycle(model, x[0], period)
        kernel = ssntk.cycle_ntk(model, orbit, wrt=only_forces)
        top = ssntk.cycle_signature(model, orbit, [frequency], wrt=only_forces).transverse[0]
        multiplier = orbit.multipliers[0]
        errors.append(abs(abs(multiplier) - (1 - gap)))
        responses.append(top)
        shapes.append(kernel.shape.eigenvalues[0])
        periods.append(np.linalg.norm(kernel.period_gradient))
        ratios.append(top / laws.driven_cycle(size * drive, multiplier))
    gaps = 1 - (1 - GAPS)
    return {
        "response slope": slope(gaps, responses),
        "shape slope": slope(gaps, shapes),
        "period slope": slope(gaps, periods),
        "ratio": ratios[-1],
        "error": max(errors),
    }


@pytest.mark.parametrize("kind", ["doubling", "torus"])
@pytest.mark.parametrize("seed", SLOW)
def test_doublings_and_tori_answer_to_a_drive_only(kind, seed):
    found = driven(kind, seed)
    assert found["error"] < 1e-9
    assert abs(found["response slope"] + 2) < 0.01
    assert abs(found["shape slope"]) < 0.01
    assert abs(found["period slope"]) < 0.01
    # Other modes respond too, by a part that does not grow.
    assert abs(found["ratio"] - 1) < 1e-2


SADDLE_NODES = np.geomspace(1e-1, 1e-4, 4)


@functools.cache
def before_a_snic(seed):
    rng = generator(seed, 6)
    c, strength = coordinates(rng), rng.uniform(0.5, 2)
    growth, rates = np.array([rng.uniform(1, 2), -rng.uniform(1, 2)]), rng.integers(1000)
    at = Radial(c, np.array([growth[1], 0.0, strength, 0.0, strength]), growth[0])
    rows, seen = [], []
    for distance in SADDLE_NODES:
        form = np.array([growth[1], 0.0, strength + distance, 0.0, strength])
        model = system("radial", np.random.default_rng(rates), c, form, growth[0])
        known = Radial(c, form, growth[0])
        kernel = ssntk.cycle_ntk(model, ssntk.limit_cycle(model, known.x[0], known.period), wrt=all_of_it)
        # The distance is om + c R - s, of which c is zero.
        law = (2 + known.size**2) * laws.snic(distance, strength / 2, 1.0, at.action, 1.0)
        rows.append((kernel.predicted_top(1.0), kernel.predicted_top(1.0) / law, kernel.period / known.period - 1))
        if distance == SADDLE_NODES[0]:
            ratio = lambda T, k=kernel, m=model: k_int(m, k.x[0], T, all_of_it) / k.predicted_top(T)  # noqa: E731
            seen = to_the_limit(ratio, 20 * kernel.period)
    tops, ratios, errors = np.array(rows).T
    return {
        "slope": slope(SADDLE_NODES[2:], tops[2:]),
        "ratio": ratios[-1],
        "error": np.abs(errors).max(),
        "kernel at 20 P": seen[0],
        "kernel": seen[1],
    }


@pytest.mark.parametrize("seed", SLOW)
def test_before_a_saddle_node_on_the_cycle(seed):
    found = before_a_snic(seed)
    assert found["error"] < 1e-8
    assert abs(found["slope"] + 1.5) < 0.01
    assert abs(found["ratio"] - 1) < 0.01
    assert abs(found["kernel"] - 1) < 0.02


LOOPS = np.geomspace(1e-2, 1e-6, 5)


def planar_cycle(s, k, e):
    """A point on the stable cycle inside of the loop, and the period, by SciPy."""
    field = lambda t, y: leaf(y, s, k, e)  # noqa: E731
    mark = lambda t, y: y[1]  # noqa: E731
    mark.direction = 1 if field(0.0, (0.9, 0.0))[1] > 0 else -1
    made = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13, "events": mark}
    found = scipy.integrate.solve_ivp(field, (0, 400), np.array([0.9, 0.0]), **made)
    times, points = found.t_events[0], found.y_events[0]
    return points[-1], times[-1] - times[-2]


@functools.cache
def before_a_homoclinic(seed):
    rng = generator(seed, 7)
    c, s, asymmetry = coordinates(rng), rng.uniform(0.5, 1.5), rng.uniform(0.25, 0.5)
    k, rates = 2 * s * asymmetry, rng.integers(1000)
    unstable = 2 * s - k
    nodes, weights = np.polynomial.legendre.leggauss(200)
    loop = np.stack([1 - nodes**2, nodes - nodes**3, 0 * nodes, 0 * nodes], axis=1)
    along = np.stack([-2 * nodes, 1 - 3 * nodes**2, 0 * nodes, 0 * nodes], axis=1)
    slopes = np.asarray(bent(c, loop)[1])
    flows = np.stack([np.append(leaf(one[:2], s, k, 0.0), [0, 0]) for one in loop])
    lengths = [np.linalg.norm(np.einsum("kij,kj->ki", slopes, part), axis=1) for part in (flows, along)]
    action = weights @ (lengths[0] * lengths[1])
    rows = []
    for e in LOOPS:
        model = system("leaf", np.random.default_rng(rates), c, [s, k], e)
        y, period = planar_cycle(s, k, e)
        orbit = ssntk.limit_cycle(model, bend(c, np.append(y, [0, 0])), period)
        kernel = ssntk.cycle_ntk(model, orbit, wrt=only_mu)
        rows.append(
            (kernel.period, kernel.period_gradient[0], kernel.speed, kernel.predicted_top(1.0), orbit.period / period - 1)
        )
    periods, gradients, speeds, tops, errors = np.array(rows).T
    scale = LOOPS[-1] * np.exp(unstable * periods[-1])
    law = laws.homoclinic(LOOPS, unstable, action, 1.0, scale=scale)
    return {
        "period": (-LOOPS * gradients * unstable),
        "action": speeds * periods / action,
        "raw slope": slope(LOOPS[-2:], tops[-2:]),
        "slope": slope(LOOPS[-3:], (tops * periods**3)[-3:]),
        "ratio": tops / law,
        "error": np.abs(errors).max(),
        "saddle": (2 * s + k) / unstable,
    }


@pytest.mark.parametrize("seed", SLOW)
def test_before_a_homoclinic_orbit(seed):
    found = before_a_homoclinic(seed)
    # SciPy's errors of 1e-13 grow as 1 / e on the way past the saddle.
    assert found["error"] < 1e-6
    assert abs(found["slope"] + 2) < 0.01
    assert abs(found["ratio"][-1] - 1) < 0.01


BIRTHS = np.geomspace(1e-1, 1e-4, 4)


@functools.cache
def from_the_cycles_side(seed):
    rng = generator(seed, 8)
    c, (form, _) = coordinates(rng), hopf_like(rng)
    rates = rng.integers(1000)
    slopes = np.asarray(bent(c, np.zeros((1, N)))[1])[0]
    growth = (slopes[:, :2] ** 2).sum() / 2 / -form[0]
    shapes, phases, errors, multipliers, gradients, apart = [], [], [], [], [], []
    for mu in BIRTHS:
        model, known = system("radial", np.random.default_rng(rates), c, form, mu), Radial(c, form, mu)
        orbit = ssntk.limit_cycle(model, known.x[0], known.period)
        kernel = ssntk.cycle_ntk(model, orbit, wrt=only_mu)
        shapes.append(kernel.shape.eigenvalues[0])
        phases.append(kernel.predicted_top(1.0))
        # The closed orbit moves by x / (2 mu) in y; here as the least change.
        errors.append(shapes[-1] / known.least(known.y / (2 * mu)) - 1)
        multipliers.append(np.abs(orbit.multipliers - np.exp(-2 * mu * known.period)).min())
        gradients.append(abs(kernel.period_gradient[0] - known.gradient[0]))
        if mu >= 1e-2:
            apart.append(gradients[-1])
    return {
        "shape slope": slope(BIRTHS[-2:], shapes[-2:]),
        "phase slope": slope(BIRTHS[-2:], phases[-2:]),
        "ratio": shapes[-1] / laws.hopf_cycle(BIRTHS[-1], growth),
        "error": np.abs(errors).max(),
        "multiplier": max(multipliers),
        "gradient": max(apart),
        "nearer": max(gradients),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hopf_point_from_the_side_of_the_cycle(seed):
    found = from_the_cycles_side(seed)
    assert found["multiplier"] < 1e-9
    assert found["gradient"] < 1e-10
    # At mu = 1e-4 the multiplier is 1 - 1e-3, and the derivative of the orbit is that much worse conditioned.
    assert found["nearer"] < 1e-9
    assert found["error"] < 1e-6
    assert abs(found["shape slope"] + 1) < 0.01
    assert abs(found["phase slope"] - 1) < 0.01
    assert abs(found["ratio"] - 1) < 0.01


def equilibrium(weight, bias):
    """An equilibrium of a network from zero, and the eigenvalue of largest real part, not below the axis."""
    x = np.zeros(len(bias))
    for _ in range(60):
        slopes = -np.eye(len(x)) + weight * (1 - np.tanh(x) ** 2)
        x = x - np.linalg.solve(slopes, -x + weight @ np.tanh(x) + bias)
    values = np.linalg.eigvals(-np.eye(len(x)) + weight * (1 - np.tanh(x) ** 2))
    value = values[values.real.argmax()]
    return x, complex(value.real, abs(value.imag))


SMALL = np.geomspace(1e-2, 1e-4, 3)


@functools.cache
def networks_from_the_cycles_side(seed):
    whole = network(seed, 8)
    weight, bias = (np.asarray(part) for part in whole.params[:2])
    shapes, phases, ratios, shape = [], [], [], None
    for mu in SMALL:
        gain = scipy.optimize.brentq(lambda g, mu=mu: equilibrium(g * weight, bias)[1].real - mu, 0.3, 1.0, xtol=1e-14)
        at, value = equilibrium(gain * weight, bias)
        if shape is None:
            start, period = settled(gain * weight, bias, 800.0)
            shape = (start - at) / np.sqrt(mu)
        start, period = at + np.sqrt(mu) * shape, 2 * np.pi / value.imag
        model = ssntk.VectorField(units, (jax.numpy.asarray(gain * weight), *whole.params[1:]), 8, 0)
        orbit = ssntk.limit_cycle(model, start, period)
        kernel = ssntk.cycle_ntk(model, orbit, wrt=weights_of)
        push = np.empty_like(weight)
        for i, j in np.ndindex(*weight.shape):
            change = np.zeros_like(weight)
            change[i, j] = 1e-5
            ends = [equilibrium(gain * weight + sign * change, bias)[1].real for sign in (1, -1)]
            push[i, j] = (ends[0] - ends[1]) / 2e-5
        states = orbit.at(np.linspace(0, orbit.period, 257)[:-1])
        size = ((states - states.mean(0)) ** 2).sum(1).mean()
        shapes.append(kernel.shape.eigenvalues[0])
        phases.append(kernel.predicted_top(1.0))
        ratios.append(shapes[-1] / laws.hopf_cycle(mu, size / mu, np.linalg.norm(push)))
    return {
        "shape slope": slope(SMALL[-2:], shapes[-2:]),
        "phase slope": slope(SMALL[-2:], phases[-2:]),
        "ratio": ratios[-1],
    }


@pytest.mark.parametrize("seed", SLOW)
def test_networks_from_the_side_of_the_cycle(seed):
    found = networks_from_the_cycles_side(seed)
    # The next term is of relative order mu.
    assert abs(found["shape slope"] + 1) < 0.02
    assert abs(found["phase slope"] - 1) < 0.02
    assert abs(found["ratio"] - 1) < 0.02


def test_the_law_of_a_cycle_fold_is_its_integral():
    for rate in (0.0, -1e-3, -0.1, -0.99, -1.01, -3.0, -50.0):

        def fallen(t, rate=rate):
            return scipy.integrate.quad(lambda s: np.expm1(rate * s) / rate if rate else s, 0, t)[0] ** 2

        wanted = 6.0 * scipy.integrate.quad(fallen, 0, 1, epsabs=1e-15, epsrel=1e-11)[0]
        np.testing.assert_allclose(laws.cycle_fold(1.5, 2.0, 1.0, 1.0, rate), wanted, rtol=1e-9)
    assert np.isnan(laws.cycle_fold(1.0, 1.0, 1.0, 1.0, 0.1))
    assert np.isnan(laws.hopf_cycle(-1.0))
    assert np.isnan(laws.homoclinic(2.0, 1.0, 1.0, 1.0))
