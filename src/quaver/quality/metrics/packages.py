"""Packages that a judge needs and that need not be there."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from quaver.core.errors import UnsupportedError

QUALITY = "'quaver[quality]'"  # the extra of ours that brings what is wanted most


def installed(package: str, purpose: str, install: str = "") -> str:
    """`package` and its version, without importing it.

    Raises UnsupportedError, which names the `purpose` and what to `install`, where it is missing.
    """
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        raise UnsupportedError(
            f"{purpose} needs {package}; install it with pip install {install or package}"
        ) from None
