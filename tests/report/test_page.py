"""What the page shows of a sweep towards a bifurcation, and how its panels are linked."""

import math
import pathlib
import re

import numpy as np
import pytest

import ssntk
from ssntk.report.page import payload, write_page

FORMAT_1 = pathlib.Path(__file__).parent.parent / "sweep" / "format1"
PANELS = {"diagram", "steady", "ranks", "law", "eigenvalues", "spectrum", "kernel", "channel", "numbers"}


def test_every_panel_shows_the_point_of_the_slider(browser, fold):
    from selenium.webdriver.common.keys import Keys

    store, page = fold
    data = store.arrays()
    browser.open(page)
    assert set(browser("return [...document.querySelectorAll('figure.panel')].map(one => one.id)")) == PANELS
    # The nearest point is shown first: number 4 of the plan, row 0 of the arrays.
    assert browser.selected() == 4
    assert browser.value("steady") == pytest.approx(data["steady_state_eigenvalues"][0, 0], rel=1e-5)
    browser.keys("#point", Keys.ARROW_LEFT)
    assert browser.selected() == 3
    shown = {
        "distance": data["distance"],
        "parameter": data["parameter"],
        "growth": data["jacobian_eigenvalues"][:, 0].real,
        "steady": data["steady_state_eigenvalues"][:, 0],
        "top": data["ntk_eigenvalues"][:, 0],
        "effective_rank": data["effective_rank"],
        "participation_ratio": data["participation_ratio"],
        "channel_share": data["channel_share"],
        "channel_predicted_top_eigenvalue": data["channel_predicted_top_eigenvalue"],
    }
    for row, key in ((1, None), (2, Keys.ARROW_LEFT)):
        if key:
            browser.keys("#point", key)
        for name, values in shown.items():
            assert browser.value(name) == pytest.approx(values[row], rel=1e-5), name
        assert f"{data['kernel_over_time'][row].max():.4g}"[:4] in browser.text("#kernel .note")
    assert len(browser.driver.find_elements("css selector", "#kernel image")) == 1
    before = browser("return document.querySelector('#kernel image').getAttribute('href')")
    browser.keys("#point", Keys.END)
    assert browser("return document.querySelector('#kernel image').getAttribute('href')") != before
    assert browser("return document.getElementById('point').value") == "4"


def test_a_click_on_a_figure_selects_as_the_slider_does(browser, fold):
    browser.open(fold[1])
    for index in (1, 2, 4):
        browser.click(f"#diagram [data-index='{index}']")
        assert browser.selected() == index
        assert browser("return document.getElementById('point').value") == str(index)
    drawn = "return document.querySelector('#diagram svg').textContent"
    window = browser(drawn)
    browser.click("#whole")
    assert browser(drawn) != window
    assert browser.selected() == 4
    browser.click("#diagram [data-index='1']")
    assert browser.selected() == 1


def test_a_failed_point_never_looks_like_a_result(browser, fold):
    from selenium.webdriver.common.keys import Keys

    browser.open(fold[1]).keys("#point", Keys.HOME)
    assert browser.selected() == 0
    assert "(failed)" in browser.text("#chosen")
    for name in ("eigenvalues", "spectrum", "kernel", "channel", "numbers"):
        assert "This point failed: the stable side reaches only" in browser.text(f"#{name}"), name
    assert not browser("return document.querySelectorAll('#kernel image, #channel rect, .plot .ring').length")
    assert browser("return [...document.querySelectorAll('#numbers [data-name]')].map(one => one.dataset.name)") == [
        "distance",
        "parameter",
    ]
    assert "reaches only" in browser.text("#failures table")
    browser.click("#failures button")
    assert browser.selected() == 0


def test_a_store_of_format_1_says_what_it_lacks(browser, tmp_path):
    browser.open(write_page(ssntk.Store(FORMAT_1), tmp_path / "report.html"))
    assert "Not recorded: this store has format 1" in browser.text("#kernel")
    assert "not recorded: this store has format 1" in browser.text("#channel")
    assert browser.value("steady") == pytest.approx(
        ssntk.Store(FORMAT_1).arrays()["steady_state_eigenvalues"][0, 0], rel=1e-5
    )
    assert "format 1" in browser.text("#run")


def test_what_was_run_is_told(browser, fold):
    store, page = fold
    event = store.bifurcation()
    told = browser.open(page).text("#run")
    for part in (
        store.plan()["hash"],
        "SaddleNode towards a saddle-node",
        "5: 4 measured, 1 failed",
        "format 2",
        "saddle-node at p_c",
    ):
        assert part in told
    assert f"coefficient {float(event.coefficient):.6g}" in told
    assert "ssntk sweep <file>.toml --out 'fold & co'" in told
    assert "ssntk.run(sweep, ssntk.Store('fold & co'))" in told
    for name, version in store.plan()["versions"].items():
        assert f"{name} {version}" in told


@pytest.mark.slow
def test_200_points_with_672_eigenvalues_stay_small(browser, fold, tmp_path, record):
    store = ssntk.Store(tmp_path)
    distances = np.geomspace(1.0, 1e-7, 200).tolist()
    header = fold[0].plan() | {"distances": distances, "n_state": 32, "ts": np.linspace(0.0, 200.0, 64).tolist()}
    store.claim("f" * 16, {name: value for name, value in header.items() if name not in ("format", "hash", "versions")})
    branch, rng = fold[0].branch(), np.random.default_rng(2)
    wide = rng.normal(size=(1, 32))
    events = [ssntk.Bifurcation(**vars(event) | {"x": event.x @ wide}) for event in branch.bifurcations]
    store.write_branch(ssntk.Branch(**vars(branch) | {"x": branch.x @ wide, "bifurcations": tuple(events)}), 0)
    for index, distance in enumerate(distances):
        store.write_point(index, record(rng, 32, 672, 64, parameter=distance, distance=distance))
    page = write_page(store, tmp_path / "report.html")
    assert page.stat().st_size < 3_000_000
    browser.open(page)
    # Every step of the slider redraws at once.
    took = browser("""
        const slider = document.getElementById('point'), began = performance.now();
        for (let i = 0; i < 20; i++) { slider.value = i; slider.dispatchEvent(new Event('input')); }
        return (performance.now() - began) / 20;
    """)
    assert took < 500
    assert browser.selected() == 19
    assert "89 of 672 modes" in browser.text("#spectrum .note")


def test_a_store_with_nothing_measured_has_a_page_too(browser, tmp_path):
    store = ssntk.Store(tmp_path / "none")
    store.claim(
        "0" * 16,
        {
            "kind": "towards",
            "title": "Nothing",
            "distances": [1.0, 0.1],
            "n_state": 2,
            "ts": [0.0],
            "blocks": ["w"],
            "dt": 0.1,
        },
    )
    store.write_point(0, {"seconds": math.nan, "status": "failed: NumericalError: nothing"})
    browser.open(write_page(store, tmp_path / "report.html"))
    assert "No branch is recorded" in browser.text("#diagram")
    assert "No point was measured" in browser.text("#steady")
    assert re.match("0 of 2 points measured, 1 failed, 1 not measured yet", browser.text("#summary"))
    assert "This point failed: NumericalError: nothing" in browser.text("#kernel")
    with pytest.raises(ssntk.StoreError, match="holds no sweep"):
        payload(ssntk.Store(tmp_path / "empty"))
