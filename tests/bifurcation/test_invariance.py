"""Located points do not depend on the coordinates, the units of time, the direction or the steps."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference_family
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ssntk

NAME = "wc2"
FAMILY, X0, SPAN, EVENTS = reference_family(NAME)
WEIGHT, INPUT, BIAS, TAU = (np.asarray(getattr(FAMILY.model, name)) for name in ("weight", "input_weight", "bias", "tau"))


def field(t, y, u, c):
    """The reference system at x = turn y + shift and parameter offset + scale q, `speed` times as fast."""
    x = c["turn"] @ y + c["shift"]
    p = c["offset"] + c["scale"] * c["q"]
    velocity = (-x + jnp.asarray(WEIGHT) @ jnp.tanh(x) + jnp.asarray(INPUT[:, 0]) * p + jnp.asarray(BIAS)) / jnp.asarray(TAU)
    return c["speed"] * jnp.linalg.solve(c["turn"], velocity)


small = st.floats(-1, 1, width=32)


PLACES = given(
    off=hnp.arrays(np.float64, (2, 2), elements=small),
    shift=hnp.arrays(np.float64, (2,), elements=small),
    speed=st.floats(0.05, 20),
    scale=st.floats(0.2, 5),
    offset=small,
    step=st.floats(0.005, 0.1),
    back=st.booleans(),
)


@settings(derandomize=True, deadline=None, max_examples=8)
@PLACES
def test_located_points_are_invariant(off, shift, speed, scale, offset, step, back):
    is_invariant(off, shift, speed, scale, offset, step, back)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=100)
@PLACES
def test_more_located_points_are_invariant(off, shift, speed, scale, offset, step, back):
    is_invariant(off, shift, speed, scale, offset, step, back)


def is_invariant(off, shift, speed, scale, offset, step, back):
    # Never singular: its symmetric part is at least a half.
    turn = 1.5 * np.eye(2) + np.array([[off[0, 0], off[0, 1]], [-off[0, 1], off[1, 1]]])
    numbers = {"turn": turn, "shift": shift, "speed": speed, "scale": scale, "offset": offset, "q": 0.0}
    model = ssntk.VectorField(field, {name: jnp.asarray(value) for name, value in numbers.items()}, 2)
    family = ssntk.Family(model, lambda m: m.params["q"])
    ends = [(p - offset) / scale for p in SPAN]
    start = np.linalg.solve(turn, X0 - shift)
    if back:
        there = ssntk.continuation(family, ends, x0=start, step=step)
        ends, start = ends[::-1], there.x[-1]
    branch = ssntk.continuation(family, ends, x0=start, step=step)
    assert branch.unresolved == ()
    expected = EVENTS[::-1] if back else EVENTS
    assert [event.kind for event in branch.bifurcations] == [event["kind"] for event in expected]
    for found, event in zip(branch.bifurcations, expected, strict=True):
        # Rounding, over a condition number of at most 20 or so.
        np.testing.assert_allclose(offset + scale * found.parameter, float(event["p"]), atol=1e-11)
        np.testing.assert_allclose(turn @ found.x + shift, event["x"], atol=1e-10)
        np.testing.assert_allclose(found.frequency, speed * float(event.get("frequency", 0.0)), rtol=1e-10)
