"""What the page shows of a grid."""

import itertools

import numpy as np
import pytest

import ssntk
from ssntk.report.page import write_page


def test_the_phase_diagram_shows_the_quantity_over_the_axes(browser, grid):
    from selenium.webdriver.common.keys import Keys

    store, page = grid
    data, shape = store.arrays(), store.shape()
    browser.open(page)

    def cells():
        found = browser(
            "return [...document.querySelectorAll('#phase rect[data-cell]:not([id])')].map("
            "one => [one.dataset.cell, one.dataset.state, one.dataset.value ?? null])"
        )
        return {tuple(map(int, cell.split(","))): (state, value and float(value)) for cell, state, value in found}

    growth = data["jacobian_eigenvalues"][:, 0].real.reshape(shape)
    for (i, j), (state, value) in cells().items():
        expected = growth[i, j, 0]
        assert (state == "failed") == bool(np.isnan(expected)) == ((i, j) == (2, 0))
        assert value is None if np.isnan(expected) else value == pytest.approx(expected, rel=1e-5)
    # Numbers lie in ascending order whatever order the plan gave them, on a log scale here.
    x = {
        i: browser(f"return +document.querySelector('#phase rect[data-cell=\"{i},0\"]').getAttribute('x')") for i in range(3)
    }
    assert x[0] < x[2] < x[1]

    browser.choose("quantity", "trace")
    browser.choose("fixed-2", "median")
    median = np.nanmedian(data["trace"].reshape(shape), axis=2)
    for cell, (_, value) in cells().items():
        assert value == pytest.approx(median[cell], rel=1e-5)
    browser.choose("axis-x", "2")
    browser.choose("fixed-0", "2")
    found = cells()
    assert set(found) == set(itertools.product(range(3), range(2)))
    assert found[2, 1] == ("missing", None)
    for (seed, name), (state, value) in found.items():
        if state == "done" or value is not None:
            assert value == pytest.approx(data["trace"].reshape(shape)[2, name, seed], rel=1e-5)

    browser.choose("fixed-0", "1")
    browser.click("#phase rect[data-cell='1,0']")
    index = np.ravel_multi_index((1, 0, 1), shape)
    assert browser.selected() == index
    assert browser.value("trace") == pytest.approx(data["trace"][index], rel=1e-5)
    browser.keys("#phase svg[tabindex]", Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert browser.selected() == np.ravel_multi_index((1, 1, 2), shape)
    browser.keys("#phase svg[tabindex]", Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert browser.selected() == np.ravel_multi_index((1, 0, 2), shape)
    # The slice follows the slider.
    browser.keys("#point", Keys.HOME)
    assert browser("return document.getElementById('fixed-0').value") == "0"
    assert browser.find("#selected-cell").get_attribute("data-cell") == "0,0"


def test_what_is_not_finite_is_not_known(browser, grid):
    from selenium.webdriver.common.keys import Keys

    browser.open(grid[1]).keys("#point", Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.selected() == 2
    assert browser.text("[data-name=condition_number]") == "not known"
    browser.choose("quantity", "condition_number")
    assert browser.find("#phase rect[data-cell='0,0']").get_attribute("data-state") == "done"
    assert browser.find("#phase rect[data-cell='0,0']").get_attribute("data-value") is None


def test_one_axis_is_a_line(browser, tmp_path, record):
    store = ssntk.Store(tmp_path)
    header = {"kind": "grid", "title": "A line", "axes": {"gain": [1.0, 2.0, 4.0]}, "n_state": 2, "ts": [0.0, 1.0]}
    store.claim("0" * 16, header)
    rng = np.random.default_rng(1)
    for index in range(3):
        # A kernel that overflows is not drawn.
        kernel = np.full((2, 2), np.nan) if index == 2 else np.eye(2)
        store.write_point(index, record(rng, 2, 4, 2, kernel_over_time=kernel, channel_kind="", axis_gain=2.0**index))
    browser.open(write_page(store, tmp_path / "report.html"))
    assert browser.selected() == 0
    browser.click("#phase [data-cell='2']")
    assert browser.selected() == 2
    assert "Not recorded" in browser.text("#kernel")
    assert "no critical mode" in browser.text("#channel")


def test_strings_are_never_markup(browser, grid):
    store, page = grid
    evil = store.plan()["axes"]["name"][1]
    assert "</script><b>" in evil
    browser.open(page)
    assert browser.driver.title == f"Grid {evil}"
    assert browser.text("h1") == f"Grid {evil}"
    assert browser.text("#failures td:nth-child(3)") == f"NumericalError: {evil}"
    browser.choose("axis-y", "2")
    assert browser("return [...document.querySelectorAll('#fixed-1 option')].map(one => one.textContent)")[2] == evil
    assert not browser("return document.querySelectorAll('b').length")
    assert page.read_text().count("</script>") == 2
    policy = browser.find("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
