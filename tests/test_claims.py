"""The claims of the literature: how verdicts follow from numbers, cheap rows against known values, and the page."""

import re
import shlex
import sys

import numpy as np
import pytest
from helpers import ROOT, reference

sys.path.append(str(ROOT / "sweeps"))
import claims
import claims_judge as judge
import claims_layers as layers
import claims_recurrent as recurrent
import claims_spectra as spectra
import claims_width as width

from ssntk.infinite import crossing

PAGE = (ROOT / "docs" / "claims.md").read_text()
KEYS = list(judge.CLAIMS)
REFERENCE = reference("theory")
# Rows that take more than a second with small sizes.
LONG = {
    "recurrent-ntk",
    "trajectory-spread",
    "finite-width",
    "stability-radius",
    "inverse-cosine-distance",
    "depth-correction",
}
LONG |= {"condition-number", "gaussian-inputs", "depth-over-width"}


# %% Verdicts
def check(value, low, high, accepted=(0.9, 1.1)):
    return judge.Check("planted", value, low, high, accepted, 12)


YES, NO, PARTLY = check(1.0, 0.95, 1.05), check(2.0, 1.9, 2.1), check(1.05, 1.0, 1.2)


@pytest.mark.parametrize(
    ("stated", "changed", "said"),
    [
        ([YES, YES], [], "holds"),
        ([YES, PARTLY], [], "open"),
        ([YES, PARTLY], [YES], "open"),
        ([YES, NO], [], "false"),
        ([PARTLY, NO], [NO], "false"),
        ([NO], [YES], "holds in a range"),
        ([NO], [YES, PARTLY], "open"),
        ([NO, YES], [YES, NO], "false"),
        ([], [YES], "open"),
    ],
)
def test_the_verdict_follows_from_the_checks(stated, changed, said):
    assert judge.verdict(judge.Found(stated, changed, [NO])) == said


def test_the_verdict_names_what_was_changed():
    assert judge.verdict(judge.Found([NO], [YES]), judge.NORMALISATION) == "holds in another normalisation"


def test_an_interval_is_met_only_as_a_whole():
    assert (YES.met, NO.met, PARTLY.met, check(0.5, 0.4, 0.6).met) == (True, False, None, False)
    assert check(1.0, 0.9, 1.1).met is True
    assert check(1.0, 0.5, 2.0).met is None
    assert check(np.nan, np.nan, np.nan).met is None
    assert "undecided" in str(PARTLY)
    assert "exact" in str(judge.exact("planted", 1.0, (0.0, 2.0)))


def test_intervals_of_known_samples():
    # Of 1, ..., 10: the mean 5.5, the standard error sqrt(55 / 60), and Student's quantile 2.262 of 9 degrees of freedom.
    found = judge.measured("mean", np.arange(1.0, 11.0), (0.0, 9.0))
    np.testing.assert_allclose([found.value, found.high - found.value], [5.5, 2.262 * (55 / 60) ** 0.5], rtol=1e-3)
    # The order statistics 2 and 9 of ten numbers hold the median with 97.9 %, 3 and 8 only with 89.1 %.
    found = judge.measured("median", np.arange(1.0, 11.0), (0.0, 9.0), median=True)
    assert (found.value, found.low, found.high, found.seeds) == (5.5, 2.0, 9.0, 10)
    # 400 numbers of standard deviation 1: the standard error is 0.05.
    drawn = np.random.default_rng(0).standard_normal(400)
    found = judge.sampled("mean", [drawn], lambda part: part.mean(), (-1.0, 1.0))
    np.testing.assert_allclose(found.high - found.low, 2 * 1.96 * 0.05, rtol=0.15)
    np.testing.assert_allclose(judge.slope([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]), 2)


# %% What the rows compute
def test_networks_have_the_known_kernel():
    """The mean of 400 networks of two layers against extended precision: the standard error is 0.2 to 0.3 %."""
    for row in REFERENCE["relu_two_layer"]["values"][2:]:
        u = row["u"]
        pair = np.array([[1.0, 0.0], [u, (1 - u**2) ** 0.5]])
        kernel, covariance = (part.mean(axis=0) for part in layers.several(400, pair, 2000, 2))
        np.testing.assert_allclose(kernel, [[2, row["ntk"]], [row["ntk"], 2]], atol=0.02)
        np.testing.assert_allclose(covariance, [[1, row["nngp"]], [row["nngp"], 1]], atol=0.02)


def test_the_kernel_of_a_network_is_the_sum_of_squared_differences():
    """J J^T of three layers by central differences, whose error is about 1e-9 away from the corners of ReLU."""
    random = np.random.default_rng(3)
    inputs, n = random.standard_normal((2, 3)) / 2, 5
    drawn = np.random.default_rng(4)
    flat = np.concatenate(
        [drawn.standard_normal((n, 3)).ravel(), drawn.standard_normal((n, n)).ravel(), drawn.standard_normal(n)]
    )

    def output(theta):
        first, second, last = theta[: 3 * n].reshape(n, 3), theta[3 * n : -n].reshape(n, n), theta[-n:]
        hidden = np.sqrt(2 / n) * np.maximum(inputs @ first.T, 0)
        return np.sqrt(2 / n) * np.maximum(hidden @ second.T, 0) @ last

    step = 1e-5 * np.eye(len(flat))
    jacobian = np.array([(output(flat + one) - output(flat - one)) / 2e-5 for one in step]).T
    np.testing.assert_allclose(layers.finite(np.random.default_rng(4), inputs, n, 3)[0], jacobian @ jacobian.T, rtol=1e-6)
    many = layers.finite(np.random.default_rng(4), inputs, n, 3, networks=(6,))[0]
    assert many.shape == (6, 2, 2)


def test_the_edges_of_deep_kernels_are_the_known_ones():
    for row in REFERENCE["deep_edge_of_chaos"]["values"]:
        if row["u"] == 0 and row["delta"] == 0.5:
            smallest, largest = layers.edges(row["n"], row["L"])
            np.testing.assert_allclose(largest / smallest, row["kappa"], rtol=1e-9)


def test_harmonics_are_the_known_ones():
    for row in REFERENCE["gegenbauer_S2"]["values"]:
        np.testing.assert_allclose(spectra.harmonics(row["L"], 2, 16)[row["l"]], row["mu"], atol=1e-10)


def test_the_operator_on_a_circle_multiplies_modes():
    angle = 2 * np.pi * np.arange(16) / 16
    _, operator = spectra.on_circle(angle, 1.5)
    for k in (0, 3, 8):
        np.testing.assert_allclose(operator @ np.cos(k * angle), (1 + k) ** 1.5 * np.cos(k * angle), atol=1e-12)
    # On the sphere a linear function has the degree 1; the sum over random points converges as n^(-1/2).
    points = judge.on_sphere(np.random.default_rng(0), 4000, 3)
    np.testing.assert_allclose((spectra.sobolev(points, 1) @ points[:, 0])[:50], 4 * points[:50, 0], atol=0.4)


def test_crossings_are_those_of_other_draws():
    """Medians of max Re eig W from thousands of other networks, with their standard errors."""
    for row in REFERENCE["spectral_abscissa"]["values"][:2]:
        # Both medians scatter: four standard errors of their difference. The shares have errors of 0.01 each.
        gains, share = recurrent.crossings(row["n"], 3000)
        np.testing.assert_allclose(1 / np.median(gains), row["median"], atol=4 * row["error_of_median"] * 1.6)
        assert abs(share - REFERENCE["spectral_abscissa"]["real_first_share"][str(row["n"])]) < 0.06


def test_the_sensitivities_of_a_recurrent_network():
    """The kernel averaged over units by central differences in all parameters."""
    random = np.random.default_rng(0)
    n, inputs = 4, np.array([0.7, -0.4, 1.1, 0.0])
    w, u = random.standard_normal((n, n)) / 2, random.standard_normal(n)
    flat = np.concatenate([w.ravel(), u, np.zeros(n)])

    def states(theta):
        x, out = np.zeros(n), []
        for s in inputs[:-1]:
            x = 1.2 * theta[: n * n].reshape(n, n) @ np.tanh(x) + theta[n * n : -n] * s + theta[-n:]
            out.append(x)
        return np.array(out)

    rows = np.array([(states(flat + one) - states(flat - one)) / 2e-5 for one in 1e-5 * np.eye(len(flat))])
    expected = np.einsum("pti,psi->ts", rows, rows) / n
    np.testing.assert_allclose(recurrent.forward(w, u, 1.2, inputs)[1:, 1:], expected, rtol=1e-6)


def test_parameters_are_those_of_the_arrays():
    shapes = [(7, 5), (5, 7)]
    assert sum(np.zeros(shape).size for shape in shapes) == 70
    found = width.parameter_budget(True)
    # Seven square matrices of sqrt(P / L) = 354 units and two vectors, over a million.
    np.testing.assert_allclose(found.instead[0].value, (7 * 354**2 + 2 * 354) / 1e6)


# %% The page
def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


ROWS = [cells(line) for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") == 4]
ROWS = [row for row in ROWS if row[0] != "claim"]
COMMAND = re.compile(r"`((?:python|ssntk|pytest) [^`]+)`")


def test_every_row_has_five_cells_and_a_command():
    assert len(ROWS) >= len(KEYS)
    assert [row for row in ROWS if not COMMAND.search(row[2])] == []
    words = "holds", "holds in another normalisation", "holds in a range", "false", "open"
    assert [row for row in ROWS if row[4] not in words] == []


def test_every_command_exists():
    missing = set()
    for command in COMMAND.findall(PAGE):
        files = [word for word in shlex.split(command) if "/" in word]
        assert files, command
        missing |= {file for file in files if not (ROOT / file).is_file()}
        if "sweeps/claims.py" in files:
            assert [key for key in shlex.split(command)[2:] if key not in KEYS] == []
    assert missing == set()


def rows_of(key):
    return [row for row in ROWS if f"`python sweeps/claims.py {key}`" in row[2]]


def test_every_key_has_one_row():
    assert [key for key in KEYS if len(rows_of(key)) != 1] == []


@pytest.mark.parametrize("key", [key for key in KEYS if key not in LONG])
def test_the_page_says_what_a_row_says(key, capsys):
    said = claims.judged(key, quick=True)
    assert said == rows_of(key)[0][4]
    assert f"verdict: {said}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("key", sorted(LONG))
def test_the_page_says_what_a_long_row_says(key):
    assert claims.judged(key, quick=True) == rows_of(key)[0][4]


def test_the_table_of_crossings_is_the_one_in_use():
    """The rows up to 16 units are drawn again."""
    for n in (8, 16):
        gains, share = recurrent.crossings(n, recurrent.DRAWS[n])
        found = crossing(n)
        np.testing.assert_allclose(
            np.quantile(gains, [0.25, 0.5, 0.75]), [found.lower, found.median, found.upper], atol=2e-4
        )
        np.testing.assert_allclose(share, found.pitchfork, atol=1e-3)
