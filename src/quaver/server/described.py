"""What `/openapi.json` says of requests and answers, beside what FastAPI finds by itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from quaver.server.schemas import SpeechRequest
from quaver.server.sound import MEDIA_TYPES

NULL = {"type": "null"}
ABOUT = ("title", "description", "default")  # of a field, whatever its type
KEY = (401,)  # of everything under /v1
SPEECH = (*KEY, *(400, 404, 408, 413, 415, 429, 500, 503))
MEANINGS = {
    400: "The request is wrong; `param` is the field.",
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    429: "The server is busy, or these are too many requests; see Retry-After.",
    500: "This request failed in the engine.",
    503: "The model is loading, the engine crashed, or the server is shutting down.",
}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer instead of what it is for."""
    known: dict[int | str, dict[str, Any]] = {
        each: {"model": ErrorBody, "description": MEANINGS[each]} for each in statuses
    }
    return known | {"default": {"model": ErrorBody, "description": "Any other error."}}


def speech_answers() -> dict[int | str, dict[str, Any]]:
    """What `POST /v1/audio/speech` answers."""
    kinds = sorted({each.partition(";")[0] for each in MEDIA_TYPES.values()})
    sound = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    spoken = {"description": "The sound, or events that carry it.", "content": sound | events}
    return {200: spoken, **errors(*SPEECH)}


def speech_body() -> dict[str, Any]:
    """The body of `POST /v1/audio/speech`, without references, whose targets would be missing."""
    schema = SpeechRequest.model_json_schema()
    (schema["properties"]["voice"]["anyOf"][1],) = schema.pop("$defs").values()
    for name, field in schema["properties"].items():
        if name not in schema["required"]:
            schema["properties"][name] = _nullable(field)
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _nullable(field: dict[str, Any]) -> dict[str, Any]:
    """A field that may also be null, which means its default."""
    if NULL in field.get("anyOf", ()):
        return field
    about = {name: value for name, value in field.items() if name in ABOUT}
    rest = {name: value for name, value in field.items() if name not in about}
    return {"anyOf": [rest, NULL], **about}
