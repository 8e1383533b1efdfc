"""Quantise a folder in processes that kill themselves, each at a later moment of the writing.

`python killed.py MODEL FOLDER` makes FOLDER/0, 1, 2, ... and prints one status of a process a line;
the last one lives. Process 0 dies with half of the weights written, process n before its n-th
change of a file or folder in FOLDER.
"""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import torch

from quaver.checkpoints import write
from quaver.quantizing import quantize

RECIPE = "int8"
CHANGES = ("os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.link", "os.truncate")


def die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def die_at(moment: int, folder: Path) -> None:
    """Let this process die before it changes anything in `folder` for the `moment`-th time."""
    changes = count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        inside = bool(arguments) and str(folder) in str(arguments[0])
        if inside and (writes or event in CHANGES) and next(changes) == moment:
            die()

    sys.addaudithook(watch)


def die_half_way() -> None:
    """Let this process die when half of the weights are in their file."""
    save = write.save_file

    def half(tensors: Any, path: Path, **options: Any) -> None:
        save(tensors, path, **options)
        os.truncate(path, path.stat().st_size // 2)
        die()

    write.save_file = half


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    quantize(model, folder / "first", RECIPE, device="cpu")  # what is loaded here, no fork loads
    for moment in count():
        pid = os.fork()
        if pid == 0:
            if moment:
                die_at(moment, folder)
            else:
                die_half_way()
            quantize(model, folder / str(moment), RECIPE, device="cpu")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)
        if status != -signal.SIGKILL:
            return


if __name__ == "__main__":
    main()
