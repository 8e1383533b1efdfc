"""The whole way: a server in a process of its own, its page in a browser, its sound."""

import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import Page, expect

import serving
from hearing import LOUD, Watch, speak, until
from serving import Server, scripted, served

SLOW = 600_000  # milliseconds that real speech may take


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with scripted(max_streams=1, max_queue=0) as server:
        yield server


def opened(page: Page, server: Server) -> Watch:
    """Its page, ready to speak."""
    address = f"http://127.0.0.1:{server.port}/"
    watch = Watch(page, address)
    page.goto(address)
    expect(page.locator("#status")).to_have_text("Ready.")
    return watch


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Text").fill(text)
    speak(page)


def test_cancel_frees_the_engine(page, server):
    watch = opened(page, server)
    say(page, "forever")
    until(page, LOUD)
    assert not server.idle
    page.keyboard.press("Escape")
    serving.until(lambda: server.idle)
    assert watch.problems == []


def test_busy_engine(page, server):
    watch = opened(page, server)
    watch.expected = "429"
    with server.speaking("forever"):
        say(page, "count 3")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server is busy.")
        expect(alert).to_contain_text(re.compile(r"It asks you to wait \d+ s\."))
    serving.until(lambda: server.idle)
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_contain_text("Finished")
    assert watch.problems == []


def test_engine_dies(page, server):
    watch = opened(page, server)
    watch.expected = "net::ERR"
    say(page, "die 300")
    until(page, LOUD)
    expect(page.get_by_role("alert")).to_contain_text("The speech was cut off.")
    expect(page.locator("#takes li")).to_contain_text("cut short")
    serving.until(lambda: server.get("/health/ready").status == 200)
    say(page, "count 3")
    expect(page.locator("#status")).to_contain_text("Finished")
    assert watch.problems == []


@pytest.mark.slow
def test_real_speech(page, tmp_path):
    page.set_default_timeout(SLOW)
    with served("nano", "--recipe", "fp32", "--recipe", "int8", "--max-streams", 2) as server:
        watch = opened(page, server)
        voices = page.get_by_label("Voice").locator("option").all_inner_texts()
        assert voices == ["slt", "rms", "awb"]
        page.get_by_label("Voice").select_option("rms")
        say(page, "Hello there.")
        until(page, LOUD)
        status = page.locator("#status")
        expect(status).to_contain_text("Finished", timeout=SLOW)
        assert float(page.locator("#ttfa").inner_text().removesuffix(" ms")) > 0
        samples, rate = downloaded(page, tmp_path / "take.wav")
        assert f"{len(samples) / rate:.1f} s" in status.inner_text()
        assert np.abs(samples).max() > 0.05
        blind_round(page)
        assert watch.problems == []


def downloaded(page: Page, file: Path) -> tuple[np.ndarray, int]:
    """Samples in -1..1, and their rate."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(file)
    with av.open(file) as opened:
        frames = [frame.to_ndarray()[0] for frame in opened.decode(audio=0)]
        return np.concatenate(frames) / 32768, opened.streams.audio[0].rate


def blind_round(page: Page) -> None:
    page.get_by_role("button", name="Start a round").click()
    said = page.locator("#ab-said")
    expect(said).to_contain_text("Hear X and Y", timeout=SLOW)
    for side in "XY":
        page.get_by_role("button", name=f"Play {side}").click()
        until(page, LOUD)
    page.locator("[name=better][value=same]").check()
    page.locator("[name=guess][value=x]").check()
    page.get_by_role("button", name="Vote").click()
    expect(said).to_have_text(re.compile(r"X was (fp32|int8), Y was (fp32|int8): your guess"))
