"""Photographs checked by processes: the same words and bytes as in one, whatever ends them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.processes import is_running
from clipcifar.datasets import checking, decode
from clipcifar.datasets.checking import check_files
from stages import prepare
from tests.support.waiting import PATIENCE_S, wait_for

N = 60


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(N):
        path = tmp_path / "photos" / ("cat" if i % 3 else "dog") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (i % 40, 5, 7)).save(path)  # of some a copy
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "TASK_FILES", 2)


def names(photos: Path) -> list[str]:
    return sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))


def checked(photos: Path, *, workers: int, paths: list[str] | None = None) -> list[str]:
    paths = names(photos) if paths is None else paths
    results = check_files(photos, iter(paths), total=len(paths), max_megapixels=1, workers=workers)
    return [f"{type(result).__name__}: {result}" for result in results]


def harm(photos: Path) -> None:
    """A file of each kind that cannot be used."""
    (photos / "cat/001.png").write_bytes(b"")
    content = (photos / "cat/002.png").read_bytes()
    (photos / "cat/002.png").write_bytes(content[: len(content) // 2])
    Image.new("1", (1001, 1000)).save(photos / "dog/003.png")
    (photos / "cat/055.png").write_bytes(b"\x00" * 99)


@pytest.mark.parametrize("workers", [2, 3, 40])
def test_processes_say_what_one_says_in_the_order_of_the_paths(workers: int, photos: Path) -> None:
    harm(photos)
    paths = [*names(photos), "cat/gone.png", "cat/\udcff.png"]
    said = checked(photos, workers=workers, paths=paths)
    assert said == checked(photos, workers=1, paths=paths)
    digests = [hashlib.sha256((photos / path).read_bytes()).hexdigest() for path in paths[:-2]]
    bad = [line for line in said if not line.startswith("str: ")]
    assert [line for line in said if line in {f"str: {digest}" for digest in digests}] == [
        line for line in said if line.startswith("str: ")
    ]
    assert len(bad) == 6
    assert "cannot be read: No such file" in bad[-2]
    assert bad[-1] == "DataError: its name is not UTF-8"


@pytest.mark.parametrize("limit", [None, 7])
def test_the_files_of_prepare_are_the_same_bytes_whatever_the_number_of_processes(
    limit: int | None,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    harm(photos)
    settings: dict[str, Any] = {
        "dataset": {"name": "imagefolder", "path": str(photos), "max_per_class": limit, "seed": 1,
                    "on_bad_image": "skip", "test_fraction": 0.3, "max_megapixels": 1},
        "split": {"val_fraction": 0.2, "seed": 0},
    }  # fmt: skip
    made: list[tuple[list[str], str]] = []
    for workers in (1, 2, 5):
        monkeypatch.setattr(checking, "cores", lambda workers=workers: workers)
        paths = [tmp_path / str(workers) / name for name in ("dataset.h5", "splits.h5", "classes.json")]
        prepare.main(settings, tmp_path / "raw", *paths)
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        made.append((digests, capsys.readouterr().out))
    assert made[0] == made[1] == made[2]
    assert "skipped 4 images:" in made[0][1]
    assert limit or "more than once in one split" in made[0][1]


def test_no_more_files_are_under_way_than_processes_can_use(photos: Path) -> None:
    asked: list[str] = []

    def paths() -> Iterator[str]:
        for path in names(photos):
            asked.append(path)
            yield path

    results = check_files(photos, paths(), total=N, max_megapixels=1, workers=2)
    next(results)
    assert len(asked) == 2 * checking._AHEAD * checking.TASK_FILES < N
    results.close()
    assert multiprocessing.active_children() == []


def test_who_stops_waits_for_no_more_than_the_images_that_are_being_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every process is gone afterwards."""
    first = names(photos)[:15]

    def held_up(content: bytes, name: str, **_: object) -> None:
        (tmp_path / name.replace("/", "-")).touch()
        if name not in first:
            wait_for((tmp_path / "go on").exists, what="the stop")

    real, events = multiprocessing.Event, []
    monkeypatch.setattr(multiprocessing, "Event", lambda: events.append(real()) or events[-1])
    monkeypatch.setattr(checking, "check", held_up)
    monkeypatch.setattr(checking, "TASK_FILES", len(first))
    results = check_files(photos, iter(names(photos)), total=N, max_megapixels=1, workers=2)
    next(results)
    (stopping,) = events
    letting_go = threading.Thread(target=lambda: stopping.wait() and (tmp_path / "go on").touch())
    letting_go.start()
    results.close()
    letting_go.join()
    assert multiprocessing.active_children() == []
    assert len(first) <= len(list(tmp_path.glob("*.png"))) <= len(first) + 2


@pytest.mark.parametrize(
    ("end", "said"),
    [(lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9"), (lambda: os._exit(7), "exit code 7")],
)
def test_a_process_that_dies_is_told_of_with_the_images_that_it_may_have_been_at(
    end: Callable[[], None], said: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(content: bytes, name: str, **_: object) -> None:
        if name == "cat/010.png":
            end()

    monkeypatch.setattr(checking, "check", decode)
    with pytest.raises(EnvironmentFault, match=rf"ended before its time \({said}\)") as caught:
        checked(photos, workers=2)
    assert caught.value.where == str(photos)
    first, _, last = caught.value.what.partition(" images from ")[2].partition(" to ")
    assert first <= "cat/010.png" <= last
    assert multiprocessing.active_children() == []


def test_very_large_images_are_decoded_one_at_a_time_among_all_processes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As memory has it: two of 250 megapixels at once may be more than there is."""

    def alone(image: Image.Image) -> None:
        (tmp_path / "taken").mkdir()  # fails where another has it
        time.sleep(0.001)
        (tmp_path / "taken").rmdir()

    monkeypatch.setattr(decode, "_refuse", alone)
    monkeypatch.setattr(decode, "_AT_ONCE", 0)
    assert all(line.startswith("str: ") for line in checked(photos, workers=4))


_SCRIPT = """
import multiprocessing, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, getattr(signal, sys.argv[2]))  # whatever whoever runs the tests ignores
from clipcifar.datasets import checking
checking.check = lambda *_, **__: time.sleep(0.02)
checking.TASK_FILES = 2
root = Path(sys.argv[1])
paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.png")) * int(sys.argv[3])
try:
    for result in checking.check_files(root, iter(paths), total=len(paths), max_megapixels=1, workers=2):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("whom", ["parent", "group"])
def test_whoever_is_interrupted_or_killed_leaves_no_process_behind(
    how: signal.Signals, whom: str, photos: Path
) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(photos), "default_int_handler", "99"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    children = [int(pid) for pid in run.stdout.readline().split()]
    assert len(children) == 2
    (os.killpg if whom == "group" else os.kill)(run.pid, how)
    _, error = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in error
    wait_for(lambda: not any(map(is_running, children)), what="the end of the processes")


def test_who_ignores_an_interrupt_goes_on_and_so_do_the_processes(photos: Path) -> None:
    """As what a shell runs in the background, or under nohup."""
    run = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(photos), "SIG_IGN", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    run.stdout.readline()
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, "Traceback" in error) == (0, False)


def test_an_error_of_the_surroundings_comes_over_whole(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(content: bytes, name: str, **_: object) -> None:
        raise (
            EnvironmentFault("out of memory", where=name, fix="free some")
            if "9" in name
            else DataError("odd")
        )

    monkeypatch.setattr(checking, "check", decode)
    assert checked(photos, workers=3) == checked(photos, workers=1)
