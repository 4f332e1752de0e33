"""What the kernel sees of borders and of their smooth counterparts: the laws N1 to N8 of docs/relu_networks.md.

Every expected number is a closed form. N4, the margins, is tested in test_border_margin.py.
"""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

import ssntk

relu = jax.nn.relu
# Sizes of random networks, each with several seeds.
NETWORKS = [(n, seed) for n in (2, 5, 12) for seed in range(4)]
LARGER = [pytest.param(40, seed, marks=pytest.mark.slow) for seed in range(4)]


def slope(distances, values):
    """d log(values) / d log(distances), over the last two."""
    return float(np.diff(np.log(values[-2:]))[0] / np.diff(np.log(distances[-2:]))[0])


class AtABorder:
    """A random ReLU network dx/dt = -x + W relu(x) + b + p v, whose unit 0 is at its border for p = 0.

    `delta` is det J' / det J there, with J' of the region in which unit 0 is active.
    """

    def __init__(self, n, seed, delta):
        random = np.random.default_rng(seed)
        weight = random.standard_normal((n, n)) / np.sqrt(n)
        x = random.standard_normal(n)
        x[0] = 0.0
        self.J = -np.eye(n) + weight * (x > 0)
        # delta = 1 + (J^-1 W e_0)_0 is linear in the weights of unit 0.
        weight[:, 0] *= (delta - 1) / np.linalg.solve(self.J, weight[:, 0])[0]
        self.behind = self.J.copy()
        self.behind[:, 0] += weight[:, 0]
        self.weight, self.x, self.way = weight, x, random.standard_normal(n)
        self.bias = x - weight @ np.maximum(x, 0)

    def measured(self, active, distance):
        """The steady-state kernel at a distance of p, with unit 0 active or not, and that which its region predicts.

        The distance is a fraction of that at which another unit switches. theta are the weights and the biases: F F^T is
        1 + |relu(x)|^2 times the identity.
        """
        J = self.behind if active else self.J
        velocity = -np.linalg.solve(J, self.way)
        room = 0.5 * np.min(np.abs(self.x[1:] / velocity[1:]))
        p = distance * room * np.sign(velocity[0]) * (1 if active else -1)
        x = self.x + p * velocity
        assert (x[0] > 0) == active
        model = ssntk.CTRNN.from_weights(self.weight, bias=self.bias + p * self.way, activation=relu)
        inverse = np.linalg.inv(J)
        active_size = np.sum(np.maximum(self.x, 0) ** 2)
        return np.asarray(ssntk.steady_state_ntk(model, x)), (1 + active_size) * inverse @ inverse.T, p


@pytest.mark.parametrize(("n", "seed"), [*NETWORKS, *LARGER])
def test_n1_the_kernel_is_bounded_on_both_branches_of_a_nonsmooth_fold(n, seed):
    network = AtABorder(n, seed, -0.7)
    distances = np.array([1e-2, 1e-5, 1e-7])
    sides = []
    for active in (False, True):
        found = [network.measured(active, distance) for distance in distances]
        # With one size of steps for all states, the limit is reached linearly in the distance.
        np.testing.assert_allclose(found[-1][0], found[-1][1], rtol=1e-5, atol=1e-5 * np.abs(found[-1][1]).max())
        assert abs(slope(distances, [np.linalg.norm(kernel, 2) for kernel, _, _ in found])) < 1e-3
        sides.append(np.sign(found[0][2]))
    # Both branches exist on the same side of p = 0.
    assert sides[0] == sides[1]


@pytest.mark.parametrize("delta", [0.3, -0.7])
@pytest.mark.parametrize(("n", "seed"), [*NETWORKS, *LARGER])
def test_n3_the_kernel_jumps_by_a_matrix_of_rank_two(n, seed, delta):
    network = AtABorder(n, seed, delta)
    before, behind = (network.measured(active, 1e-9) for active in (False, True))
    jump = np.linalg.svd(behind[0] - before[0], compute_uv=False)
    assert jump[0] > 1e-3 * np.linalg.norm(before[0], 2)
    assert (jump[2:] < 1e-7 * max(np.linalg.norm(behind[0], 2), jump[0])).all()
    # Where the branch goes on, the two kernels belong to different sides of p = 0.
    assert (np.sign(before[2]) == np.sign(behind[2])) == (delta < 0)


@pytest.mark.parametrize(("n", "seed"), [(2, 0), (5, 1), (12, 2)])
def test_n3_the_jump_grows_as_one_over_delta_squared(n, seed):
    tops, limits = [], []
    deltas = np.array([1e-2, 1e-3, 1e-4])
    for delta in deltas:
        network = AtABorder(n, seed, delta)
        tops.append(np.linalg.norm(network.measured(True, 1e-9)[0], 2))
        # J'^-1 = J^-1 - J^-1 W_0 e_0^T J^-1 / delta, and the last term is all that is left.
        column, row = np.linalg.solve(network.J, network.weight[:, 0]), np.linalg.inv(network.J)[0]
        limits.append((1 + np.sum(np.maximum(network.x, 0) ** 2)) * (column @ column) * (row @ row) / delta**2)
    assert slope(deltas, tops) == pytest.approx(-2, rel=1e-2)
    np.testing.assert_allclose(tops[-1], limits[-1], rtol=1e-2)


def field(fn, theta, cell=ssntk.VectorField):
    """A model of one state, whose parameters are the numbers of a dict."""
    return cell(lambda t, x, u, p: fn(x, p), theta, 1)


def steady(model, x):
    return float(ssntk.steady_state_ntk(model, [x])[0, 0])


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("beta", [10.0, 100.0, 1000.0])
def test_n2_softplus_warns_only_within_one_over_its_sharpness(a, b, beta):
    """dx/dt = -a x + (a + b) log(1 + e^(beta x)) / beta + p, with the slopes -a and b far from x = 0."""

    def smooth(x, p):
        return -p["a"] * x + (p["a"] + p["b"]) * jax.nn.softplus(p["beta"] * x) / p["beta"] + p["p"]

    def force(x):
        return -a * x + (a + b) * np.logaddexp(0, beta * x) / beta

    # At the fold the slope of softplus is a / (a + b).
    place = np.log(a / b) / beta

    def kernel(distance):
        p = -force(place) - distance
        x = brentq(lambda x: force(x) + p, place - 2 * (distance / a + np.sqrt(distance / beta / a)) - 10 / beta, place)
        model = field(smooth, {"a": a, "b": b, "beta": beta, "p": p})
        return float(ssntk.steady_state_ntk(model, [x], wrt=lambda m: m.params["p"])[0, 0])

    near = 1e-7 / beta
    assert kernel(near) * near * beta == pytest.approx((a + b) / (2 * a * b), rel=1e-2)
    assert kernel(100 / beta) == pytest.approx(1 / a**2, rel=1e-2)


def passage(fn, time, start, distance):
    """(K(T, T), x(T)) for theta = p, on the way from a start through the bottleneck behind a fold."""
    model = field(lambda x, p: fn(x) + p["p"], {"p": distance})
    probe = ssntk.Probe([0.0, time / 2, time], x0=[start])
    accurate = ssntk.Integrator(rtol=1e-10, atol=1e-13)
    kernel = np.asarray(ssntk.ntk(model, probe, integrator=accurate))
    return kernel[-1, -1], float(ssntk.simulate(model, probe, integrator=accurate)[0, -1, 0])


@pytest.mark.slow
def test_n5_behind_a_nonsmooth_fold_the_kernel_grows_as_distance_to_minus_two():
    a, b, L = 1.0, 2.0, 1.0
    distances, kernels = np.array([1e-2, 1e-3, 1e-4]), []
    for d in distances:
        time = np.log((a * L + d) / d) / a + np.log((b * L + d) / d) / b
        kernel, end = passage(lambda x: -a * x + (a + b) * relu(x), time, -L, d)
        assert end == pytest.approx(L, rel=1e-5)
        # dx/dp at a fixed time is the speed at the end times the integral of 1 / speed^2 over the way.
        exact = (b * L + d) * ((1 / d - 1 / (a * L + d)) / a + (1 / d - 1 / (b * L + d)) / b)
        assert kernel == pytest.approx(exact**2, rel=1e-4)
        kernels.append(kernel)
    assert slope(distances, kernels) == pytest.approx(-2, rel=1e-2)
    assert kernels[-1] == pytest.approx(((1 / a + 1 / b) * b * L / distances[-1]) ** 2, rel=1e-2)
    assert time == pytest.approx((1 / a + 1 / b) * np.log(L / d) + np.log(a * L) / a + np.log(b) / b, rel=1e-2)


@pytest.mark.slow
def test_n5_behind_a_smooth_fold_it_grows_as_distance_to_minus_three():
    L = 1.0
    distances, kernels = np.array([1e-2, 1e-3, 1e-4]), []
    for d in distances:
        half = np.arctan(L / np.sqrt(d))
        kernel, end = passage(lambda x: x**2, 2 * half / np.sqrt(d), -L, d)
        assert end == pytest.approx(L, rel=1e-5)
        exact = (L**2 + d) * (L / (d * (L**2 + d)) + half / d**1.5)
        assert kernel == pytest.approx(exact**2, rel=1e-4)
        kernels.append(kernel)
    assert slope(distances, kernels) == pytest.approx(-3, rel=1e-2)
    assert 2 * half / np.sqrt(d) == pytest.approx(np.pi / np.sqrt(d), rel=1e-2)


@pytest.mark.parametrize(("n", "seed"), [(1, 0), (4, 1), (9, 2)])
def test_n6_on_the_way_to_infinity_weights_see_twice_the_exponent_of_biases(n, seed):
    """dx/dt = -x + (g - d) W relu(x) + b with positive W and b, and g W of spectral radius one."""
    random = np.random.default_rng(seed)
    weight, bias = random.uniform(0.1, 1.0, (n, n)), random.uniform(0.1, 1.0, n)
    weight /= np.abs(np.linalg.eigvals(weight)).max()
    distances = np.array([1e-3, 1e-4])
    states, biases, weights = [], [], []
    for d in distances:
        x = np.linalg.solve(np.eye(n) - (1 - d) * weight, bias)
        model = ssntk.CTRNN.from_weights(weight, bias=bias, gain=1 - d, activation=relu)
        states.append(np.linalg.norm(x))
        of_biases = ssntk.steady_state_ntk(model, x, wrt=lambda m: m.bias)
        of_weights = ssntk.steady_state_ntk(model, x, wrt=lambda m: m.weight)
        biases.append(np.linalg.norm(of_biases, 2))
        weights.append(np.linalg.norm(of_weights, 2))
        # F F^T = (1 - d)^2 |x|^2, since all units are active.
        np.testing.assert_allclose(of_weights, (1 - d) ** 2 * (x @ x) * np.asarray(of_biases), rtol=1e-8)
    found = [slope(distances, values) for values in (states, biases, weights)]
    np.testing.assert_allclose(found, [-1, -2, -4], rtol=1e-2)


def test_n7_a_degenerate_flip_is_silent_at_rest():
    """x' = w relu(x) + h has x* = h / (1 - w), and its flip at w = -1."""
    for d in (1e-2, 1e-5):
        w = -1 + d
        model = field(lambda x, p: p["w"] * relu(x) + p["h"], {"h": 1.0, "w": w}, ssntk.Map)
        # dx/dh = 1 / (1 - w) and dx/dw = x / (1 - w).
        assert steady(model, 1 / (1 - w)) == pytest.approx((1 + (1 - w) ** -2) / (1 - w) ** 2, rel=1e-9)


def logistic(r):
    return field(lambda x, p: p["r"] * x * (1 - x), {"r": r}, ssntk.Map)


def two_cycle(r):
    """The larger point of the cycle of two steps of the logistic map."""
    return (r + 1 + np.sqrt((r - 3) * (r + 1))) / (2 * r)


def by_complex_step(function, r):
    return float(np.imag(function(r + 1e-30j)) / 1e-30)


# A map with slopes 0.5 and -2, whose cycle of two steps is (-p / 2, 3 p / 4) for p > 0.
def bordered(p):
    return field(lambda x, q: q["p"] + 0.5 * x - 2.5 * relu(x), {"p": p}, ssntk.Map)


@pytest.mark.parametrize(
    ("family", "state", "centre", "sign", "period", "exponent"),
    [
        (logistic, lambda r: 1 - 1 / r, 3.0, -1, 1, 0),
        (logistic, two_cycle, 3.0, 1, 2, -1),
        (logistic, two_cycle, 1 + np.sqrt(6), -1, 2, 0),
        (bordered, lambda p: 0.75 * p, 0.0, 1, 2, 0),
    ],
    ids=["before the flip", "after the birth", "before its own flip", "born at a border"],
)
def test_n8_cycles_of_maps(family, state, centre, sign, period, exponent):
    distances, kernels = np.array([1e-3, 1e-4, 1e-5]), []
    for d in distances:
        p = centre + sign * d
        kernels.append(steady(ssntk.Iterated(family(p), period), float(np.real(state(p)))))
        assert kernels[-1] == pytest.approx(by_complex_step(state, p) ** 2, rel=1e-5)
    assert slope(distances, kernels) == pytest.approx(exponent, abs=1e-2)


def test_n8_the_cycle_of_three_steps_behind_its_saddle_node():
    distances, kernels = np.array([1e-4, 1e-5]), []
    for d in distances:
        r, x = 1 + np.sqrt(8) + d, 0.5
        # The cycle attracts, and x = 1/2 goes to it.
        for _ in range(30_000):
            x = r * x * (1 - x)
        kernels.append(steady(ssntk.Iterated(logistic(r), 3), x))
        # d F^3 / dx and d F^3 / dr along the three steps.
        slopes, moved, y = 1.0, 0.0, x
        for _ in range(3):
            slopes, moved, y = slopes * r * (1 - 2 * y), moved * r * (1 - 2 * y) + y * (1 - y), r * y * (1 - y)
        assert kernels[-1] == pytest.approx((moved / (1 - slopes)) ** 2, rel=1e-4)
    assert slope(distances, kernels) == pytest.approx(-1, abs=2e-2)
