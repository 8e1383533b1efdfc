"""What a service is told: one frozen dataclass, from a TOML file and flags that override it."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from quaver.core.errors import ConfigError, InputError
from quaver.server.wire import Place

KEY_VARIABLE = "QUAVER_API_KEY"
MOST_KEY_FILE = 1 << 16  # bytes
SHORTEST_KEY = 8  # characters
TIMEOUTS = (
    *("send_timeout", "idle_timeout", "drain_timeout"),
    *("header_timeout", "body_timeout", "keep_alive_timeout"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of `quaver serve`, with its default."""

    model: str = "nano"
    recipe: tuple[str, ...] = ()  # each an engine process of its own; none is the model's default
    device: str | None = None
    codec: str | None = None
    voices: tuple[str, ...] = ()  # that a fine-tune was trained with; none is what it names
    host: str = "127.0.0.1"
    port: int = 8000
    max_streams: int | None = None  # of each recipe at once; None is `starting.STREAMS`
    max_queue: int = 32  # of each recipe; beyond it a request is refused
    max_length: int | None = None  # positions kept a stream
    low_latency: bool = False  # sound starts one frame earlier, with 85 ms that are not final
    graphs: bool = True
    max_chars: int = 4096  # of a request's text, and of a WebSocket's utterance
    max_body: int = 1 << 18  # bytes of a request's body
    rate_limit: int = 0  # requests a minute of a key, or of an address without keys; 0 is none
    api_key_file: str | None = None  # a key a line
    open_voices: bool = False  # the lists of voices and models need no key
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()  # names to answer to; see `trust.Hosts`
    trusted_proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-For is believed
    max_connections: int | None = None  # open at once; None is what open files allow, up to 8192
    max_connections_per_address: int | None = None  # None is half of all
    max_header_bytes: int = 32_768  # of a request's head
    max_headers: int = 100
    max_wrong_keys: int = 30  # a minute of an address; 0 is no limit
    header_timeout: float = 10.0  # seconds that the head of a request may take
    body_timeout: float = 30.0  # seconds that its body may take
    keep_alive_timeout: float = 75.0  # seconds until an idle connection is closed
    send_timeout: float = 60.0  # seconds until a client that takes nothing is let go
    idle_timeout: float = 60.0  # seconds until a WebSocket that says nothing is closed
    drain_timeout: float = 300.0  # seconds that running streams have to finish
    api_keys: tuple[str, ...] = field(default=(), repr=False)  # never from the TOML file

    def __post_init__(self) -> None:
        allowed = (
            ("port", 0 <= self.port <= 65535, "0 (any that is free) to 65535"),
            ("max_streams", self.max_streams is None or 1 <= self.max_streams <= 4096, "1 to 4096"),
            ("max_queue", 0 <= self.max_queue <= 100_000, "0 to 100000"),
            ("max_length", self.max_length is None or self.max_length >= 256, "256 or more"),
            ("max_chars", 1 <= self.max_chars <= 200_000, "1 to 200000"),
            ("max_body", 1024 <= self.max_body <= 1 << 26, "1024 to 67108864"),
            ("rate_limit", self.rate_limit >= 0, "0 (none) or more"),
            ("max_connections", fits(self.max_connections, 1, 1 << 20), "1 to 1048576"),
            (
                "max_connections_per_address",
                fits(self.max_connections_per_address, 1, 1 << 20),
                "1 to 1048576",
            ),
            ("max_header_bytes", fits(self.max_header_bytes, 1024, 1 << 20), "1024 to 1048576"),
            ("max_headers", fits(self.max_headers, 16, 1000), "16 to 1000"),
            ("max_wrong_keys", self.max_wrong_keys >= 0, "0 (no limit) or more"),
        )
        for name, fine, range_ in allowed:
            if not fine:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed is {range_}")
        for name in TIMEOUTS:
            if not 0 < (seconds := getattr(self, name)) < math.inf:
                raise ConfigError(f"{name} is {seconds}; allowed are seconds above 0")
        if len(set(self.recipe)) < len(self.recipe):
            raise ConfigError(f"recipe {', '.join(self.recipe)} has one twice; give each once")
        if any(len(key) < SHORTEST_KEY or not key.isascii() for key in self.api_keys):
            raise ConfigError(f"an API key needs at least {SHORTEST_KEY} plain characters")
        if "*" in self.cors_origins and self.api_keys == ():
            raise ConfigError("cors_origins * lets every page use the service; give it an API key")

    @property
    def places(self) -> list[Place]:
        """What each engine loads."""
        rest = (self.device, self.codec, self.max_streams, self.max_length)
        last = (self.graphs, self.low_latency)
        voices = self.voices or None
        return [Place(self.model, each, *rest, *last, voices) for each in self.recipe or (None,)]

    def shown(self) -> str:
        """As TOML, without keys."""
        lines = [f"# {len(self.api_keys)} API keys" if self.api_keys else "# no API key"]
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "api_keys":
                continue
            if value is None:
                lines.append(f"# {each.name} = ")
            else:
                lines.append(f"{each.name} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines)


def fits(value: int | None, least: int, most: int) -> bool:
    """Whether a number is in a range; None, the default, is."""
    return value is None or least <= value <= most


def read_settings(path: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Of a file and of flags that are not None; keys from `api_key_file` or the environment.

    ConfigError or InputError for what cannot be read or is not allowed.
    """
    values = {} if path is None else _read(path)
    values |= {name: value for name, value in flags.items() if value is not None}
    return Settings(**values, api_keys=_keys(values.get("api_key_file")))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    known = {each.name: each.type for each in fields(Settings) if each.name != "api_keys"}
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"{path} has unknown settings {unknown}; allowed are {sorted(known)}")
    return {name: _fitting(path, name, known[name], value) for name, value in values.items()}


def _fitting(path: Path, name: str, kind: Any, value: Any) -> Any:
    """A value of the type that the setting has."""
    wanted = str(kind).removesuffix(" | None")
    if wanted == "tuple[str, ...]":
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
    elif wanted == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif type(value).__name__ == wanted:
        return value
    raise ConfigError(f"{path}: {name} is {value!r}; it must be {wanted}")


def _keys(file: str | None) -> tuple[str, ...]:
    if file is None:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        return (key,) if key else ()
    try:
        with Path(file).open(encoding="utf-8") as opened:
            lines = opened.read(MOST_KEY_FILE).split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the API keys in {file}: {error}") from None
    if not lines:
        raise InputError(f"{file} holds no API key; write one a line")
    return tuple(lines)
