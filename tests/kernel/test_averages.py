"""Averaged kernels against partial traces of the full one.

Compiled once for the whole file, on shapes that tests share: J by segments, by rows and by sites, and their averages. Each
loss operator and each average of sites compiles anew.
"""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.kernel.sites import opened as sites

N, M, B, T = 5, 3, 2, 4
TS = np.linspace(0.0, 1.5, T)
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.25)


def network(seed):
    return ssntk.CTRNN(N, 2, M, gain=1.3, key=jr.key(seed))


def probe(seed, **options):
    one, two = jr.split(jr.key(seed + 100))
    return ssntk.Probe(TS, jr.normal(one, (B, T, 2)), jr.normal(two, (B, N)), **options)


def hidden(seed):
    """A mask that hides about a third of all rows."""
    return np.random.default_rng(seed).uniform(size=(B, T, N)) > 0.3


def traced(kernel, average, rows=N):
    """The partial trace of a full kernel over its length, by NumPy."""
    whole = np.asarray(kernel).reshape(B * T, rows, B * T, rows)
    return np.einsum("aiaj->ij", whole) / (B * T) if average == "time" else np.einsum("aibi->ab", whole) / rows


def same(found, expected):
    """Equal to 1e-13 of the largest entry, as sums of the same numbers in another order."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


ASKED = {
    "plain": {},
    "weighted": {"weights": np.array([0.3, 1.0, 2.0, 0.0]), "scale": 10.0 ** np.arange(-2.0, 3.0)},
    "Sobolev": {"loss_operator": ssntk.Sobolev(1.0), "weights": "trapezoid"},
    "rates": {"loss_operator": ssntk.TimeDerivative(), "wrt": lambda m: m.weight},
    "preconditioned": {"preconditioner": np.linspace(0.5, 2.0, 40)},
}


@pytest.mark.parametrize("average", ["units", "time"])
@pytest.mark.parametrize("name", ASKED)
def test_an_average_is_the_partial_trace(name, average):
    asked = {"integrator": HEUN} | ASKED[name]
    seeing = {} if name == "Sobolev" else {"mask": hidden(1)}
    for seed in range(2):
        model, given = network(seed), probe(seed, **seeing)
        kernel = ssntk.ntk(model, given, **asked)
        found = ssntk.ntk(model, given, average=average, **asked)
        same(found, traced(kernel, average))
        # "units" loses a factor n of the trace, "time" a factor B T.
        lost = N if average == "units" else B * T
        np.testing.assert_allclose(np.trace(found) * lost, np.trace(kernel), rtol=1e-12)
        same(ssntk.ntk(model, given, average=average, batch_size=1, **asked), found)
        same(ssntk.ntk(model, given, given, average=average, **asked), found)


def test_another_probe_and_every_method(monkeypatch):
    monkeypatch.setattr(sites, "LEAST", 2)
    model, one, two = network(2), probe(2), probe(3)
    asked = {"integrator": HEUN}
    kernel, cross = ssntk.ntk(model, one, **asked), ssntk.ntk(model, one, two, **asked)
    for average in ("units", "time"):
        same(ssntk.ntk(model, one, two, average=average, **asked), traced(cross, average))
        for method in ("rows", "segments", "sites"):
            same(ssntk.ntk(model, one, average=average, method=method, **asked), traced(kernel, average))
    few = ssntk.Probe(TS, np.ones((1, 2)))
    rectangle = np.asarray(ssntk.ntk(model, one, few, **asked)).reshape(B * T, N, T, N)
    same(ssntk.ntk(model, one, few, average="units", **asked), np.einsum("aibi->ab", rectangle) / N)


@pytest.mark.parametrize("name", ["weighted", "mixed"])
@pytest.mark.parametrize("average", ["units", "time"])
def test_sites_with_weights_masks_and_losses_that_mix_times(name, average, monkeypatch):
    monkeypatch.setattr(sites, "LEAST", 2)
    asked = {"weighted": ASKED["weighted"], "mixed": ASKED["Sobolev"] | {"scale": np.linspace(0.5, 2.0, N)}}[name]
    given = probe(4, mask=hidden(2)) if name == "weighted" else probe(4)
    kernel = ssntk.ntk(network(4), given, integrator=HEUN, **asked)
    found = ssntk.ntk(network(4), given, integrator=HEUN, method="sites", average=average, **asked)
    same(found, traced(kernel, average))


def test_outputs_are_those_of_the_readout():
    model, given = network(5), probe(5)
    kernel = ssntk.ntk(model, given, of="readout", integrator=HEUN)
    for average in ("outputs", "time"):
        found = ssntk.ntk(model, given, of="readout", average=average, integrator=HEUN)
        same(found, traced(kernel, average, M))


def tanh_field(t, z, u, params):
    """Tanh units whose states are measured in units of S, their time in units of 1 / c and their weights in units of a."""
    x = z / params["S"]
    return params["S"] * params["c"] * (-x + params["W"] / params["a"] @ jnp.tanh(x) + jnp.sum(u))


def scaled(seed, size=1.0, rate=1.0, unit=1.0):
    weight = unit * jr.normal(jr.key(seed), (N, N)) / N**0.5
    sizes = jnp.asarray(size) * jnp.ones(N)
    return ssntk.VectorField(tanh_field, {"W": weight, "S": sizes, "c": rate, "a": unit}, N, 2)


@pytest.mark.parametrize("seed", range(2))
def test_units_of_states_time_and_parameters(seed):
    random = np.random.default_rng(seed)
    sizes, rate, unit = 10.0 ** random.uniform(-6, 6, N), 10.0 ** random.uniform(-6, 6), 10.0 ** random.uniform(-6, 6)
    wrt, x0 = (lambda m: m.params["W"]), random.normal(size=(B, N))

    def averages(size=1.0, rate=1.0, unit=1.0, scale=None, weights="trapezoid"):
        given = ssntk.Probe(TS / rate, jr.normal(jr.key(seed), (B, T, 2)), x0 * size)
        step = ssntk.Integrator(solver=diffrax.Heun(), dt=0.25 / rate)
        model, asked = scaled(seed, size, rate, unit), {"wrt": wrt, "integrator": step, "scale": scale, "weights": weights}
        return [np.asarray(ssntk.ntk(model, given, average=average, **asked)) for average in ("units", "time")]

    plain = averages()
    # In their own metric nothing depends on the units of the states; weights [time] and theta count as in K.
    for found, expected in zip(averages(sizes, rate, unit, scale=sizes), plain, strict=True):
        np.testing.assert_allclose(found * rate * unit**2, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    # Without one, an average over time keeps the units of its two states. One over states adds their squares.
    units, time = averages(sizes)
    np.testing.assert_allclose(time / np.outer(sizes, sizes), plain[1], rtol=1e-9, atol=1e-9 * np.abs(plain[1]).max())
    each = np.einsum(
        "aibi->abi",
        np.asarray(
            ssntk.ntk(
                scaled(seed),
                ssntk.Probe(TS, jr.normal(jr.key(seed), (B, T, 2)), x0),
                wrt=wrt,
                integrator=HEUN,
                weights="trapezoid",
            )
        ).reshape(B * T, N, B * T, N),
    )
    expected = each @ sizes**2 / N
    np.testing.assert_allclose(units, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_other_weights_compile_nothing(compilations):
    for average, method in (("units", "segments"), ("time", "segments"), ("time", "rows")):
        asked = {"average": average, "method": method, "integrator": HEUN}
        first = ssntk.ntk(network(6), probe(6), **asked)
        before = len(compilations)
        other = ssntk.ntk(network(7), probe(7), **asked)
        assert len(compilations) == before
        assert np.abs(first - other).max() > 1e-3


def test_only_what_is_asked_for_is_held(monkeypatch):
    """A machine of 60 kB has no room for J (150 kB) or for K (115 kB), but for the averages of the rows at each time."""
    model = ssntk.CTRNN(12, 0, 1, key=jr.key(0))
    many = ssntk.Probe(np.linspace(0.0, 1.0, 10), x0=np.ones(12))
    expected = ssntk.ntk(model, many, integrator=HEUN, average="time")
    machine = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 60_000}
    monkeypatch.setattr("ssntk.kernel.replay.os.sysconf", machine.__getitem__)
    np.testing.assert_array_equal(ssntk.ntk(model, many, integrator=HEUN, average="time"), expected)
    for average, what in ((None, "kernel"), ("units", "Jacobian")):
        with pytest.raises(ValueError, match=f"the {what} would take"):
            ssntk.ntk(model, many, integrator=HEUN, average=average)


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"average": "state"}, "average must be one of 'units', 'time', 'outputs'"),
        ({"average": 1}, "average must be"),
        ({"average": "outputs"}, "average 'outputs' needs of='readout', got of='state'"),
        ({"average": "units", "of": "readout"}, "average 'units' needs of='state', got of='readout'"),
        ({"average": "time", "other": ssntk.Probe(TS, np.ones((1, 2)))}, "average 'time' pairs .* got 1 and 4"),
        ({"average": "units", "method": "sites", "batch_size": 1}, "method 'sites'"),
        ({"average": "outputs", "of": "readout", "scale": 1.0}, "scale"),
    ],
)
def test_bad_arguments_are_refused_before_anything_compiles(asked, match, compilations):
    model, given = network(8), probe(8)
    jax.block_until_ready(model.weight)
    before = len(compilations)
    with pytest.raises(ValueError, match=match):
        ssntk.ntk(model, given, integrator=HEUN, **asked)
    assert len(compilations) == before
