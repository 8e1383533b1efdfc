"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

INVALID, LIMITED, SERVER = "invalid_request_error", "rate_limit_error", "server_error"


@dataclass(eq=False)
class ApiError(Exception):
    """A refusal or a failure: what it was, and which field it is about."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


def invalid(message: str, param: str | None, code: str = "invalid_value") -> ApiError:
    return ApiError(400, INVALID, code, message, param)


def busy(message: str, code: str, seconds: int) -> ApiError:
    """Try again after so many seconds."""
    return ApiError(429, LIMITED, code, message, headers={"Retry-After": str(seconds)})


def unavailable(message: str, code: str, seconds: int = 5) -> ApiError:
    return ApiError(503, SERVER, code, message, headers={"Retry-After": str(seconds)})


def failed(message: str = "this request failed in the engine; others go on") -> ApiError:
    return ApiError(500, SERVER, "request_failed", message)
