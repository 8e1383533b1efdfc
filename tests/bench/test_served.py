"""Listeners of a service: what they wait for is counted, whoever is to blame."""

import asyncio
import json

import pytest

from quaver.bench.listening import Crowd, Listened, Load
from quaver.bench.served import served_row
from quaver.bench.streams import Heard
from quaver.cli.main import run
from quaver.core.types import StreamStats
from serving import scripted

RATE = 1000
MODEL = {"id": "scripted", "recipe": "fp32", "device": "cpu"}


def listened(at_once: int, late: float, outcome: str = "ok") -> Listened:
    """Two chunks of a second each, the second so late."""
    arrivals = [] if outcome.startswith("4") else [0.2, 1.2 + late]
    heard = Heard(StreamStats(), RATE, arrivals, [RATE] * len(arrivals), 0.2 if arrivals else None)
    return Listened(at_once, heard, outcome, 1.2 + late)


def test_a_run_in_numbers():
    crowd = Crowd(Load("http://a", None, 10, 5.0, None, None, 0), ["Hi."], RATE)
    crowd.said = [
        *(listened(1, -0.5), listened(2, 0.05), listened(4, 0.5)),
        *(listened(3, 0, "cut"), listened(4, 0, "429 server_busy")),
    ]
    row = served_row(crowd, 10.0, MODEL)
    assert (row["requests"], row["whole"], row["refused"]) == (5, 3, 1)
    assert row["outcomes"] == {"ok": 3, "cut": 1, "429 server_busy": 1}
    assert row["continuity_ok_share"] == 2 / 4  # what broke off was not continuous
    assert row["underrun_free_share"] == 1 / 4
    assert row["latest_ms"] == pytest.approx(500)
    assert row["ttfa_ms"]["p50"] == pytest.approx(200)
    assert row["sound_per_second"] == pytest.approx(0.8)
    parts = {part["at_once"]: part for part in row["by_concurrency"]}
    assert {name: part["refused"] for name, part in parts.items()} == {"1": 0, "2": 0, "3-4": 1}
    assert json.loads(json.dumps(row)) == row


@pytest.fixture(scope="module")
def server():
    with scripted(max_streams=2, max_queue=0) as server:
        yield server


def test_a_service_is_measured_from_the_command_line(server, tmp_path, capsys):
    out, plot = tmp_path / "served.json", tmp_path / "served.svg"
    url = f"http://127.0.0.1:{server.port}"
    rest = ["--seconds", "1", "--out", str(out), "--plot", str(plot)]
    assert run(["bench", "serve", url, "--rate", "4,40", *rest]) == 0
    told = capsys.readouterr().out.splitlines()
    slow, fast = [json.loads(line) for line in told if line.startswith("{")]
    assert (slow["rate"], fast["rate"]) == (4, 40)
    assert min(fast["requests"], slow["requests"]) >= 1
    assert slow["outcomes"]["ok"] == slow["whole"] >= 1
    assert slow["ttfa_ms"]["p50"] > 0
    assert 0 <= slow["continuity_ok_share"] <= 1  # which of both is the machine's
    assert fast["machine"]["versions"]["torch"]
    assert [row["rate"] for row in json.loads(out.read_text())["served"]] == [4, 40]
    assert plot.read_text().startswith("<?xml")


def test_listeners_ask_again_when_they_have_heard(server, capsys):
    url = f"http://127.0.0.1:{server.port}/"
    assert run(["bench", "serve", url, "--streams", "2", "--seconds", "1"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["most_at_once"] == row["listeners"] == 2
    assert row["outcomes"] == {"ok": row["requests"]}
    # five chunks are 0.43 s, made in a tenth of that: whoever did not play would ask far more often
    assert 2 <= row["requests"] <= 8


def test_more_than_there_is_room_for_is_refused_and_counted(server):
    crowd = Crowd(
        Load(f"http://127.0.0.1:{server.port}", None, 0.5, None, 8, None, 0),
        ["Forever and ever. Count to three. Stuck here."],
        24000,
    )
    crowd._random.choice = lambda _: 1

    async def until_one_is_refused():
        running = asyncio.create_task(crowd.run())
        while not (
            any(each.heard.arrivals for each in crowd.said)
            and any(each.outcome != "cut" for each in crowd.said)
        ):
            assert not running.done()
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(until_one_is_refused())
    assert {each.outcome for each in crowd.said} == {"cut", "429 server_busy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "takes one URL"),
        (["here"], "give a URL such as"),
        (["http://127.0.0.1:1"], "no speech service answers"),
        (["http://127.0.0.1:1", "--rate", "0"], "--rate is '0'"),
        (["http://127.0.0.1:1", "--rate", "fast"], "--rate is 'fast'"),
        (["http://127.0.0.1:1", "--streams", "99999"], "--streams is '99999'"),
        (["http://127.0.0.1:1", "--seconds", "nan"], "--seconds is nan"),
        (["http://127.0.0.1:1", "--plot", "a.bmp"], "allowed endings"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, capsys):
    assert run(["bench", "serve", *arguments]) == 2
    assert message in capsys.readouterr().err
