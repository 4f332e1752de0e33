"""Losses by name and optimisers by their state, against dense linear algebra on a model that is linear in theta, where the
largest stable rate is exact. Compiles one such model (n = 2, B = 4, T = 3) and its kernel."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ssntk

random = np.random.default_rng(0)
TIMES = np.array([0.0, 0.5, 2.0])
US, TARGETS = random.normal(size=(4, 2)), random.normal(size=(4, 3, 2))
START = random.normal(size=(2, 2))
MASK = np.array([[False, True, True], [True, True, False], [False, False, True], [True, True, True]])
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)
# x(t) = t p u: the outputs (b, t, i) as a matrix on p (i, j), rows and columns in C order.
DESIGN = np.einsum("t,bj,ik->btikj", TIMES, US, np.eye(2)).reshape(24, 4)


# All tests use the same function, so that it is compiled once.
def field(t, x, u, p):
    return p @ u


def model(start=START):
    return ssntk.VectorField(field, jnp.asarray(start), 2, 2)


def predicted(rate, steps=1, mask=None, start=START, targets=TARGETS, **options):
    probe = ssntk.Probe(TIMES, US, mask=mask)
    return ssntk.linearised_training(model(start), probe, targets, rate, steps, of="state", integrator=HEUN, **options)


def watched(mask=None, targets=None, loss="half-mse", start=START, **options):
    watch = ssntk.NTKMonitor(ssntk.Probe(TIMES, US, mask=mask), 1, of="state", integrator=HEUN, loss=loss, targets=targets)
    return watch.update(0, model(start), **options)


def scaled(outputs, targets):
    return 3 * (outputs - targets)


def differences(outputs, targets):
    return jnp.diff(outputs - targets, axis=1)


def problem(loss, mask):
    """(A, b, c): the loss is c |A p - b|^2, from its definition."""
    kept = np.ones(24, bool) if mask is None else np.repeat(mask.ravel(), 2)
    rows, wanted = DESIGN[kept], TARGETS.ravel()[kept]
    if loss is scaled:
        rows, wanted = 3 * rows, 3 * wanted
    if loss is differences:
        change = np.kron(np.eye(4), np.kron([[-1, 1, 0], [0, -1, 1]], np.eye(2)))
        rows, wanted = change @ DESIGN, change @ TARGETS.ravel()
    return rows, wanted, {"mse": 1 / len(rows), "sum": 1.0}.get(loss, 0.5 / len(rows))


def descent(loss, mask, rates, steps, momentum=0.0, velocity=0.0, dampening=0.0, start=START):
    """The losses (steps + 1,) of gradient descent from p = `start`, as optax.sgd and torch.optim.SGD do it."""
    rows, wanted, factor = problem(loss, mask)
    p, velocity, losses = start.ravel(), velocity + np.zeros(4), []
    for _ in range(steps + 1):
        error = rows @ p - wanted
        losses.append(factor * error @ error)
        velocity = momentum * velocity + (1 - dampening) * 2 * factor * rows.T @ error
        p = p - rates * velocity
    return np.array(losses)


CASES = [(loss, mask) for loss in ("half-mse", "mse", "sum", scaled) for mask in (None, MASK)] + [(differences, None)]


@pytest.mark.parametrize(("loss", "mask"), CASES)
def test_the_threshold_of_descent_is_exact_for_each_loss(loss, mask):
    found = predicted(1.0, mask=mask, loss=loss)
    limit = found.max_learning_rate
    # One per cent below, the first mode falls by 2 % a step; one above, it grows by 2 %.
    below, above = (descent(loss, mask, share * limit, 2000) for share in (0.99, 1.01))
    assert below[-1] <= below[1000] * (1 + 1e-12) < below[0]
    assert above[-1] > 1e10 * above[0]
    # For a linear model the prediction is exact.
    found = predicted(0.9 * limit, 50, mask=mask, loss=loss)
    np.testing.assert_allclose(found.loss, descent(loss, mask, 0.9 * limit, 50), rtol=1e-9)
    np.testing.assert_allclose(found.true_loss, found.loss[-1], rtol=1e-9)
    record = watched(mask, TARGETS, loss)
    np.testing.assert_allclose(record.max_learning_rate, limit, rtol=1e-9)
    np.testing.assert_allclose(record.top_eigenvalue, 2 / limit, rtol=1e-9)


def test_a_loss_of_the_outputs_alone_is_a_regression_to_zero():
    alone = predicted(0.1, 5, loss=lambda outputs: 3 * outputs)
    both = predicted(0.1, 5, loss=scaled, targets=np.zeros((4, 3, 2)))
    np.testing.assert_allclose(alone.loss, both.loss, rtol=1e-12)
    assert watched(loss=lambda outputs: 3 * outputs).max_learning_rate == pytest.approx(alone.max_learning_rate, rel=1e-9)


def steps_of(opt, steps, loss="mse"):
    """(state, p) after some steps of an optimiser of optax."""
    rows, wanted, factor = problem(loss, None)
    p = jnp.asarray(START)
    state = opt.init(p)
    for _ in range(steps):
        gradient = 2 * factor * rows.T @ (rows @ np.asarray(p).ravel() - wanted)
        with jax.numpy_dtype_promotion("standard"):
            update, state = opt.update(jnp.asarray(gradient.reshape(2, 2)), state, p)
        p = p + update
    return state, np.asarray(p)


def test_a_state_of_sgd_goes_on_as_it_went():
    whole = optax.inject_hyperparams(optax.sgd)(0.02, momentum=0.8)
    state, p = steps_of(whole, 6)
    found = predicted(None, 40, start=p, loss="mse", optimiser=state)
    velocity = np.asarray(state.inner_state[0].trace).ravel()
    actual = descent("mse", None, 0.02, 40, momentum=0.8, velocity=velocity, start=p)
    np.testing.assert_allclose(found.loss, actual, rtol=1e-6)
    assert found.learning_rate == pytest.approx(0.02)
    # A plain state holds neither number, and an explicit argument overrides the state.
    state, p = steps_of(optax.sgd(0.02, momentum=0.8), 6)
    again = predicted(0.02, 40, start=p, loss="mse", optimiser=state, momentum=0.8)
    np.testing.assert_allclose(again.loss, actual, rtol=1e-6)
    record = watched(loss="mse", optimiser=steps_of(optax.sgd(0.02), 1)[0])
    assert np.isnan(record.learning_rate)
    np.testing.assert_allclose(record.max_learning_rate, predicted(1.0, loss="mse").max_learning_rate, rtol=1e-12)


def frozen_adam(start, mean, square, count, rates, steps, betas, epsilon, loss="mse"):
    """Adam's rule (Kingma and Ba, 2015) with its second moments held still: the losses (steps + 1,)."""
    rows, wanted, factor = problem(loss, None)
    p, losses = start.ravel(), []
    size = np.sqrt(square / (1 - betas[1] ** count)) + epsilon
    for k in range(steps + 1):
        error = rows @ p - wanted
        losses.append(factor * error @ error)
        mean = betas[0] * mean + (1 - betas[0]) * 2 * factor * rows.T @ error
        p = p - rates * mean / (1 - betas[0] ** (count + k + 1)) / size
    return np.array(losses)


def test_adam_is_found_in_a_chain_with_what_it_was_told():
    opt = optax.chain(optax.clip_by_global_norm(1e9), optax.inject_hyperparams(optax.adam)(0.01, b1=0.8, b2=0.95, eps=1e-3))
    state, p = steps_of(opt, 7)
    adam = state[1].inner_state[0]
    moments = np.asarray(adam.mu).ravel(), np.asarray(adam.nu).ravel()
    found = predicted(None, 30, start=p, loss="mse", optimiser=state)
    actual = frozen_adam(p, *moments, 7, 0.01, 30, (0.8, 0.95), 1e-3)
    # optax holds its settings in single precision.
    np.testing.assert_allclose(found.loss, actual, rtol=1e-5)
    # Before Adam's first step its diagonal is not known, and there is no warning.
    fresh = opt.init(jnp.asarray(START))
    record = watched(loss="mse", optimiser=fresh)
    assert np.isnan(record.max_learning_rate)
    assert np.isnan(record.top_eigenvalue)
    with pytest.raises(ValueError, match="optimiser must be a state of Adam after at least one step"):
        predicted(None, start=p, optimiser=fresh)


class Tensor:
    """The part of the interface of a PyTorch tensor that the package uses."""

    def __init__(self, value):
        self.value = np.asarray(value)

    def detach(self):
        return self

    cpu = double = detach

    def numpy(self):
        return self.value


class Optimiser:
    """The part of the interface of a PyTorch optimiser that the package uses."""

    def __init__(self, groups, state=None):
        self.param_groups, self.state = groups, state or {}


SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False, "weight_decay": 0.0}


def two(first, second):
    """x(t) = t (p_1 + p_2) u: a model with two leaves of one shape."""
    field = ssntk.VectorField(lambda t, x, u, p: (p[0] + p[1]) @ u, (jnp.asarray(first), jnp.asarray(second)), 2, 2)
    return {"model": field, "probe": ssntk.Probe(TIMES, US), "targets": TARGETS, "of": "state", "integrator": HEUN}


def test_torchs_sgd_with_momentum_dampening_and_rates_of_its_own_for_groups():
    first, second = START, random.normal(size=(2, 2))
    buffers = random.normal(size=(2, 2, 2))
    # The tensors have one shape and the opposite order: they are distinguished by their values.
    tensors = [Tensor(second), Tensor(first)]
    groups = [
        SGD | {"params": [tensors[0]], "lr": 0.003, "momentum": 0.7, "dampening": 0.2},
        SGD | {"params": [tensors[1]], "lr": 0.01, "momentum": 0.7, "dampening": 0.2},
    ]
    state = {tensors[0]: {"momentum_buffer": Tensor(buffers[1])}, tensors[1]: {"momentum_buffer": Tensor(buffers[0])}}
    found = ssntk.linearised_training(
        **two(first, second), learning_rate=None, steps=40, loss="sum", optimiser=Optimiser(groups, state)
    )
    # By hand, on both halves at once.
    rows, velocity, rates = np.hstack([DESIGN, DESIGN]), buffers.reshape(8), np.repeat([0.01, 0.003], 4)
    p, losses = np.concatenate([first.ravel(), second.ravel()]), []
    for _ in range(41):
        error = rows @ p - TARGETS.ravel()
        losses.append(error @ error)
        velocity = 0.7 * velocity + 0.8 * 2 * rows.T @ error
        p = p - rates * velocity
    np.testing.assert_allclose(found.loss, losses, rtol=1e-8)
    assert found.learning_rate == 0.01
    # Beyond the limit it diverges: all rates together.
    curvature = 2 * rows.T @ rows
    top = np.linalg.eigvals(curvature * (rates / 0.01)[:, None]).real.max()
    np.testing.assert_allclose(found.max_learning_rate, 2 * 1.7 / (0.8 * top), rtol=1e-9)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_torchs_adam(amsgrad):
    mean, square, most = random.normal(size=4), random.random(4), 1 + random.random(4)
    tensor = Tensor(START)
    group = {"params": [tensor], "lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-4, "amsgrad": amsgrad, "weight_decay": 0.0}
    moments = {"exp_avg": Tensor(mean.reshape(2, 2)), "exp_avg_sq": Tensor(square.reshape(2, 2)), "step": Tensor(5.0)}
    moments |= {"max_exp_avg_sq": Tensor(most.reshape(2, 2))} if amsgrad else {}
    adam = Optimiser([group], {tensor: moments})
    found = predicted(None, 30, loss="mse", optimiser=adam)
    actual = frozen_adam(START, mean, most if amsgrad else square, 5, 0.02, 30, (0.8, 0.9), 1e-4)
    np.testing.assert_allclose(found.loss, actual, rtol=1e-9)
    record = watched(loss="mse", optimiser=adam)
    assert (record.learning_rate, record.max_learning_rate) == (0.02, pytest.approx(found.max_learning_rate, rel=1e-9))
    assert np.isnan(watched(optimiser=Optimiser([group])).max_learning_rate)


def test_torch_itself():
    torch = pytest.importorskip("torch")
    net = torch.nn.ModuleDict({"rnn": torch.nn.RNN(3, 3, batch_first=True), "fc": torch.nn.Linear(3, 3)}).double()
    us, wanted = torch.randn(4, 5, 3, dtype=torch.float64), torch.randn(4, 5, 3, dtype=torch.float64)
    for make in (torch.optim.Adam, torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.5)):
        optimiser = make(net.parameters(), lr=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(net["fc"](net["rnn"](us)[0]), wanted).backward()
            optimiser.step()
        inputs = np.concatenate([us.numpy(), us.numpy()[:, -1:]], axis=1)
        watch = ssntk.NTKMonitor(ssntk.Probe(np.arange(6.0), inputs, mask=np.arange(6) > 0), 1, loss="mse", n_starts=8)
        record = watch.update(0, net.state_dict(), optimiser=optimiser)
        assert record.learning_rate == 0.01
        assert np.isfinite(record.max_learning_rate)


def test_bad_losses_and_optimisers_are_named():
    mask = MASK
    for wrong, name in (
        ({"loss": "l2"}, "loss must be one of 'half-mse', 'mse', 'sum'"),
        ({"loss": lambda outputs, targets: None}, "loss must return an array"),
        ({"loss": lambda outputs, targets: outputs @ targets}, "loss could not be evaluated"),
        ({"loss": lambda outputs, targets: ((outputs - targets) ** 2).mean()}, "loss must return residuals, one for each"),
        ({"loss": differences, "mask": mask}, "loss must return residuals of the outputs' shape"),
        ({"optimiser": "adam"}, "optimiser must be the state of .* got str"),
        ({"optimiser": optax.adam(0.1)}, "optimiser must be .* got the transformation itself"),
        ({"optimiser": optax.lion(0.1).init(START)}, "optimiser must be .* got ScaleByLionState"),
        ({"optimiser": Optimiser([{"params": [], "lr": 0.1, "alpha": 0.9}])}, "optimiser must be .* got Optimiser"),
        ({"optimiser": Optimiser([SGD | {"params": [], "lr": 0.1}])}, "optimiser must move all of theta"),
        ({"optimiser": Optimiser([SGD | {"params": [Tensor(START)], "lr": 0.1, "nesterov": True}])}, "nesterov"),
        ({"optimiser": steps_of(optax.sgd(0.1, momentum=0.9), 1)[0]}, "momentum must be given"),
        ({"optimiser": optax.adam(0.1).init(START[0])}, "optimiser must be a state over the model"),
        ({"optimiser": optax.sgd(0.1).init(START), "preconditioner": np.ones(4)}, "optimiser and preconditioner"),
    ):
        with pytest.raises(ValueError, match=name):
            predicted(0.1, **wrong)
    with pytest.raises(ValueError, match="optimiser must have positive learning rates, got zero"):
        predicted(None, optimiser=Optimiser([SGD | {"params": [Tensor(START)], "lr": 0.0}]))
    with pytest.raises(ValueError, match="learning_rate must be a number"):
        predicted(None, optimiser=optax.sgd(0.1).init(START))
    with pytest.raises(ValueError, match="targets must be given for a loss that takes them"):
        watched(loss=scaled)
    with pytest.raises(ssntk.NumericalError, match="loss gives residuals"):
        predicted(0.1, loss=lambda outputs: outputs / 0)
