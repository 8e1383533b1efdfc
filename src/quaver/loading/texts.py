"""The tokenizer of a checkpoint folder, checked and tried before anything is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quaver.checkpoints.recognise import tokenizer_advice
from quaver.checkpoints.source import bundled
from quaver.checkpoints.tokenizer import CheckedTokenizer, check
from quaver.checkpoints.trial import tried
from quaver.core.errors import CheckpointError

TOKENIZER = "tokenizer.json"


@contextmanager
def tried_tokenizer(folder: Path) -> Iterator[CheckedTokenizer]:
    """Check the tokenizer of a folder, and try it in another process while the block runs.

    Open it after the block, which raises CheckpointError if the trial failed. Bundled ones are
    ours, and not tried.
    """
    path = folder / TOKENIZER
    if not path.exists():
        raise CheckpointError(f"no tokenizer at {path}; {tokenizer_advice(folder)}")
    checked = check(path)
    if folder in bundled().values():
        yield checked
        return
    with tried(path):
        yield checked
