"""The HTTP face of a service: routes, and what holds for all of them."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import quaver
from quaver.server.access import Keys
from quaver.server.cors import Cors
from quaver.server.described import errors, speech_answers, speech_body
from quaver.server.engines import Engine, Status
from quaver.server.errors import INVALID, ApiError, failed
from quaver.server.live import Session, check_origin
from quaver.server.methods import Methods
from quaver.server.schemas import SpeechRequest, check_text, parse
from quaver.server.service import Service
from quaver.server.speech import SpeechResponse
from quaver.server.trust import Hosts, Proxies

WEB = Path(quaver.__file__).parent / "web"
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
POLICY = (
    "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
CLOSE = {"Connection": "close"}  # what of a body still comes is not read
OPEN_LISTS = ("/v1/audio/voices", "/v1/audio/models", "/v1/models")


def create_app(service: Service) -> ASGIApp:
    """The ASGI application of `service`, which somebody else runs."""
    app = FastAPI(
        title="Quaver",
        version=quaver.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the Host that was sent
    )
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    _add_speech(app, service)
    _add_live(app, service)
    _add_lists(app, service)
    _add_health(app, service)
    _add_page(app)
    whole: ASGIApp = Doors(Methods(app), service)
    if service.settings.cors_origins:
        whole = Cors(whole, service.settings.cors_origins)
    return whole


class Doors:
    """What every request passes: its id, its key, and what pages may do."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        settings = service.settings
        self._keys = Keys(settings.api_keys, settings.max_wrong_keys)
        self._hosts = Hosts(settings.host, settings.allowed_hosts)
        self._proxies = Proxies(settings.trusted_proxies)
        self._open = OPEN_LISTS if settings.open_voices else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(8)}"

        async def named(message: Message) -> None:
            if message["type"].endswith("response.start"):
                MutableHeaders(scope=message).update({"X-Request-Id": name, **SAFE})
            await send(message)

        try:
            caller = self._caller(scope, headers)
        except ApiError as error:
            self._service.tell_refused(error)
            refusal = JSONResponse(error.body(), error.status, error.headers)
            await refusal(scope, receive, named)
            return
        scope.setdefault("state", {}).update({"caller": caller, "name": name})
        await self._app(scope, receive, named)

    def _caller(self, scope: Scope, headers: Headers) -> str:
        self._hosts.check(headers)
        client = scope.get("client")
        address = self._proxies.client(headers, client[0] if client else "")
        if scope["path"].startswith("/v1/"):  # with a slash at its end it is the same
            scope["path"] = scope["path"].rstrip("/")
        path = scope["path"]
        asks = scope.get("method") == "OPTIONS"  # which methods a path has; browsers send no key
        if asks or not path.startswith("/v1") or path in self._open:
            return address
        return self._keys.caller(headers, address)


def _add_speech(app: FastAPI, service: Service) -> None:
    extra = {"requestBody": speech_body()}

    @app.post(
        "/v1/audio/speech",
        openapi_extra=extra,
        response_class=Response,
        responses=speech_answers(),
    )
    async def speech(request: Request) -> Response:
        service.count(request.state.caller)
        asked = parse(SpeechRequest, await _body(request, service))
        check_text(asked.input, service.settings.max_chars)
        engine = service.engine(asked.model, asked.recipe)
        return SpeechResponse(service, engine, request.state.name, asked)


def _add_live(app: FastAPI, service: Service) -> None:
    @app.websocket("/v1/audio/speech/stream")
    async def live(websocket: WebSocket) -> None:
        try:
            check_origin(websocket, service.settings.cors_origins)
        except ApiError as error:
            await websocket.send_denial_response(JSONResponse(error.body(), error.status))
            return
        await Session(websocket, service).run()


def _add_lists(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=errors(401))
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": _models(service)}

    @app.get("/v1/models/{name:path}", responses=errors(401, 404))
    async def model(name: str) -> dict[str, Any]:
        if not name:
            raise HTTPException(404)
        engine = service.engine(name, None)
        return _model(service, name, engine)

    @app.get("/v1/audio/models", responses=errors(401))
    async def audio_models() -> dict[str, Any]:
        return {"models": _models(service)}

    @app.get("/v1/audio/voices", responses=errors(401, 404))
    async def voices(model: str | None = None) -> dict[str, Any]:
        names = service.engine(model, None).facts.get("voices", [])
        return {"voices": [{"id": name, "name": name} for name in names]}


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health/ready", responses={503: {"description": "Some engine takes no requests."}})
    async def ready() -> JSONResponse:
        engines = {
            engine.name: {
                "status": "draining" if service.draining else engine.status,
                "restarts": engine.restarts,
                "slots": engine.facts.get("slots"),
                "rtf_when_full": engine.facts.get("rtf_when_full"),
            }
            for engine in service.engines
        }
        status = "ready" if service.ready else "not ready"
        return JSONResponse({"status": status, "engines": engines}, 200 if service.ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


class _Page(StaticFiles):
    """Browsers ask each time whether a file has changed: an upgrade must not mix old and new."""

    def file_response(self, *given: Any, **named: Any) -> Response:
        response = super().file_response(*given, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_page(app: FastAPI) -> None:
    """Serve what has no route as a file; a mount would hide that a method is wrong."""
    files, missing = _Page(directory=WEB, html=True), app.router.default

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "GET" and not _is_file(files, scope):
            raise HTTPException(404)  # what is not there has no methods
        await (files if scope["type"] == "http" else missing)(scope, receive, send)

    app.router.default = page


def _is_file(files: StaticFiles, scope: Scope) -> bool:
    try:
        return files.lookup_path(files.get_path(scope))[1] is not None
    except (OSError, ValueError):  # a name that no file can have
        return False


def _models(service: Service) -> list[dict[str, Any]]:
    return [_model(service, name, engine) for name, engine in service.model_ids().items()]


def _model(service: Service, name: str, engine: Engine) -> dict[str, Any]:
    facts = engine.facts
    about = {key: facts.get(key) for key in ("family", "sample_rate", "parameters", "bytes")}
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "quaver",
        **about,
        "recipe": engine.name,
        "recipes": [each.name for each in service.engines],
        "voices": facts.get("voices", []),
        "tags": facts.get("tags", []),
        "device": facts.get("device"),
        "ready": engine.status is Status.READY,
    }


async def _body(request: Request, service: Service) -> bytes:
    """A body that is said to be JSON. ApiError for one that is too large, too slow or cut off."""
    most, seconds = service.settings.max_body, service.settings.body_timeout
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # also what keeps pages elsewhere from posting here without being asked for leave
        message = f"Content-Type is {kind[:64]!r}; send application/json"
        raise ApiError(415, INVALID, "unsupported_media_type", message)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    message = f"the body has more than {most} bytes"
                    raise ApiError(413, INVALID, "request_too_large", message, headers=CLOSE)
    except TimeoutError:
        message = f"the body took more than {seconds:g} s"
        raise ApiError(408, INVALID, "request_timeout", message, headers=CLOSE) from None
    except ClientDisconnect:
        service.metrics.count_client_error("left_while_sending")
        raise ApiError(400, INVALID, "client_left", "the client left") from None
    return bytes(body)


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    body = ApiError(error.status_code, INVALID, code, str(error.detail)).body()
    return JSONResponse(body, error.status_code, error.headers)


async def _bug(_: Request, error: Exception) -> Response:
    return JSONResponse(failed("the server failed").body(), 500)
