"""A user's own event, in a few lines: the fastest mode grows at the rate at which the second one decays.

Compiles one branch of three states, for a flow and for a map.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import seeds

import ssntk
from ssntk.bifurcation.events.interval import Change
from ssntk.zeros.track import Point


class NeutralSaddle(ssntk.AbstractTestEvent):
    """The fastest mode grows as the next one decays."""

    kind = ssntk.Kind("neutral-saddle", title="Neutral saddle", symbol="x", hue="sky")
    modes = 2

    def test(self, exponents):
        return exponents[0].real + exponents[1].real


def turned(t, x, u, params):
    """Modes that grow at the rates p, -1 and -3, in a basis of their own."""
    basis = params["basis"]
    return basis @ (jnp.stack([params["p"], jnp.asarray(-1.0), jnp.asarray(-3.0)]) * jnp.linalg.solve(basis, x))


@pytest.mark.parametrize("seed", seeds(1, 5))
@pytest.mark.parametrize(("dt", "expected"), [(None, 1.0), (0.25, 1 / (1 - 0.25))], ids=["flow", "map"])
def test_it_is_located_where_the_rates_cancel(seed, dt, expected):
    basis = np.eye(3) + 0.3 * np.random.default_rng(seed).standard_normal((3, 3))
    model = ssntk.VectorField(turned, {"basis": jnp.asarray(basis), "p": jnp.asarray(0.3)}, 3)
    # (1 + dt p) (1 - dt) = 1 for the map.
    family = ssntk.Family(model if dt is None else ssntk.EulerMap(model, dt), "params.p")
    branch = ssntk.continuation(family, (0.3, 2.0), x0=np.zeros(3), events=NeutralSaddle())
    (point,) = branch.bifurcations
    assert point.kind == "neutral-saddle"
    assert branch.unresolved == ()
    # Eigenvalues of a basis that is conditioned as these are have a dozen digits.
    assert abs(point.parameter - expected) < 1e-11
    np.testing.assert_allclose(point.x, 0, atol=1e-14)


def test_pictures_and_sentences_know_its_name():
    model = ssntk.VectorField(turned, {"basis": jnp.eye(3), "p": jnp.asarray(0.3)}, 3)
    branch = ssntk.continuation(ssntk.Family(model, "params.p"), (0.3, 2.0), x0=np.zeros(3), events=NeutralSaddle())
    assert "neutral-saddle" in str(branch)
    legend = branch.plot().get_legend()
    assert "Neutral saddle" in [text.get_text() for text in legend.get_texts()]
    assert "neutral-saddle at p = 1" in repr(branch.bifurcations[0])


def grows(t, x, u, p):
    return p * x


class Faster(ssntk.AbstractTestEvent):
    """The fastest mode grows at a rate of one."""

    kind = ssntk.Kind("faster")

    def test(self, exponents):
        return exponents[0].real - 1


def test_a_test_that_is_zero_at_a_point_is_one_event():
    point = Point(np.zeros(2), np.ones(2), np.ones(()), np.zeros(1, complex), np.zeros(1))
    before, there, after = (point._replace(exponents=np.array([rate + 0j])) for rate in (0.5, 1.0, 1.5))
    assert [Faster().seen(Change(*ends)) for ends in ((before, there), (there, after), (before, after))] == [
        True,
        False,
        True,
    ]
    # The branch ends at the event.
    model = ssntk.VectorField(grows, 0.5, 1)
    branch = ssntk.continuation(ssntk.Family(model, "params"), (0.5, 1.0), x0=[0.0], events=[Faster()])
    assert [(event.kind, event.parameter) for event in branch.bifurcations] == [("faster", 1.0)]


def test_a_test_that_is_zero_where_the_branch_begins_is_one_event():
    model = ssntk.VectorField(grows, 1.0, 1)
    branch = ssntk.continuation(ssntk.Family(model, "params"), (1.0, 0.5), x0=[0.0], events=[Faster()])
    assert [(event.kind, event.parameter) for event in branch.bifurcations] == [("faster", 1.0)]


class Rises(Faster):
    """Only a rate that rises through one counts."""

    def seen(self, change):
        return bool(self.test(change.a.exponents) < 0 < self.test(change.b.exponents))


def test_an_event_may_depend_on_the_direction():
    family = ssntk.Family(ssntk.VectorField(grows, 1.0, 1), "params")
    (rises,) = ssntk.continuation(family, (0.9999, 2.0), x0=[0.0], events=[Rises()]).bifurcations
    np.testing.assert_allclose(rises.parameter, 1.0, rtol=1e-12)
    assert ssntk.continuation(family, (1.0001, 0.5), x0=[0.0], events=[Rises()]).bifurcations == ()


class Lost(ssntk.AbstractTestEvent):
    """Unknown while the fastest mode grows at a rate between 0.6 and 0.7, and between 1.2 and 1.3; zero at 0.9."""

    kind = ssntk.Kind("lost")

    def test(self, exponents):
        rate = exponents[0].real
        return np.nan if 0.6 < rate < 0.7 or 1.2 < rate < 1.3 else rate - 0.9


def test_a_test_that_is_not_finite_says_where():
    model = ssntk.VectorField(grows, 0.5, 1)
    branch = ssntk.continuation(ssntk.Family(model, "params"), (0.5, 1.5), x0=[0.0], events=[Lost()])
    np.testing.assert_allclose([event.parameter for event in branch.bifurcations], [0.9], rtol=1e-12)
    assert [event.kind for event in branch.unresolved] == ["lost", "lost"]
    for event, (first, last) in zip(branch.unresolved, [(0.6, 0.7), (1.2, 1.3)], strict=True):
        assert event.reason == "its test is NaN there"
        # The steps that touch the gap, and no others, lie in its interval.
        inside = branch.parameter[(branch.parameter > first) & (branch.parameter < last)]
        assert event.interval[0] <= first < last <= event.interval[1]
        assert len(inside) > 1
        assert event.interval[1] - event.interval[0] < last - first + 0.11


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (lambda self, exponents: exponents[5].real, r"events\[0\].test must be callable"),
        (lambda self, exponents: exponents.real, r"events\[0\].test must return a real number"),
        (lambda self, exponents: exponents[0], r"events\[0\].test must return a real number"),
        (lambda self, exponents: exponents[0].real > 1, r"events\[0\].test must return a real number"),
    ],
    ids=["too few", "array", "complex", "boolean"],
)
def test_a_test_that_is_no_number_is_refused(test, message):
    wrong = type("Wrong", (ssntk.AbstractTestEvent,), {"kind": ssntk.Kind("wrong"), "test": test})
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    with pytest.raises(ValueError, match=message):
        ssntk.continuation(family, (1.0, -1.0), x0=[1.0], events=[wrong()])


def test_an_event_without_a_kind_is_refused():
    bare = type("Bare", (ssntk.AbstractTestEvent,), {"test": lambda self, exponents: exponents[0].real})
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    with pytest.raises(ValueError, match="must have a kind"):
        ssntk.continuation(family, (1.0, -1.0), x0=[1.0], events=[bare()])
    with pytest.raises(ValueError, match=r"must be an ssntk.Crossing or an instance"):
        ssntk.continuation(family, (1.0, -1.0), x0=[1.0], events=[Faster])
    with pytest.raises(ValueError, match=r"must be an ssntk.Kind, got 'word'"):
        type("Word", (ssntk.AbstractTestEvent,), {"kind": "word", "test": lambda self, exponents: 0.0})
