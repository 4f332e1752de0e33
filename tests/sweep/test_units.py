"""A sweep in a metric equals that of the network in other units. Plans without a metric keep their hash."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import QUICK

import ssntk

SCALE = np.array([1e-3, 1e4])


def field(t, z, u, params):
    """A fold in the first state at p = 0, a relaxation in the second, in units of S."""
    x = z / params["S"]
    return params["S"] * (
        jnp.stack([params["p"] - params["a"] * x[0] ** 2 + 0.1 * x[1], -x[1] + 0.3 * x[0] + params["b"]]) + 0 * u.sum()
    )


def sweep(scale, metric=None, **how):
    params = {"S": jnp.asarray(scale), "p": 1.0, "a": 1.0, "b": 0.0}
    model = ssntk.VectorField(field, params, 2, 0)
    settings = {
        "towards": "saddle-node",
        "span": (1.0, -1.0),
        "distances": [1e-1, 1e-3],
        "x0": np.array([1.0, 0.3]) * scale,
        "wrt": lambda m: (m.params["a"], m.params["b"]),
        "scale": metric,
        # The default tolerance of adaptive steps is absolute.
        "integrator": QUICK,
    }
    return ssntk.Sweep(ssntk.Family(model, lambda m: m.params["p"]), probe=ssntk.Probe([0.0, 1.0, 3.0]), **(settings | how))


def test_a_sweep_in_its_metric_is_that_in_plain_units(tmp_path):
    plain, scaled = sweep(np.ones(2)), sweep(SCALE, SCALE)
    stores = [ssntk.Store(tmp_path / name) for name in ("plain", "scaled")]
    for plan, store in zip((plain, scaled), stores, strict=True):
        ssntk.run(plan, store, progress=False)
    one, two = (store.to_xarray() for store in stores)
    for name in ("condition_number", "participation_ratio", "top_share", "channel_share", "channel_nonnormality"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(two["ntk_eigenvalues"], one["ntk_eigenvalues"], rtol=1e-5, atol=1e-10)


def test_the_metric_is_part_of_a_plan_and_its_absence_is_none():
    assert sweep(SCALE).hash() == sweep(SCALE, None).hash()
    assert len({sweep(SCALE, metric).hash() for metric in (None, SCALE, 2 * SCALE)}) == 3
    # A metric of ones is the same as no metric.
    assert sweep(SCALE, 1.0).hash() == sweep(SCALE).hash()
    assert sweep(SCALE, 3.0).hash() == sweep(SCALE, [3.0, 3.0]).hash()
    assert sweep(SCALE, SCALE).header()["scale"] == SCALE.tolist()
    assert "scale" not in sweep(SCALE).header()
    with pytest.raises(ValueError, match="scale must"):
        sweep(SCALE, [1.0, 2.0, 3.0])
