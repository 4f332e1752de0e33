"""Kinds and coefficients: closed forms after a random affine change of coordinates, and what others published."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import some

import ssntk

N = 20
BASIS = np.asarray(jr.normal(jr.key(0), (N, N))) / N**0.5 + np.eye(N)
SHIFT = np.asarray(jr.normal(jr.key(1), (N,)))
RATES = 1.0 + np.asarray(jr.uniform(jr.key(2), (N,)))


def in_twenty(inner):
    """The family whose field is `inner(y, params)` (20,) in coordinates x = BASIS y + SHIFT."""

    def field(t, x, u, params):
        y = jnp.linalg.solve(jnp.asarray(BASIS), x - jnp.asarray(SHIFT))
        return jnp.asarray(BASIS) @ inner(y, params)

    return field


def real_mode(y, params):
    """y0' = c0 p + c1 p y0 + a y0^2 + b y0^3 + k y0 y1, y1' = -rate y1 + m y0^2: at the centre y1 = m y0^2 / rate."""
    p, c = params["p"], params["c"]
    first = c[0] * p + c[1] * p * y[0] + c[2] * y[0] ** 2 + c[3] * y[0] ** 3 + c[4] * y[0] * y[1]
    rest = -jnp.asarray(RATES) * y
    return rest.at[0].set(first).at[1].add(c[5] * y[0] ** 2)


REAL = in_twenty(real_mode)


def real_family(c):
    model = ssntk.VectorField(REAL, {"p": jnp.asarray(0.0), "c": jnp.asarray(c)}, N)
    return ssntk.Family(model, lambda m: m.params["p"])


def state(y0, y1):
    return BASIS[:, 0] * y0 + BASIS[:, 1] * y1 + SHIFT


@pytest.mark.parametrize(
    ("c", "kind", "criticality"),
    [
        ((1.0, 0.0, -0.7, 0.2, 0.5, 0.3), "saddle-node", None),
        ((0.0, 1.3, 0.8, 0.2, 0.5, 0.3), "transcritical", None),
        pytest.param((0.0, 1.3, 0.0, -1.0, 0.5, 0.3), "pitchfork", "supercritical", marks=pytest.mark.slow),
        ((0.0, 1.3, 0.0, 0.1, 0.5, 0.3), "pitchfork", "subcritical"),
        # The cubic term alone would make it subcritical: what the stable mode feeds back decides.
        ((0.0, 1.3, 0.0, 0.1, -0.9, 0.5), "pitchfork", "supercritical"),
    ],
)
def test_real_modes_in_twenty_dimensions(c, kind, criticality):
    family = real_family(c)
    if kind == "saddle-node":
        # p = 0.7 y^2 at first order: start on one arm.
        y = 0.5
        p = -(c[2] * y**2 + c[3] * y**3 + c[4] * c[5] * y**3 / RATES[1])
        branch = ssntk.continuation(family, (p, -0.1), x0=state(y, c[5] * y**2 / RATES[1]))
    else:
        branch = ssntk.continuation(family, (-0.5, 0.6), x0=SHIFT)
    (event,) = branch.bifurcations
    assert branch.unresolved == ()
    assert (event.kind, event.criticality) == (kind, criticality)
    # Rounding, by the condition number of BASIS (36).
    np.testing.assert_allclose(event.parameter, 0.0, atol=1e-12)
    np.testing.assert_allclose(event.x, SHIFT, atol=1e-11)
    length = np.linalg.norm(BASIS[:, 0])
    np.testing.assert_allclose(np.abs(event.right @ BASIS[:, 0]), length, rtol=1e-12)
    sign = np.sign(event.right @ BASIS[:, 0])
    # y0 = sign s / |BASIS e0| for the coordinate s along r.
    expected = sign * c[2] / length if kind != "pitchfork" else (c[3] + c[4] * c[5] / RATES[1]) / length**2
    np.testing.assert_allclose(event.coefficient, expected, rtol=1e-10)
    if kind != "saddle-node":
        # The branches: y0 = 0, and c1 p + a y0 = 0 or p = O(y0^2).
        other = (0.0, 1.0) if kind == "pitchfork" else (1.0, -c[1] / c[2])
        directions = [np.append(0 * BASIS[:, 0], 1.0), np.append(BASIS[:, 0] * other[1], other[0])]
        for direction in directions:
            cosines = np.abs(event.tangents @ direction) / np.linalg.norm(direction)
            np.testing.assert_allclose(cosines.max(), 1.0, rtol=1e-10)


def rotor(y, params):
    """z' = (p + i w) z + c z |z|^2 + k z y2, y2' = -rate y2 + m |z|^2: on the centre manifold y2 = m |z|^2 / rate."""
    p, w, c, k, m = (params[name] for name in ("p", "w", "c", "k", "m"))
    square = y[0] ** 2 + y[1] ** 2
    grow = p + c * square + k * y[2]
    rest = -jnp.asarray(RATES) * y
    rest = rest.at[0].set(grow * y[0] - w * y[1]).at[1].set(grow * y[1] + w * y[0])
    return rest.at[2].add(m * square)


ROTOR = in_twenty(rotor)


@pytest.mark.parametrize(
    ("c", "k", "criticality"), [pytest.param(-0.5, 0.2, "supercritical", marks=pytest.mark.slow), (-0.1, 0.9, "subcritical")]
)
def test_hopf_in_twenty_dimensions(c, k, criticality):
    w, m = 1.7, 0.6
    params = {"p": jnp.asarray(0.0), "w": w, "c": c, "k": k, "m": m}
    family = ssntk.Family(ssntk.VectorField(ROTOR, params, N), lambda model: model.params["p"])
    (event,) = ssntk.continuation(family, (-0.5, 0.6), x0=SHIFT).bifurcations
    assert (event.kind, event.criticality) == ("hopf", criticality)
    np.testing.assert_allclose([event.parameter, event.frequency], [0.0, w], atol=1e-12)
    # z q0 + c.c. with q0 = (e0 - i e1) / 2 is y, so the coordinate along the unit vector r is z |BASIS q0|.
    length = np.linalg.norm(BASIS[:, :2] @ np.array([1, -1j])) / 2
    np.testing.assert_allclose(event.coefficient, (c + k * m / RATES[2]) / w / length**2, rtol=1e-10)


def test_catalytic_oscillator_by_the_manual_of_matcont():
    # Bykov, Yablonskii and Kim's CO oxidation; figures printed in the MatCont manual (example "a catalytic oscillator").
    def field(t, x, u, q2):
        z = 1 - jnp.sum(x)
        rate = 10 * x[0] * x[1]
        return jnp.stack([5.0 * z**2 - 2 * x[0] ** 2 - rate, q2 * z - 0.1 * x[1] - rate, 0.0675 * (z - 0.4 * x[2])])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(2.0), 3), lambda m: m.params)
    branch = ssntk.continuation(family, (2.204678, 0.9), x0=[0.001137, 0.891483, 0.062345])
    assert [event.kind for event in branch.bifurcations] == ["hopf", "saddle-node", "saddle-node", "hopf"]
    published = [
        (1.051558, (0.016357, 0.523973, 0.328336), 1.070259e01),
        (1.042049, (0.024717, 0.450257, 0.375018), 1.166509e-01),
        (1.052200, (0.054030, 0.302241, 0.459807), 1.346534e-01),
        (1.040991, (0.077929, 0.233063, 0.492149), 4.332247e00),
    ]
    for event, (parameter, x, coefficient) in zip(branch.bifurcations, published, strict=True):
        # MatCont's own tolerance, 1e-6 in its test functions: states agree to 4e-6, coefficients to 3e-4.
        np.testing.assert_allclose(event.parameter, parameter, atol=2e-6)
        np.testing.assert_allclose(event.x, x, atol=5e-6)
        # MatCont prints omega l1, and a for one of the two signs of r.
        ours = event.coefficient * event.frequency if event.kind == "hopf" else abs(event.coefficient)
        np.testing.assert_allclose(ours, coefficient, rtol=3e-4)
    assert [event.criticality for event in branch.bifurcations] == ["subcritical", None, None, "subcritical"]


@pytest.mark.slow
def test_chemical_reactor_by_the_manual_of_auto():
    # Demo ab of AUTO-07p, p2 = 14, p3 = 2; figures printed in its manual.
    def field(t, x, u, p):
        rate = p * (1 - x[0]) * jnp.exp(x[1])
        return jnp.stack([rate - x[0], 14 * rate - 3 * x[1]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2), lambda m: m.params)
    branch = ssntk.continuation(family, (0.0, 0.15))
    published = [("saddle-node", 1.05739e-01), ("saddle-node", 8.89318e-02), ("hopf", 1.30900e-01)]
    assert [event.kind for event in branch.bifurcations] == [kind for kind, _ in published]
    for event, (_, parameter) in zip(branch.bifurcations, published, strict=True):
        # Six digits were printed.
        np.testing.assert_allclose(event.parameter, parameter, rtol=5e-6)


@pytest.mark.slow
def test_lorenz_by_the_closed_form():
    # Pitchfork at rho = 1; Hopf at s (s + b + 3) / (s - b - 1) with omega^2 = b (s + rho), subcritical (Strogatz, ch. 9).
    s, b = 10.0, 8.0 / 3.0

    def field(t, x, u, rho):
        return jnp.stack([s * (x[1] - x[0]), x[0] * (rho - x[2]) - x[1], x[0] * x[1] - b * x[2]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 3), lambda m: m.params)
    diagram = ssntk.bifurcation_diagram(family, (0.0, 30.0), n_slices=2, n_starts=64)
    assert len(diagram.branches) == 2
    assert diagram.unresolved == ()
    pitchfork, *hopf = diagram.bifurcations
    assert (pitchfork.kind, pitchfork.criticality) == ("pitchfork", "supercritical")
    # On the centre manifold x = y = w, z = w^2 / b: w' = s / (1 + s) ((rho - 1) w - w^3 / b), and |r| = 1 makes w^2 half.
    np.testing.assert_allclose([pitchfork.parameter, pitchfork.coefficient], [1.0, -s / (1 + s) / b / 2], rtol=1e-12)
    critical = s * (s + b + 3) / (s - b - 1)
    assert [(event.kind, event.criticality) for event in hopf] == [("hopf", "subcritical")] * 2
    for event in hopf:
        np.testing.assert_allclose([event.parameter, event.frequency**2], [critical, b * (s + critical)], rtol=1e-12)
    np.testing.assert_allclose(hopf[0].x[:2], -hopf[1].x[:2], rtol=1e-12)


def as_map(step, n, p):
    """The map x -> step(x, p) as a family over p."""
    model = ssntk.VectorField(lambda t, x, u, p: step(x, p) - x, jnp.asarray(p), n)
    return ssntk.Family(ssntk.EulerMap(model, 1.0), lambda m: m.params)


def test_maps_by_the_textbook():
    # Logistic map r x (1 - x): transcritical at r = 1, flip at r = 3; there f'' = -6 at x = 2/3, so c3 = f''^2 / 4 = 9.
    branch = ssntk.continuation(as_map(lambda x, r: r * x * (1 - x), 1, 2.0), (0.5, 4.0), x0=[-1.0])
    assert [event.kind for event in branch.bifurcations] == ["transcritical", "flip"]
    transcritical, flip = branch.bifurcations
    np.testing.assert_allclose([transcritical.parameter, abs(transcritical.coefficient)], 1.0, rtol=1e-13)
    np.testing.assert_allclose([flip.parameter, flip.x[0], flip.frequency], [3.0, 2 / 3, np.pi], rtol=1e-13)
    np.testing.assert_allclose(flip.coefficient, 9.0, rtol=1e-12)
    assert flip.criticality == "supercritical"
    # Its multiplier is 2 - r.
    np.testing.assert_allclose(branch.eigenvalues[:, 0], 2 - branch.parameter, atol=1e-12)
    np.testing.assert_array_equal(branch.stable, np.abs(2 - branch.parameter) < 1)
    # Henon map a - x^2 + b y, x: fold at -(1 - b)^2 / 4, flip at 3 (1 - b)^2 / 4.
    b = 0.3
    henon = as_map(lambda x, a: jnp.stack([a - x[0] ** 2 + b * x[1], x[0]]), 2, 0.0)
    flip, fold = ssntk.continuation(henon, (1.0, -1.0), x0=[0.8, 0.8]).bifurcations
    assert [(event.kind, event.criticality) for event in (flip, fold)] == [("flip", "supercritical"), ("saddle-node", None)]
    np.testing.assert_allclose([flip.parameter, fold.parameter], [0.75 * (1 - b) ** 2, -0.25 * (1 - b) ** 2], rtol=1e-13)
    # Delayed logistic map r x (1 - y), x: Neimark-Sacker at r = 2, turning by 60 degrees a step. Kuznetsov (example 4.2, as
    # |q|^2 = 2 there) has a = -2.
    delayed = as_map(lambda x, r: jnp.stack([r * x[0] * (1 - x[1]), x[0]]), 2, 1.5)
    (event,) = ssntk.continuation(delayed, (1.5, 2.5), x0=[1 / 3, 1 / 3]).bifurcations
    assert (event.kind, event.criticality) == ("neimark-sacker", "supercritical")
    np.testing.assert_allclose([event.parameter, event.frequency, event.coefficient], [2.0, np.pi / 3, -1.0], rtol=1e-12)


@pytest.mark.slow
def test_euler_steps_shift_the_hopf_point():
    # mu_c = (-1 + sqrt(1 - (dt w)^2)) / dt: |1 + dt (mu + i w)| = 1.
    dt, w = 0.1, 2.0
    family = ssntk.Family(ssntk.EulerMap(ssntk.normal_forms.hopf(0.0, w), dt), "mu")
    (event,) = ssntk.continuation(family, (-1.0, 1.0)).bifurcations
    assert event.kind == "neimark-sacker"
    np.testing.assert_allclose(event.parameter, (-1 + np.sqrt(1 - (dt * w) ** 2)) / dt, rtol=1e-12)
    np.testing.assert_allclose(event.frequency, np.arcsin(dt * w) / dt, rtol=1e-12)


@pytest.mark.slow
def test_maps_of_networks_have_the_flows_folds_and_tend_to_its_hopf_points():
    # A network's map has its folds where the flow has them; Neimark-Sacker points tend to its Hopf points with the step.
    model = ssntk.CTRNN(8, 1, 1, gain=2.5, key=jr.key(20))
    flow = ssntk.continuation(ssntk.Family.input(model, [1.0]), (-2.0, 2.0)).bifurcations
    assert {event.kind for event in flow} == {"saddle-node", "hopf"}
    distances = []
    for dt in (1e-2, 1e-3):
        found = ssntk.continuation(ssntk.Family.input(ssntk.EulerMap(model, dt), [1.0]), (-2.0, 2.0)).bifurcations
        assert [event.kind.replace("neimark-sacker", "hopf") for event in found] == [event.kind for event in flow]
        off = np.array([[a.parameter - b.parameter, a.frequency - b.frequency] for a, b in zip(found, flow, strict=True)])
        folds = np.array([event.kind == "saddle-node" for event in flow])
        # Rounding: the extended system is the same.
        np.testing.assert_allclose(off[folds], 0.0, atol=1e-11)
        distances.append(np.abs(off[~folds]).max())
        for a, b in zip(found, flow, strict=True):
            if b.kind == "hopf":
                # d of the map per step is omega l1 of the flow, to first order in the step.
                np.testing.assert_allclose(a.coefficient / dt, b.coefficient * b.frequency, rtol=50 * dt)
    np.testing.assert_allclose(distances[1] / distances[0], 0.1, rtol=0.1)


def polynomial(terms):
    """The scalar family whose field is the sum of v p^i x^j over terms {(i, j): v}."""
    c = np.zeros((4, 4))
    for at, value in terms.items():
        c[at] = value
    return ssntk.Family(ssntk.VectorField(power_series, {"c": jnp.asarray(c), "p": 0.0}, 1), lambda m: m.params["p"])


def power_series(t, x, u, params):
    powers = [jnp.stack([jnp.ones_like(v), v, v**2, v**3]) for v in (params["p"], x[0])]
    return (powers[0] @ params["c"] @ powers[1])[None]


@pytest.mark.parametrize("a", some([0.0371, 0.4], [0.0371]))
@pytest.mark.parametrize("d", some([1e-5, 1e-7, 1e-9], [1e-5, 1e-9]))
def test_two_crossings_close_together_are_both_found(a, d):
    # x ((p - a)^2 - d - x) and x (d - (p - a)^2 - x^2): crossings at a +- sqrt(d), where counts agree on either side.
    gap = np.sqrt(d)
    for terms, kind in (
        ({(2, 1): 1, (1, 1): -2 * a, (0, 1): a * a - d, (0, 2): -1}, "transcritical"),
        ({(2, 1): -1, (1, 1): 2 * a, (0, 1): d - a * a, (0, 3): -1}, "pitchfork"),
    ):
        branch = ssntk.continuation(polynomial(terms), (-1.0, 1.0), x0=[0.0])
        assert [event.kind for event in branch.bifurcations] == [kind] * 2
        # The crossings are roots of a quadratic: their own condition is 1 / gap.
        found = [event.parameter for event in branch.bifurcations]
        np.testing.assert_allclose(found, [a - gap, a + gap], atol=1e-15 / gap)


def test_two_folds_near_a_cusp_are_both_found():
    # p + e y - y^3 / 3 at y = x - a: folds at y = +- sqrt(e), p = -+ 2/3 e^(3/2).
    a, e = 0.0371, 1e-7
    family = polynomial({(1, 0): 1, (0, 3): -1 / 3, (0, 2): a, (0, 1): -a * a + e, (0, 0): a**3 / 3 - e * a})
    branch = ssntk.continuation(family, (-1.0, 1.0))
    assert [event.kind for event in branch.bifurcations] == ["saddle-node"] * 2
    np.testing.assert_allclose([event.x[0] - a for event in branch.bifurcations], [-np.sqrt(e), np.sqrt(e)], rtol=1e-6)


@pytest.mark.parametrize("s", [*(pytest.param(s, marks=pytest.mark.slow) for s in (3e-3, 1e-3, 1e-4)), 1e-6])
def test_two_pairs_that_cross_against_each_other_are_both_found(s):
    # One rotor loses its stability at s, another gains it at 0: two pairs change sides, and the count does not.
    def field(t, x, u, params):
        q, z, y = params["p"], x[:2], x[2:]
        turned = [w * jnp.stack([-v[1], v[0]]) for w, v in ((1.0, z), (2.0, y))]
        return jnp.concatenate([(q - params["s"]) * z + turned[0] - (z @ z) * z, -q * y + turned[1] - (y @ y) * y])

    family = ssntk.Family(ssntk.VectorField(field, {"s": s, "p": 0.0}, 4), lambda m: m.params["p"])
    first, second = ssntk.continuation(family, (-1.0, 1.1)).bifurcations
    np.testing.assert_allclose([first.parameter, second.parameter], [0.0, s], atol=1e-13)
    np.testing.assert_allclose([first.frequency, second.frequency], [2.0, 1.0], rtol=1e-12)


def test_branches_that_nearly_touch_are_not_exchanged():
    pitchfork = ssntk.continuation(polynomial({(1, 1): 1, (0, 3): -1, (0, 0): 1e-9}), (-1.0, 1.0), x0=[0.0])
    assert pitchfork.bifurcations == pitchfork.unresolved == ()
    assert pitchfork.stable.all()
    transcritical = ssntk.continuation(polynomial({(1, 1): 1, (0, 2): -1, (0, 0): -1e-8}), (-1.0, 1.0), x0=[0.0])
    (fold,) = transcritical.bifurcations
    np.testing.assert_allclose(fold.parameter, -2e-4, rtol=1e-9)
    assert transcritical.status == "left the span at p = -1"


def test_what_cannot_be_located_says_why():
    twins = ssntk.CTRNN.from_weights(np.eye(2) * 2.0, input_weight=np.ones((2, 1)))
    branch = ssntk.continuation(ssntk.Family.input(twins, [1.0]), (-2.0, 2.0))
    # Both units pass their fold together: the kernel has two dimensions.
    assert branch.bifurcations == ()
    # x - 2 tanh(x) turns where tanh(x)^2 = 1 / 2.
    x = np.arctanh(0.5**0.5)
    fold = x - 2 * np.tanh(x)
    np.testing.assert_allclose(np.abs([event.parameter for event in branch.unresolved]), abs(fold), atol=1e-6)
    assert {np.sign(event.parameter) for event in branch.unresolved} == {-1.0, 1.0}
    with pytest.raises(ssntk.NumericalError, match="the Jacobian is not finite there"):
        ssntk.locate(polynomial({(1, 1): 1, (0, 3): -1}), "pitchfork", parameter=0.0, x=[1e300])
    with pytest.raises(ssntk.NumericalError, match="x0 is at rest at p = 0 and the Jacobian is singular there"):
        ssntk.continuation(polynomial({(1, 1): 1, (0, 3): -1}), (0.0, 1.0), x0=[0.0])
