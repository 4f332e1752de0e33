import base64
import itertools
import json
import math
import pathlib
import re
import shutil

import numpy as np
import pytest
from helpers import fold_sweep

import ssntk
from ssntk.report.page import payload, write_page

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FORMAT_1 = pathlib.Path(__file__).parent.parent / "sweep" / "format1"
EVIL = "</script><b>bold</b>&amp;"
PANELS = {"diagram", "steady", "ranks", "law", "eigenvalues", "spectrum", "kernel", "channel", "numbers"}


class Browser:
    """Chromium with a page open, and what the tests ask of it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, width=1400, **media):
        """Open a page, and check what every page must hold: no error, and no request but for itself."""
        media = {"scheme": "light", "media": ""} | media
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.media(**media)
        self.driver.get_log("performance")
        self.driver.get(page.as_uri())
        assert self.driver.find_element("css selector", "html").get_attribute("data-ready") == "yes"
        return self

    def media(self, scheme="light", media=""):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def __call__(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self(f"return document.querySelector({selector!r}).textContent")

    def value(self, name):
        """The number that the page shows under a name, or None."""
        held = self(f"return document.querySelector('[data-name={json.dumps(name)}]').getAttribute('data-value')")
        return None if held is None else float(held)

    def selected(self):
        """The point that every panel shows: they must agree with each other and with the slider's text."""
        found = self(
            "return [...document.querySelectorAll('figure.panel'), document.getElementById('chosen')]"
            ".map(one => one.dataset.point)"
        )
        (only,) = set(found)
        return int(only)

    def keys(self, selector, *keys):
        self.find(selector).send_keys(*keys)

    def click(self, selector):
        from selenium.webdriver import ActionChains

        element = self.find(selector)
        self("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).move_to_element(element).click().perform()

    def choose(self, identity, value):
        from selenium.webdriver.support.select import Select

        Select(self.find(f"#{identity}")).select_by_value(value)

    def requests(self):
        """What was asked for since the page was opened, but for the page itself and what lies in it."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
        assert urls
        return [url for url in urls if url != self.driver.current_url and not url.startswith("data:")]

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    for program in (CHROMIUM, DRIVER):
        if not shutil.which(program):
            # A page can only be tried in a browser; .ci/run installs one.
            pytest.skip(f"{program} is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    switches = (
        "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
        "disable-component-update disable-sync"
    )
    for switch in [*switches.split(), f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.set_script_timeout(20)
    yield Browser(driver)
    driver.quit()


@pytest.fixture(autouse=True)
def _silent(request):
    """After every test that opened a page: it wrote nothing to the console and asked for nothing."""
    yield
    if "browser" in request.fixturenames:
        browser = request.getfixturevalue("browser")
        assert browser.complaints() == []
        assert browser.requests() == []


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """A real sweep, whose farthest point cannot be reached, and its page."""
    store = ssntk.Store(tmp_path_factory.mktemp("report") / "fold & co")
    ssntk.run(fold_sweep(distances=[5.0, 1e-1, 1e-2, 1e-3, 1e-4]), store, progress=False)
    return store, write_page(store, store.path / "report.html")


def record(rng, n, rows, times, **changes):
    """A record of random numbers, as a measured point has it."""
    jacobian = rng.normal(size=(n, n)) / n**0.5
    eigenvalues = np.linalg.eigvals(jacobian - np.eye(n)).astype(complex)
    waves = rng.normal(size=(times, 3))
    scalars = (
        "condition_number",
        "trajectory_condition_number",
        "effective_rank",
        "participation_ratio",
        "top_share",
        "trace",
    )
    channel = (
        "frequency share oblique_share cross_share nonnormality drive top_eigenvalue predicted_top_eigenvalue mismatch "
        "departure alignment parameter_alignment"
    )
    return {
        "x_star": rng.normal(size=n),
        "residual": 1e-16,
        "jacobian_eigenvalues": eigenvalues[np.argsort(-eigenvalues.real)],
        "ntk_eigenvalues": np.sort(rng.lognormal(sigma=8, size=rows))[::-1],
        "steady_state_eigenvalues": np.sort(rng.lognormal(sigma=3, size=n))[::-1],
        "trajectory_condition_number_is_bound": 1.0,
        **{name: rng.lognormal() for name in scalars},
        "kernel_over_time": waves @ waves.T,
        "channel_kind": "real",
        "channel_critical_eigenvalue": complex(rng.normal()),
        "channel_right": rng.normal(size=n) + 0j,
        "channel_left": rng.normal(size=n) + 0j,
        **{f"channel_{name}": rng.normal() for name in channel.split()},
        "channel_method": "fixed point",
        "channel_reason": "the numbers are random",
        "seconds": 1.0,
        "status": "done",
    } | changes


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid with an axis of numbers on a log scale, one of names and one of seeds; two points failed, one is missing."""
    store = ssntk.Store(tmp_path_factory.mktemp("report") / "grid")
    axes = {"tau": [0.01, 1.0, 0.1], "name": ["plain", EVIL], "seed": [0, 1, 2]}
    ts = np.linspace(0.0, 1.0, 5).tolist()
    header = {"kind": "grid", "title": f"Grid {EVIL}", "axes": axes, "n_state": 3, "ts": ts, "blocks": [], "dt": None}
    store.claim("0123456789abcdef", header)
    rng = np.random.default_rng(0)
    for index in range(18):
        if index in (4, 12):
            store.write_point(index, {"seconds": 1.0, "status": f"failed: NumericalError: {EVIL}"})
        elif index != 17:
            changes = {"condition_number": np.inf} if index == 2 else {}
            store.write_point(index, record(rng, 3, 15, 5, **changes))
    return store, write_page(store, store.path / "report.html")


def test_the_payload_holds_the_numbers_of_the_store(fold):
    store, page = fold
    data, held = store.arrays(), payload(store)
    assert json.loads(json.dumps(held, allow_nan=False)) == held
    # From far to near, as the slider has them.
    np.testing.assert_allclose([point["distance"] for point in held["points"]], data["distance"][::-1], rtol=1e-11)
    assert [point["state"] for point in held["points"]] == ["failed"] + ["done"] * 4
    assert "reaches only to a distance" in held["points"][0]["reason"]
    assert "values" not in held["points"][0]
    for i, point in enumerate(held["points"][1:], start=1):
        row = len(data["distance"]) - 1 - i
        assert point["values"]["steady"] == pytest.approx(data["steady_state_eigenvalues"][row, 0], rel=1e-5)
        assert point["values"]["trace"] == pytest.approx(data["trace"][row], rel=1e-5)
        assert point["channel"]["predicted_top_eigenvalue"] == pytest.approx(
            data["channel_predicted_top_eigenvalue"][row], rel=1e-5
        )
        kernel = data["kernel_over_time"][row]
        shades = np.frombuffer(base64.b64decode(point["kernel"]["upper"]), np.int8)
        np.testing.assert_allclose(
            shades / 127 * point["kernel"]["peak"], kernel[np.triu_indices(6)], atol=kernel.max() / 250
        )
    assert held["folder"] == "fold & co"
    assert str(store.path.parent) not in page.read_text()


def test_the_branch_is_drawn_through_its_measured_points(fold):
    branch = payload(fold[0])["branch"]
    mu = np.array(branch["parameter"])
    for name, sign in (("stable", 1), ("unstable", -1)):
        height = np.array([np.nan if value is None else value for value in branch[name]])
        shown = np.isfinite(height)
        np.testing.assert_allclose(height[shown] ** 2, mu[shown], atol=1e-3)
        assert (sign * height[shown] > -1e-9).all()
    assert [event["target"] for event in branch["events"]] == [True]


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


def test_everything_can_be_reached_by_keyboard(browser, grid):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.open(grid[1])
    seen = []
    for _ in range(12):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        seen.append(browser("return document.activeElement.id || document.activeElement.tagName"))
        outline = browser("return getComputedStyle(document.activeElement).outlineStyle")
        assert seen[-1] == "BODY" or outline == "solid"
    assert seen[:7] == ["theme", "point", "quantity", "axis-x", "axis-y", "fixed-2", "svg"]
    assert seen[7:9] == ["BUTTON", "BUTTON"]
    before = browser.selected()
    ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()
    assert browser.selected() == before
    names = browser(
        "return [...document.querySelectorAll('figure, svg[viewBox]:not([aria-hidden])')].map("
        "one => one.getAttribute('aria-label') || one.getAttribute('aria-labelledby'))"
    )
    assert all(names)


def background(browser):
    return browser("return getComputedStyle(document.body).backgroundColor")


def test_dark_and_light_follow_the_system_and_the_button(browser, fold, grid):
    from selenium.webdriver.common.keys import Keys

    light, dark = (background(browser.open(fold[1], scheme=scheme)) for scheme in ("light", "dark"))
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    assert browser.text("#theme") == "Light theme"
    browser.keys("#theme", Keys.ENTER)
    assert (background(browser), browser.text("#theme")) == (light, "Dark theme")
    browser.driver.refresh()
    assert background(browser) == light
    # Another page begins as the system has it.
    assert background(browser.open(grid[1], scheme="dark")) == dark


def test_print_is_light_and_has_no_controls(browser, grid):
    browser.open(grid[1], scheme="dark").keys("#theme", " ", " ")
    browser.media("dark", "print")
    assert background(browser) == "rgb(255, 255, 255)"
    for control in ("#theme", "#point", "#quantity"):
        assert browser.find(control).is_displayed() is False
    assert browser.find("#chosen").is_displayed()
    assert browser("return getComputedStyle(document.querySelector('.panel')).breakInside") == "avoid"
    pdf = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")


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


def test_one_axis_is_a_line(browser, tmp_path):
    store = ssntk.Store(tmp_path)
    header = {"kind": "grid", "title": "A line", "axes": {"gain": [1.0, 2.0, 4.0]}, "n_state": 2, "ts": [0.0, 1.0]}
    store.claim("0" * 16, header)
    rng = np.random.default_rng(1)
    for index in range(3):
        # Of a kernel that overflows nothing is drawn.
        kernel = np.full((2, 2), np.nan) if index == 2 else np.eye(2)
        store.write_point(index, record(rng, 2, 4, 2, kernel_over_time=kernel, channel_kind=""))
    browser.open(write_page(store, tmp_path / "report.html"))
    assert browser.selected() == 0
    browser.click("#phase [data-cell='2']")
    assert browser.selected() == 2
    assert "Not recorded" in browser.text("#kernel")
    assert "no critical mode" in browser.text("#channel")


def test_strings_are_never_markup(browser, grid):
    page = grid[1]
    browser.open(page)
    assert browser.driver.title == f"Grid {EVIL}"
    assert browser.text("h1") == f"Grid {EVIL}"
    assert browser.text("#failures td:nth-child(3)") == f"NumericalError: {EVIL}"
    browser.choose("axis-y", "2")
    assert browser("return [...document.querySelectorAll('#fixed-1 option')].map(one => one.textContent)")[2] == EVIL
    assert not browser("return document.querySelectorAll('b').length")
    assert page.read_text().count("</script>") == 2
    policy = browser.find("meta[http-equiv]").get_attribute("content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


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


OVERLAPS = """
const found = [];
for (const svg of document.querySelectorAll('.plot svg')) {
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  boxes.forEach(([text, a], i) => {
    const across = a.left > frame.left - 1 && a.right < frame.right + 1;
    const down = a.top > frame.top - 1 && a.bottom < frame.bottom + 1;
    if (!across || !down) found.push([text, 'cut']);
    for (const [other, b] of boxes.slice(i + 1)) {
      const apart = a.left > b.right - 1 || b.left > a.right - 1 || a.top > b.bottom - 2 || b.top > a.bottom - 2;
      if (!apart) found.push([text, other]);
    }
  });
}
return found;
"""


@pytest.mark.parametrize("width", [360, 800, 1900])
def test_no_label_lies_on_another_and_nothing_is_cut(browser, fold, grid, width):
    for _, page in (fold, grid):
        browser.open(page, width=width)
        assert browser("return document.documentElement.scrollWidth") <= width
        assert browser(OVERLAPS) == []


def test_200_points_with_672_eigenvalues_stay_small(browser, fold, tmp_path):
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


def test_the_command_line_writes_the_page(fold, tmp_path, capsys):
    from ssntk.cli import report

    report(fold[0].path, out=tmp_path / "page.html")
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == fold[1].read_bytes()


def test_without_scripts_the_page_says_so(fold):
    text = fold[1].read_text()
    assert "scripts are switched off here" in text
    assert "<code>fold &amp; co</code>" in text
