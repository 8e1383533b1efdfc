"""What tests of the page say and wait for."""

import re
import time

from playwright.sync_api import Page

PATIENCE = 90  # seconds, on a machine that is busy; after that something hangs
SILENT = "ears.peak === 0 && ((ears.silence = ears.peaks.length), true)"
# At some time since a test saw silence: on a busy machine a test may look when it is over.
LOUD = "ears.peaks.slice(ears.silence ?? 0).some(peak => peak > 0.1)"
# The share of a canvas that is not empty.
DRAWN = """id => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.filter((value, place) => place % 4 === 3 && value > 0).length / (data.length / 4);
}"""
# A name of this machine that browsers trust as little as any other machine's.
ELSEWHERE = "elsewhere.test"


def speak(page: Page) -> None:
    page.get_by_role("button", name="Speak").click()


def until(page: Page, expression: str):
    """Wait for an expression to be true. The page's policy forbids Playwright's own way."""
    for _ in range(PATIENCE * 50):
        if found := page.evaluate(expression):
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE} s for {expression}")


class Watch:
    """What went wrong in a page, besides what a test expects."""

    def __init__(self, page: Page, url: str) -> None:
        self.problems: list[str] = []
        self.expected: str | None = None  # a pattern for lines in the console
        page.on("console", lambda line: line.type == "error" and self._note(line.text))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", lambda asked: self._check(asked.url, url))

    def _note(self, text: str) -> None:
        if self.expected is None or not re.search(self.expected, text):
            self.problems.append(text)

    def _check(self, asked: str, url: str) -> None:
        if not asked.startswith((url, f"blob:{url}")):
            self.problems.append(f"asked for {asked}")
