"""A browser with the report's page open, and two stores: a real sweep and a grid of random numbers."""

import json
import shutil

import numpy as np
import pytest
from helpers import fold_sweep

import ssntk
from ssntk.report.page import write_page

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
EVIL = "</script><b>bold</b>&amp;"


class Browser:
    """Chromium with a page open, and the methods that the tests need."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, width=1400, **media):
        """Open a page, and check what must hold for every page: there is no error, and it requests nothing but itself."""
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
        """The requests since the page was opened, except those for the page itself and for data inside it."""
        entries = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
        assert urls
        return [url for url in urls if url != self.driver.current_url and not url.startswith("data:")]

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def background(self):
        return self("return getComputedStyle(document.body).backgroundColor")


@pytest.fixture(scope="session")
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
    """Check after every test that a page which was opened wrote nothing to the console and requested nothing."""
    yield
    if "browser" in request.fixturenames:
        browser = request.getfixturevalue("browser")
        assert browser.complaints() == []
        assert browser.requests() == []


@pytest.fixture(scope="session")
def fold(tmp_path_factory):
    """A real sweep, whose farthest point cannot be reached, and its page."""
    store = ssntk.Store(tmp_path_factory.mktemp("report") / "fold & co")
    ssntk.run(fold_sweep(distances=[5.0, 1e-1, 1e-2, 1e-3, 1e-4]), store, progress=False)
    return store, write_page(store, store.path / "report.html")


def random_record(rng, n, rows, times, **changes):
    """A record with random numbers and the variables of a measured point."""
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


@pytest.fixture(scope="session")
def record():
    return random_record


@pytest.fixture(scope="session")
def grid(tmp_path_factory, record):
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
            place = dict(zip(axes, np.unravel_index(index, (3, 2, 3)), strict=True))
            at = {f"axis_{name}": axes[name][i] for name, i in place.items()}
            store.write_point(index, record(rng, 3, 15, 5, **at, **changes))
    return store, write_page(store, store.path / "report.html")
