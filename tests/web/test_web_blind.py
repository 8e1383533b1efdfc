"""The blind test: what was heard as X and Y is what the page says afterwards, and is counted."""

import pytest
from playwright.sync_api import Page, expect

from hearing import LOUD, PATIENCE, SILENT, until
from quaver.quality.stats import binomial_p
from speech_stub import PITCH, Answer

OTHER = {"x": "y", "y": "x"}


def start(page: Page) -> None:
    page.get_by_role("button", name="Start a round").click()
    expect(page.locator("#ab-said")).to_contain_text("Hear X and Y")


def hear(page: Page, side: str) -> tuple[str, float]:
    """Which recipe sounds, by its pitch, and how loud it is."""
    page.evaluate("ears.pitch = ears.peak = 0")
    page.get_by_role("button", name=f"Play {side.upper()}").click()
    until(page, LOUD)
    near = "([, pitch]) => Math.abs(pitch - ears.pitch) < 20"
    recipe = until(page, f"Object.entries({PITCH}).find({near})?.[0]")
    until(page, "ears.peaks.slice(-5).every((peak) => Math.abs(peak - ears.peak) < 0.005)")
    peak = page.evaluate("ears.peak")
    page.get_by_role("button", name=f"Stop {side.upper()}").click()
    until(page, SILENT)
    return recipe, peak


def vote(page: Page, better: str, guess: str) -> None:
    page.locator(f"[name=better][value={better}]").check()
    page.locator(f"[name=guess][value={guess}]").check()
    page.get_by_role("button", name="Vote").click()


def test_rounds(ready, stub):
    stub.answer = Answer(seconds=3)
    ready.get_by_label("Voice").select_option("ben")
    orders = set()
    for rounds in range(1, 9):
        start(ready)
        (x, loud), (y, soft) = hear(ready, "x"), hear(ready, "y")
        assert {x, y} == {"fp32", "int8"}
        assert loud == pytest.approx(0.3, abs=0.02) == soft, "loudness tells them apart"
        orders.add((x, y))
        fp32 = "x" if x == "fp32" else "y"
        vote(ready, OTHER[fp32] if rounds < 8 else "same", fp32 if rounds != 3 else OTHER[fp32])
        right = "wrong" if rounds == 3 else "right"
        expect(ready.locator("#ab-said")).to_have_text(
            f"X was {x}, Y was {y}: your guess was {right}."
        )
    assert len(orders) == 2, "the order is none of chance"
    p = 100 * 2 * binomial_p(7, 7)
    expect(ready.locator("#ab-better")).to_contain_text("fp32 0, int8 7, 1 without a difference")
    expect(ready.locator("#ab-better")).to_contain_text(
        f"in {p:.1f} % of such tests: some evidence that int8"
    )
    p = 100 * binomial_p(7, 8)
    expect(ready.locator("#ab-told-apart")).to_contain_text(
        f"7 of 8 right. Guessing alone does as well in {p:.1f} %"
    )
    asked = [
        {key: value for key, value in one.items() if key not in ("recipe", "seed")}
        for one in stub.asked
    ]
    assert all(one == asked[0] for one in asked) and asked[0]["voice"] == "ben"
    for first, second in zip(stub.asked[::2], stub.asked[1::2], strict=True):
        assert first["seed"] == second["seed"] and first["recipe"] != second["recipe"]
    assert ready.locator("#takes li").count() == 0, "the history would tell"
    expect(ready.locator("#seconds")).to_have_text("–")
    expect(ready.get_by_text("spectrogram appear here")).to_be_visible()
    ready.reload()
    expect(ready.locator("#ab-told-apart")).to_contain_text("7 of 8 right")
    ready.get_by_role("button", name="Clear this tally").click()
    expect(ready.locator("#ab-tally")).to_be_hidden()
    ready.reload()
    expect(ready.get_by_text("Ready.")).to_be_visible()
    expect(ready.locator("#ab-tally")).to_be_hidden()


def test_no_vote_before_both_were_heard(ready, stub):
    start(ready)
    vote(ready, "x", "y")
    expect(ready.locator("#ab-said")).to_have_text("Hear both first.")
    ready.get_by_role("button", name="Play X").press("x")
    ready.keyboard.press("y")
    ready.get_by_role("button", name="Vote").click()
    expect(ready.locator("#ab-said")).to_contain_text("X was")


def test_both_questions(ready):
    start(ready)
    for side in "XY":
        ready.get_by_role("button", name=f"Play {side}").click()
    ready.locator("[name=better][value=same]").check()
    ready.get_by_role("button", name="Vote").click()
    expect(ready.locator("#ab-said")).to_have_text("Answer both questions.")
    expect(ready.locator("#ab-tally")).to_be_hidden()


def test_cancel_and_trouble(ready, watch, stub):
    stub.answer = Answer(seconds=20, hold_after=2)
    ready.get_by_role("button", name="Start a round").click()
    assert stub.sent.wait(PATIENCE)
    ready.locator("#ab").get_by_role("button", name="Cancel").click()
    assert stub.gone.wait(PATIENCE)
    expect(ready.locator("#ab-said")).to_have_text("Cancelled.")
    watch.expected = "429"
    stub.answer = Answer(refuse=(429, {"message": "Full.", "param": None}))
    ready.get_by_role("button", name="Start a round").click()
    expect(ready.get_by_role("alert")).to_contain_text("The server is busy. Full.")
    stub.answer = Answer()
    ready.get_by_role("button", name="Try again").click()
    expect(ready.locator("#ab-said")).to_contain_text("Hear X and Y")


def test_one_recipe_is_no_choice(page, stub, watch):
    stub.recipes = ["fp32"]
    page.reload()
    expect(page.get_by_text("This needs two recipes")).to_be_visible()
    expect(page.get_by_role("button", name="Start a round")).to_be_hidden()


def test_the_same_twice_is_no_choice(ready, stub):
    ready.get_by_label("Another").select_option("fp32")
    ready.get_by_role("button", name="Start a round").click()
    expect(ready.locator("#ab-said")).to_have_text("Both are the same recipe. Choose two.")
    assert stub.asked == []
