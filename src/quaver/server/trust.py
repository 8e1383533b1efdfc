"""Whom to believe: names a request is sent to, and addresses that a proxy passes on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from quaver.core.errors import ConfigError
from quaver.server.errors import INVALID, ApiError

ANY = "*"
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::\d{1,5})?", re.IGNORECASE)
_MOST_FORWARDED = 32  # addresses of one header that are looked at

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Hosts:
    """Names that a request may be sent to.

    A page elsewhere can let its own name point at this machine (DNS rebinding), and is then no
    stranger to the browser. So a server on a loopback address answers to names of loopback, to
    addresses, which cannot be made to point elsewhere, and to names that the settings allow.
    """

    def __init__(self, listens_on: str, allowed: Iterable[str]) -> None:
        names = frozenset(name.lower().rstrip(".") for name in allowed)
        open_to_all = ANY in names or (not names and not is_loopback(listens_on))
        self._allowed = None if open_to_all else names

    def check(self, headers: Headers) -> None:
        """ApiError for a request that was sent to another name, or to none."""
        given = headers.getlist("host")
        found = _HOST.fullmatch(given[0].strip()) if len(given) == 1 else None
        if found is None:
            message = "a request needs one Host header with a name and perhaps a port"
            raise ApiError(400, INVALID, "malformed_request", message)
        if self._allowed is None:
            return
        name = found["name"].lower().rstrip(".")
        if not (name in self._allowed or _is_local_name(name) or _address(name.strip("[]"))):
            message = f"the server does not answer to {name[:64]!r}; see --allowed-host"
            raise ApiError(421, INVALID, "host_not_allowed", message)


class Proxies:
    """Proxies whose word for their clients' addresses is taken."""

    def __init__(self, trusted: Iterable[str]) -> None:
        """ConfigError for what is neither an address nor a network."""
        self._networks = [_network(each) for each in trusted]

    def trusts(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in each for each in self._networks)

    def client(self, headers: Headers, address: str) -> str:
        """Address of the client behind a connection from `address`: the last of X-Forwarded-For
        that is no trusted proxy's, if `address` is one's. Never longer than an address is."""
        if not self.trusts(address):
            return address
        passed = ",".join(headers.getlist("x-forwarded-for")).split(",")
        for each in reversed(passed[-_MOST_FORWARDED:]):
            found = _address(each.strip())
            if found is None:
                break  # whoever wrote this is not to be believed about those before
            address = str(found)
            if not self.trusts(address):
                break
        return address


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` hears this machine alone."""
    found = _address(host)
    return _is_local_name(host.lower()) if found is None else found.is_loopback


def _is_local_name(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")  # RFC 6761, section 6.3


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"trusted_proxies has {text!r}; give addresses or networks, such as 10.0.0.0/8"
        ) from None
