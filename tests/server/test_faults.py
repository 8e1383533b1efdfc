"""What goes wrong goes wrong for one, and is told."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from scripted import DEAD, FRAME, UNLOADABLE, tone
from serving import scripted, until

CHUNK = 2 * FRAME  # bytes


@pytest.fixture(scope="module")
def server():
    with scripted(max_streams=2, max_queue=2) as server:
        yield server
        assert "Exception in ASGI" not in server.log
        assert server.log.count("Traceback") == server.log.count("RuntimeError: as it was told")


@pytest.fixture(autouse=True)
def _left_idle(server):
    yield
    until(lambda: server.get("/health/ready").status == 200)
    until(lambda: server.idle)


def chunks(seed: int, count: int) -> bytes:
    samples = np.concatenate([tone(seed, number) for number in range(count)])
    return np.rint(samples * 32768).astype("<i2").tobytes()


def events(body: bytes) -> list[dict]:
    return [json.loads(each.removeprefix("data: ")) for each in body.decode().split("\n\n") if each]


def test_what_is_asked_for_is_what_comes(server):
    answer = server.speak("count 7", seed=3)
    assert (answer.status, answer.cut) == (200, False)
    assert answer.body == chunks(3, 7)


def test_a_request_that_fails_ends_alone(server):
    with server.speaking("forever") as other:
        assert server.speak("fail 0").error["code"] == "request_failed"
        assert server.speak("count 3").status == 200
        assert len(other.read(10 * CHUNK)) == 10 * CHUNK
    assert server.metric("requests_failed_total", reason="failed") == 1
    assert server.metric("engine_restarts_total") == 0


def test_a_stream_that_fails_is_cut_and_not_ended(server):
    answer = server.speak("fail 3", seed=1)
    assert answer.status == 200 and answer.cut
    assert answer.body == chunks(1, 3)


def test_events_end_with_the_error(server):
    *deltas, last = events(server.speak("fail 2", stream_format="sse").body)
    assert [each["type"] for each in deltas] == ["speech.audio.delta"] * 2
    assert last["type"] == "speech.audio.error"
    assert last["error"]["code"] == "request_failed"


def test_text_that_the_model_cannot_read_is_the_requests_fault(server):
    answer = server.speak("refuse this")
    assert answer.status == 400
    assert answer.error["param"] == "input"


def test_an_engine_that_is_killed_cuts_its_streams_and_starts_again(server):
    restarts = server.metric("engine_restarts_total")
    with server.speaking("forever") as response, server.speaking("forever") as other:
        response.read(CHUNK)
        other.read(CHUNK)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(server.speak, "count 3")
            whole = pool.submit(server.speak, "forever", stream=False)
            until(lambda: server.metric("num_requests_accepted") == 4)
            server.kill_engine()
            for each in (waiting, whole):  # nothing was sent: they get a status
                assert each.result().status == 503
                assert each.result().error["code"] == "engine_lost"
                assert int(each.result().headers["Retry-After"]) >= 1
        for each in (response, other):
            with pytest.raises(Exception, match="IncompleteRead"):
                each.read()
    assert server.get("/health").status == 200
    until(lambda: server.get("/health/ready").status == 200)
    assert server.speak("count 3").status == 200
    assert server.metric("engine_restarts_total") == restarts + 1


def test_while_an_engine_starts_again_requests_are_refused(server):
    server.kill_engine()
    until(lambda: server.get("/health/ready").status == 503)
    answer = server.speak("count 3")
    assert (answer.status, answer.error["code"]) == (503, "engine_lost")
    assert server.get("/v1/models").json["data"][0]["ready"] is False
    assert server.get("/v1/audio/voices").json["voices"]


def test_a_death_between_acceptance_and_sound_is_told(server):
    answer = server.speak("die 0")
    assert (answer.status, answer.error["code"]) == (503, "engine_lost")


def test_a_death_after_sound_ends_events_with_an_error(server):
    *deltas, last = events(server.speak("die 2", stream_format="sse").body)
    assert len(deltas) == 2
    assert (last["type"], last["error"]["code"]) == ("speech.audio.error", "engine_lost")


def test_what_is_not_urgent_leaves_places_to_what_is(server):
    """Two slots and a queue of two, of which batch may have one."""
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(server.speak, "stuck", priority="batch") for _ in range(3)]
        until(lambda: server.metric("num_requests_accepted") == 3)
        refused = server.speak("count 3", priority="batch")
        held.append(pool.submit(server.speak, "stuck"))
        until(lambda: server.metric("num_requests_accepted") == 4)
        server.kill_engine()
        assert {each.result().status for each in held} == {503}
    assert (refused.status, refused.error["code"]) == (429, "server_busy")


def test_more_than_can_be_spoken_is_refused_at_once(server):
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(server.speak, "stuck", stream=False) for _ in range(4)]
        until(lambda: server.metric("num_requests_accepted") == 4)
        refused = server.metric("requests_refused_total", reason="server_busy")
        answer = server.speak("count 3")
        assert not any(each.done() for each in held), "it was not refused after them"
        server.kill_engine()
        assert {each.result().status for each in held} == {503}
    assert (answer.status, answer.error["code"]) == (429, "server_busy")
    assert answer.error["type"] == "rate_limit_error"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert server.metric("requests_refused_total", reason="server_busy") == refused + 1


@pytest.mark.parametrize("fields", [{}, {"stream_format": "sse"}, {"response_format": "mp3"}])
def test_a_client_that_leaves_frees_its_place(server, fields):
    with server.speaking("forever", **fields) as response:
        response.read(10)
        assert server.metric("num_requests_accepted") == 1
    until(lambda: server.idle)


@pytest.mark.parametrize("fields", [{"stream": False}, {}])
def test_a_client_that_leaves_before_any_sound_frees_its_place(server, fields):
    body = json.dumps({"input": "stuck", **fields}).encode()
    head = "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: server.metric("num_requests_running") == 1)
    until(lambda: server.idle)


def test_many_clients_that_vanish_leave_nothing(server):
    def vanish(number: int) -> None:
        until(lambda: _vanished(server, number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(vanish, range(200)))
    until(lambda: server.idle)
    assert server.speak("count 3").status == 200


def _vanished(server, number: int) -> bool:
    with server.speaking("forever") as response:
        if response.status == 429:
            return False
        response.read(1 + 1000 * (number % 7))
    return True


def test_a_slow_reader_stalls_nobody_and_gets_everything(server):
    count = 4000  # 16 MB: more than sockets hold and than is kept for a client
    with server.speaking(f"burst {count}", seed=5) as slow:
        slow.read(CHUNK)
        for _ in range(5):
            assert server.speak("count 20").body
        time.sleep(1.5)  # the engine tells how it does every second
        until(lambda: server.metric("num_requests_running") == 1)  # held, not made to its end
        rest = slow.read()
    assert len(rest) == (count - 1) * CHUNK
    assert rest == chunks(5, count)[CHUNK:]


def test_a_client_that_takes_nothing_is_let_go():
    with scripted(max_streams=1, send_timeout=0.5) as server:
        with server.speaking("forever") as response:
            until(lambda: server.idle)
            with pytest.raises(Exception, match="IncompleteRead"):
                while response.read(CHUNK):
                    pass
        assert server.metric("requests_failed_total", reason="client_slow") == 1
        assert "Traceback" not in server.log


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_streams_finish_and_no_new_ones_in(sign):
    with scripted(max_streams=2) as server:
        count = 1000  # four seconds: time to be refused while it runs
        with server.speaking(f"count {count}", seed=2) as response:
            response.read(CHUNK)
            server.process.send_signal(sign)
            until(lambda: server.get("/health/ready").status == 503)
            refused = server.speak("count 1")
            assert (refused.status, refused.error["code"]) == (503, "draining")
            assert response.read() == chunks(2, count)[CHUNK:]
        assert server.wait() == 0


def test_streams_that_take_too_long_to_finish_are_cut():
    with scripted(drain_timeout=0.3) as server, server.speaking("forever") as response:
        response.read(CHUNK)
        assert server.end() == 0


def test_the_engine_goes_with_the_server():
    with scripted() as server:
        engine = server.engine_pid()
        server.process.kill()
        server.wait()
        until(lambda: not _alive(engine))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_an_engine_that_never_starts_ends_the_server():
    with pytest.raises(AssertionError, match="ended before it was ready"), scripted(model=DEAD):
        pass


def test_a_model_that_cannot_be_loaded_ends_the_server():
    with pytest.raises(AssertionError, match="there is no such model"), scripted(model=UNLOADABLE):
        pass
