"""The whole way: `quaver serve` in a process of its own, its page in a browser, its sound."""

import re
import signal
import subprocess
from collections.abc import Iterator

import av
import numpy as np
import pytest
from hearing import LOUD, speak, until
from playwright.sync_api import Page, expect

from command import ENVIRONMENT, command

SECONDS = 120  # that starting and speaking may take on a slow machine


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server with two recipes."""
    recipes = ("--recipe", "fp32", "--recipe", "int8", "--max-streams", "2")
    words = command("serve", "nano", "--port", "0", *recipes)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        try:
            found = re.search(r"http://\S+", server.stderr.readline())
            next(line for line in server.stderr if "int8 on" in line)  # they load one by one
            yield found[0] + "/"
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)


@pytest.mark.timeout(2 * SECONDS)
def test_the_whole_way(page: Page, address, tmp_path):
    problems = []
    page.on("console", lambda line: line.type == "error" and problems.append(line.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request", lambda one: one.url.startswith((address, "blob:")) or problems.append(one.url)
    )
    page.set_default_timeout(1000 * SECONDS)
    page.goto(address)
    status = page.locator("#status")
    expect(status).to_have_text("Ready.", timeout=1000 * SECONDS)
    assert page.get_by_label("Voice").locator("option").all_inner_texts() == ["slt", "rms", "awb"]
    page.get_by_role("textbox", name="Text").fill("Hello there.")
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_label("Voice").select_option("rms")
    speak(page)
    until(page, LOUD)
    expect(status).to_contain_text("Finished", timeout=1000 * SECONDS)
    assert float(page.locator("#ttfa").inner_text().removesuffix(" ms")) > 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "take.wav")
    samples, rate = read(tmp_path / "take.wav")
    assert f"{len(samples) / rate:.1f} s" in status.inner_text()
    assert np.abs(samples).max() > 0.05
    page.get_by_role("button", name="Start a round").click()
    expect(page.locator("#ab-said")).to_contain_text("Hear X and Y", timeout=1000 * SECONDS)
    for side in "XY":
        page.get_by_role("button", name=f"Play {side}").click()
        until(page, LOUD)
    page.locator("[name=better][value=same]").check()
    page.locator("[name=guess][value=x]").check()
    page.get_by_role("button", name="Vote").click()
    expect(page.locator("#ab-said")).to_have_text(
        re.compile("X was (fp32|int8), Y was (fp32|int8)")
    )
    assert problems == []


def read(path) -> tuple[np.ndarray, int]:
    with av.open(path) as file:
        frames = [frame.to_ndarray()[0] for frame in file.decode(audio=0)]
        return np.concatenate(frames) / 32768, file.streams.audio[0].rate
