"""`quaver serve`: a model as a speech service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quaver.core.errors import UnsupportedError
from quaver.core.voices import read_voices

PACKAGES = ("fastapi", "pydantic", "uvicorn", "prometheus_client", "websockets")

Model = Annotated[
    str | None,
    typer.Argument(help="A bundled name, a folder, or a hub id; default: nano."),
]
Config = Annotated[
    Path | None, typer.Option(help="TOML file of settings; flags override it.", dir_okay=False)
]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Print all settings as TOML.")]
Recipe = Annotated[
    list[str] | None,
    typer.Option(help="Precision; given several times, each is loaded, and requests choose."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: a GPU if any.")]
Codec = Annotated[str | None, typer.Option(help="Folder or hub id of another codec.")]
Voices = Annotated[
    str | None, typer.Option(help="The voices that a fine-tune was trained with: elise,tom.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on; default: this machine only.")]
Port = Annotated[int | None, typer.Option(help="0 takes any that is free.")]
MaxStreams = Annotated[int | None, typer.Option(help="Streams of each recipe spoken at once.")]
MaxQueue = Annotated[int | None, typer.Option(help="Streams that may wait; beyond, 429.")]
MaxLength = Annotated[int | None, typer.Option(help="Positions kept for a stream.")]
MaxChars = Annotated[int | None, typer.Option(help="Of a request's text.")]
MaxBody = Annotated[int | None, typer.Option(help="Bytes of a request's body.")]
RateLimit = Annotated[
    int | None, typer.Option(help="Requests a minute of each key or address; 0 is no limit.")
]
KeyFile = Annotated[
    str | None,
    typer.Option(help="File with an API key a line; or QUAVER_API_KEY in the environment."),
]
OpenVoices = Annotated[
    bool | None, typer.Option("--open-voices", help="Voices and models are listed without a key.")
]
Origins = Annotated[
    list[str] | None, typer.Option("--cors-origin", help="A web page's origin that may ask.")
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        help="A name that requests may be sent to; default on loopback: localhost and addresses.",
    ),
]
TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy", help="Address or network of a proxy whose X-Forwarded-For is believed."
    ),
]
MaxConnections = Annotated[int | None, typer.Option(help="Open at once; default: up to 8192.")]
MaxPerAddress = Annotated[
    int | None, typer.Option("--max-connections-per-address", help="Default: half of all.")
]
MaxHeaderBytes = Annotated[int | None, typer.Option(help="Bytes of a request's head.")]
MaxHeaders = Annotated[int | None, typer.Option(help="Headers of a request.")]
MaxWrongKeys = Annotated[
    int | None, typer.Option(help="Wrong keys a minute of an address; 0 is no limit.")
]
HeaderTimeout = Annotated[float | None, typer.Option(help="Seconds for a request's head.")]
BodyTimeout = Annotated[float | None, typer.Option(help="Seconds for a request's body.")]
KeepAliveTimeout = Annotated[
    float | None, typer.Option(help="Seconds until an idle connection is closed.")
]
LowLatency = Annotated[
    bool | None, typer.Option("--low-latency", help="Start one frame earlier, a little less exact.")
]
Graphs = Annotated[
    bool | None,
    typer.Option("--graphs/--no-graphs", help="Record steps: a GPU's, or a small model's layers."),
]
SendTimeout = Annotated[
    float | None, typer.Option(help="Seconds until a client that takes nothing is let go.")
]
IdleTimeout = Annotated[
    float | None, typer.Option(help="Seconds until a silent WebSocket is closed.")
]
DrainTimeout = Annotated[
    float | None, typer.Option(help="Seconds that running streams have to finish at the end.")
]


def serve(
    model: Model = None,
    config: Config = None,
    show_config: ShowConfig = False,
    recipe: Recipe = None,
    device: Device = None,
    codec: Codec = None,
    voices: Voices = None,
    host: Host = None,
    port: Port = None,
    max_streams: MaxStreams = None,
    max_queue: MaxQueue = None,
    max_length: MaxLength = None,
    max_chars: MaxChars = None,
    max_body: MaxBody = None,
    rate_limit: RateLimit = None,
    api_key_file: KeyFile = None,
    open_voices: OpenVoices = None,
    cors_origin: Origins = None,
    allowed_host: AllowedHosts = None,
    trusted_proxy: TrustedProxies = None,
    max_connections: MaxConnections = None,
    max_connections_per_address: MaxPerAddress = None,
    max_header_bytes: MaxHeaderBytes = None,
    max_headers: MaxHeaders = None,
    max_wrong_keys: MaxWrongKeys = None,
    header_timeout: HeaderTimeout = None,
    body_timeout: BodyTimeout = None,
    keep_alive_timeout: KeepAliveTimeout = None,
    low_latency: LowLatency = None,
    graphs: Graphs = None,
    send_timeout: SendTimeout = None,
    idle_timeout: IdleTimeout = None,
    drain_timeout: DrainTimeout = None,
) -> None:
    """Serve speech over HTTP to OpenAI's clients, and a page to hear it."""
    flags = {name: value for name, value in locals().items() if name not in OWN}
    flags["recipe"] = tuple(recipe) if recipe else None
    flags["voices"] = None if voices is None else read_voices(voices)
    flags["cors_origins"] = tuple(cors_origin) if cors_origin else None
    flags["allowed_hosts"] = tuple(allowed_host) if allowed_host else None
    flags["trusted_proxies"] = tuple(trusted_proxy) if trusted_proxy else None
    from quaver.server.settings import read_settings

    settings = read_settings(config, flags)
    if show_config:
        print(settings.shown())
        return
    try:
        from quaver.server.run import serve as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in PACKAGES:
            raise
        raise UnsupportedError(
            f"serving needs {error.name}, which is not installed; pip install 'quaver[serve]'"
        ) from None
    run(settings)


OWN = {
    "voices",
    "config",
    "show_config",
    "cors_origin",
    "allowed_host",
    "trusted_proxy",
}  # of the command line, not of the service
