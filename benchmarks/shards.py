"""100,000 small images as tar shards and as a folder: `python shards.py [N]` prints one JSON line a row.

Processor time counts, that of every process together: DVC, the stage, and those that read shards.
"""

from __future__ import annotations

import io
import resource
import shutil
import statistics
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from common import CLASSES, WORK, photographs, row
from PIL import Image
from workspace import command, copy_project

from clipcifar.prompts.save import edit_params, overlay

ROUNDS, SHARD = 3, 10_000
SIDES = (("tarfolder", "tar"), ("imagefolder", "folder"))
PREPARE = (
    "python",
    "-m",
    "stages.prepare",
    "data/raw",
    "data/dataset.h5",
    "data/splits.h5",
    "data/classes.json",
)


def make(folder: Path, n: int) -> None:
    """`folder` and `tar` with the same n JPEGs, a tenth of them test: in class folders, and with .cls."""
    shutil.rmtree(folder, ignore_errors=True)
    images = photographs(n)
    for number, start in enumerate(range(0, n, SHARD)):
        split = "test" if start < n // 10 else "train"
        shard = folder / "tar" / split / f"{number:05d}.tar"
        shard.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(shard, "w") as tar:
            for i, pixels in enumerate(images[start : start + SHARD], start=start):
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "JPEG", quality=90)
                path = folder / "folder" / split / CLASSES[i % 10] / f"{i:06d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stream.getvalue())
                for suffix, content in (("jpg", stream.getvalue()), ("cls", str(i % 10).encode())):
                    entry = tarfile.TarInfo(f"{i:06d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    (folder / "tar" / "classes.txt").write_text("\n".join(CLASSES))


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of all processors that the processes took, and seconds by the clock."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - start


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    make(WORK / "shards", n)
    for name, kind in SIDES:
        folder = WORK / f"shards-{kind}"
        copy_project(folder)
        chosen = {"dataset": {"name": name, "path": str(WORK / "shards" / kind)}}
        edit_params(folder / "params.yaml", lambda params, chosen=chosen: overlay(params, chosen))
        command("dvc", "init", "--force", "--quiet", folder=folder)
        command("dvc", "repro", "--quiet", "download", folder=folder)
    costs: dict[str, dict[str, list[tuple[float, float]]]] = {kind: {} for _, kind in SIDES}
    for number in range(ROUNDS + 1):
        for kind in costs:
            folder = WORK / f"shards-{kind}"
            prepare = cost(lambda folder=folder: command(*PREPARE, folder=folder))
            if number:
                costs[kind].setdefault("prepare", []).append(prepare)
    for kind in costs:
        folder = WORK / f"shards-{kind}"
        first = cost(lambda folder=folder: command("dvc", "repro", "prepare", folder=folder))
        costs[kind]["first dvc repro"] = [first]
    for _ in range(ROUNDS):
        for kind in costs:
            folder = WORK / f"shards-{kind}"
            unchanged = cost(lambda folder=folder: command("dvc", "repro", "prepare", folder=folder))
            costs[kind].setdefault("unchanged dvc repro", []).append(unchanged)
    for name in costs["tar"]:
        ours, theirs = (statistics.median(cpu for cpu, _ in costs[kind][name]) for kind in ("tar", "folder"))
        clock = [statistics.median(seconds for _, seconds in costs[kind][name]) for kind in ("tar", "folder")]
        note = (
            f"the other side: the same images as files; by the clock {clock[0]:.1f} against {clock[1]:.1f} s"
        )
        row(
            f"{name}, {n:,} images in tar shards",
            ours,
            theirs,
            unit="s of processors",
            ratio=theirs / ours,
            note=note,
        )


if __name__ == "__main__":
    main()
