"""`report.html`: one file, whole, that strangers' texts cannot break and a browser can run."""

import base64
import hashlib
import html
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from needs import CHROMIUM, needs_chromium
from quaver.audio.encode import save
from quaver.comparing import Comparison
from quaver.comparing.forced import Replay
from quaver.comparing.ledger import Ledger
from quaver.comparing.page import NAME, SECTIONS, write_page
from quaver.comparing.page_parts.choosing import MOST_PAIRS, Sounds, choose, ranked
from quaver.comparing.page_parts.difference import compared, steps
from quaver.comparing.page_parts.markup import VOID
from quaver.comparing.page_parts.utterances import read_utterances
from quaver.comparing.speaking import SEEDS, SIDES
from quaver.comparing.swaps import Part, Swap
from quaver.core.errors import CheckpointError, InputError
from quaver.precision import Role
from quaver.quality.finding import Finding, Layer
from quaver.quality.gates import DEFAULTS, judge
from quaver.quality.metrics.agreement import Agreement
from quaver.quality.metrics.metric import NotMeasured
from quaver.quality.stats import Estimate, binomial_p, share

RATE = 16_000
EVIL = "<script>document.documentElement.dataset.hacked = 1</script> \"&amp;' </title>"
TEXTS = ("Go on.", EVIL, "Say it again.", "One two three.", "Hello there.", "Not now.", "Well.")
WORST, BROKEN = 3, 2  # numbers of texts


def side(recipe):
    formats = {"backbone": recipe, "codec": "fp32"}
    return {"model": f"<b>nano {recipe}", "recipe": recipe, "formats": formats, "bytes": 7_500_000}


SETUP = {
    "quaver": "0.1.0",
    "reference": side("fp32"),
    "candidate": side("int8"),
    "weights": {"reference": "aa", "candidate": "bb"},
    "texts": len(TEXTS),
    "texts_sha256": "c0ffee" * 10,
    "voices": ["ada", EVIL],
    "runs": 1,
    "seed": 5,
    "judges": {"wer": "5.1.1", "mos": EVIL},
}


def tone(number, seconds=1.0):
    """A voice, as far as a pitch tracker goes."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * (110 + 10 * number) * k * time) / k for k in range(1, 9))
    return (0.2 * wave * np.sin(2 * np.pi * 2 * time) ** 2).astype(np.float32)


def heard(name, number):
    wrong = 0.5 if (name, number) == ("candidate", WORST) else 0.0
    failed = float((name, number) == ("candidate", BROKEN))
    scores = {"wer": wrong, "alignment": -1.0 - 0.1 * number, "failures": failed}
    return {metric: {"value": value, "weight": 1.0} for metric, value in scores.items()}


def fill(folder):
    """What `compare` leaves behind."""
    ledger = Ledger(folder, SETUP)
    for number, text in enumerate(TEXTS):
        for place, name in enumerate(SIDES):
            (folder / "audio" / name).mkdir(parents=True, exist_ok=True)
            gain = 0.0 if (name, number) == ("candidate", BROKEN) else 1.0
            sound = gain * tone(number, 1.0 + 0.1 * place)
            save(folder / "audio" / name / f"{number:04d}-0.wav", sound, RATE)
            entry = {"text": text, "voice": SETUP["voices"][number % 2], "transcript": text}
            if number == WORST:
                entry["transcript"] = "one too three four"
            more = {"seed": SEEDS[name], "seconds": len(sound) / RATE, "finish": ["stop"]}
            ledger.add(f"{name}/{number:04d}-0", {**entry, **more, "heard": heard(name, number)})


def comparison(swaps=True):
    change, small = Estimate(0.03, 0.01, 0.05, 7), Estimate(0.001, 0.0, 0.002, 7)
    exact, evil = NotMeasured("the reference is in fp32"), NotMeasured(EVIL)
    findings = [
        Finding("kl", Layer.FORCED, "nats a code", False, "quaver", exact, change, change, exact),
        Finding("wer", Layer.SPEECH, "share", False, "5.1.1", small, change, change, small),
        Finding("mos", Layer.SPEECH, "points", True, EVIL, evil, evil, evil, evil),
        Finding("duration", Layer.SPEECH, "s", False, "1", change, change, small, small),
        Finding("failures", Layer.SPEECH, "share", False, "1", *[share(0, 7)] * 2, small, small),
    ]
    parts = [Part(Role.BACKBONE), Part(Role.HEAD)]
    parts += [Part(Role.BACKBONE, layer) for layer in (10, 2)]
    replays = [Replay(text, (Agreement(10, 0.1, 9),) * 7, 0.0) for text in TEXTS]
    found = [Swap(part, small) for part in parts] if swaps else []
    return Comparison(SETUP, findings, judge(DEFAULTS, findings), replays, found)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "proof"
    fill(folder)
    return write_page(folder, comparison())


@pytest.fixture(scope="module")
def text(written):
    return written.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Tags that open and close in order, and what they say."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"{tag} ends inside of {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    def all(self, wanted):
        return [attributes for tag, attributes in self.seen if tag == wanted]

    @property
    def shown(self):
        return " ".join("".join(self.words).split())


def test_the_page_is_well_formed(text):
    page = Reader(text)
    assert not page.open
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    order = [text.index(f'id="{name}"') for name in ("verdict", *SECTIONS)]
    assert order == sorted(order)
    for attributes in page.all("section"):
        assert attributes["aria-labelledby"] in ids
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("aria-label") for attributes in page.all("audio"))
    assert len(page.all("h1")) == 1


def test_the_page_needs_no_other_file(text):
    page = Reader(text)
    for _, attributes in page.seen:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        assert not {"srcset", "style", "onclick", "onerror"} & set(attributes)
    assert not page.all("link") and not page.all("iframe")
    assert not re.search(r"url\(|@import|https?://", text)
    policies = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policies[0].startswith("default-src 'none'; img-src data:; media-src data:;")


def test_what_is_said(text):
    shown = Reader(text).shown
    outcomes = comparison().outcomes
    for outcome in outcomes:
        assert f"{outcome.name}" in shown
    assert "NOT RESOLVED" in shown or "FAIL" in shown
    assert "proxy" in shown and "pocketsphinx 5.1.1" in shown
    assert "the reference is in fp32" in shown
    assert "by chance" in shown
    assert shown.index("all together") < shown.index("layer 2") < shown.index("layer 10")
    assert comparison().blame in shown
    assert "By position in the frame" in shown
    for why in ("Worst", "Median", "At random, 1", "At random, 2", "At random, 3"):
        assert why in shown
    assert "1 of 21 utterances are plainly broken" in shown
    assert "Candidate: silence" in shown
    assert "audio/candidate/0002-0.wav" in shown, "where to find what is not shown"
    for fact in ("7.5 MB", "c0ffee", "aa", "bb", "seed", "python"):
        assert fact in shown


def test_texts_of_strangers_stay_texts(text):
    assert "<script>document" not in text
    assert html.escape(EVIL) in text
    assert text.count("<script") == 2, "the data of the blind test, and ours"
    assert "<b>nano" not in text
    data = re.search(r'id="blind-data"[^>]*>(.*?)</script>', text, re.DOTALL)[1]
    assert "<" not in data
    assert json.loads(data)["names"]["candidate"] == "<b>nano int8 in int8"


def test_the_worst_comes_first_and_chance_draws_the_rest(written):
    order = ranked(read_utterances(written.parent, SETUP))
    assert [both.key for both in order[:2]] == [f"{WORST:04d}-0", "0000-0"]
    choice = choose(order, 5)
    assert [why for why, _ in choice.shown] == [
        "Worst",
        "Median",
        *(f"At random, {k}" for k in (1, 2, 3)),
    ]
    keys = [both.key for _, both in choice.shown]
    assert len(set(keys)) == 5
    assert [both.key for _, both in choose(order, 5).shown] == keys
    assert {tuple(both.key for both in choose(order, seed).blind) for seed in range(3)} != {
        tuple(both.key for both in choice.blind)
    }
    assert len(choice.blind) == len(TEXTS) <= MOST_PAIRS
    assert choose([], 5).shown == []


def test_a_page_has_room_for_so_much_sound(written):
    order = ranked(read_utterances(written.parent, SETUP))
    size = len(order[0].reference.player_data())
    sounds = Sounds(size + 10)
    assert sounds.player(order[0].reference).startswith("data:audio/flac;base64,")
    assert sounds.player(order[1].reference) is None
    assert sounds.player(order[0].reference) is not None, "it is there already"
    assert sounds.has(order[0].reference) and not sounds.has(order[1].reference)


def test_without_room_the_page_says_where(written, monkeypatch, tmp_path):
    fill(tmp_path / "proof")
    monkeypatch.setattr("quaver.comparing.page.Sounds", lambda: Sounds(0))
    page = Reader(write_page(tmp_path / "proof", comparison()).read_text())
    assert not page.all("audio")
    assert "audio/candidate/0003-0.wav beside this page" in page.shown
    assert "There is nothing to play." in page.shown


def test_nothing_found_is_said(tmp_path):
    Ledger(tmp_path / "proof", SETUP)
    empty = Comparison(SETUP, [], [], [])
    page = Reader(write_page(tmp_path / "proof", empty).read_text())
    assert not page.open
    for reason in ("No part was tried alone.", "No text was read by both.", "Nothing was spoken"):
        assert reason in page.shown


def test_the_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "proof"
    fill(folder)
    first = write_page(folder, comparison())
    before = first.read_text()

    def full(path, text, **options):
        path.write_bytes(text[:1000].encode())
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        with pytest.raises(CheckpointError, match="No space left"):
            write_page(folder, comparison())
    assert first.read_text() == before
    assert {path.name for path in folder.iterdir()} == {NAME, "audio", "work.jsonl"}
    first.unlink()
    (folder / "audio" / "candidate" / f"{WORST:04d}-0.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="is damaged"):
        write_page(folder, comparison())
    assert {path.name for path in folder.iterdir()} == {"audio", "work.jsonl"}


def test_mistakes_in_a_transcript_are_marked():
    assert steps(["a", "b", "c"], ["a", "x", "c", "d"]) == [
        ("a", "a"),
        ("b", "x"),
        ("c", "c"),
        (None, "d"),
    ]
    assert steps(["a"], []) == [("a", None)]
    shown = compared("One two three.", "one too three four")
    assert "<s>two</s> <em>too</em>" in shown and ">four</ins>" in shown
    assert "no transcript" in compared("One.", None)


WATCH = """
window.problems = [];
addEventListener("error", (event) => problems.push(String(event.message ?? event.target)), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => problems.push(event.violatedDirective));
"""
TRY = """
const find = (name) => document.querySelector(name);
const answers = () => [...find("#blind-answers").children];
const press = (key) => find("#blind-test").dispatchEvent(new KeyboardEvent("keydown", { key }));
const saved = () => JSON.parse(decodeURIComponent(find("#blind-save").href.split(",", 2)[1]));
const early = answers().map((one) => one.disabled);
press("1");
const found = { early, before: saved().votes.length, hidden: find("[data-play=X]").hidden };
for (let round = 0; round < 40; round++) {
  press("a");
  find("[data-play=B]").click();
  if (round % 4 === 3) press("2");
  else answers()[round % 4 ? 2 : 0].click();
}
find("[name=blind-task][value=x]").click();
found.x = { shown: !find("[data-play=X]").hidden, answers: answers().length };
for (let round = 0; round < 10; round++) {
  for (const key of "abx") press(key);
  press("1");
}
found.after = saved();
found.told = find("#blind-result-x").textContent;
found.width = [document.documentElement.scrollWidth, innerWidth];
dispatchEvent(new Event("beforeprint"));
found.shut = document.querySelectorAll("details:not([open])").length;
dispatchEvent(new Event("afterprint"));
const players = [...document.querySelectorAll("audio")];
Promise.all(players.map((one) => one.readyState || new Promise((done) => {
  one.addEventListener("loadedmetadata", done);
  one.addEventListener("error", done);
}))).then(() => {
  found.seconds = players.map((one) => one.duration);
  found.problems = problems;
  found.hacked = "hacked" in document.documentElement.dataset;
  parent.postMessage(JSON.stringify(found), "*");
});
"""


def allowed(text, script):
    """The page's policy with one more script; the page's own must still get by."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return text.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ", 1)


# No window is as narrow as a phone, but a frame is.
FRAME = """<!doctype html><iframe src="try.html" width="WIDTH" height="800"></iframe>
<script>onmessage = (event) => { document.documentElement.dataset.found = event.data; }</script>"""


def browse(text, folder, width):
    """What TRY finds in the page, in a frame of a real browser."""
    text = allowed(allowed(text, WATCH), TRY)
    text = text.replace("<title>", f"<script>{WATCH}</script><title>", 1)
    text = text.replace("</body>", f"<script>{TRY}</script></body>")
    (folder / "try.html").write_text(text, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000")
    user, place = f"--user-data-dir={folder / 'user'}", str(folder / "frame.html")
    command = [CHROMIUM, *options, user, "--window-size=1400,900", "--dump-dom", place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stdout[:500]
    return json.loads(html.unescape(found[1]))


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(text, tmp_path, width):
    found = browse(text, tmp_path, width)
    assert found["problems"] == [] and not found["hacked"]
    assert found["width"][0] <= found["width"][1] == width, "the page scrolls sideways"
    assert found["shut"] == 0, "on paper, something is shut"
    assert len(found["seconds"]) >= 10
    assert all(0.9 < seconds < 1.3 for seconds in found["seconds"])
    check_blind_test(found)


def check_blind_test(found):
    assert found["early"] == [True, True, True], "before both were heard"
    assert found["before"] == 0 and found["hidden"]
    assert found["x"] == {"shown": True, "answers": 2}
    votes, tally = found["after"]["votes"], found["after"]["tally"]
    better = [vote for vote in votes if vote["task"] == "better"]
    x = [vote for vote in votes if vote["task"] == "x"]
    assert len(better) == 40 and len(x) == 10
    assert all({vote["a"], vote["b"]} == {"reference", "candidate"} for vote in votes)
    assert {vote["a"] for vote in better} == {"reference", "candidate"}, "the order is random"
    assert {vote["utterance"] for vote in better[:7]} == {f"000{k}-0" for k in range(7)}
    assert all(vote["x_utterance"] != vote["utterance"] for vote in x)
    chosen = [vote.get(vote["answer"], "same") for vote in better]
    counts = {name: chosen.count(name) for name in ("candidate", "reference", "same")}
    assert counts["same"] == 10
    most = max(counts["candidate"], counts["reference"])
    p = min(1.0, 2 * binomial_p(most, 30))
    assert tally["better"] == {**counts, "p": pytest.approx(p)}
    right = sum(vote[vote["answer"]] == vote["x"] for vote in x)
    assert tally["x"] == {"right": right, "n": 10, "p": pytest.approx(binomial_p(right, 10))}
    assert f"{right} of 10 right" in found["told"]
    assert found["after"]["weights"] == SETUP["weights"]
