"""Who may ask, and how often."""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import OrderedDict

from starlette.datastructures import Headers

from quaver.server.errors import INVALID, ApiError, busy

SUBPROTOCOL = "openai-insecure-api-key."
MOST_CALLERS = 10_000  # remembered; the longest silent are forgotten, who may then ask again


class Keys:
    """API keys; compared in the same time whatever was given."""

    def __init__(self, keys: tuple[str, ...], wrong_per_minute: int = 0) -> None:
        """Of one address so many wrong keys a minute are compared; 0 compares all."""
        self._digests = [_digest(key) for key in keys]
        self._wrong = Rates(wrong_per_minute, "wrong API keys")
        self._used: OrderedDict[tuple[str, bytes], None] = OrderedDict()  # addresses' right keys

    def caller(self, headers: Headers, address: str) -> str:
        """Who asks: a key's digest, or an address where none is needed. ApiError if it is wrong.

        An address that has sent too many wrong keys is refused, but for keys that were right when
        it sent them before: others behind the same address go on.
        """
        if not self._digests:
            return address
        digest = _digest(_given(headers))
        if (address, digest) not in self._used:
            self._wrong.check(address)
            if not sum(hmac.compare_digest(digest, each) for each in self._digests):  # all of them
                self._wrong.count(address)
                message = "the API key is missing or wrong; send Authorization: Bearer KEY"
                raise ApiError(
                    401, INVALID, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"}
                )
            self._used[address, digest] = None
            if len(self._used) > MOST_CALLERS:
                self._used.popitem(last=False)
        return digest.hex()


def _given(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    offered = headers.get("sec-websocket-protocol", "").split(",")
    keys = [each.strip() for each in offered if each.strip().startswith(SUBPROTOCOL)]
    return keys[0].removeprefix(SUBPROTOCOL) if keys else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


class Rates:
    """So many requests a minute of each caller, at once or spread."""

    def __init__(self, per_minute: int, what: str = "requests") -> None:
        """`what` is counted; 0 a minute is no limit."""
        self._most, self._what = per_minute, what
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, and when

    def count(self, caller: str) -> None:
        """ApiError for one request too many."""
        if not self._most:
            return
        left, now = self._left(caller)
        self._callers.pop(caller, None)
        self._callers[caller] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if len(self._callers) > MOST_CALLERS:
            self._callers.popitem(last=False)
        if left < 1:
            raise self._refusal(left)

    def check(self, caller: str) -> None:
        """ApiError if one more would be too many; counts nothing."""
        if self._most and (left := self._left(caller)[0]) < 1:
            raise self._refusal(left)

    def _left(self, caller: str) -> tuple[float, float]:
        """How many a caller may still ask for, and the time now."""
        now = time.monotonic()
        left, then = self._callers.get(caller, (float(self._most), now))
        return min(self._most, left + (now - then) * self._most / 60), now

    def _refusal(self, left: float) -> ApiError:
        seconds = math.ceil((1 - left) * 60 / self._most)
        message = f"more than {self._most} {self._what} a minute; try again in {seconds} s"
        return busy(message, "rate_limit_exceeded", seconds)
