"""Names and arguments that newcomers try first either work, or raise an error that names the right call.

Compiles: one branch and one search of a pendulum with two states.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import fold_sweep

import ssntk
from ssntk import hints


def pendulum(t, x, u, params):
    """A vector field that returns a list of numbers and scalars, as for scipy, XPPAUT and PyDSTool."""
    return [x[1], params["I"] - jnp.sin(x[0]) - params["rates"][1] * x[1]]


def model():
    return ssntk.VectorField(pendulum, {"I": 0.0, "rates": [0.5, 0.25]}, 2)


def test_a_list_of_scalars_is_a_velocity():
    field = model()
    x = jnp.array([0.3, -2.0])
    expected = np.array([-2.0, -np.sin(0.3) + 0.25 * 2.0])
    assert np.allclose(field.vector_field(0.0, x, jnp.zeros(0)), expected, rtol=1e-15, atol=0)
    still = ssntk.VectorField(lambda t, x, u, p: (0.0, -x[1], 1), (), 3)
    assert np.array_equal(still.vector_field(0.0, jnp.arange(3.0), jnp.zeros(0)), [0.0, -1.0, 1.0])


@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda t, x, u, p: [x[1]], r"\(1,\)"),
        (lambda t, x, u, p: [x, x], "list"),
        (lambda t, x, u, p: (x[0], None), "tuple"),
        (lambda t, x, u, p: {"a": x[0]}, "dict"),
    ],
)
def test_a_list_of_anything_else_is_refused(fn, got):
    with pytest.raises(ValueError, match=rf"fn must return shape \(2,\), got {got}"):
        ssntk.VectorField(fn, (), 2)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: ssntk.EulerMap(m, 0.5)], ids=["flow", "map"])
@pytest.mark.parametrize("name", ["I", "params.I", "params['I']", 'params["I"]'])
def test_a_parameter_goes_by_its_name(name, wrap):
    family = ssntk.Family(wrap(model()), name)
    assert family.at == ssntk.Family(wrap(model()), lambda m: m.params["I"]).at
    assert family(0.7).params["I"] == 0.7


@pytest.mark.parametrize("name", ["rates.1", "params.rates.1", "params.rates[1]", "rates[1]"])
def test_a_place_in_a_list_is_part_of_a_name(name):
    assert [float(rate) for rate in ssntk.Family(model(), name)(0.7).params["rates"]] == [0.5, pytest.approx(0.7)]


def test_a_name_of_the_model_goes_before_one_of_its_params():
    class Own(ssntk.VectorField):
        tau: jnp.ndarray = None

    own = Own(lambda t, x, u, p: -p["tau"] * x, {"tau": 2.0}, 1)
    object.__setattr__(own, "tau", jnp.asarray(3.0))
    assert ssntk.Family(own, "tau")(5.0).tau == 5.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("i", r"attribute 'i' is not one of VectorField; did you mean 'params.I'\? Known are params.I, params.rates.0"),
        ("params.J", "did you mean|known are params.I, params.rates.0, params.rates.1$"),
        ("rates.7", "is not one of VectorField"),
        ("params.items", "'params.items' is not one of VectorField"),
        ("", "attribute '' is not one of VectorField"),
        ("rate.1", r"did you mean 'params.rates.1'\?"),
        ("fn", "attribute must return floating-point arrays"),
    ],
)
def test_an_unknown_name_is_answered_by_those_that_there_are(name, message):
    with pytest.raises(ValueError, match=message):
        ssntk.Family(model(), name)


def test_an_array_is_not_one_parameter():
    network = ssntk.CTRNN.from_weights(np.eye(2))
    with pytest.raises(ValueError, match=r"attribute must be one scalar, .*Family.line"):
        ssntk.Family(network, "weight")
    with pytest.raises(ValueError, match=r"'taus' is not one of CTRNN; did you mean 'tau'\?"):
        ssntk.Family(network, "taus")


@pytest.mark.parametrize(
    ("normal_form", "alias", "kind"),
    [
        (ssntk.normal_forms.saddle_node(1.0), "fold", "saddle-node"),
        (ssntk.normal_forms.saddle_node(1.0), "LP", "saddle-node"),
        (ssntk.normal_forms.pitchfork(1.0), "BP", "pitchfork"),
        pytest.param(ssntk.normal_forms.transcritical(1.0), "BP", "transcritical", marks=pytest.mark.slow),
        pytest.param(ssntk.normal_forms.hopf(1.0, 2.0), "HB", "hopf", marks=pytest.mark.slow),
    ],
)
def test_a_kind_goes_by_the_names_that_others_have_for_it(normal_form, alias, kind):
    found = ssntk.locate(ssntk.Family(normal_form, "mu"), alias, parameter=0.01, x=0.01 * np.ones(normal_form.n_state))
    assert found.kind == kind
    assert found.parameter == pytest.approx(0.0, abs=1e-8)


def test_a_plan_is_the_same_under_every_name_of_a_kind(tmp_path):
    plans = {name: fold_sweep(towards=name) for name in ("saddle-node", "fold", "LP", "lp")}
    assert {plan.towards for plan in plans.values()} == {"saddle-node"}
    assert len({plan.hash() for plan in plans.values()}) == 1
    lines = '{} = "{}"\nspan = [-4.0, 4.0]\ndistances = [0.1]\nprobe = {{ ts = [0.0, 1.0] }}\n'
    lines += "model = {{ n_state = 2, n_input = 1, n_output = 1, seed = 0 }}\nfamily = {{ input = {{ direction = [1.0] }} }}"
    hashes = set()
    for name in ("saddle-node", "fold"):
        (tmp_path / "sweep.toml").write_text(lines.format("towards", name))
        hashes.add(ssntk.Sweep.from_toml(tmp_path / "sweep.toml").hash())
    assert len(hashes) == 1


def test_a_map_has_flips_and_neimark_sacker_points():
    model = ssntk.EulerMap(ssntk.VectorField(lambda t, x, u, p: -p["a"] * x + x**3, {"a": 1.9}, 1), 1.0)
    # The multiplier of x = 0 is 1 - a.
    found = ssntk.locate(ssntk.Family(model, "a"), "PD", parameter=1.9, x=[0.0])
    assert (found.kind, found.parameter) == ("flip", pytest.approx(2.0, abs=1e-12))
    with pytest.raises(ValueError, match=r"'neimark-sacker'.*got 'HB', which is 'hopf'"):
        ssntk.locate(ssntk.Family(model, "a"), "HB", parameter=1.9, x=[0.0])
    with pytest.raises(ValueError, match=r"'neimark-sacker'.*got 'hopf'$"):
        ssntk.approach(model, "hopf")


def test_an_alias_that_does_not_fit_says_what_it_is():
    with pytest.raises(ValueError, match="got 'PD', which is 'flip'"):
        ssntk.locate(ssntk.Family(ssntk.normal_forms.hopf(1.0, 2.0), "mu"), "PD", parameter=0.0, x=[0.0, 0.0])
    with pytest.raises(ValueError, match=r"towards must be one of .*got 'branch-point', a branch point"):
        fold_sweep(towards="BP")
    with pytest.raises(ValueError, match=r"kind must be one of 'singular', .*got 'BP', a branch point"):
        ssntk.approach(ssntk.CTRNN.from_weights(np.eye(2) / 2), "BP")
    with pytest.raises(ValueError, match=r"got 'cusp'$"):
        fold_sweep(towards="cusp")
    assert ssntk.laws.steady_state("LP", 0.5) == ssntk.laws.steady_state("saddle-node", 0.5) == 0.5
    assert ssntk.laws.landing("HB", "omega", 4.0) == 4.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Monitor", "ssntk has no attribute 'Monitor': use ssntk.NTKMonitor(probe)"),
        ("check", "use ssntk.criticality(model), or warn_if_near_critical(net)"),
        ("diagnose", "use ssntk.criticality(model)"),
        ("from_equinox", "use ssntk.from_cell(cell, n_state=, n_input=)"),
        ("fixed_points", "use ssntk.find_fixed_points(model)"),
        ("normal_form", "use ssntk.locate(family, kind, parameter=, x=)"),
        ("linearized_training", "use ssntk.linearised_training("),
        ("bifurcation_diagramm", "did you mean ssntk.bifurcation_diagram"),
        ("Ctrnn", "did you mean ssntk.CTRNN"),
        ("qwertyuiop", "ssntk has no attribute 'qwertyuiop'; dir(ssntk) lists all"),
    ],
)
def test_a_name_that_is_another_here_is_answered_by_that(name, said):
    with pytest.raises(AttributeError) as error:
        getattr(ssntk, name)
    assert said in str(error.value)
    assert not hasattr(ssntk, name)


def test_every_hint_leads_to_a_name_that_there_is():
    for hint in hints.KNOWN.values():
        assert hint.partition("(")[0].partition(",")[0] in ssntk.__all__, hint


def test_an_input_goes_by_its_index():
    network = ssntk.CTRNN.from_weights(np.eye(2) / 2, np.eye(2))
    family = ssntk.Family.input(network, 1, [0.5, 0.0])
    assert np.array_equal(family(2.0).added_input, [0.5, 2.0])
    for index in (2, -1):
        with pytest.raises(ValueError, match=rf"direction must be the index of one of 2 inputs, .*got {index}"):
            ssntk.Family.input(network, index)
    with pytest.raises(ValueError, match=r"direction must have shape \(2,\)"):
        ssntk.Family.input(network, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda family: ssntk.continuation(family, (0.0, 1.0), x0=[0.0, 0.0]),
        lambda family: ssntk.continuation(family, (0.0, 1.0)),
        lambda family: ssntk.bifurcation_diagram(family, (0.0, 1.0)),
        lambda family: ssntk.locate(family, "LP", parameter=0.0, x=[0.0]),
    ],
)
@pytest.mark.parametrize("family", [pendulum, model()], ids=["function", "model"])
def test_a_function_is_no_family_and_the_message_says_how_to_make_one(call, family):
    with pytest.raises(
        ValueError, match=r"family must be an ssntk.Family, got .*ssntk.Family\(model, .*ssntk.VectorField\(fn"
    ):
        call(family)


def test_times_alone_are_a_probe():
    decay = ssntk.VectorField(lambda t, x, u, p: [-x[0], -2 * x[1]], (), 2)
    states = ssntk.simulate(decay, [0, 1, 2], x0=[1.0, 3.0])
    assert states.shape == (1, 3, 2)
    assert np.allclose(states[0], np.exp([[0, 0], [-1, -2], [-2, -4]]) * [1, 3], rtol=1e-7)
    with pytest.raises(ValueError, match=r"x0 must be given in the probe, ssntk.Probe\(ts, us, x0\)"):
        ssntk.simulate(decay, ssntk.Probe([0.0, 1.0]), x0=[1.0, 3.0])
    for other in (100.0, pendulum, [0.0, 100.0]):
        with pytest.raises(ValueError, match=r"probe must be an ssntk.Probe, got .*: write ssntk.Probe\(ts, us, x0\)"):
            ssntk.simulate(decay, other)


def test_states_of_trajectories_are_starts_and_a_batch_of_inputs_is_asked_one_by_one():
    network = ssntk.CTRNN.from_weights(np.zeros((1, 1)), [[1.0, 2.0]])
    starts = np.linspace(-1, 1, 6).reshape(2, 3, 1)
    # x' = -x + u0 + 2 u1.
    found = ssntk.find_fixed_points(network, [1.0, 0.25], starts=starts)
    assert np.allclose(found.x, [[1.5]])
    assert found.n_starts == 6
    with pytest.raises(ValueError, match=r"u must have shape \(2,\), one constant input, got \(3, 2\): ask for each row"):
        ssntk.find_fixed_points(network, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"starts must have shape \(k, 1\), got \(2, 3, 2\)"):
        ssntk.find_fixed_points(network, starts=np.ones((2, 3, 2)))


def test_what_results_do_not_have_is_answered_by_what_they_have():
    branch = ssntk.continuation(ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu"), (1.0, -1.0), x0=[1.0])
    with pytest.raises(AttributeError, match=r"Branch has no attribute 'to_dict': use to_xarray\(\), or to_csv\(path\)"):
        branch.to_dict()
    with pytest.raises(AttributeError, match="Branch has no attribute 'specialpoint': use bifurcations"):
        branch.specialpoint  # noqa: B018
    assert not hasattr(branch, "nothing_like_it")
    with pytest.raises(TypeError, match="plot has no argument 'vars': use y=, a state's index"):
        branch.plot(vars=(0, 1))
    with pytest.raises(TypeError, match="update has no argument 'optimiser_state': use optimiser="):
        ssntk.NTKMonitor(ssntk.Probe([0.0, 1.0], [[1.0]])).update(0, ssntk.CTRNN(2, 1, 1, key=jr.key(0)), optimiser_state=1)
