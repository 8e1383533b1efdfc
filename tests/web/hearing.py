"""What tests of the page say and wait for."""

import time

from playwright.sync_api import Page

PATIENCE = 20  # seconds: what is late by then hangs
SILENT = "ears.peak === 0"
LOUD = "ears.peak > 0.1"
# A name of this machine that browsers trust as little as any other machine's.
ELSEWHERE = "elsewhere.test"


def speak(page: Page) -> None:
    page.get_by_role("button", name="Speak").click()


def until(page: Page, expression: str):
    """Wait for what an expression gives to be true; the page's policy keeps browsers from doing it."""
    for _ in range(PATIENCE * 50):
        if found := page.evaluate(expression):
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE} s for {expression}")
