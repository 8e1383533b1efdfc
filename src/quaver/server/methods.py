"""HEAD wherever GET is, and OPTIONS everywhere."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Methods:
    """Answer HEAD with the headers of GET, and OPTIONS with the methods that a path has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get("method")
        bodiless = method == "HEAD"

        async def answer(message: Message) -> None:
            nonlocal bodiless
            if message["type"] == "http.response.start" and message["status"] == 405:
                allowed = _allow(message)
                if method == "OPTIONS":
                    bodiless = True
                    message.update(status=204, headers=[(b"allow", allowed)])
            elif bodiless and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        inner = {**scope, "method": "GET"} if method == "HEAD" else scope
        await self._app(inner, receive, answer)


def _allow(message: Message) -> bytes:
    """Complete the `Allow` of a refusal by what this middleware answers; its value."""
    headers = MutableHeaders(scope=message)
    given = [each.strip() for each in headers.get("allow", "GET").split(",")]
    more = ["HEAD"] if "GET" in given and "HEAD" not in given else []
    headers["Allow"] = ", ".join([*given, *more, "OPTIONS"])
    return headers["Allow"].encode()
