"""Whether a card does what a CPU does: parts of gpu.py, each a function that prints its rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from typing import Any

import gpu_device as gpu
import numpy as np
import sides
import torch
from common import ROOT, photographs
from gpu_work import FASTEST, Work, held, measured

from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import EnvironmentFault
from clipcifar.embeddings.extract import SHARD_ROWS


def machine(work: Work) -> None:
    """What it is, and its limits."""
    print(json.dumps({"machine": gpu.machine()}), flush=True)
    for precision in gpu.precisions():
        rate = gpu.matrix_rate(precision, work.sizes.matrix)
        measured(f"matrix product, {precision}", rate, unit="TFLOP/s", note=f"{work.sizes.matrix:,}²")
    measured("copy to the device", gpu.upload_rate(work.sizes.transferred), unit="GB/s", note="pinned memory")


def tests(work: Work) -> None:
    """The tests that need a card; without one they are skipped."""
    files = [
        str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text()
    ]
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "cuda",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        *files,
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1].strip("= ") if done.stdout else ""
    reached = done.returncode == 0 and ("passed" if gpu.ON_CARD else "skipped") in last
    held("tests that need a card", target="pass", reached=reached, note=last)
    if not reached:
        raise SystemExit(f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}")


def parity(work: Work) -> None:
    """Vectors of the device beside those of this CPU in fp32."""
    pixels = torch.from_numpy(photographs(work.sizes.compared)).permute(0, 3, 1, 2)
    texts, least = sides.sentences(work.sizes.compared), {"fp32": 0.99999, "tf32": 0.9999, "bf16": 0.999}

    def vectors(tower: Backbone) -> tuple[Any, Any]:
        return tower.encode_images(pixels).cpu().numpy(), sides.embedded(tower, texts)

    expected = vectors(work.tower("fp32", "cpu"))
    for precision in gpu.precisions():
        tower = work.tower(precision)
        with gpu.set_to(precision):
            there = vectors(tower)
        for what, ours, theirs in zip(("images", "sentences"), there, expected, strict=True):
            cosine, bar = float((ours * theirs).sum(axis=1).min()), least.get(precision, 0.9995)
            note, aim = f"largest difference {np.abs(ours - theirs).max():.1e}", f"≥ {bar:g}"
            name = f"{what}, {precision}, against the CPU in fp32"
            measured(name, cosine, unit="least cosine", target=aim, reached=cosine >= bar, note=note)


def embed_and_count(work: Work, name: str) -> None:
    """In a process that may be killed: embed the arrays, and print how many images went through the tower."""
    counts, encode = [], Backbone.encode_images

    def counted(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return encode(self, images)

    Backbone.encode_images = counted  # type: ignore[method-assign]
    work.embed(work.arrays(work.sizes.images), FASTEST, work.sizes.batches[0], name=name)
    print(sum(counts), flush=True)


def resume(work: Work) -> None:
    """Killed midway and started again, against a run that was not."""
    words = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--work", str(work.folder)]
    words += ["--alone"] if work.sizes.model else ["--toy", "--alone"]
    begin = partial(subprocess.Popen, stdout=subprocess.PIPE, text=True)
    assert work.model

    def finished() -> int:
        return len(list((work.folder / "cache").rglob("*.shard")))

    def count(name: str) -> int:
        with begin([*words, f"embed_and_count:{name}"]) as process:
            return int(process.communicate()[0].split()[-1])

    with begin([*words, "embed_and_count:killed"]) as process:
        while finished() < work.sizes.kill_after and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    kept = finished() * SHARD_ROWS
    saved = -count("killed") + count("whole")
    same = work.digest("whole") == work.digest("killed")
    note = f"killed with {kept:,} of {work.sizes.images:,} images finished, {saved:,} not embedded again"
    reached = same and saved == kept > 0
    held("killed, and run again", target="equal bytes, nothing twice", reached=reached, note=note)


def memory(work: Work) -> None:
    """Batches that no memory holds: the setting is named, and the next run works."""
    from clipcifar.backbone import device

    device.short_batch_multiple = lambda _, size: size  # of a CPU as of a card
    data = work.arrays(work.sizes.batches[-1])
    for batch in (*work.sizes.too_large, work.sizes.batches[0]):
        try:
            said = f"it fits, {work.embed(data, FASTEST, batch)[1]:.2f} s"
        except EnvironmentFault as error:
            said = f"{error.what}: {error.where}"
        except Exception as error:  # what a person should not see
            said = f"{type(error).__name__}: {str(error)[:200]}"
        reached = said.startswith(("it fits", "out of memory: params.yaml: embed.batch_size"))
        held(f"batches of {batch:,}", target="named, or it fits", reached=reached, note=said)
