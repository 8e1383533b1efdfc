"""Try a stranger's tokenizer in a process of its own, with limits on memory and time.

`python -m quaver.checkpoints.trial TOKENIZER_JSON` reads the file and tokenizes texts that are hard
for badly made tokenizers. A tokenizer that takes too much memory aborts its process, and one whose
patterns backtrack does not come back, so this is found out before a process with work to do has it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quaver.checkpoints.atomic import one_line
from quaver.core.errors import CheckpointError

MEMORY_BYTES = 4 * 2**30  # of address space: a tokenizer.json of 33 MB takes about 1 GB
CPU_SECONDS = 20
WALL_SECONDS = 180.0  # on a machine that does much else
REFUSED = 3  # exit status: the message is on standard output
LENGTH = 10_000  # characters of a probe; see `OrpheusPrompts`, which encodes no longer texts
MAX_GROWTH = 64  # tokens a character
_REPEATED = (
    "a",
    "aA",
    " ",
    "\n",
    " \n",
    "1",
    "1a",
    ".",
    "'",
    "-",
    "_",
    "é",
    "漢",
    "🎉",
    "ﷺ",
    "\x00",
)
_PLAIN = "Well, hello there! It's 3 o'clock on 1 May. <laugh> naïve café, 長樂, ready? "


@contextmanager
def tried(path: Path) -> Iterator[None]:
    """Try the tokenizer in `path` while the block runs.

    Raises CheckpointError at the block's end if the trial failed. An exception in the block ends
    the trial.
    """
    if not sys.executable:  # an embedded Python cannot start another
        yield
        return
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RUST_BACKTRACE": "0"}
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield
        told, _ = child.communicate(timeout=WALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise CheckpointError(_exceeded(path)) from None
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    if child.returncode == REFUSED:
        raise CheckpointError(f"{path} cannot be used: {told.decode(errors='replace')[:300]}")
    if child.returncode != 0:
        raise CheckpointError(_exceeded(path))


def _exceeded(path: Path) -> str:
    return (
        f"{path} cannot be used: tokenizing {LENGTH:,} characters with it fails, or takes more "
        f"than {CPU_SECONDS} s or {MEMORY_BYTES / 2**30:.0f} GiB; take the tokenizer.json of "
        "the model that this one was trained from"
    )


def _limit() -> None:
    try:
        import resource
    except ImportError:  # on Windows, where only the wall clock limits
        return
    for kind, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_SECONDS)):
        most = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if most < 0 else min(limit, most), most))


def _try(path: str) -> str | None:
    """What is wrong with a tokenizer; None if nothing is."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [(each * LENGTH)[:LENGTH] for each in (*_REPEATED, _PLAIN)]
    texts += [f"{text[: LENGTH - 1]}!" for text in texts]
    for text in texts:
        count = len(tokenizer.encode(text, add_special_tokens=False).ids)
        if count > MAX_GROWTH * len(text):
            return f"it makes {count:,} tokens of {len(text):,} characters"
    return None


def main() -> None:
    _limit()
    try:
        problem = _try(sys.argv[1])
    except BaseException as error:  # noqa: BLE001 - a panic of the Rust library is no Exception
        problem = one_line(error)
    if problem is not None:
        sys.stdout.write(problem)
        raise SystemExit(REFUSED)


if __name__ == "__main__":
    main()
