"""Everyone can use the page: by keyboard, with a dark theme, on paper, on a small screen."""

import base64

import pytest

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


def test_dark_and_light_follow_the_system_and_the_button(browser, fold, grid):
    from selenium.webdriver.common.keys import Keys

    light, dark = (browser.open(fold[1], scheme=scheme).background() for scheme in ("light", "dark"))
    assert light == "rgb(255, 255, 255)"
    assert dark != light
    assert browser.text("#theme") == "Light theme"
    browser.keys("#theme", Keys.ENTER)
    assert (browser.background(), browser.text("#theme")) == (light, "Dark theme")
    browser.driver.refresh()
    assert browser.background() == light
    # Another page begins with the theme of the system.
    assert browser.open(grid[1], scheme="dark").background() == dark


def test_print_is_light_and_has_no_controls(browser, grid):
    browser.open(grid[1], scheme="dark").keys("#theme", " ", " ")
    browser.media("dark", "print")
    assert browser.background() == "rgb(255, 255, 255)"
    for control in ("#theme", "#point", "#quantity"):
        assert browser.find(control).is_displayed() is False
    assert browser.find("#chosen").is_displayed()
    assert browser("return getComputedStyle(document.querySelector('.panel')).breakInside") == "avoid"
    pdf = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")


@pytest.mark.parametrize("width", [360, 800, 1900])
def test_no_label_lies_on_another_and_nothing_is_cut(browser, fold, grid, width):
    for _, page in (fold, grid):
        browser.open(page, width=width)
        assert browser("return document.documentElement.scrollWidth") <= width
        assert browser(OVERLAPS) == []
