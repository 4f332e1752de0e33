"""Pictures of a training run and of an ensemble, from records made by hand. Compiles nothing."""

import dataclasses
import itertools

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

import ssntk


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def record(step, known=1, stable=1, **how):
    fields = {
        "effective_rank": 1.0,
        "participation_ratio": 1.0,
        "top_eigenvalue": 1.0,
        "max_learning_rate": 2.0,
        "learning_rate": np.nan,
        "relative_change": 0.0,
        "alignment": 1.0,
        "critical_eigenvalue": -1.0 + 2j,
        "stability_radius": 1.0,
        "x_star": np.zeros(2),
        "verdict": "regular",
        "events": (),
        "seconds": 0.1,
    }
    return ssntk.MonitorRecord(step=step, n_fixed_points=known, n_stable=stable, **fields | how)


RUN = [
    record(0, 1, 1, learning_rate=0.1),
    record(10, 3, 2, learning_rate=0.1, max_learning_rate=0.05, events=("2 new fixed points",), verdict="near-critical"),
    record(20, 3, 1, learning_rate=0.1, critical_eigenvalue=0.5 + 0j, events=("one lost its stability",)),
    record(30, 1, 1, learning_rate=0.1, events=("a fixed point is no longer there",)),
]


RUN_LOSS = [8.0, 7.0, 6.0, 5.0]


def drawn(ax):
    return {line.get_label(): np.array(line.get_data()) for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_the_panels_hold_what_the_records_hold():
    loss, rates, growth, points = ssntk.plot.monitor(RUN, loss=[4.0, 3.0, 2.0, 1.0])
    np.testing.assert_array_equal(loss.get_lines()[0].get_data(), [[0, 10, 20, 30], [4, 3, 2, 1]])
    np.testing.assert_array_equal(drawn(rates)["largest stable"], [[0, 10, 20, 30], [2, 0.05, 2, 2]])
    np.testing.assert_array_equal(drawn(rates)["used"][1], [0.1] * 4)
    np.testing.assert_array_equal(drawn(rates)["too large"], [[10], [0.1]])
    np.testing.assert_array_equal(drawn(growth)["nearest to the edge"], [[0, 10, 20, 30], [-1, -1, 0.5, -1]])
    np.testing.assert_array_equal(drawn(growth)["near-critical"], [[10], [-1]])
    np.testing.assert_array_equal(drawn(points)["known"][1], [1, 3, 3, 1])
    np.testing.assert_array_equal(drawn(points)["stable"][1], [1, 2, 1, 1])


def test_events_are_lines_through_all_panels_with_what_changed():
    axes = ssntk.plot.monitor(RUN)
    assert len(axes) == 3
    for ax in axes:
        vertical = [line.get_xdata()[0] for line in ax.get_lines() if list(line.get_xdata()) == [line.get_xdata()[0]] * 2]
        assert vertical == [10, 20, 30]
    assert [(text.get_text(), text.xy[0]) for text in axes[0].texts] == [("+2", 10), ("stability", 20), ("\u22122", 30)]


@pytest.mark.parametrize("every", [1, 3, 50])
def test_labels_do_not_overlap_however_many_events(every):
    """200 records in one column of a paper. Labels that do not fit are left out, but their lines are drawn."""
    counts = np.random.default_rng(0).integers(1, 12, 200)
    records = [record(i, int(n), events=("changed",) if i % every == 0 else ()) for i, n in enumerate(counts)]
    with ssntk.plot.style("paper"):
        axes = ssntk.plot.monitor(records, loss=np.ones(200))
        axes[0].figure.draw_without_rendering()
        assert len(axes[0].texts) >= 4
        boxes = [text.get_window_extent() for text in axes[0].texts]
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
        inside = axes[0].figure.bbox
        assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and box.y1 <= inside.y1 for box in boxes)
        assert min(text.get_fontsize() for text in axes[0].figure.findobj(plt.Text) if text.get_text()) >= 7
        vertical = [line for line in axes[2].get_lines() if line.get_zorder() == 0.5]
        assert len(vertical) == len(range(0, 200, every))


def test_saddles_are_drawn_apart_where_they_are_recorded():
    """Saddles are drawn if the records have the field, which earlier versions lack."""
    names = {field.name for field in dataclasses.fields(ssntk.MonitorRecord)}
    later = [record(i, **({"saddle_eigenvalue": 0.3 + 0j} if "saddle_eigenvalue" in names else {})) for i in range(2)]
    for one in later:
        object.__setattr__(one, "saddle_eigenvalue", 0.3 + 0j)
    _, growth, _ = ssntk.plot.monitor(later)
    np.testing.assert_array_equal(drawn(growth)["saddles"][1], [0.3, 0.3])
    np.testing.assert_array_equal(drawn(growth)["stable points"][1], [-1, -1])


def test_the_loss_has_its_own_steps():
    for loss in (([0.0, 5.0, 7.0], [3.0, 2.0, 1.0]), (np.array([0, 5, 7]), np.array([3.0, 2.0, 1.0], np.float32))):
        np.testing.assert_array_equal(ssntk.plot.monitor(RUN, loss)[0].get_lines()[0].get_data(), [[0, 5, 7], [3, 2, 1]])
    drawn_loss = ssntk.plot.monitor(RUN, np.arange(1.0, 32.0))[0].get_lines()[0]
    np.testing.assert_array_equal(drawn_loss.get_data(), [np.arange(31), np.arange(1, 32)])
    # A loss that diverges has a gap. A loss that reaches zero has no logarithmic scale.
    assert ssntk.plot.monitor(RUN, [1.0, np.nan, np.inf, 2.0])[0].get_yscale() == "log"
    assert ssntk.plot.monitor(RUN, [1.0, 0.0, 1.0, 2.0])[0].get_yscale() == "linear"


def test_the_records_own_loss_is_drawn_where_none_is_given():
    held = [dataclasses.replace(one) for one in RUN]
    for one, value in zip(held, [4.0, np.nan, 2.0, 1.0], strict=True):
        object.__setattr__(one, "loss", value)
    loss = ssntk.plot.monitor(held)[0].get_lines()[0]
    np.testing.assert_array_equal(loss.get_data(), [[0, 10, 20, 30], [4, np.nan, 2, 1]])
    assert len(ssntk.plot.monitor(held, RUN_LOSS)) == 4
    np.testing.assert_array_equal(ssntk.plot.monitor(held, RUN_LOSS)[0].get_lines()[0].get_ydata(), RUN_LOSS)


def test_a_monitor_is_drawn_as_its_records_are():
    watched = ssntk.NTKMonitor(ssntk.Probe(np.linspace(0.0, 1.0, 3)))
    watched.records += RUN
    for ours, theirs in zip(ssntk.plot.monitor(watched), ssntk.plot.monitor(RUN), strict=True):
        for one, other in zip(ours.get_lines(), theirs.get_lines(), strict=True):
            np.testing.assert_array_equal(one.get_data(), other.get_data())


@pytest.mark.parametrize(
    ("monitor", "loss", "message"),
    [
        ("log.jsonl", None, "monitor must be an ssntk.NTKMonitor or a sequence of its records, got str"),
        ([1.0], None, "monitor must be an ssntk.NTKMonitor or a sequence of its records, got list"),
        ([], None, "monitor must hold at least one record"),
        (RUN, "half-mse", "loss must be an array of real numbers, got str"),
        (RUN, np.zeros((2, 2)), r"loss must have shape \(k,\), got \(2, 2\)"),
        (RUN, ([0, 1], [1.0]), "loss must be as many steps as values, got 2 and 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(monitor, loss, message):
    with pytest.raises(ValueError, match=message):
        ssntk.plot.monitor(monitor, loss)
    assert plt.get_fignums() == []


def judged(distance, verdict, kind="real", stable=True):
    return ssntk.Criticality(
        verdict=verdict,
        near=None if verdict == "unknown" else verdict != "regular",
        kind=kind,
        stability_radius=distance,
        critical_frequency=0.0,
        relative_distance=distance,
        spectral_abscissa=-distance,
        sigma_min=distance,
        nonnormality=1.0,
        drive=1.0,
        x_star=np.zeros(1),
        u=np.zeros(0),
        stable=stable,
        residual=0.0,
        n_fixed_points=1,
        time_scale=1.0,
        horizon=None,
        reason="",
    )


def test_verdicts_are_sorted_counted_and_told_apart():
    ensemble = (
        judged(1.0, "regular"),
        judged(0.05, "critical", "pair"),
        judged(0.2, "near-critical", stable=False),
        judged(np.nan, "unknown"),
        judged(2.0, "regular", "pair"),
    )
    ax = ssntk.plot.verdicts(ensemble)
    found = {}
    for line in ax.get_lines():
        if line.get_zorder() == 3:
            found |= {tuple(at): (line.get_marker(), line.get_markerfacecolor()) for at in np.array(line.get_data()).T}
    assert sorted(found) == [(0.05, 1), (0.2, 2), (1.0, 3), (2.0, 4)]
    assert [found[at][0] for at in sorted(found)] == ["^", "o", "o", "^"]
    assert [found[at][1] == "none" for at in sorted(found)] == [False, True, False, False]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names[:4] == ["critical (1)", "near-critical (1)", "regular (2)", "no fixed point found (1)"]
    # The documented borders.
    assert {line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == "--"} == {0.1, 0.33}


def places(ax):
    return np.concatenate([line.get_xdata() for line in ax.get_lines() if line.get_zorder() == 3])


def test_a_network_at_its_bifurcation_has_a_place_on_the_axis():
    ax = ssntk.plot.verdicts(judged(0.0, "critical"))
    (at,) = places(ax)
    assert ax.get_xlim()[0] < at < 0.1
    assert not places(ssntk.plot.verdicts([judged(np.nan, "unknown")])).size


@pytest.mark.parametrize("ensemble", [(), [1.0], "models", None])
def test_what_is_no_ensemble_is_refused_by_name(ensemble):
    with pytest.raises(ValueError, match="ensemble must"):
        ssntk.plot.verdicts(ensemble)
    assert plt.get_fignums() == []
