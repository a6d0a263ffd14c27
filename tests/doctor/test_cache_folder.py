"""What `clipcifar doctor` says of the cache folder: litter as litter, the rest as kept."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from clipcifar.core import files, run_lock
from clipcifar.core.files import CachePart
from clipcifar.doctor import cache_folder
from clipcifar.doctor.cache_folder import KEPT, STOPPED

PARTS: dict[CachePart, str] = {
    "downloads": "archive.tar.gz",
    "embeddings": "0a.h5",
    "extraction": "0a/000000000-000000010.shard",
    "finetune": "0a/0001-tower.safetensors",
    "models": "0a/weights/open_clip_model.safetensors",
    "speeds": "0a.json",
}


@pytest.fixture(params=["cache", "a cache; of 'names"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / request.param
    folder.mkdir()
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(folder))
    return folder


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def fill(path: Path, num_bytes: int = 200_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    return path


def said(repository: Path) -> list[str]:
    found = list(cache_folder.scratch(repository, {}))
    assert all(isinstance(line, str) for line in found)  # none of it is an error
    return [str(line) for line in found]


def follow(line: str) -> None:
    """Run the command that a line ends with."""
    command = line[line.index("rm -") :].partition(" costs ")[0]
    subprocess.run(["sh", "-c", command], check=True)


def test_every_part_of_the_cache_is_either_kept_or_left() -> None:
    assert set(PARTS) == set(get_args(CachePart)) == set(STOPPED) | set(KEPT)
    assert not set(STOPPED) & set(KEPT)


def test_an_empty_cache_is_not_spoken_of(cache: Path, tmp_path: Path) -> None:
    assert said(tmp_path) == ["0 downloaded files are remembered"]
    fill(cache / "extraction" / "0a.lock", 0)
    (cache / "extraction" / "0a").mkdir()
    (cache / "models").mkdir()
    assert said(tmp_path) == ["0 downloaded files are remembered"]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_told_with_its_size_and_goes_by_the_command(
    part: CachePart, cache: Path, tmp_path: Path
) -> None:
    path = fill(files.cache_folder(part) / PARTS[part])
    line, _ = said(tmp_path)
    assert ": 1, 0.2 MB" in line
    assert ("the next run goes on from its own" in line) == (part in STOPPED)
    assert ("kept for later runs" in line) == (part in KEPT)
    other = fill(cache / "sentences.sqlite")
    follow(line)
    assert not path.exists()
    assert other.exists()
    assert said(tmp_path) == ["0 downloaded files are remembered"]


def test_a_model_that_was_fetched_in_part_is_litter_beside_those_that_are_kept(
    cache: Path, tmp_path: Path
) -> None:
    whole = fill(cache / "models" / PARTS["models"])
    part = fill(cache / "models" / f".new-{PARTS['models']}", 300_000)
    kept, litter, _ = said(tmp_path)
    assert kept.startswith("other backbones: 1, 0.2 MB, kept for later runs")
    assert litter.startswith("other backbones fetched in part: 1, 0.3 MB")
    follow(litter)
    assert (whole.exists(), part.exists()) == (True, False)
    assert said(tmp_path)[:-1] == [kept]


@pytest.mark.parametrize("part", ["extraction", "finetune"])
def test_work_in_progress_is_not_called_litter(part: CachePart, cache: Path, tmp_path: Path) -> None:
    idle, busy = (fill(files.cache_folder(part) / name / "piece.shard") for name in ("idle", "busy"))
    with run_lock.alone(busy.parent, doing="testing"):
        at_work, left, _ = said(tmp_path)
        assert f"process {os.getpid()} is at work in {busy.parent}" in at_work
        follow(left)
        assert (idle.exists(), busy.exists()) == (False, True)
    line, _ = said(tmp_path)
    assert STOPPED[part] in line


def test_a_model_that_is_being_fetched_is_not_called_litter(cache: Path, tmp_path: Path) -> None:
    part = fill(cache / "models" / f".new-{PARTS['models']}")
    with run_lock.alone(cache / "models" / ".new-0a", doing="testing"):
        assert said(tmp_path) == ["0 downloaded files are remembered"]
    assert "fetched in part" in said(tmp_path)[0]
    assert part.exists()


def test_a_holder_that_has_died_holds_nothing(cache: Path, tmp_path: Path, dead: int) -> None:
    fill(cache / "extraction" / "0a" / "piece.shard")
    (cache / "extraction" / "0a.holder").write_text(str(dead))
    assert "stopped extractions: 1" in said(tmp_path)[0]
    (cache / "extraction" / "0a.holder").write_text(f"{dead} another-machine")  # where it may live
    assert said(tmp_path)[0].startswith(f"process {dead} is at work in ")


@pytest.mark.parametrize(
    "place", [lambda cache, repository: cache / "embeddings", lambda cache, repository: repository / "data"]
)
def test_a_write_that_was_killed_is_told_from_one_that_goes_on(
    place: Callable[[Path, Path], Path], cache: Path, tmp_path: Path, dead: int
) -> None:
    folder = place(cache, tmp_path)
    living = fill(folder / f".images.h5.{files.host()}.{os.getpid()}.abcd.tmp")
    assert said(tmp_path) == ["0 downloaded files are remembered"]
    killed = fill(folder / f".images.h5.{files.host()}.{dead}.abcd.tmp")
    line, _ = said(tmp_path)
    assert line.startswith("files of killed writes: 1, 0.2 MB; rm -f ")
    follow(line)
    assert (living.exists(), killed.exists()) == (True, False)


@pytest.mark.parametrize("place", ["extraction", "."])
def test_a_cache_that_is_a_link_to_another_disk_is_told_like_any(
    place: str, cache: Path, tmp_path: Path, dead: int
) -> None:
    for part, name in PARTS.items():
        fill(files.cache_folder(part) / name)
    fill(cache / "extraction" / "0a" / f".000000000-000000010.shard.{files.host()}.{dead}.ab.tmp")
    before = said(tmp_path)
    assert any(line.startswith("files of killed writes: 1, 0.2 MB") for line in before)
    moved = cache if place == "." else cache / place
    moved.symlink_to(moved.rename(tmp_path / "disk"), target_is_directory=True)
    assert said(tmp_path) == before
    for line in before:
        if "files of killed writes" in line:
            follow(line)
    assert not list((tmp_path / "disk").rglob("*.tmp"))
