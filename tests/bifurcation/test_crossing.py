"""A user's own events, bounds, where a branch starts, and what is refused before anything is compiled.

Compiled: the branch of a saddle-node, and of a follower of it.
"""

import numpy as np
import pytest

import ssntk

FAMILY = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")


def branch(**how):
    """x = +- sqrt(mu), from (1, 1) through the fold to (1, -1)."""
    return ssntk.continuation(FAMILY, (1.0, -1.0), x0=[1.0], **how)


def test_crossings_are_located_in_branch_order():
    events = [
        ssntk.Crossing("half", lambda x, p: x[0] - 0.5),
        ssntk.Crossing("quarter", lambda x, p: p - 0.25),
        ssntk.Crossing("never", lambda x, p: x[0] - 3),
    ]
    found = branch(events=events).bifurcations
    # p = x^2 = 1 / 4 at both x = 1 / 2 and x = -1 / 2.
    assert [event.kind for event in found] in (
        ["half", "quarter", "saddle-node", "quarter"],
        ["quarter", "half", "saddle-node", "quarter"],
    )
    np.testing.assert_allclose([event.parameter for event in found], [0.25, 0.25, 0.0, 0.25], atol=1e-14)
    np.testing.assert_allclose([event.x[0] for event in found], [0.5, 0.5, 0.0, -0.5], atol=1e-12)
    assert all(event.converged for event in found)


def test_a_branch_stops_at_an_event():
    stopped = branch(events=[ssntk.Crossing("down", lambda x, p: x[0] + 0.5, stop=True)])
    assert [event.kind for event in stopped.bifurcations] == ["saddle-node", "down"]
    assert stopped.status == "stopped at p = 0.25: down"
    np.testing.assert_allclose(stopped.x[-1], -0.5, rtol=1e-12)


def test_a_branch_ends_where_a_state_leaves_its_bounds():
    ended = branch(bounds={0: (-0.25, 2.0)})
    assert ended.status == "left its bounds at p = 0.0625: state 0 reached -0.25"
    np.testing.assert_allclose(ended.x[-1], -0.25, rtol=1e-12)
    ended = branch(bounds=lambda x, p: x[0] > -0.25)
    assert ended.status == "left its bounds at p = 0.0625"
    # The last point is within.
    assert 0 < ended.x[-1, 0] + 0.25 < 1e-12
    assert (ended.x[:-1] > -0.25).all()


def test_a_branch_starts_where_its_state_lies_and_goes_both_ways():
    whole = ssntk.continuation(FAMILY, (-1.0, 1.0), x0=[0.5], at=0.25, both=True)
    np.testing.assert_allclose(np.sort(whole.x[[0, -1], 0]), [-1.0, 1.0])
    assert [event.kind for event in whole.bifurcations] == ["saddle-node"]
    upper = ssntk.continuation(FAMILY, (-1.0, 1.0), x0=[0.5], at=0.25)
    assert upper.bifurcations == ()
    np.testing.assert_allclose(upper.x[[0, -1], 0], [0.5, 1.0])
    assert (np.diff(upper.parameter) > 0).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": [1.0, -1.0]}, "scale must be a number or have shape"),
        ({"scale": [1.0, 1.0]}, "scale must be a number or have shape"),
        ({"at": 1.5}, "at must lie in the span"),
        ({"bounds": {0: (2.0, 3.0)}}, "bounds must hold at the start"),
        ({"bounds": lambda x, p: x[0] < 0}, "bounds must hold at the start"),
        ({"bounds": {1: (0.0, 1.0)}}, "bounds must name states by their index"),
        ({"bounds": {0: (1.0, 0.0)}}, r"bounds\[0\] must be \(low, high\)"),
        ({"bounds": 3}, "bounds must be a dict"),
        ({"events": [lambda x, p: x]}, r"events\[0\] must be an ssntk.Crossing"),
        ({"events": [ssntk.Crossing("two", lambda x, p: np.stack([x[0], x[0]]))]}, r"events\[0\].fn must return a scalar"),
        ({"events": [ssntk.Crossing("none", lambda x: x[0])]}, r"events\[0\].fn must be callable"),
        ({"fix": [([1.0], 0.0)]}, r"fix\[0\] must be a conserved quantity"),
        ({"fix": [([0.0], 0.0)]}, r"fix\[0\]\[0\] must not be zero"),
        ({"fix": [([1.0, 2.0], 0.0)]}, r"fix\[0\]\[0\] must have shape"),
        ({"fix": 3.0}, "fix must be"),
    ],
)
def test_what_does_not_fit_is_named(how, message):
    with pytest.raises(ValueError, match=message):
        branch(**how)


def test_a_crossing_has_a_name_and_a_function():
    with pytest.raises(ValueError, match="name must be a string"):
        ssntk.Crossing("", lambda x, p: p)
    with pytest.raises(ValueError, match="fn must be callable"):
        ssntk.Crossing("a", 3)
