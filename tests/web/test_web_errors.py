"""What goes wrong is told in words, with what to do; nothing that was heard is lost."""

from playwright.sync_api import expect

from hearing import LOUD, SILENT, speak, until
from speech_stub import Answer, SpeechStub


def test_busy(ready, watch, stub):
    watch.expected = "429"
    error = {
        "message": "all 4 streams speak",
        "type": "rate_limit_error",
        "param": None,
        "code": "server_busy",
    }
    stub.answer = Answer(refuse=(429, error), headers={"Retry-After": "2"})
    speak(ready)
    alert = ready.get_by_role("alert")
    expect(alert).to_contain_text(
        "The server is busy. All 4 streams speak. It asks you to wait 2 s."
    )
    again = alert.get_by_role("button", name="Try again")
    expect(again).to_contain_text("in 2 s")
    expect(again).to_be_disabled()
    again.click(force=True)
    expect(again).to_be_enabled()
    assert len(stub.asked) == 1, "it did not wait"
    stub.answer = Answer(seconds=0.3)
    again.click()
    expect(alert).to_be_hidden()
    expect(ready.locator("#status")).to_have_text("Finished: 0.3 s of speech.")


def test_gone_amid_speech(ready, watch, stub):
    watch.expected = "INCOMPLETE_CHUNKED"
    stub.answer = Answer(seconds=1, hold_after=4, cut_after=4)
    speak(ready)
    expect(ready.locator("#seconds")).to_have_text("0.4 s")
    until(ready, LOUD)
    stub.go.set()
    expect(ready.get_by_role("alert")).to_contain_text(
        "The speech was cut off. The server or the network"
    )
    until(ready, SILENT)
    expect(ready.locator("#takes li")).to_contain_text("0.4 s")
    expect(ready.locator("#takes li")).to_contain_text("cut short")
    ready.get_by_role("button", name="Play:").click()
    until(ready, LOUD)


def test_gone_before(ready, watch, stub):
    watch.expected = "CONNECTION_REFUSED|worklet"
    stub.shutdown()
    stub.server_close()
    speak(ready)
    host = stub.url.split("/")[2]
    expect(ready.get_by_role("alert")).to_contain_text(
        f"The server does not answer. Is it running at {host}?"
    )
    with SpeechStub(stub.server_address[1]):
        ready.get_by_role("button", name="Try again").click()
        until(ready, LOUD)


def test_nothing_comes(ready, stub):
    stub.answer = Answer(seconds=0)
    speak(ready)
    expect(ready.get_by_role("alert")).to_contain_text("Nothing came.")
    expect(ready.locator("#takes li")).to_have_count(0)


def test_refused_text_is_pointed_at(ready, watch, stub):
    watch.expected = "400"
    error = {"message": "<b>input</b> is empty; give at least one word.", "param": "input"}
    stub.answer = Answer(refuse=(400, error))
    speak(ready)
    expect(ready.get_by_role("alert")).to_contain_text(f"The server refused. {error['message']}")
    expect(ready.get_by_role("button", name="Try again")).to_be_hidden()
    text = ready.get_by_role("textbox", name="Text")
    expect(text).to_be_focused()
    expect(text).to_have_attribute("aria-invalid", "true")
    text.press_sequentially("x")
    expect(text).not_to_have_attribute("aria-invalid", "true")


def test_words_of_a_proxy(ready, watch, stub):
    watch.expected = "502"
    stub.answer = Answer(refuse=(502, {}), headers={"Content-Type": "text/html"})
    speak(ready)
    expect(ready.get_by_role("alert")).to_contain_text(
        "The server failed. It answered 502 Bad Gateway."
    )


def test_key(ready, watch, stub):
    watch.expected = "401"
    stub.key = "secret-1"
    ready.reload()
    expect(ready.get_by_role("alert")).to_contain_text("The server wants a key. Send your key.")
    field = ready.locator("#key")
    expect(field).to_be_focused()
    field.fill("wrong")
    field.press("Enter")
    expect(ready.get_by_role("alert")).to_contain_text("Send your key.")
    field.fill("sécret")
    field.press("Tab")
    expect(ready.get_by_role("alert")).to_contain_text("This is not a key.")
    field.fill("secret-1")
    field.press("Tab")
    expect(ready.get_by_text("Ready.")).to_be_visible()
    expect(ready.get_by_role("alert")).to_be_hidden()
    stub.answer = Answer(seconds=0.2)
    speak(ready)
    expect(ready.locator("#status")).to_contain_text("Finished")
    kept = "[Object.values(localStorage), Object.values(sessionStorage)]"
    assert ready.evaluate(kept) == [[], ["secret-1"]]


def test_waits_for_the_model(page, stub, watch):
    stub.ready = False
    page.reload()
    expect(page.get_by_text("The server loads its model.")).to_be_visible()
    speak(page)
    assert stub.asked == []
    stub.ready = True
    expect(page.get_by_text("Ready.")).to_be_visible()
