"""The site form of the kernel against the Jacobian's, for models whose weights meet signals in many ways."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.kernel import choice
from ssntk.kernel.rows import recorded_rows
from ssntk.kernel.sites import opened as sites
from ssntk.kernel.sites.gram import site_product, site_sums
from ssntk.kernel.sites.signals import with_signals

TS = jnp.array([0.0, 0.5, 0.75, 1.5])
# Few stages, which compile fast.
FIXED = ssntk.Integrator(solver=diffrax.Heun(), dt=0.25)


def normal(*shape, seed=0):
    return jr.normal(jr.key(seed + sum(shape)), shape)


def tied(t, x, u, p):
    """A weight and its transpose: two views of one leaf that overlap."""
    return -x + jnp.tanh(p["w"] @ x) + 0.1 * p["w"].T @ jnp.sin(x) + p["v"] @ u


def masked(t, x, u, p):
    """A leaf that is not only used in a product, and one that is."""
    return -x + (jnp.tril(jnp.ones((6, 6))) * p["w"]) @ jnp.tanh(x) + p["v"] @ jnp.concatenate([u, u, jnp.sin(x[:2])])


@jax.jit
def inner(w, x):
    return jnp.einsum("ij,j->i", w, jnp.tanh(x))


def nested(t, x, u, p):
    """Products inside jit, of a slice, of a transpose, from the right, of one leaf twice, and of rows with a matrix."""
    half = jax.nn.relu(x[:3] @ p["v"][:3])
    return -x + inner(p["w"], x) + p["w"] @ jnp.cos(x) + jnp.concatenate([half, p["v"][3:].T[:3] @ u[:3]])


def attention(t, x, u, p):
    """Three tokens of two channels that attend to one another."""
    tokens = x.reshape(3, 2)
    query, key, value = (tokens @ p[name] for name in ("q", "k", "v"))
    mixed = jax.nn.softmax(query @ key.T / 2, axis=-1) @ value
    return (-tokens + jnp.tanh(mixed @ p["o"].T)).reshape(-1)


MODELS = {
    "current": lambda: ssntk.CTRNN(6, 2, 1, gain=1.3, key=jr.key(1)),
    "rate": lambda: ssntk.CTRNN(6, 2, 1, gain=1.3, tau=np.linspace(0.5, 2.0, 6), form="rate", key=jr.key(1)),
    "gru": lambda: ssntk.GRUODE(6, 2, 1, key=jr.key(2)),
    "low rank": lambda: ssntk.LowRankRNN(6, 2, 1, 2, key=jr.key(3)),
    "mlp": lambda: ssntk.NeuralODE(6, 2, 1, width=5, depth=2, key=jr.key(4)),
    "tied": lambda: ssntk.VectorField(tied, {"w": normal(6, 6), "v": normal(6, 2)}, 6, 2),
    "masked": lambda: ssntk.VectorField(masked, {"w": normal(6, 6), "v": normal(6, 6, seed=1)}, 6, 2),
    "nested": lambda: ssntk.VectorField(nested, {"w": normal(6, 6), "v": normal(6, 3)}, 6, 3),
    "attention": lambda: ssntk.VectorField(attention, {name: normal(2, 2, seed=i) for i, name in enumerate("qkvo")}, 6, 0),
}
# How many views are opened, counted by hand from the definitions above.
OPENED = {
    "current": 2,
    "rate": 2,
    "gru": 3,
    "tied": 1,
    "masked": 1,
    "nested": 3,
    "attention": 4,
}


def drive(model, batch=2):
    return ssntk.Probe(TS, normal(batch, 4, model.n_input), normal(batch, model.n_state))


@pytest.fixture
def small(monkeypatch):
    """Let sites of any size be opened."""
    monkeypatch.setattr(sites, "LEAST", 2)


def opened(rows):
    return choice._replaced(rows, with_signals(rows.replay, 2, lambda events, shape: True)[0])


# These two cover most of what the others test: a network, and products of views in every position.
FAST = ("current", "nested")


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS])
def test_the_site_form_is_the_product_of_jacobians(name, small):
    model = MODELS[name]()
    probe = drive(model)
    rows = recorded_rows(model, probe, integrator=FIXED)
    ready = opened(rows)
    if name in OPENED:
        assert len(ready.replay.signals) == OPENED[name]
    matrix = np.asarray(rows.matrix())
    # Some hundred roundings of the largest entry.
    np.testing.assert_allclose(
        ssntk.ntk(model, probe, integrator=FIXED, method="sites"),
        matrix @ matrix.T,
        atol=1e-12 * np.square(matrix).sum(1).max(),
    )


def test_products_sums_weights_and_masks(small):
    model = MODELS["nested"]()
    mask = np.ones((2, 4, 6), bool)
    mask[0, 2:] = mask[1, 1, 3] = False
    probe = ssntk.Probe(TS, normal(2, 4, 3), normal(2, 6), mask=mask)
    asked = {"integrator": FIXED, "weights": "trapezoid"}
    rows = recorded_rows(model, probe, **asked)
    matrix = np.asarray(rows.matrix())
    kernel, ready = matrix @ matrix.T, opened(rows)
    assert ready.replay.signals is not None
    vectors = np.asarray(normal(3, kernel.shape[0]))
    np.testing.assert_allclose(site_product(ready, jnp.asarray(vectors)), vectors @ kernel, atol=1e-12 * kernel.max())
    np.testing.assert_allclose(ssntk.ntk(model, probe, method="sites", **asked), kernel, atol=1e-12 * kernel.max())
    trace, square = site_sums(ready)
    np.testing.assert_allclose(trace, np.trace(kernel), rtol=1e-12)
    np.testing.assert_allclose(square, np.square(kernel).sum(), rtol=1e-12)


@pytest.mark.slow
def test_products_of_readouts_and_of_a_loss_that_mixes_times(small):
    model = MODELS["rate"]()
    for asked in ({"of": "readout", "weights": [1.0, 0.0, 2.0, 0.5]}, {"loss_operator": ssntk.Sobolev(1.0)}):
        probe = ssntk.Probe(np.linspace(0.0, 1.5, 4), normal(2, 4, 2), normal(2, 6))
        rows = recorded_rows(model, probe, integrator=FIXED, **asked)
        matrix, ready = np.asarray(rows.matrix()), opened(rows)
        vectors = np.asarray(normal(2, matrix.shape[0]))
        np.testing.assert_allclose(
            site_product(ready, jnp.asarray(vectors)), vectors @ matrix @ matrix.T, atol=1e-12 * np.square(matrix).sum()
        )


@pytest.mark.slow
def test_adaptive_steps(small):
    model = MODELS["current"]()
    probe, loose = drive(model), ssntk.Integrator(solver=diffrax.Bosh3(), rtol=1e-4, atol=1e-6)
    kernel = np.asarray(ssntk.ntk(model, probe, integrator=loose, method="segments"))
    np.testing.assert_allclose(ssntk.ntk(model, probe, integrator=loose, method="sites"), kernel, atol=1e-12 * kernel.max())


@pytest.mark.slow
def test_maps(small):
    model = MODELS["current"]()
    probe, euler = drive(model), ssntk.EulerMap(model, 0.25)
    kernel = np.asarray(ssntk.ntk(euler, probe, method="segments"))
    np.testing.assert_allclose(ssntk.ntk(euler, probe, method="sites"), kernel, atol=1e-12 * kernel.max())


def test_other_weights_compile_nothing(small, compilations):
    probe = ssntk.Probe(TS, x0=np.ones(4))
    models = [ssntk.CTRNN(4, 0, 1, gain=gain, key=jr.key(0)) for gain in (0.5, 1.0, 2.0)]
    first = ssntk.ntk(models[0], probe, integrator=FIXED, method="sites")
    before = len(compilations)
    others = [ssntk.ntk(model, probe, integrator=FIXED, method="sites") for model in models[1:]]
    assert len(compilations) == before
    assert all(np.abs(first - other).max() > 1e-3 for other in others)


def test_sites_that_are_wrong_are_found_out(small, monkeypatch):
    # As if jax changed what a transpose means in a traced computation.
    monkeypatch.setitem(sites._MOVED, "transpose", lambda index, params: index)
    right = ssntk.VectorField(lambda t, x, u, p: -x + jnp.tanh(x @ p), normal(4, 4), 4)
    wrong = ssntk.VectorField(lambda t, x, u, p: -x + p.T @ jnp.tanh(x), normal(4, 4), 4)
    probe = ssntk.Probe(TS, x0=np.ones(4))
    assert opened(recorded_rows(right, probe, integrator=FIXED)).replay.signals is not None
    assert opened(recorded_rows(wrong, probe, integrator=FIXED)).replay.signals is None
    with pytest.raises(ValueError, match="not the plain one"):
        ssntk.ntk(wrong, probe, integrator=FIXED, method="sites")


def test_the_exact_trace_without_the_jacobian(small):
    model = MODELS["current"]()
    probe = drive(model)
    asked = {"integrator": FIXED, "k": 3, "exact": True}
    whole = ssntk.ntk_spectrum(model, probe, integrator=FIXED)
    for memory in (1e9, 10):
        top = ssntk.ntk_spectrum(model, probe, memory=memory, **asked)
        np.testing.assert_allclose(top.trace, whole.trace, rtol=1e-12)
        np.testing.assert_allclose(top.participation_ratio, whole.participation_ratio, rtol=1e-11)
        np.testing.assert_allclose(top.eigenvalues, whole.eigenvalues[:3], rtol=1e-10)
        assert top.trace_error == top.participation_ratio_error == 0
    with pytest.raises(ValueError, match="exact needs the Jacobian"):
        ssntk.ntk_spectrum(model, probe, memory=10, of="readout", **asked)
    with pytest.raises(ValueError, match="Sobolev"):
        ssntk.ntk_spectrum(model, ssntk.Probe(np.linspace(0.0, 1.5, 4)), memory=10, loss_operator=ssntk.Sobolev(1), **asked)


@pytest.mark.slow
def test_some_inputs_at_a_time(getkey):
    model = ssntk.CTRNN(4, 1, 2, key=getkey())
    mask = np.asarray(jr.bernoulli(getkey(), 0.7, (5, 4)))
    probe = ssntk.Probe(TS, jr.normal(getkey(), (5, 4, 1)), jr.normal(getkey(), (5, 4)), mask=mask)
    other = ssntk.Probe(TS, jr.normal(getkey(), (3, 1)))
    kernel, cross = (np.asarray(ssntk.ntk(model, probe, o, integrator=FIXED)) for o in (None, other))
    for size in (2, 9):
        np.testing.assert_allclose(ssntk.ntk(model, probe, integrator=FIXED, batch_size=size), kernel, atol=1e-13)
    np.testing.assert_allclose(ssntk.ntk(model, probe, other, integrator=FIXED, batch_size=2), cross, atol=1e-13)
    with pytest.raises(ValueError, match="batch_size"):
        ssntk.ntk(model, probe, batch_size=0)
    with pytest.raises(ValueError, match="batch_size"):
        ssntk.ntk(model, probe, batch_size=1, method="sites")
    with pytest.raises(ValueError, match="another probe"):
        ssntk.ntk(model, probe, other, method="sites")


def test_the_plan_says_what_is_done_and_why():
    few, many = ssntk.Probe([0.0, 1.0]), ssntk.Probe(np.linspace(0.0, 1.0, 9))
    small = ssntk.CTRNN(4, 0, 1, key=jr.key(0))
    plan = ssntk.kernel_plan(small, many, integrator=FIXED)
    assert (plan.method, plan.rows, plan.parameters) == ("segments", 36, 20)
    assert plan.memory == 2 * 8 * 36 * 20 + 8 * 36**2
    assert "1.5 n = 6" in plan.why
    assert "36 rows, 20 parameters" in str(plan)
    assert ssntk.kernel_plan(small, few, of="readout", integrator=FIXED).method == "rows"
    assert ssntk.kernel_plan(small, few, integrator=FIXED, method="segments").why == "it was asked for"
    implicit = ssntk.Integrator(solver=diffrax.ImplicitEuler(), dt=0.5)
    plan = ssntk.kernel_plan(small, few, integrator=implicit)
    assert plan.method == "chunks"
    assert "ImplicitEuler" in plan.why
    # From 96 units, with Heun's two stages in each of at most 16 steps an interval.
    wide = ssntk.CTRNN(96, 0, 1, key=jr.key(0))
    for dt, method in ((1 / 16, "sites"), (1 / 17, "segments")):
        plan = ssntk.kernel_plan(wide, ssntk.Probe([0.0, 1.0, 2.0]), integrator=ssntk.Integrator(diffrax.Heun(), dt=dt))
        assert plan.method == method
    assert ssntk.kernel_plan(small, many, k=2, integrator=FIXED).method == "segments"
    plan = ssntk.kernel_plan(small, many, k=2, memory=100, integrator=FIXED)
    assert plan.method == "products"
    assert "memory = 100 bytes" in plan.why


def test_states_that_a_field_refuses_are_never_shown_to_it(small):
    # The field is defined for positive states only, and the state stays positive.
    model = ssntk.VectorField(lambda t, x, u, p: -x + jax.nn.sigmoid(p @ jnp.sqrt(x)), normal(4, 4), 4)
    probe = ssntk.Probe(TS, x0=np.ones(4))
    kernel = np.asarray(ssntk.ntk(model, probe, integrator=FIXED, method="segments"))
    np.testing.assert_allclose(ssntk.ntk(model, probe, integrator=FIXED, method="sites"), kernel, atol=1e-12 * kernel.max())


def test_what_cannot_be_taken_apart_is_differentiated_as_it_is(small, caplog):
    @jax.custom_vjp
    def outside(x):
        return jax.pure_callback(lambda x: np.sin(x).astype(x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    outside.defvjp(lambda x: (outside(x), x), lambda x, g: (g * jnp.cos(x),))
    model = ssntk.VectorField(lambda t, x, u, p: -x + p @ outside(x), normal(4, 4), 4)
    rows = recorded_rows(model, ssntk.Probe(TS, x0=np.ones(4)), integrator=FIXED)
    with caplog.at_level("WARNING", logger="ssntk"):
        for _ in range(2):
            replay, why = with_signals(rows.replay, 2, lambda events, shape: True)
            assert replay is rows.replay
            assert why == "the field cannot be taken apart: NotImplementedError"
    # Once, however often it happens.
    assert [record.name for record in caplog.records] == ["ssntk"]
    assert "VectorField has no site form, which may be slower: the field cannot be taken apart" in caplog.text


def test_what_does_not_fit_is_said(small, monkeypatch):
    model, probe = MODELS["current"](), ssntk.Probe(TS)
    # 4 x 6 rows, p = 54: the kernel takes 4.6 kB, and 3 intervals of 4 events of 6 x 6 cotangents in each of two views more.
    machine = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 6000}
    monkeypatch.setattr("ssntk.kernel.replay.os.sysconf", machine.__getitem__)
    with pytest.raises(ValueError, match="cotangents of all events would take"):
        ssntk.ntk(model, probe, integrator=FIXED, method="sites")
    machine["SC_PHYS_PAGES"] = 5000
    with pytest.raises(ValueError, match="the kernel would take"):
        ssntk.ntk(model, probe, integrator=FIXED)


@pytest.mark.parametrize(
    ("asked", "match"),
    [({"k": 0}, "k must"), ({"k": 99}, "k must"), ({"k": 2, "method": "sites"}, "method"), ({"memory": -1}, "memory")],
)
def test_a_plan_refuses_what_the_kernel_would(asked, match):
    with pytest.raises(ValueError, match=match):
        ssntk.kernel_plan(ssntk.CTRNN(4, 0, 1, key=jr.key(0)), ssntk.Probe([0.0, 1.0]), integrator=FIXED, **asked)


def test_functions_that_need_the_jacobian_say_what_sites_are_for():
    model, probe = ssntk.CTRNN(4, 0, 1, key=jr.key(0)), ssntk.Probe([0.0, 1.0])
    blocks = functools.partial(ssntk.ntk_blocks, blocks=[])
    for function in (ssntk.parameter_jacobian, ssntk.fisher, ssntk.ntk_spectrum, blocks):
        with pytest.raises(ValueError, match="got 'sites', which makes the kernel of ntk without a Jacobian"):
            function(model, probe, method="sites")
        with pytest.raises(ValueError, match=r"method must be one of 'auto', 'segments'.*, got 'side'"):
            function(model, probe, method="side")


def test_why_sites_are_not_possible_is_said():
    model, probe = ssntk.CTRNN(4, 0, 1, key=jr.key(0)), ssntk.Probe([0.0, 1.0])
    implicit = ssntk.Integrator(solver=diffrax.ImplicitEuler(), dt=0.5)
    for asked, match in (
        ({"integrator": implicit}, "ImplicitEuler cannot be replayed"),
        ({"of": "readout"}, "the readout is observed"),
        ({"preconditioner": np.ones(20)}, "preconditioner"),
        ({}, "no leaf of theta has the size of a matrix of 32 x 32"),
    ):
        with pytest.raises(ValueError, match=match):
            ssntk.ntk(model, probe, method="sites", **({"integrator": FIXED} | asked))
    with pytest.raises(ValueError, match="exact is for the top k"):
        ssntk.ntk_spectrum(model, probe, exact=True)
