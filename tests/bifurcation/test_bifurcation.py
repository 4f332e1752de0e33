import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import BRANCHES, ROOT, arrays, flip_flop, reference_family, some

import ssntk

nf = ssntk.normal_forms


def kinds(branch):
    return [event.kind for event in branch.bifurcations]


@pytest.mark.parametrize("name", some(BRANCHES, [name for name in BRANCHES if name != "rnn100"]))
def test_reference_branches_all_found_none_spurious(name):
    family, x0, span, events = reference_family(name)
    branch = ssntk.continuation(family, span, x0=x0)
    assert kinds(branch) == [event["kind"] for event in events]
    assert branch.unresolved == ()
    assert branch.status == f"left the span at p = {span[1]:g}"
    for found, event in zip(branch.bifurcations, events, strict=True):
        # Rounding: the condition of the extended systems is below 100.
        assert abs(found.parameter - float(event["p"])) < 1e-13
        np.testing.assert_allclose(found.x, event["x"], atol=1e-12)
        np.testing.assert_allclose(found.frequency, float(event.get("frequency", 0.0)), atol=1e-12)
        assert found.interval[0] <= float(event["p"]) <= found.interval[1]
        assert found.interval[1] - found.interval[0] < 1e-12
        assert found.residual < 1e-12
        assert found.converged


def test_branch_points_are_equilibria_with_their_eigenvalues():
    family, x0, span, _ = reference_family("wc2")
    system = BRANCHES["wc2"]
    weight, b = np.asarray(system["W"]), np.asarray(system["b"])
    branch = ssntk.continuation(family, span, x0=x0)
    assert branch.parameter[0] == span[0]
    np.testing.assert_allclose(branch.parameter[-1], span[1], rtol=1e-14)
    residual = -branch.x + np.tanh(branch.x) @ weight.T + branch.parameter[:, None] * b + np.asarray(system["c"])
    np.testing.assert_allclose(residual, 0.0, atol=1e-12)
    for x, values, stable in zip(branch.x, branch.eigenvalues, branch.stable, strict=True):
        jacobian = (-np.eye(2) + weight * (1 - np.tanh(x) ** 2)) / np.asarray(system["tau"])[:, None]
        np.testing.assert_allclose(np.sort(values), np.sort(np.linalg.eigvals(jacobian)), atol=1e-11)
        assert stable == (np.linalg.eigvals(jacobian).real.max() < 0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.4, 2.0])
def test_random_networks_the_other_way_and_at_a_fifth_of_the_step(gain, seed):
    family = ssntk.Family.input(ssntk.CTRNN(32, 1, 1, gain=gain, key=jr.key(100 + seed)), [1.0])
    branch = ssntk.continuation(family, (-4.0, 4.0))
    back = ssntk.continuation(family, (4.0, -4.0))
    fine = ssntk.continuation(family, (-4.0, 4.0), step=0.01)
    assert branch.unresolved == back.unresolved == fine.unresolved == ()
    assert kinds(branch) == kinds(back)[::-1] == kinds(fine)
    here, there, finer = ([event.parameter for event in b.bifurcations] for b in (branch, back, fine))
    # Each located to rounding; a close pair of folds is conditioned worse.
    np.testing.assert_allclose(here, there[::-1], atol=1e-10)
    np.testing.assert_allclose(here, finer, atol=1e-10)
    # Input enters an odd network: (p, x) -> (-p, -x) maps the branch to itself.
    np.testing.assert_allclose(here, -np.array(here[::-1]), atol=1e-10)


def test_normal_form_coefficients():
    fold = ssntk.continuation(ssntk.Family(nf.saddle_node(0.0), "mu"), (1.0, -1.0), x0=[1.0]).bifurcations
    assert [(event.kind, event.criticality) for event in fold] == [("saddle-node", None)]
    # x' = mu - x^2: at the origin, a = -1 for r = 1.
    np.testing.assert_allclose([fold[0].parameter, fold[0].x[0]], 0.0, atol=1e-14)
    np.testing.assert_allclose(fold[0].coefficient * fold[0].right[0], -1.0, rtol=1e-12)
    for sign, criticality in ((1.0, "supercritical"), (-1.0, "subcritical")):
        model = ssntk.VectorField(_rotor, {"mu": 0.0, "omega": 2.0, "sign": sign}, 2)
        family = ssntk.Family(model, lambda m: m.params["mu"])
        (event,) = ssntk.continuation(family, (-1.0, 1.0)).bifurcations
        assert (event.kind, event.criticality) == ("hopf", criticality)
        np.testing.assert_allclose([event.parameter, event.frequency], [0.0, 2.0], atol=1e-13)
        # Kuznetsov's l1 of dz/dt = i w z + c z |z|^2 with |q| = 1 is 2 Re c / w.
        np.testing.assert_allclose(event.coefficient, -2 * sign / 2.0, rtol=1e-12)


def _rotor(t, x, u, params):
    square = x @ x
    return (params["mu"] - params["sign"] * square) * x + params["omega"] * jnp.stack([-x[1], x[0]])


def test_brusselator_hopf_by_the_textbook():
    # Brusselator, dx/dt = a - (b + 1) x + x^2 y, dy/dt = b x - x^2 y: Hopf at b = 1 + a^2, frequency a, and
    # supercritical for every a (Guckenheimer and Holmes, 1983; Strogatz, exercise 8.3.1).
    def field(t, x, u, params):
        flow = x[0] ** 2 * x[1]
        return jnp.stack([params["a"] - (params["b"] + 1) * x[0] + flow, params["b"] * x[0] - flow])

    a = 1.3
    family = ssntk.Family(ssntk.VectorField(field, {"a": a, "b": 0.0}, 2), lambda m: m.params["b"])
    branch = ssntk.continuation(family, (1.0, 4.0), x0=[a, 1.0 / a])
    (event,) = branch.bifurcations
    np.testing.assert_allclose([event.parameter, event.frequency], [1 + a**2, a], rtol=1e-13)
    np.testing.assert_allclose(event.x, [a, (1 + a**2) / a], rtol=1e-13)
    assert event.criticality == "supercritical"


def test_neutral_saddle_is_no_hopf():
    # Eigenvalues p +- 1 beside -(p +- 1): real and opposite at p = 0, where a product test function changes sign.
    def field(t, x, u, p):
        return jnp.stack([(p + 1) * x[0], (p - 1) * x[1]]) + 0 * x**3

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2), lambda m: m.params)
    assert ssntk.continuation(family, (-0.5, 0.5)).bifurcations == ()


def test_two_modes_that_cross_together_are_double_and_not_called_anything_else():
    # x' = mu x - x^3 twice: the kernel has two dimensions, and four branches meet.
    model = ssntk.VectorField(lambda t, x, u, mu: mu * x - x**3, jnp.asarray(0.0), 2)
    branch = ssntk.continuation(ssntk.Family(model, lambda m: m.params), (-1.0, 1.1))
    assert branch.unresolved == ()
    (event,) = branch.bifurcations
    assert (event.kind, event.multiplicity, event.criticality) == ("double", 2, None)
    assert "2 real eigenvalues cross at once" in event.reason
    np.testing.assert_allclose([event.parameter, *event.interval], 0.0, atol=1e-12)


@pytest.mark.slow
def test_branches_with_over_twenty_points_at_a_tenth_of_the_step_and_by_brute_force():
    # The seeds are not selected by hand: of ten, those whose branch has more than twenty special points.
    shown = 0
    for seed in range(3000, 3010):
        family = ssntk.Family.input(ssntk.CTRNN(16, 1, 1, gain=2.5, key=jr.key(seed)), [1.0])
        branch = ssntk.continuation(family, (-3.0, 3.0))
        if len(branch.bifurcations) <= 20:
            continue
        shown += 1
        fine = ssntk.continuation(family, (-3.0, 3.0), step=0.005)
        assert branch.unresolved == fine.unresolved == ()
        assert kinds(branch) == kinds(fine)
        here, finer = ([event.parameter for event in b.bifurcations] for b in (branch, fine))
        # Each located to rounding; a close pair of folds is conditioned worse.
        np.testing.assert_allclose(here, finer, atol=1e-10)
        # The branch turns at each fold and nowhere else: between them it is passed as often as the folds say, and every
        # state in which it is passed is among the fixed points that are found there.
        folds = [event.parameter for event in branch.bifurcations if event.kind == "saddle-node"]
        for p in (-0.61, 0.23, 1.07):
            sides = branch.parameter < p
            passed = np.flatnonzero(sides[1:] != sides[:-1])
            turns = np.array([-3.0, *folds, 3.0]) < p
            assert len(passed) == (turns[1:] != turns[:-1]).sum()
            found = ssntk.find_fixed_points(family(p), n_starts=1024, key=jr.key(1)).x
            for j in passed:
                near = np.linalg.norm(found - branch.x[j], axis=1).min()
                assert near <= 2 * np.linalg.norm(branch.x[j + 1] - branch.x[j])
    assert shown >= 2


def test_critical_vectors_are_eigenvectors_of_the_located_point():
    family, x0, span, _ = reference_family("wc2")
    for event in ssntk.continuation(family, span, x0=x0).bifurcations:
        model = family(event.parameter)
        jacobian = np.asarray(jax.jacobian(lambda x, m=model: m.vector_field(0.0, x, jnp.zeros(1)))(jnp.asarray(event.x)))
        np.testing.assert_allclose(jacobian @ event.right, 1j * event.frequency * event.right, atol=1e-12)
        np.testing.assert_allclose(event.left @ jacobian, 1j * event.frequency * event.left, atol=1e-11)
        np.testing.assert_allclose([np.linalg.norm(event.right), event.left @ event.right], 1.0, atol=1e-12)


@pytest.mark.slow
def test_memories_of_the_trained_network_die_in_saddle_nodes():
    model = flip_flop()
    memories = ssntk.find_fixed_points(model).x[:4]
    family = ssntk.Family.input(model, [1.0, 0.0])
    for x in memories:
        # The first input opposes a memory whose first readout has the other sign.
        towards = -float(np.sign(model.readout(jnp.asarray(x))[0]))
        event = ssntk.continuation(family, (0.0, 0.5 * towards), x0=x).bifurcations[0]
        assert event.kind == "saddle-node"
        assert event.interval[1] - event.interval[0] < 1e-10
        # Brute force, with nothing of the package: the state follows the memory just before, and leaves it just after.
        w = dict(np.load(ROOT / "sweeps" / "flip_flop32.npz"))
        moved = [_relax(w, x, event.parameter + sign * 1e-3 * towards) for sign in (-1, 1)]
        assert np.abs(moved[0] - event.x).max() < 0.5
        assert np.abs(moved[1] - event.x).max() > 0.5


def _relax(w, x, p):
    for _ in range(20_000):
        x = x + 0.1 * (-x + w["weight"] @ np.tanh(x) + w["input_weight"][:, 0] * p + w["bias"])
    return x


def test_locate_from_a_rough_guess():
    family, _, _, events = reference_family("wc2")
    for event in events:
        guess = np.asarray(event["x"]) + 0.01
        found = ssntk.locate(family, event["kind"], parameter=float(event["p"]) + 0.01, x=guess)
        assert abs(found.parameter - float(event["p"])) < 1e-13
    with pytest.raises(ssntk.NumericalError, match="no hopf near"):
        ssntk.locate(ssntk.Family(nf.saddle_node(0.0), "mu"), "hopf", parameter=0.0, x=[0.0])
    # x' = mu + x + x^3 has no fold at all.
    monotone = ssntk.Family(ssntk.VectorField(lambda t, x, u, mu: mu + x + x**3, jnp.asarray(0.0), 1), lambda m: m.params)
    with pytest.raises(ssntk.NumericalError, match="no saddle-node near"):
        ssntk.locate(monotone, "saddle-node", parameter=0.3, x=[0.2])


def test_scalar_folds_away_from_the_origin_by_the_closed_form():
    # h + x/2 - x^3: folds at x = +-1/sqrt(6), h = -+ (1/3) sqrt(2/3) / 2.
    branch = ssntk.continuation(ssntk.Family(nf.pitchfork(0.5), "h"), (-1.0, 1.0))
    assert kinds(branch) == ["saddle-node", "saddle-node"]
    np.testing.assert_allclose([event.parameter for event in branch.bifurcations], [1 / 54**0.5, -1 / 54**0.5], rtol=1e-13)
    # a = l f_xx r^2 / 2 = -3 x.
    for event in branch.bifurcations:
        np.testing.assert_allclose(event.coefficient * event.right[0], -3 * event.x[0], rtol=1e-12)


def test_branch_points_do_not_pose_as_saddle_nodes():
    for model in (nf.transcritical(0.0), nf.pitchfork(0.0)):
        with pytest.raises(ssntk.NumericalError, match="no saddle-node near"):
            ssntk.locate(ssntk.Family(model, "mu"), "saddle-node", parameter=0.01, x=[0.0])
    # The result of Newton's iteration on a singular system depends on rounding, and differs between processors.
    tried = 0
    for seed in range(8):
        gain = ssntk.Family(ssntk.CTRNN(4, 0, 1, key=jr.key(seed)), "gain")
        values = np.linalg.eigvals(np.asarray(gain.model.weight))
        real = values[(values.imag == 0) & (values.real > 0.1)].real
        if real.size:
            with pytest.raises(ssntk.NumericalError, match="branch point"):
                ssntk.locate(gain, "saddle-node", parameter=1.01 / real.max(), x=np.zeros(4))
            tried += 1
    assert tried >= 4


def test_a_branch_point_just_beyond_the_span_is_not_reported():
    branch = ssntk.continuation(ssntk.Family(nf.pitchfork(-1.0), "mu"), (-1.0, -1e-3))
    assert branch.bifurcations == branch.unresolved == ()


def test_a_state_too_small_for_the_absolute_scale_is_not_answered_wrongly():
    # Equilibria p + y - y^3 = 0 with y = x / 1e-6.
    def field(t, x, u, p):
        y = x[0] / 1e-6
        return jnp.stack([1e-6 * (p + y - y**3), -x[1]])

    family = ssntk.Family(ssntk.VectorField(field, jnp.asarray(0.0), 2), lambda m: m.params)
    branch = ssntk.continuation(family, (-1.0, 1.0), x0=[-1.3247e-6, 0.0])
    y = branch.x[:, 0] / 1e-6
    np.testing.assert_allclose(branch.parameter + y - y**3, 0.0, atol=1e-6)


def test_affine_change_of_coordinates_and_of_time_moves_no_point(getkey):
    family, x0, span, events = reference_family("wc2")
    model = family.model
    turn = np.asarray(jr.normal(getkey(), (2, 2))) + 2 * np.eye(2)
    shift, speed = np.array([0.3, -2.0]), 7.0

    back = jnp.asarray(turn)

    def field(t, y, u, p):
        return speed * jnp.linalg.solve(back, model.vector_field(t, back @ y + jnp.asarray(shift), p[None]))

    moved = ssntk.VectorField(field, jnp.asarray(0.0), 2)
    branch = ssntk.continuation(ssntk.Family(moved, lambda m: m.params), span, x0=np.linalg.solve(turn, x0 - shift))
    assert kinds(branch) == [event["kind"] for event in events]
    for found, event in zip(branch.bifurcations, events, strict=True):
        assert abs(found.parameter - float(event["p"])) < 1e-12
        np.testing.assert_allclose(turn @ found.x + shift, event["x"], atol=1e-11)
        np.testing.assert_allclose(found.frequency, speed * float(event.get("frequency", 0.0)), atol=1e-11)


def test_families(getkey):
    model = ssntk.CTRNN(3, 2, 1, key=getkey())
    assert float(ssntk.Family(model, "tau")(0.3).tau) == 0.3
    assert float(ssntk.Family(model, lambda m: m.gain)(0.3).gain) == 0.3
    direction = eqx.tree_at(lambda m: m.bias, jax.tree.map(jnp.zeros_like, arrays(model)), jnp.arange(3.0))
    line = ssntk.Family.line(model, direction)
    np.testing.assert_allclose(line(2.0).bias, 2.0 * np.arange(3.0))
    np.testing.assert_array_equal(line(2.0).weight, model.weight)
    x, u = jnp.ones(3), jnp.array([0.1, 0.2])
    pushed = ssntk.Family.input(model, [1.0, 0.0], [0.0, 0.5])(2.0)
    np.testing.assert_array_equal(pushed.vector_field(0.0, x, u), model.vector_field(0.0, x, u + jnp.array([2.0, 0.5])))
    np.testing.assert_array_equal(pushed.weight, model.weight)


@pytest.mark.slow
def test_from_one_network_to_another():
    """A fold at mu = 0 lies where the line passes it, from either end; networks are met at both, to rounding."""
    below, above = nf.saddle_node(-1.0), nf.saddle_node(3.0)
    for first, second, where in ((below, above, 0.25), (above, below, 0.75)):
        (fold,) = ssntk.bifurcation_diagram(ssntk.Family.between(first, second), (0.0, 1.0)).bifurcations
        assert fold.kind == "saddle-node"
        assert abs(fold.parameter - where) < 1e-12
    first, second = (ssntk.CTRNN(3, 2, 1, key=jr.key(seed)) for seed in (0, 1))
    line = ssntk.Family.between(first, second)
    for model, at in ((first, 0.0), (second, 1.0)):
        # Two roundings of numbers of order one.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-15), arrays(line(at)), arrays(model))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m: ssntk.Family(m, "taus"), "attribute"),
        (lambda m: ssntk.Family(m, "bias"), "one scalar"),
        (lambda m: ssntk.Family(m, lambda m: m.gain * 2), "attribute must return"),
        (lambda m: ssntk.Family.line(m, {"bias": np.ones(3)}), "direction"),
        (lambda m: ssntk.Family.line(m, jax.tree.map(jnp.zeros_like, arrays(m))), "direction must not be zero"),
        (lambda m: ssntk.Family.between(m, m), "second must not be the same"),
        (lambda m: ssntk.Family.between(m, ssntk.CTRNN(4, 2, 1, key=jr.key(0))), "second must be a model like first"),
        (lambda m: ssntk.Family.between(m, ssntk.CTRNN(3, 2, 1, form="rate", key=jr.key(1))), "second must be a model like"),
        (lambda m: ssntk.Family.between(m, nf.pitchfork(0.0)), "second must be a model like first"),
        (lambda m: ssntk.Family.between(m, eqx.tree_at(lambda m: m.tau, m, jnp.nan)), "second.tau must be finite"),
        (lambda m: ssntk.Family.input(m, [1.0]), "direction"),
        (lambda m: ssntk.Family.input(m, [0.0, 0.0]), "direction must not be zero"),
        (lambda m: ssntk.Family.input(m, [1.0, 0.0], [1.0]), "offset"),
    ],
)
def test_bad_families(make, match):
    with pytest.raises(ValueError, match=match):
        make(ssntk.CTRNN(3, 2, 1, key=jr.key(0)))


@pytest.mark.parametrize(
    ("span", "arguments", "match"),
    [
        ((1.0, 1.0), {}, "span must not be empty"),
        ((0.0, np.nan), {}, "span"),
        ((0.0, 1.0, 2.0), {}, "span"),
        ((0.0, 1.0), {"x0": [0.0, 0.0]}, "x0"),
        ((0.0, 1.0), {"u": [1.0]}, "u must"),
        ((0.0, 1.0), {"step": 0.0}, "step"),
        ((0.0, 1.0), {"max_steps": 0}, "max_steps"),
    ],
)
def test_bad_continuations(span, arguments, match):
    with pytest.raises(ValueError, match=match):
        ssntk.continuation(ssntk.Family(nf.pitchfork(0.0), "mu"), span, **arguments)


def test_no_equilibrium_at_the_start_and_other_ends():
    fold = ssntk.Family(nf.saddle_node(0.0), "mu")
    with pytest.raises(ssntk.NumericalError, match="no equilibrium was found at p = -1: start elsewhere, or pass x0"):
        ssntk.continuation(fold, (-1.0, 1.0))
    nowhere = ssntk.Family(
        ssntk.VectorField(lambda t, x, u, p: jnp.log(-1 - x**2) * p, jnp.asarray(1.0), 1), lambda m: m.params
    )
    with pytest.raises(ssntk.NumericalError, match="the vector field is not finite at p = 1 and x = 0"):
        ssntk.continuation(nowhere, (1.0, 2.0))
    with pytest.raises(ssntk.NumericalError, match="no equilibrium near x0 at p = 1: the vector field is not finite there"):
        ssntk.continuation(nowhere, (1.0, 2.0), x0=[0.5])
    short = ssntk.continuation(fold, (1.0, -1.0), x0=[1.0], max_steps=7)
    assert len(short.x) == 7
    assert "max_steps" in short.status
    returned = ssntk.continuation(fold, (1.0, -1.0), x0=[1.0])
    assert returned.status == "left the span at p = 1"
    np.testing.assert_allclose(returned.x[-1], -1.0, rtol=1e-12)
    # x = log(p) ends at p = 0.
    edge = ssntk.VectorField(lambda t, x, u, p: jnp.log(p) - x, jnp.asarray(1.0), 1)
    ended = ssntk.continuation(ssntk.Family(edge, lambda m: m.params), (1.0, -1.0), x0=[0.0])
    assert "p = " in ended.status
    assert "left the span" not in ended.status
    assert ended.parameter.min() > 0


def test_new_weights_starts_and_spans_compile_nothing(compilations):
    def follow(seed, span):
        family = ssntk.Family.input(ssntk.CTRNN(12, 1, 1, gain=2.0, key=jr.key(seed)), [1.0])
        return ssntk.continuation(family, span)

    # Networks with folds and Hopf points, so that both locators are compiled; and with slow points, which are then polished.
    networks = [ssntk.Family.input(ssntk.CTRNN(12, 1, 1, gain=2.0, key=jr.key(seed)), [1.0]) for seed in range(6)]
    assert any(len(ssntk.find_fixed_points(family(1.0)).slow) for family in networks)
    met = {kind for seed in range(6) for kind in kinds(follow(seed, (-3.0, 3.0)))}
    assert met == {"saddle-node", "hopf"}
    before = len(compilations)
    branches = [follow(seed, (2.5, -2.0)) for seed in range(6, 10)]
    assert len({len(branch.x) for branch in branches}) > 1
    assert len(compilations) == before


@pytest.mark.parametrize("x", [[0.0, 0.0], [3e-16, -2e-17], [1e-12, 0.0]])
def test_a_state_that_is_zero_up_to_rounding_is_located(x):
    # z' = (mu + i) z - z |z|^2: the effect of mu at x is what rounding left of it, and says nothing on the unit of mu.
    of = ssntk.Family(ssntk.normal_forms.hopf(0.5, 1.0), "mu")
    point = ssntk.locate(of, "hopf", parameter=3e-6, x=x)
    assert abs(point.parameter) < 1e-15
    assert point.criticality == "supercritical"
    np.testing.assert_allclose(point.frequency, 1.0, rtol=1e-12)
