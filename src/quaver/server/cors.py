"""What pages of other origins may send and read (CORS), for the origins that were named."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from quaver.server.errors import INVALID, ApiError

# Every header of an answer that a page's script may want and that browsers hide unless told.
# The browser also sees Content-Type, Content-Length and Cache-Control without this.
EXPOSED = (
    *("Retry-After", "Server-Timing", "X-Request-Id", "X-Sample-Rate", "X-Model", "X-Recipe"),
    *(
        "X-Voice",
        "X-Seed",
        "X-Audio-Duration",
        "X-RTF",
        "X-Characters-Left-Out",
        "WWW-Authenticate",
    ),
    "Allow",
)
METHODS = ("GET", "HEAD", "POST")
MOST_NAMES = 64  # headers that a page may ask for
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # a token of HTTP
MAX_AGE = 7200  # seconds that a browser keeps the answer; Chrome keeps none longer


class Cors(CORSMiddleware):
    """Any header is allowed, since clients add new ones (OpenAI's sends x-stainless-*)."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(app, allow_origins=origins, expose_headers=EXPOSED)

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a browser that asks what it may send; no key is needed for it."""
        origin = request_headers["origin"]
        asked = request_headers.get("access-control-request-headers", "")
        names = [name.strip() for name in asked.split(",") if name.strip()]
        answer = {
            "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
        }
        if not self.is_allowed_origin(origin):
            message = f"pages of {origin[:128]!r} may not use this server; see --cors-origin"
            return _refused(ApiError(403, INVALID, "origin_not_allowed", message), answer)
        answer["Access-Control-Allow-Origin"] = "*" if self.allow_all_origins else origin
        if len(names) > MOST_NAMES or not all(NAME.fullmatch(name) for name in names):
            message = f"a page may ask for up to {MOST_NAMES} headers with plain names"
            return _refused(ApiError(400, INVALID, "invalid_value", message), answer)
        method = request_headers["access-control-request-method"]
        if method not in METHODS:
            message = f"the method is {method[:64]!r}; allowed are {', '.join(METHODS)}"
            return _refused(ApiError(400, INVALID, "method_not_allowed", message), answer)
        answer["Access-Control-Allow-Methods"] = ", ".join(METHODS)
        answer["Access-Control-Max-Age"] = str(MAX_AGE)
        if names:
            answer["Access-Control-Allow-Headers"] = ", ".join(names)
        if request_headers.get("access-control-request-private-network") == "true":
            answer["Access-Control-Allow-Private-Network"] = "true"
        return Response(status_code=204, headers=answer)


def _refused(error: ApiError, headers: dict[str, str]) -> Response:
    return JSONResponse(error.body(), error.status, headers)
