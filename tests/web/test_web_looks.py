"""The page for every eye and hand: widths, themes, contrast, names."""

import re

import pytest
from playwright.sync_api import Page, expect

from hearing import DRAWN, LOUD, speak, until
from speech_stub import WEB, Answer

# Contrast (WCAG 2) of each text that shows with what is behind it; the worst first.
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [r, g, b] = channels(color).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const { backgroundColor } = getComputedStyle(element);
    const opaque = (channels(backgroundColor)[3] ?? 1) === 1;
    return opaque ? backgroundColor : behind(element.parentElement);
  };
  const told = (element) => {
    const both = [getComputedStyle(element).color, behind(element)].map(light);
    const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    return [contrast, element.id || element.textContent.trim().slice(0, 30)];
  };
  const words = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
  const speaks = (one) => one.matches("input, textarea") || [...one.childNodes].some(words);
  const all = [...document.querySelectorAll("body *")];
  const seen = all.filter((one) => one.checkVisibility() && speaks(one));
  return seen.map(told).sort(([a], [b]) => a - b);
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, canvas")]
  .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
  .map((one) => one.outerHTML)"""
SIDEWAYS = """() => [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 0.5)
  .map((one) => one.outerHTML.slice(0, 80))"""


def fill(page: Page, stub) -> None:
    """Every part of the page shows something."""
    page.get_by_role("textbox", name="Text").fill("Donaudampfschifffahrtsgesellschaft" * 4)
    stub.answer = Answer(seconds=0.1)
    speak(page)
    expect(page.locator("#takes li")).to_have_count(1)
    page.get_by_role("button", name="Start a round").click()
    for side in "XY":
        page.get_by_role("button", name=f"Play {side}").click()
    for name in ("better", "guess"):
        page.locator(f"[name={name}][value=x]").check()
    page.get_by_role("button", name="Vote").click()
    page.get_by_role("button", name="Start a round").click()
    expect(page.locator("#ab-vote")).to_be_visible()
    error = {"message": "Too long: " + "w" * 80, "param": "input"}
    stub.answer = Answer(refuse=(400, error))
    speak(page)
    page.get_by_role("alert").wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_whole_page(ready, watch, stub, width, scheme):
    watch.expected = "400"
    ready.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    ready.set_viewport_size({"width": width, "height": 800})
    fill(ready, stub)
    assert ready.evaluate(SIDEWAYS) == []
    assert ready.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert ready.evaluate(NAMELESS) == []
    contrasts = ready.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert contrasts[0][0] >= 4.5, contrasts[:5]


def test_theme_is_the_systems_until_chosen(ready, watch):
    ground = "getComputedStyle(document.body).backgroundColor"
    ready.emulate_media(color_scheme="light")
    light = ready.evaluate(ground)
    ready.emulate_media(color_scheme="dark")
    dark = ready.evaluate(ground)
    assert light != dark
    ready.get_by_label("Theme").select_option("light")
    assert ready.evaluate(ground) == light
    ready.reload()
    assert ready.evaluate(ground) == light
    ready.get_by_label("Theme").select_option("auto")
    assert ready.evaluate(ground) == dark


def test_focus_shows(ready):
    """Each stop of the tab key is outlined."""
    ready.get_by_label("Theme").focus()
    stops = 0
    while ready.evaluate("document.activeElement !== document.body") and stops < 40:
        style = ready.evaluate("getComputedStyle(document.activeElement).outline")
        assert re.search(r"solid 3px", style), ready.evaluate("document.activeElement.outerHTML")
        ready.keyboard.press("Tab")
        stops += 1
    assert stops >= 12


def test_less_motion(ready, stub):
    """Pictures then change twice a second, not with every frame."""
    ready.emulate_media(reduced_motion="reduce")
    ready.evaluate("""() => {
      window.frames_asked = 0;
      const ask = requestAnimationFrame;
      window.requestAnimationFrame = (work) => { frames_asked += 1; return ask(work); };
    }""")
    stub.answer = Answer(seconds=1)
    speak(ready)
    until(ready, LOUD)
    expect(ready.locator("#status")).to_contain_text("Finished")
    assert ready.evaluate("frames_asked") == 0


def test_no_room(ready, stub):
    """A window may be narrower than any picture for a moment; the page must live on."""
    stub.answer = Answer(seconds=0.2)
    speak(ready)
    expect(ready.locator("#takes li")).to_have_count(1)
    for width in (30, 0, 400):
        ready.evaluate(
            "(width) => (document.querySelector('figure').style.width = `${width}px`)", width
        )
        frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        ready.evaluate(f"{frame}.then(() => true)")
    assert ready.evaluate(DRAWN, "wave") > 0.02


def test_storage_may_be_forbidden(page, stub, watch):
    page.add_init_script("""for (const name of ["localStorage", "sessionStorage"]) {
      const get = () => { throw new DOMException("no", "SecurityError"); };
      Object.defineProperty(window, name, { get });
    }""")
    page.reload()
    expect(page.get_by_text("Ready.")).to_be_visible()
    page.get_by_label("Theme").select_option("dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_files_are_few_and_small():
    files = [*WEB.iterdir()]
    assert sum(len(file.read_bytes()) for file in files) < 100_000
    assert not any(
        re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text()) for file in files
    )
