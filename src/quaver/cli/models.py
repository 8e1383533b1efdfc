"""`quaver models`: what can be said with, and where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quaver.cli.output import print_json, table_console, warn

if TYPE_CHECKING:
    from quaver.checkpoints.source import ModelFolder

OWNER = "canopylabs"
ENGLISH = ("orpheus-3b-0.1-ft", "orpheus-3b-0.1-pretrained")
KINDS = ("ft", "pretrain")
RELEASED_PARAMETERS = 3_300_867_072  # the head is tied to the embedding
GATED = "hub, gated"
NOTE = "gated: accept the licence on the model's page at huggingface.co, then set HF_TOKEN"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. `bytes` are on this machine's disk; None where nothing is."""

    name: str
    family: str
    language: str | None
    voices: tuple[str, ...]
    where: str
    bytes: int | None = None
    parameters: int | None = None
    revision: str | None = None
    path: str | None = None


def models(
    json: Annotated[bool, typer.Option("--json", help="One JSON document instead.")] = False,
) -> None:
    """List the models that are bundled, in the hub's cache, or known to run."""
    rows = list(_rows())
    if json:
        print_json({"models": [asdict(row) for row in rows]})
    else:
        _print_table(rows)
    from quaver.checkpoints.hub import cache_problem

    if problem := cache_problem():
        warn(f"warning: models of the hub are not listed: {problem}")


def _rows() -> Iterator[ModelRow]:
    from quaver.checkpoints.source import ModelFolder, bundled, cached

    seen = set()
    for name, path in bundled().items():
        yield from _on_disk(ModelFolder(path, name), "bundled")
    for folder in cached():
        for row in _on_disk(folder, "cached"):
            seen.add(row.name)
            yield row
    for row in _released():
        if row.name not in seen:
            yield row


def _on_disk(folder: ModelFolder, where: str) -> Iterator[ModelRow]:
    """The folder's row; none if it holds something else than an Orpheus."""
    from quaver.checkpoints.jsonfile import read_json
    from quaver.core.errors import CheckpointError
    from quaver.families.orpheus.config import OrpheusConfig

    try:
        config = read_json(folder.path / "config.json", "model configuration")
        if config.get("model_type") != "llama":
            return
        voices = OrpheusConfig.from_dict(config, folder.name).speech.voices
    except CheckpointError:
        return
    yield ModelRow(
        folder.name,
        "orpheus",
        _language(folder.name),
        voices,
        where,
        bytes=_bytes(folder.path),
        revision=folder.revision,
        path=str(folder.path),
    )


def _released() -> Iterator[ModelRow]:
    from quaver.families.orpheus.voices import VOICES, default_voices

    names = [*ENGLISH]
    names += [f"3b-{tag}-{k}-research_release" for tag in VOICES if tag != "en" for k in KINDS]
    for name in names:
        yield ModelRow(
            f"{OWNER}/{name}",
            "orpheus",
            _language(name),
            default_voices(name),
            GATED,
            parameters=RELEASED_PARAMETERS,
        )


def _language(name: str) -> str | None:
    """A released model's language by its name; None where the name does not tell."""
    from quaver.families.orpheus.voices import VOICES

    if any(english in name for english in ENGLISH):
        return "en"
    return next((tag for tag in VOICES if f"3b-{tag}-" in name), None)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _size(row: ModelRow) -> str:
    if row.bytes is not None:
        return f"{row.bytes / 1e6:,.1f} MB"
    return f"{row.parameters / 1e9:.1f} G parameters" if row.parameters else ""


def _print_table(rows: list[ModelRow]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from quaver.core.errors import printable

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "family", "language", "voices", "size", "where"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "model")
    for row in rows:
        cells: list[Any] = [row.name, row.family, row.language or "", " ".join(row.voices)]
        table.add_row(*(escape(printable(each)) for each in [*cells, _size(row), row.where]))
    console = table_console()
    console.print(table)
    console.print(f"\n{NOTE}", soft_wrap=True)
