"""A real browser with the page in it, ears on its loudspeaker, and a watch over its mistakes."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hearing import ELSEWHERE, PATIENCE, Watch
from needs import CHROMIUM, NO_CHROMIUM
from speech_stub import SpeechStub

expect.set_options(timeout=1000 * PATIENCE)
OPTIONS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]

# Listens to all that goes to the loudspeaker.
EARS = """
window.ears = { peaks: [], pitch: 0, context: null };
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...more) {
  if (target instanceof AudioDestinationNode) {
    const analyser = new AnalyserNode(this.context, { smoothingTimeConstant: 0 });
    connect.call(this, analyser);
    ears.context = this.context;
    const wave = new Float32Array(analyser.fftSize);
    const bins = new Float32Array(analyser.frequencyBinCount);
    clearInterval(ears.timer);
    ears.timer = setInterval(() => {
      analyser.getFloatTimeDomainData(wave);
      ears.peaks.push(ears.peak = Math.max(...wave.map(Math.abs)));
      if (ears.peak < 0.01) return;
      analyser.getFloatFrequencyData(bins);
      const loudest = bins.indexOf(Math.max(...bins));
      ears.pitch = (loudest * this.context.sampleRate) / analyser.fftSize;
    }, 10);
  }
  return connect.call(this, target, ...more);
};
"""


@pytest.fixture(scope="module")  # it holds an event loop, which other files must not find running
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        options = [*OPTIONS, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def stub() -> Iterator[SpeechStub]:
    with SpeechStub() as stub:
        yield stub


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(1000 * PATIENCE)
    context.add_init_script(EARS)
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(page: Page, stub: SpeechStub) -> Iterator[Watch]:
    """The page of the stub, opened; nothing may have gone wrong in the end."""
    watch = Watch(page, stub.url)
    page.goto(stub.url)
    yield watch
    assert watch.problems == []


@pytest.fixture
def ready(page: Page, watch: Watch) -> Page:
    page.get_by_text("Ready.").wait_for()
    return page
