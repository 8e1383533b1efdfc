"""Who gets a connection, whose name is believed, and whose keys are compared."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from quaver.core.errors import ConfigError
from quaver.server.access import MOST_CALLERS, Keys, Rates
from quaver.server.connections import Gate, connection_limits
from quaver.server.errors import ApiError
from quaver.server.run import _listen
from quaver.server.trust import Hosts, Proxies

KEY = "a-key-of-the-test"


class Client:
    """A connection that knows whether it was closed for another."""

    def __init__(self) -> None:
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


@given(
    st.lists(
        st.tuples(st.sampled_from(["come", "busy", "idle", "leave"]), st.integers(0, 30)),
        max_size=80,
    )
)
def test_a_gate_never_has_more_than_it_may_and_closes_no_busy_connection(events):
    gate, inside, busy = Gate(5, 3, lambda address: False), {}, set()
    for what, number in events:
        address = f"10.0.0.{number % 3}"
        known = [*inside]
        one = known[number % len(known)] if known else None
        if what == "come":
            client = Client()
            if gate.admit(client, address):
                inside[client] = address
        elif one is not None:
            getattr(gate, {"busy": "mark_busy", "idle": "mark_idle", "leave": "leave"}[what])(one)
            busy = (busy | {one}) if what == "busy" else (busy - {one})
            if what == "leave":
                del inside[one]
        assert not any(client.evicted for client in busy)
        inside = {client: where for client, where in inside.items() if not client.evicted}
        assert len(gate) == len(inside) <= 5
        assert all([*inside.values()].count(where) <= 3 for where in inside.values())


def test_the_longest_idle_makes_room():
    gate, first, second, third = Gate(2, 2, lambda address: False), Client(), Client(), Client()
    assert gate.admit(first, "a")
    assert gate.admit(second, "b")
    gate.mark_busy(first)
    gate.mark_idle(first)  # it has just been answered
    assert gate.admit(third, "c")
    assert (first.evicted, second.evicted) == (False, True)
    for client in (first, third):
        gate.mark_busy(client)
    assert not gate.admit(Client(), "d")


def test_a_trusted_proxy_has_no_limit_of_its_own():
    gate = Gate(10, 1, lambda address: address == "proxy")
    clients = [Client() for _ in range(4)]
    for client in clients:
        assert gate.admit(client, "proxy")
        gate.mark_busy(client)
    assert gate.admit(clients[0].__class__(), "other")


@given(st.integers(0, 100_000), st.none() | st.integers(1, 20_000), st.none() | st.integers(1, 9))
def test_connections_and_those_that_wait_fit_the_open_files(files, most, of_address):
    total, each, backlog = connection_limits(files, most, of_address)
    assert 1 <= each <= total
    assert backlog >= 1
    if files >= 256:
        assert total + backlog + 64 <= files
    if most is not None:
        assert total <= most


LOOPBACK = ["localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost.", "app.localhost"]


@pytest.mark.parametrize("name", [*LOOPBACK, "127.0.0.2", "192.168.1.5", "[fe80::1]"])
@pytest.mark.parametrize("port", ["", ":8000"])
def test_a_loopback_server_answers_to_this_machine_and_to_addresses(name, port):
    Hosts("127.0.0.1", ()).check(Headers({"host": name + port}))


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "evil-localhost", "1.2.3.4.evil.example"]
)
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "localhost", "::1"])
def test_a_loopback_server_does_not_answer_to_other_names(name, listens_on):
    with pytest.raises(ApiError) as refused:
        Hosts(listens_on, ("mine.example",)).check(Headers({"host": name}))
    assert (refused.value.status, refused.value.code) == (421, "host_not_allowed")


def test_allowed_names_and_open_addresses_are_answered():
    Hosts("127.0.0.1", ("Mine.Example.",)).check(Headers({"host": "mine.example:8000"}))
    Hosts("127.0.0.1", ("*",)).check(Headers({"host": "evil.example"}))
    Hosts("0.0.0.0", ()).check(Headers({"host": "any.example"}))
    with pytest.raises(ApiError):
        Hosts("0.0.0.0", ("mine.example",)).check(Headers({"host": "any.example"}))


@pytest.mark.parametrize(
    "given_hosts", [[], ["a", "b"], [""], ["a b"], ["u@localhost"], ["a:b"], ["x" * 300], ["[::1"]]
)
def test_a_host_that_is_none_is_malformed(given_hosts):
    raw = [(b"host", each.encode()) for each in given_hosts]
    with pytest.raises(ApiError) as refused:
        Hosts("0.0.0.0", ()).check(Headers(raw=raw))
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),  # no proxy that is trusted
        ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),  # the client wrote the first itself
        ("10.0.0.1", "1.1.1.1, 10.0.0.2", "1.1.1.1"),  # through two proxies
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "x" * 60_000, "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_an_address_is_believed_from_named_proxies_alone(peer, forwarded, client):
    headers = Headers({"x-forwarded-for": forwarded})
    assert Proxies(("10.0.0.0/8",)).client(headers, peer) == client
    assert Proxies(()).client(headers, peer) == peer


def test_a_proxy_that_is_no_address_is_refused():
    with pytest.raises(ConfigError, match="trusted_proxies has 'proxy'"):
        Proxies(("proxy",))


def test_wrong_keys_of_an_address_are_limited_and_right_ones_go_on():
    keys, right = Keys((KEY,), 3), Headers({"authorization": f"Bearer {KEY}"})
    keys.caller(right, "known")
    wrong = Headers({"authorization": "Bearer wrong-key"})
    statuses = []
    for _ in range(5):
        with pytest.raises(ApiError) as refused:
            keys.caller(wrong, "known")
        statuses.append(refused.value.status)
    assert statuses == [401, 401, 401, 429, 429]
    assert int(refused.value.headers["Retry-After"]) > 0
    assert keys.caller(right, "known") == keys.caller(right, "elsewhere")


def test_an_address_that_guesses_is_refused_even_if_it_guesses_right():
    keys = Keys((KEY,), 1)
    with pytest.raises(ApiError):
        keys.caller(Headers({}), "guesser")
    with pytest.raises(ApiError) as refused:
        keys.caller(Headers({"authorization": f"Bearer {KEY}"}), "guesser")
    assert refused.value.status == 429


def test_callers_that_are_remembered_are_bounded():
    rates = Rates(10)
    for number in range(MOST_CALLERS + 100):
        rates.count(str(number))
    assert len(rates._callers) == MOST_CALLERS


def test_connections_send_what_they_have_at_once():
    with _listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
