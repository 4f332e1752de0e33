import itertools

import matplotlib

matplotlib.use("agg")

import diffrax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import ssntk

nf = ssntk.normal_forms


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_bifurcation_diagram_of_a_fold_is_the_parabola():
    branch = ssntk.continuation(ssntk.Family(nf.saddle_node(0.0), "mu"), (1.0, -1.0), x0=[1.0])
    drawn = lines(ssntk.plot.bifurcation_diagram(branch))
    for label, sign in (("stable", 1.0), ("unstable", -1.0)):
        mu, x = (np.asarray(part) for part in drawn[label].get_data())
        shown = np.isfinite(x)
        np.testing.assert_allclose(x[shown], sign * np.sqrt(np.abs(mu[shown])), atol=1e-10)
        # Both reach the fold.
        assert np.abs(x[shown]).min() < 1e-12
    assert drawn["unstable"].get_linestyle() == "--"
    np.testing.assert_allclose(drawn["Saddle-node"].get_data(), [[0.0], [0.0]], atol=1e-12)


@pytest.mark.slow
def test_a_hopf_point_is_named():
    hopf = ssntk.continuation(ssntk.Family(nf.hopf(0.0, 1.0), "mu"), (-1.0, 1.0))
    assert "Hopf, supercritical" in lines(ssntk.plot.bifurcation_diagram(hopf))


def test_a_whole_diagram_names_each_thing_once():
    family = ssntk.Family(nf.pitchfork(0.0), "mu")
    diagram = ssntk.bifurcation_diagram(family, (-1.0, 1.0), n_slices=2, n_starts=16)
    ax = ssntk.plot.bifurcation_diagram(diagram)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["stable", "unstable", "Pitchfork, supercritical"]
    np.testing.assert_allclose(lines(ax)["Pitchfork, supercritical"].get_data(), [[0.0], [0.0]], atol=1e-12)
    # x = 0 up to 0 and x^2 = mu beyond are stable, x = 0 beyond is not; all meet in the pitchfork.
    drawn = [np.array(line.get_data()) for line in ax.get_lines() if line.get_label() in ("stable", "unstable")]
    assert len(drawn) == 3
    for mu, x in drawn:
        shown = np.isfinite(x)
        off = np.minimum(np.abs(x[shown]), np.abs(x[shown] ** 2 - mu[shown]))
        np.testing.assert_allclose(off, 0.0, atol=1e-12)
        assert np.hypot(mu[shown], x[shown]).min() < 1e-12


def test_spectrum_eigenvalues_and_kernel():
    spectrum = ssntk.Spectrum.from_jacobian(np.diag([3.0, 2.0, 1.0]))
    drawn = ssntk.plot.spectrum(spectrum).get_lines()[0]
    np.testing.assert_allclose(drawn.get_data(), [[1, 2, 3], [9.0, 4.0, 1.0]])
    values = np.array([-1.0 + 2j, -1.0 - 2j])
    drawn = ssntk.plot.eigenvalues(values).get_lines()[-1]
    np.testing.assert_allclose(drawn.get_data(), [[-1.0, -1.0], [2.0, -2.0]])
    image = ssntk.plot.kernel(jnp.eye(3)).get_images()[0]
    np.testing.assert_array_equal(image.get_array(), np.eye(3))
    # Over time: two inputs, three times, two coordinates.
    rows = np.random.default_rng(0).normal(size=(2, 3, 2, 5))
    flat = rows.reshape(12, 5)
    ax = ssntk.plot.kernel(flat @ flat.T, ts=[0.0, 1.0, 3.0], n_batch=2)
    expected = np.einsum("btip,bsip->ts", rows, rows) / 2
    np.testing.assert_allclose(np.asarray(ax.collections[0].get_array()).reshape(3, 3), expected)
    with pytest.raises(ValueError, match="n_batch T"):
        ssntk.plot.kernel(np.eye(7), ts=[0.0, 1.0, 3.0])
    with pytest.raises(ValueError, match="values must have shape"):
        ssntk.plot.eigenvalues(np.zeros((2, 2, 2)))


def test_collapse_draws_what_the_store_holds(tmp_path):
    sweep = ssntk.Sweep(
        ssntk.Family(nf.saddle_node(0.0), "mu"),
        towards="saddle-node",
        span=(1.0, -1.0),
        distances=np.geomspace(1e-1, 1e-5, 9),
        probe=ssntk.Probe(np.linspace(0.0, 5.0, 6)),
        x0=[1.0],
        integrator=ssntk.Integrator(solver=diffrax.Heun(), dt=0.1),
    )
    store = ssntk.Store(tmp_path)
    with pytest.raises(ssntk.StoreError, match="holds no"):
        ssntk.plot.collapse(store)
    axes = ssntk.plot.collapse(ssntk.run(sweep, store, progress=False))
    assert axes.shape == (7,)
    top = next(line for line in axes[3].get_lines() if str(line.get_label()).startswith("largest"))
    distance, values = top.get_data()
    np.testing.assert_allclose(values, 1 / (4 * np.asarray(distance)), rtol=1e-6)
    assert "slope -1.000" in str(top.get_label())
    # At rest at x* the critical mode is all there is: measured and predicted are T^3 g(|lambda| T), by the trapezoid rule.
    drawn = lines(axes[5])
    predicted = ssntk.laws.channel(1.0, -2 * np.sqrt(np.asarray(distance)), 5.0)
    for label in ("measured, the whole kernel", "critical mode alone, master law"):
        np.testing.assert_allclose(drawn[label].get_ydata(), predicted, rtol=0.02)
    for label in ("share", "alignment"):
        np.testing.assert_allclose(lines(axes[6])[label].get_ydata(), 1.0, rtol=1e-9)
    # Points that were measured on another machine may lie between two points of the branch.
    for index in range(7):
        (tmp_path / "points" / f"{index:05d}.npz").unlink()
    axes = ssntk.plot.collapse(store)
    measured = lines(axes[0])["measured"].get_data()
    np.testing.assert_allclose(np.sort(measured[0]), [1e-5, 10**-4.5], rtol=1e-9)
    (low, high), (left, right) = axes[0].get_ylim(), axes[0].get_xlim()
    assert low < measured[1].min() <= measured[1].max() < high
    assert left < 0 < 1e-5 < right
    # The line of a condition number that hardly changes does not lie on the axis.
    for index, value in ((7, 100.0), (8, 100.1)):
        file = tmp_path / "points" / f"{index:05d}.npz"
        with np.load(file) as archive:
            far = {7: 22.0, 8: 0.7}[index]
            changed = dict(archive) | {"condition_number": np.array(value), "channel_oblique_share": np.array(far)}
        np.savez(file, allow_pickle=False, **changed)
    axes = ssntk.plot.collapse(store)
    figure = axes[0].figure
    (condition,) = (ax for ax in figure.axes if ax.get_ylabel() == "condition number")
    assert condition.get_ylim()[0] <= 50
    # A share far out does not flatten the others.
    assert [text.get_text() for text in axes[6].texts] == ["22"]
    assert sorted(lines(axes[6])["oblique share"].get_ydata()) == [0.7, 1.5]
    assert axes[6].get_ylim()[1] < 5
    fits_one_page(figure)


def fits_one_page(figure):
    """Check that a figure with a caption fits on A4 and letter, that all text is large enough, and that none overlaps."""
    assert (figure.get_size_inches() * 25.4 <= [180, 230]).all()
    figure.draw_without_rendering()
    shown = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in shown) >= 7
    ticks = {id(text) for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for text in axis.get_ticklabels(which="both")}
    boxes = [text.get_window_extent() for text in shown if id(text) not in ticks]
    assert len(boxes) > 30
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
