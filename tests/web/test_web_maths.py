"""What the page computes, against numpy and the project's own statistics."""

import json

import numpy as np
import pytest

from quaver.quality.stats import binomial_p

QUEUE = """async ({ pieces, closed, rate, block }) => {
  const { SampleQueue } = await import("/queue.js");
  const queue = new SampleQueue(rate);
  const heard = [];
  for (const piece of pieces) {
    queue.push(Float32Array.from(piece));
    if (closed === heard.length) queue.close();
    const out = new Float32Array(block).fill(9);
    queue.read(out);
    heard.push([...out]);
  }
  return [heard.flat(), queue.report];
}"""


def test_fft(ready):
    noise = np.random.default_rng(1).standard_normal(1024).astype(np.float32)
    powers = ready.evaluate(
        """async (input) => {
          const { FFT } = await import("/fft.js");
          const out = new Float32Array(513);
          new FFT(1024).power(Float32Array.from(input), out);
          return [...out];
        }""",
        noise.tolist(),
    )
    np.testing.assert_allclose(powers, np.abs(np.fft.rfft(noise)) ** 2, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("hertz", [300, 1000, 5000])
def test_spectrum(ready, rate, hertz):
    """A full-scale sine: its own row stands out; rows are a hundredth of a second each."""
    wave = np.round(32767 * np.sin(2 * np.pi * hertz * np.arange(rate // 2) / rate))
    columns, row, loudest, peak = ready.evaluate(
        """async ({ wave, rate, hertz }) => {
          const { Analysis } = await import("/analysis.js");
          const samples = Int16Array.from(wave);
          const found = new Analysis({ rate, samples, length: samples.length, ended: true });
          found.advance(10_000);
          const column = [...found.spectra[25]];
          const loudest = column.indexOf(Math.max(...column));
          return [found.spectra.length, found.rowOf(hertz), loudest, found.peaks[25]];
        }""",
        {"wave": wave.tolist(), "rate": rate, "hertz": hertz},
    )
    assert columns == 50 and peak > 0.95
    assert abs(row - (loudest + 0.5)) < 2.5


def test_chance(ready):
    pairs = [(k, n) for n in (0, 1, 7, 40) for k in range(n + 1)]
    code = """async (pairs) => {
      const { tail } = await import("/tally.js");
      return pairs.map(([k, n]) => tail(k, n));
    }"""
    assert ready.evaluate(code, pairs) == pytest.approx([binomial_p(k, n) for k, n in pairs])


def test_queue_gives_all_in_order(ready):
    rng = np.random.default_rng(2)
    wave = rng.integers(-999, 999, 600) / 1024
    pieces = np.split(wave, [100, 200, 350, 600]) + [[]] * 6
    pieces = [list(piece) for piece in pieces]
    heard, report = ready.evaluate(QUEUE, {"pieces": pieces, "closed": 4, "rate": 40, "block": 64})
    assert heard[:600] == wave.tolist() and not any(heard[600:])
    assert report == {"played": 600, "underruns": 0, "gap": 0, "finished": True}


def test_queue_refills_after_a_gap(ready):
    """Ten samples a block; 20 must be there before sound goes on after a gap, 40 after the next."""
    pieces = [[1] * 15, [], [2] * 15, [], [3] * 10, [], [], [4] * 30, [], [5] * 10, [], [], [], []]
    heard, report = ready.evaluate(QUEUE, {"pieces": pieces, "closed": 12, "rate": 80, "block": 10})
    assert (
        heard
        == [1] * 15 + [0] * 25 + [2] * 15 + [3] * 10 + [0] * 25 + [4] * 30 + [5] * 10 + [0] * 10
    )
    assert report == {"played": 80, "underruns": 2, "gap": 50, "finished": True}


def test_tally_from_elsewhere(ready):
    """Whatever another page of this address has left in the browser."""
    for left in ("no JSON", "null", json.dumps({"stub fp32 int8": {"right": 2, "wrong": 1}})):
        ready.evaluate("(left) => localStorage.setItem('quaver.ab', left)", left)
        ready.reload()
        ready.get_by_text("Ready.").wait_for()
    assert "2 of 3 right" in ready.locator("#ab-told-apart").inner_text()
