"""Files appear whole or not at all, reach the disk before their name, and killed runs are swept."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quaver.core import files
from quaver.core.files import check_writable, hidden_name, new_file, new_folder, scratch_folder

WRITERS = {"file": "new_file", "folder": "new_folder", "scratch": "scratch_folder"}
# A process that is half-way through writing when it is told to go on, or killed.
HALF_WAY = """
import sys
from pathlib import Path
from quaver.core import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as part:
    (part / "a" if part.is_dir() else part).write_bytes(b"half")
    print("half", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def half_way(writer: str, target: Path) -> subprocess.Popen[bytes]:
    running = subprocess.Popen(
        [sys.executable, "-c", HALF_WAY, writer, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"half\n"
    return running


def test_a_file_and_a_folder_appear_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    with new_file(tmp_path / "file") as part:
        part.write_text("after")
        assert (tmp_path / "file").read_text() == "before"
    with new_folder(tmp_path / "folder") as part:
        (part / "deep").mkdir()
        (part / "deep" / "a").write_text("a")
        assert not (tmp_path / "folder").exists()
    with scratch_folder(tmp_path) as scratch:
        (scratch / "a").write_text("a")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "after"
    assert (tmp_path / "folder" / "deep" / "a").read_text() == "a"


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_an_error_leaves_nothing(tmp_path: Path, writer: str) -> None:
    with pytest.raises(KeyError), getattr(files, writer)(tmp_path / "a") as part:
        (part / "x" if part.is_dir() else part).write_bytes(b"half")
        raise KeyError
    left = tmp_path / "a" if writer == "scratch_folder" else tmp_path
    assert names(left) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells of processes")
@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, writer: str) -> None:
    target = tmp_path if writer == "scratch_folder" else tmp_path / "target"
    with half_way(writer, target) as killed, half_way(writer, target) as alive:
        before = set(names(tmp_path))
        assert len(before) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        with new_file(tmp_path / "other") as part:
            part.write_text("x")
        left = set(names(tmp_path))
        assert len(before & left) == 1  # the live one's
        alive.communicate(timeout=60)
        assert alive.returncode == 0
    hidden = [name for name in names(tmp_path) if name.startswith(".")]
    assert hidden == []
    assert (tmp_path / "target").exists() == (writer != "scratch_folder")


def test_only_our_own_names_are_removed(tmp_path: Path) -> None:
    """Another's file, a name that is nearly ours, a link's target: all stay."""
    dead = f".quaver-{files._host()}-999999999-1-0123abcd.part"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "a").write_text("a")
    (tmp_path / dead).symlink_to(tmp_path / "precious")
    spared = [
        f"{dead}.bak", dead[1:], dead.replace("quaver", "other"), dead.replace("-1-", "-x-"),
        ".quaver-notes.part", ".a.0123abcd.partial", "state.123.tmp",
    ]  # fmt: skip
    for name in spared:
        (tmp_path / name).write_text("x")
    files.sweep(tmp_path)
    assert names(tmp_path) == sorted([*spared, "precious"])
    assert names(tmp_path / "precious") == ["a"]


def test_another_machine_s_files_are_removed_when_they_are_old(tmp_path: Path) -> None:
    old, fresh = (tmp_path / f".quaver-{'0' * 8}-{pid}-1-0123abcd.part" for pid in (1, 2))
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "a").write_text("a")
    then = time.time() - files.STRANGER_SECONDS - 60
    os.utime(old / "a", (then, then))
    for folder in (old, fresh):
        os.utime(folder, (then, then))  # of `fresh` a file is being written
    files.sweep(tmp_path)
    assert names(tmp_path) == [fresh.name]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells of processes")
def test_a_number_that_a_new_process_got_is_not_the_old_process(tmp_path: Path) -> None:
    mine = hidden_name(tmp_path / "a")
    host, pid, start = mine.name.split("-")[1:4]
    other = tmp_path / f".quaver-{host}-{pid}-{int(start) - 1}-0123abcd.part"
    for path in (mine, other):
        path.write_text("x")
    files.sweep(tmp_path)
    assert names(tmp_path) == [mine.name]


def test_all_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and folder of the result is synced, then renamed, then the parent is synced."""
    log: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        log.append(Path(f"/proc/self/fd/{number}").readlink().name)
        fsync(number)

    def renamed(path: Path, target: Path) -> Path:
        log.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with new_folder(tmp_path / "model") as part:
        (part / "codec").mkdir()
        for name in ("config.json", "codec/model.safetensors"):
            (part / name).write_text("x")
    place = log.index("rename")
    assert set(log[:place]) == {"config.json", "model.safetensors", "codec", "whole"}
    assert tmp_path.name in log[place:]


def test_the_longest_name_that_a_folder_takes_is_written(tmp_path: Path) -> None:
    longest = tmp_path / ("a" * 255)
    with new_file(longest) as part:
        part.write_text("x")
    assert longest.read_text() == "x"
    with new_folder(tmp_path / ("b" * 255)) as part:
        (part / "a").write_text("x")
    assert len(names(tmp_path)) == 2


def test_what_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "a")
    check_writable(tmp_path / "new" / "deeper" / "a")
    assert names(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for path, number in (
        (tmp_path, errno.EISDIR),
        (tmp_path / ("a" * 300), errno.ENAMETOOLONG),
        (tmp_path / "file" / "a", errno.ENOTDIR),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            check_writable(path)
        assert caught.value.errno == number
