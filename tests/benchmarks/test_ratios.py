"""Ratios of the times of alternatives in one run: `pytest -m slow tests/benchmarks -s -n 0` prints the table.

The alternatives take turns, so that a change of the machine's speed affects all of them. Their medians are compared.
"""

import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import timed

import ssntk

pytestmark = pytest.mark.slow

HORIZON = 19.0
# Twenty steps of a twentieth of the leak time in each of 19 save intervals.
FIXED = ssntk.Integrator(dt=0.05)
# Five steps, for kernels whose time should not be dominated by steps.
COARSE = ssntk.Integrator(dt=0.2)


def task(n, times, batch=1):
    """A random CTRNN (seed 0) near chaos, driven by random inputs, T save times over 19 leak times."""
    model = ssntk.CTRNN(n, 2, 3, gain=1.5, key=jr.key(0))
    us = jr.normal(jr.key(1), (batch, times, 2))
    return model, ssntk.Probe(jnp.linspace(0.0, HORIZON, times), us, jr.normal(jr.key(2), (n,)))


def flat(jacobian):
    return jacobian.reshape(-1, jacobian.shape[-1])


@pytest.mark.parametrize(
    ("n", "name", "integrator", "least"),
    [(64, "fixed", FIXED, 40), (64, "adaptive", ssntk.Integrator(), 20), (128, "fixed", FIXED, 40)],
)
def test_jacobian_against_jacrev(n, name, integrator, least):
    model, probe = task(n, 20)
    segments, autodiff = timed(
        lambda: ssntk.parameter_jacobian(model, probe, integrator=integrator),
        lambda: ssntk.parameter_jacobian(model, probe, integrator=integrator, method="autodiff"),
        rounds=5 if n == 64 else 2,
    )
    print(f"\nJ, n = {n}, T = 20, {name} steps: {segments:.4f} s, jacrev {autodiff:.3f} s, ratio {autodiff / segments:.1f}")
    assert autodiff / segments >= least


@pytest.mark.parametrize(("n", "integrator", "least"), [(64, FIXED, 12), (128, FIXED, 15), (128, COARSE, 8)])
def test_the_whole_kernel_against_jacrev(n, integrator, least):
    model, probe = task(n, 20)
    product = jax.jit(lambda rows: rows @ rows.T)

    def by_jacrev():
        return product(flat(ssntk.parameter_jacobian(model, probe, integrator=integrator, method="autodiff")))

    calls = [lambda m=m: ssntk.ntk(model, probe, integrator=integrator, method=m) for m in ("auto", "segments")]
    auto, segments, autodiff = timed(*calls, by_jacrev, rounds=2)
    chosen = ssntk.kernel_plan(model, probe, integrator=integrator).method
    print(f"\nkernel, n = {n}, T = 20, dt = {integrator.dt}: {chosen} {auto:.3f} s, segments {segments:.3f} s,", end=" ")
    print(f"jacrev {autodiff:.2f} s, ratio {autodiff / auto:.1f}")
    assert autodiff / auto >= least


def test_a_batch_against_joint_jacrev():
    """Eight inputs: reverse mode through all of them at once pulls every row back through every input."""
    model, probe = task(24, 20, batch=8)

    def outputs(theta, us):
        moved = eqx.tree_at(lambda m: (m.weight, m.input_weight, m.bias), model, theta)
        return ssntk.simulate(moved, ssntk.Probe(probe.ts, us, probe.x0), integrator=COARSE)

    joint = jax.jit(jax.jacrev(outputs))
    theta = (model.weight, model.input_weight, model.bias)
    ours, naive = timed(
        lambda: ssntk.parameter_jacobian(model, probe, integrator=COARSE), lambda: joint(theta, probe.us), rounds=2
    )
    print(f"\nJ, n = 24, T = 20, B = 8: {ours:.4f} s, joint jacrev {naive:.2f} s, ratio {naive / ours:.0f}")
    assert naive / ours >= 100


def test_growth_in_units_and_inputs():
    for name, tasks in (
        ("n = 32, 64, 128", [task(n, 20) for n in (32, 64, 128)]),
        ("B = 1, 2, 4, 8 at n = 32", [task(32, 20, batch) for batch in (1, 2, 4, 8)]),
    ):
        sizes = [probe.n_batch * model.n_state for model, probe in tasks]
        for what in ("J", "kernel", "product"):
            calls = []
            for model, probe in tasks:
                if what == "product":
                    operator = ssntk.ntk_operator(model, probe, integrator=COARSE)
                    vector = jnp.ones(operator.in_size())
                    calls.append(lambda operator=operator, vector=vector: operator.mv(vector))
                else:
                    compute = ssntk.parameter_jacobian if what == "J" else ssntk.ntk
                    calls.append(lambda m=model, p=probe, c=compute: c(m, p, integrator=COARSE))
            taken = timed(*calls, rounds=3)
            exponent = np.polyfit(np.log(sizes), np.log(taken), 1)[0]
            print(f"\n{what}, {name}: {[round(t, 4) for t in taken]} s, exponent {exponent:.2f}", end="")
            # J has n^3 T entries and the kernel (B T n)^2 of n^2 products each: nothing grows faster than that.
            assert exponent <= {"J": 3.3, "kernel": 4.3, "product": 2.3}[what]


PEAK = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, jax.random as jr, numpy as np, ssntk
n, batch, dt = int(sys.argv[1]), int(sys.argv[2]), 0.2
model = ssntk.CTRNN(n, 2, 3, gain=1.5, key=jr.key(0))
probe = ssntk.Probe(jnp.linspace(0.0, 19.0, 20), jr.normal(jr.key(1), (batch, 20, 2)), jr.normal(jr.key(2), (n,)))
asked = {"integrator": ssntk.Integrator(dt=dt)}
ssntk.simulate(model, probe, **asked).block_until_ready()
def peak():
    # Of this process alone: what getrusage tells starts from the parent's.
    return next(float(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1e6
before = peak()
out = COMPUTE
jax.block_until_ready(out)
print(peak() - before, peak(), *(np.asarray(out).ravel() if isinstance(out, list) else []))
"""


def peak(compute, n, batch=1):
    """The memory that a computation adds to the peak of a process that has solved already, the whole peak [GB], and the text
    that it printed."""
    code = PEAK.replace("COMPUTE", compute)
    ran = subprocess.run([sys.executable, "-c", code, str(n), str(batch)], capture_output=True, text=True, check=True)
    return [float(word) for word in ran.stdout.split()]


def test_peak_memory():
    for what, compute, n, batch, most in (
        ("J by segments", "ssntk.parameter_jacobian(model, probe, **asked)", 128, 1, 1.5),
        ("kernel by segments", "ssntk.ntk(model, probe, method='segments', **asked)", 128, 1, 1.8),
        ("kernel by sites", "ssntk.ntk(model, probe, method='sites', **asked)", 128, 1, 1.0),
        ("top ten, J never formed", "ssntk.ntk_spectrum(model, probe, k=10, memory=1e6, **asked).eigenvalues", 128, 8, 1.0),
    ):
        added, whole, *_ = peak(compute, n, batch)
        print(f"\npeak memory, {what}, n = {n}, B = {batch}: {added:.2f} GB added, {whole:.2f} GB in all", end="")
        assert whole < most


def test_averages_against_the_full_kernel():
    """Forty rows of 256 units: the kernel has 10240 x 10240 entries, its averages 40 x 40 and 256 x 256."""
    kernel = "ssntk.ntk(model, probe, integrator=ssntk.Integrator(dt=1.0){})"
    traced = f"np.einsum('aibi->ab', np.asarray({kernel.format('')}).reshape(40, 256, 40, 256)) / 256"
    full, *_ = peak(traced, 256, 2)
    for average in ("units", "time"):
        added, *_ = peak(kernel.format(f", average='{average}'"), 256, 2)
        print(f"\npeak memory, average {average!r}, n = 256, B T = 40: {added:.2f} GB, traced {full:.2f} GB", end="")
        # The kernel alone takes 0.84 GB.
        assert 2 * added < full
        assert added < 0.84
    model, probe = task(96, 20)
    asked = {"integrator": ssntk.Integrator(dt=1.0), "method": "segments"}
    calls = [lambda a=average: ssntk.ntk(model, probe, average=a, **asked) for average in ("units", "time")]
    units, time, whole = timed(*calls, lambda: ssntk.ntk(model, probe, **asked), rounds=3)
    print(f"\naverages from J, n = 96, T = 20: units {units:.3f} s, time {time:.3f} s, the full kernel {whole:.3f} s")
    assert max(units, time) < whole


def test_a_thousand_units():
    """p over a million: estimates within their errors of what is exact, each in the memory that it is promised."""
    spectrum = "(lambda s: [s.trace, s.trace_error, s.participation_ratio, s.participation_ratio_error, s.eigenvalues[0]])"
    call = "(ssntk.ntk_spectrum(model, probe, k=10, exact={}, memory=1.5e9, **asked))"
    began = time.perf_counter()
    _, estimated_peak, trace, trace_error, ratio, ratio_error, top = peak(spectrum + call.format(False), 1024)
    middle = time.perf_counter()
    _, exact_peak, exact_trace, _, exact_ratio, _, same_top = peak(spectrum + call.format(True), 1024)
    ended = time.perf_counter()
    print(f"\nn = 1024, T = 20: top ten and estimates {middle - began:.0f} s and {estimated_peak:.2f} GB", end="")
    print(
        f" (trace {trace / exact_trace - 1:+.3%}, PR {ratio / exact_ratio - 1:+.3%}), exact {ended - middle:.0f} s", end=""
    )
    print(f" and {exact_peak:.2f} GB")
    assert estimated_peak < 1.5
    assert exact_peak < 8
    assert abs(top / same_top - 1) < 1e-9
    assert abs(trace / exact_trace - 1) < 0.01
    assert abs(ratio / exact_ratio - 1) < 0.02
    assert abs(trace - exact_trace) < 4 * trace_error
    assert abs(ratio - exact_ratio) < 4 * ratio_error


@pytest.mark.parametrize("n", [64, 128])
def test_readout_rows_against_jacrev_of_the_outputs(n):
    model, probe = task(n, 20)
    calls = [
        lambda method=method: ssntk.parameter_jacobian(model, probe, of="readout", integrator=FIXED, method=method)
        for method in ("rows", "segments", "autodiff")
    ]
    rows, segments, autodiff = timed(*calls, rounds=3)
    print(f"\nreadout rows, n = {n}, m = 3, T = 20: sweep {rows:.3f} s, segments {segments:.3f} s, jacrev {autodiff:.3f} s")
    print(f"ratio {autodiff / rows:.1f}")
    assert autodiff / rows >= 1.5


def test_top_of_the_spectrum_against_all_of_it():
    model, probe = task(64, 20)
    whole, top, without = timed(
        lambda: ssntk.ntk_spectrum(model, probe, integrator=FIXED, eigenvectors=False).eigenvalues,
        lambda: ssntk.ntk_spectrum(model, probe, integrator=FIXED, k=10).eigenvalues,
        lambda: ssntk.ntk_spectrum(model, probe, integrator=FIXED, k=10, memory=1e6).eigenvalues,
        rounds=3,
    )
    print(
        f"\nspectrum, n = 64, T = 20 (1280 rows, p = 4288): all {whole:.3f} s, top ten {top:.3f} s, "
        f"top ten without J {without:.2f} s"
    )
    assert whole > top


def test_growth_in_the_number_of_save_times():
    # Over the same horizon and with the same number of steps, 4 to 64 save intervals.
    counts = (9, 17, 33, 65)
    calls = []
    for times in counts:
        model, probe = task(64, times)
        integrator = ssntk.Integrator(dt=HORIZON / 384)
        calls.append(lambda m=model, p=probe, i=integrator: ssntk.parameter_jacobian(m, p, integrator=i))
    taken = timed(*calls, rounds=5)
    exponent = np.polyfit(np.log(counts), np.log(taken), 1)[0]
    print(f"\nJ, n = 64, T = {counts}: {[round(t, 4) for t in taken]} s, exponent {exponent:.2f}")
    assert exponent <= 1.2


def test_growth_in_the_horizon():
    counts = (10, 20, 40, 80)
    calls = []
    for times in counts:
        model, _ = task(64, times)
        us = jr.normal(jr.key(1), (1, times, 2))
        probe = ssntk.Probe(jnp.arange(float(times)), us, jr.normal(jr.key(2), (64,)))
        calls.append(lambda m=model, p=probe: ssntk.parameter_jacobian(m, p, integrator=FIXED))
    taken = timed(*calls, rounds=5)
    exponent = np.polyfit(np.log(counts), np.log(taken), 1)[0]
    print(f"\nJ, n = 64, one save time a leak time, T = {counts}: {[round(t, 4) for t in taken]} s, exponent {exponent:.2f}")
    assert exponent <= 1.2
