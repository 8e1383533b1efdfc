"""Open connections: how many there are, from which address, and which of them wait for a request.

A server that accepts every connection runs out of file descriptors, and then nobody gets in. So
connections are counted before anything is read from them. Where there are too many, the one that
has waited longest without a whole request is closed for the newcomer; a connection that is being
answered is never closed for another.
"""

from __future__ import annotations

import resource
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Protocol

MOST_CONNECTIONS = 8192  # unless the settings say otherwise
OWN_FILES = 128  # descriptors for engines, files and libraries
SHARE_OF_AN_ADDRESS = 2  # one address may have half of all
LONGEST_BACKLOG = 2048


class Connection(Protocol):
    """What the gate can close."""

    def evict(self) -> None:
        """Close at once; no request is being answered."""


class Gate:
    """Admits connections and knows which of them are idle."""

    def __init__(self, most: int, most_of_address: int, exempt: Callable[[str], bool]) -> None:
        """At most `most` connections, of one address at most `most_of_address` unless `exempt`."""
        self._most, self._most_of_address, self._exempt = most, most_of_address, exempt
        self._addresses: dict[Connection, str] = {}
        self._counts: Counter[str] = Counter()
        self._idle: OrderedDict[Connection, None] = OrderedDict()  # the longest idle first
        self._idle_of: dict[str, OrderedDict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def admit(self, connection: Connection, address: str) -> bool:
        """Whether there is room, if need be that of a connection that is idle."""
        if self._counts[address] >= self._most_of_address and not self._exempt(address):
            if not self._evict(self._idle_of.get(address)):
                return False
        elif len(self._addresses) >= self._most and not self._evict(self._idle):
            return False
        self._addresses[connection] = address
        self._counts[address] += 1
        self.mark_idle(connection)
        return True

    def mark_idle(self, connection: Connection) -> None:
        """It waits for a request, or for the rest of its head."""
        if (address := self._addresses.get(connection)) is not None:
            self._idle[connection] = None
            self._idle_of.setdefault(address, OrderedDict())[connection] = None

    def mark_busy(self, connection: Connection) -> None:
        """Its request is being answered."""
        if (address := self._addresses.get(connection)) is not None:
            self._forget_idle(connection, address)

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        if (address := self._addresses.pop(connection, None)) is None:
            return
        self._forget_idle(connection, address)
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

    def _forget_idle(self, connection: Connection, address: str) -> None:
        self._idle.pop(connection, None)
        own = self._idle_of.get(address)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._idle_of[address]

    def _evict(self, idle: OrderedDict[Connection, None] | None) -> bool:
        if not idle:
            return False
        oldest = next(iter(idle))
        self.leave(oldest)
        oldest.evict()
        return True


def raise_file_limit() -> int:
    """Allow this process as many open files as it may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MOST_CONNECTIONS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return wanted if soft == resource.RLIM_INFINITY else soft


def connection_limits(files: int, most: int | None, of_address: int | None) -> tuple[int, int, int]:
    """Connections, those of one address, and how many may wait to be accepted, where so many
    `files` may be open. Those that wait are accepted in one go, before any can be refused, so they
    need descriptors too."""
    room = max(files - OWN_FILES, 16)
    backlog = min(LONGEST_BACKLOG, max(room // 4, 8))
    total = min(most or MOST_CONNECTIONS, room - backlog)
    return total, min(of_address or max(total // SHARE_OF_AN_ADDRESS, 1), total), backlog
