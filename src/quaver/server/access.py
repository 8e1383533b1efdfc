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

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key) for key in keys]

    def caller(self, headers: Headers, address: str) -> str:
        """Who asks: a key's digest, or an address where none is needed. ApiError if it is wrong."""
        if not self._digests:
            return address
        digest = _digest(_given(headers))
        if not sum(hmac.compare_digest(digest, each) for each in self._digests):  # all are compared
            message = "the API key is missing or wrong; send Authorization: Bearer KEY"
            raise ApiError(
                401, INVALID, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"}
            )
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

    def __init__(self, per_minute: int) -> None:
        self._most = per_minute
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, and when

    def count(self, caller: str) -> None:
        """ApiError for one request too many."""
        if not self._most:
            return
        now = time.monotonic()
        left, then = self._callers.pop(caller, (float(self._most), now))
        left = min(self._most, left + (now - then) * self._most / 60)
        self._callers[caller] = (max(left - 1, 0.0) if left >= 1 else left, now)
        if len(self._callers) > MOST_CALLERS:
            self._callers.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) * 60 / self._most)
            message = f"more than {self._most} requests a minute; try again in {seconds} s"
            raise busy(message, "rate_limit_exceeded", seconds)
