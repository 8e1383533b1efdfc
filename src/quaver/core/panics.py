"""Panics inside Rust libraries, as errors of ours.

tokenizers and safetensors are Rust. A panic there reaches Python as `pyo3_runtime.PanicException`,
which derives from BaseException, so that `except Exception` lets it pass and the process ends. Its
class cannot be imported: every library has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quaver.core.errors import QuaverError


def is_panic(error: BaseException) -> bool:
    """Whether `error` is a Rust library's panic."""
    return any(kind.__name__ == "PanicException" for kind in type(error).__mro__)


@contextmanager
def panics_as(kind: type[QuaverError], message: str) -> Iterator[None]:
    """Raise `kind(message)` where the block panics; everything else passes through."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise kind(message) from None
