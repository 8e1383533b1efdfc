"""The page speaks: what the server sends is heard, drawn, counted and kept."""

import av
import numpy as np
import pytest
from playwright.sync_api import expect

from hearing import DRAWN, ELSEWHERE, LOUD, PATIENCE, SILENT, Watch, speak, until
from speech_stub import RATE, Answer, sound


def test_hears_and_draws_while_the_server_still_speaks(ready, stub):
    stub.answer = Answer(seconds=1.0, chunk=0.1, hold_after=5)
    speak(ready)
    assert stub.sent.wait(PATIENCE)
    until(ready, LOUD)
    until(ready, "Math.abs(ears.pitch - 500) < 20")
    assert ready.evaluate("ears.context.sampleRate") == RATE
    expect(ready.locator("#status")).to_have_text("Speaking.")
    expect(ready.locator("#seconds")).to_have_text("0.5 s")
    assert ready.evaluate(DRAWN, "wave") > 0.02
    assert ready.evaluate(DRAWN, "spectrum") > 0.02
    until(ready, SILENT)  # all that came is played; nothing is made up
    stub.go.set()
    until(ready, LOUD)
    expect(ready.locator("#underruns")).to_have_text("1")
    expect(ready.locator("#status")).to_have_text("Finished: 1.0 s of speech.")
    until(ready, SILENT)


def test_ttfa_is_that_of_an_audible_sample(ready, stub):
    stub.answer = Answer(seconds=0.4, quiet=0.2, chunk=0.1, hold_after=2)
    speak(ready)
    assert stub.sent.wait(PATIENCE)
    expect(ready.locator("#seconds")).to_have_text("0.2 s")
    expect(ready.locator("#ttfa")).to_have_text("–")
    stub.go.set()
    expect(ready.locator("#ttfa")).to_contain_text("ms")
    expect(ready.locator("#rtfx")).to_contain_text("RTFx")


@pytest.mark.parametrize(
    ("count", "told"),
    [("1", " 1 character was left out"), ("12", " 12 characters were left out"), (None, "")],
)
def test_tells_what_the_model_could_not_read(ready, stub, count, told):
    stub.answer = Answer(seconds=0.2, headers={"X-Characters-Left-Out": count} if count else {})
    speak(ready)
    more = f"{told}: the model cannot read everything." if told else ""
    expect(ready.locator("#status")).to_have_text(f"Finished: 0.2 s of speech.{more}")


def test_no_underrun_at_the_end(ready, stub):
    stub.answer = Answer(seconds=0.3, chunk=0.3)  # at once, so that no chunk can be late
    speak(ready)
    expect(ready.locator("#status")).to_have_text("Finished: 0.3 s of speech.")
    expect(ready.locator("#underruns")).to_have_text("0")


def test_where_browsers_trust_nobody(page, stub):
    """Over plain HTTP from another machine there is no audio thread."""
    address = stub.url.replace("127.0.0.1", ELSEWHERE)
    watch = Watch(page, address)
    page.goto(address)
    page.get_by_text("Ready.").wait_for()
    assert not page.evaluate("isSecureContext")
    stub.answer = Answer(seconds=0.5)
    speak(page)
    until(page, LOUD)
    expect(page.locator("#status")).to_have_text("Finished: 0.5 s of speech.")
    assert watch.problems == []


@pytest.mark.parametrize("hold", [0, 3], ids=["before sound", "amid sound"])
def test_cancel_reaches_the_server(ready, stub, hold):
    stub.answer = Answer(seconds=20, hold_after=hold)
    speak(ready)
    assert stub.sent.wait(PATIENCE)
    if hold:
        until(ready, LOUD)
    ready.get_by_role("button", name="Cancel").click()
    assert stub.gone.wait(PATIENCE), "the server was not told"
    expect(ready.locator("#status")).to_have_text("Stopped.")
    assert ready.locator("#takes li").count() == (1 if hold else 0)
    if hold:
        expect(ready.locator("#takes li")).to_contain_text("cut short")
        until(ready, SILENT)
    expect(ready.get_by_role("alert")).to_be_hidden()


def test_keyboard_alone(ready, stub):
    text = ready.get_by_role("textbox", name="Text")
    text.fill("One two.")
    ready.get_by_role("button", name="<sigh>").press("Enter")
    expect(text).to_be_focused()
    expect(text).to_have_value("One two. <sigh> ")
    text.press("Tab")
    for tag in ("<laugh>", "<sigh>"):
        expect(ready.locator(":focus")).to_have_text(tag)
        ready.keyboard.press("Tab")
    ready.keyboard.press("b")  # voice
    ready.keyboard.press("Tab")
    ready.keyboard.press("i")  # recipe
    ready.keyboard.press("Tab")
    ready.keyboard.press("Home")  # speed
    ready.keyboard.press("Tab")
    ready.keyboard.type("77")
    stub.answer = Answer(seconds=20, hold_after=2)
    ready.keyboard.press("Control+Enter")
    assert stub.sent.wait(PATIENCE)
    ready.keyboard.press("Control+Enter")  # speaks already
    ready.keyboard.press("Escape")
    assert stub.gone.wait(PATIENCE)
    made = {"voice": "ben", "recipe": "int8", "speed": 0.25, "seed": 77, "model": "stub"}
    assert stub.asked == [made | {"input": "One two. <sigh> ", "response_format": "pcm"}]


def test_tag_goes_where_the_cursor_is(ready):
    text = ready.get_by_role("textbox", name="Text")
    text.fill("One two.")
    text.evaluate("box => box.setSelectionRange(3, 3)")
    ready.get_by_role("button", name="<laugh>").click()
    expect(text).to_have_value("One <laugh> two.")


def test_seeds(ready, stub):
    """Without one each time another, which the history tells; dice draw one that stays."""
    stub.answer = Answer(seconds=0.05)
    for count in (1, 2):
        speak(ready)
        expect(ready.locator("#takes li")).to_have_count(count)
    ready.get_by_role("button", name="Draw a seed").click()
    for count in (3, 4):
        expect(ready.locator("#status")).to_contain_text("Finished")
        speak(ready)
        expect(ready.locator("#takes li")).to_have_count(count)
    seeds = [asked["seed"] for asked in stub.asked]
    assert len(set(seeds)) == 3 and seeds[2] == seeds[3] == int(
        ready.get_by_label("Seed").first.input_value()
    )
    for row, seed in zip(ready.locator("#takes li").all(), reversed(seeds), strict=True):
        expect(row).to_contain_text(f"seed {seed} ")


@pytest.mark.parametrize("seed", ["-1", "1.5", "9223372036854775807"])
def test_no_seed_is_sent_that_another_would_stand_for(ready, stub, seed):
    """2^63 - 1 is none of the numbers that browsers count with."""
    field = ready.get_by_role("spinbutton", name="Seed")
    field.fill(seed)
    ready.keyboard.press("Control+Enter")
    expect(field).to_be_focused()
    assert not field.evaluate("field => field.checkValidity()") and stub.asked == []


def test_download_is_what_was_sent(ready, stub, tmp_path):
    ready.get_by_role("textbox", name="Text").fill("Größe: 3/4 ../x")
    ready.get_by_label("Seed").first.fill("5")
    stub.answer = Answer(seconds=0.777, chunk=0.05)
    speak(ready)
    with ready.expect_download() as download:
        ready.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "größe-3-4-x-5.wav"
    download.value.save_as(tmp_path / "take.wav")
    with av.open(tmp_path / "take.wav") as file:
        assert file.streams.audio[0].rate == RATE and file.streams.audio[0].channels == 1
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
    assert np.array_equal(np.concatenate(frames, axis=1)[0], sound("fp32", 0.777))


def test_history_plays_again_and_starts_anew(ready, stub):
    stub.answer = Answer(seconds=1.0)
    ready.get_by_role("textbox", name="Text").fill("Remember me.")
    ready.get_by_label("Recipe", exact=True).select_option("int8")
    speak(ready)
    expect(ready.locator("#status")).to_have_text("Finished: 1.0 s of speech.")
    until(ready, SILENT)
    ready.get_by_role("textbox", name="Text").fill("Something else.")
    ready.get_by_label("Recipe", exact=True).select_option("fp32")
    play = ready.get_by_role("button", name="Play: Remember me.")
    play.click()
    until(ready, LOUD)
    until(ready, "Math.abs(ears.pitch - 1000) < 20")
    ready.get_by_role("button", name="Stop: Remember me.").click()
    until(ready, SILENT)
    assert len(stub.asked) == 1
    ready.get_by_role("button", name="Reuse: Remember me.").click()
    expect(ready.get_by_role("textbox", name="Text")).to_have_value("Remember me.")
    speak(ready)
    expect(ready.locator("#takes li")).to_have_count(2)
    assert stub.asked[0] == stub.asked[1]


def test_history_keeps_the_last_twenty(ready, stub):
    stub.answer = Answer(seconds=0.02)
    for number in range(22):
        ready.get_by_role("textbox", name="Text").fill(f"Text {number}.")
        speak(ready)
        expect(ready.locator("#status")).to_contain_text("Finished")
        ready.evaluate("document.getElementById('status').textContent = ''")
    said = ready.locator("#takes .said").all_inner_texts()
    assert said == [f"Text {number}." for number in range(21, 1, -1)]
