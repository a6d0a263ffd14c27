"""How fast a card is through the project's own code: parts of gpu.py, each a function that prints its rows.

Weights are random: no figure here says anything about CLIP.
"""

from __future__ import annotations

import io
import time
from functools import partial
from hashlib import sha256
from typing import Any

import gpu_device as gpu
import numpy as np
import sides
import torch
import torch.nn.functional as F
from common import CLASSES, GFLOP_COMPUTED, ahead, clip_like, paired, photographs, row
from gpu_work import FASTEST, Work, held, measured

from clipcifar.embeddings.extract import extract
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.embeddings.sources import ArraySource
from clipcifar.store.images import read_images


def arrays(work: Work) -> None:
    """Images in memory, at each precision and at several batch sizes."""
    n, batches, target = work.sizes.images, work.sizes.batches, []
    data = work.arrays(n)
    work.embed(work.arrays(batches[0]), FASTEST, batches[0])  # the card's libraries start
    for precision in dict.fromkeys([FASTEST, *gpu.precisions()]):
        limit = gpu.matrix_rate(precision, work.sizes.matrix)
        for batch in batches if precision == FASTEST else batches[:1]:
            whole, seconds = work.embed(data, precision, batch)
            share = n / seconds * GFLOP_COMPUTED / 1e3 / limit
            note = (
                f"{share:.1%} of the matrix product's {limit:.4g} TFLOP/s; all of embed_images {whole:.2f} s"
            )
            measured(
                f"{n:,} arrays, {precision}, batches of {batch}", n / seconds, unit="images/s", note=note
            )
            if precision == FASTEST:
                target.append((whole, share, batch))
    whole, share, batch = min(target)
    note = f"batches of {batch}, extraction at {share:.1%}; weights hashed, a second pass, files written"
    aim: Any = {"target": "< 5 s, ≥ 30 % of the matrix product's rate", "reached": whole < 5 and share >= 0.3}
    measured(f"{n:,} arrays through embed_images, {FASTEST}", whole, unit="s", note=note, **aim)
    digests = [work.embed(data, FASTEST, batches[0]) and work.digest() for _ in range(2)]
    held("the same run twice", target="equal bytes", reached=digests[0] == digests[1], note=digests[0][:16])


def loop(work: Work) -> None:
    """Against an open_clip loop as its README has it, fed by eight workers."""
    from torch.utils.data import DataLoader

    n, batches = work.sizes.loop, work.sizes.batches
    data = work.dataset(photographs(n), [f"{i:06d}" for i in range(n)])
    seconds = {batch: min(work.embed(data, FASTEST, batch)[1] for _ in range(2)) for batch in batches}
    images = read_images(work.folder / "images")
    ours = np.concatenate([images.test.embeddings, images.train.embeddings])
    model, transform, _ = sides.open_clip_model()
    model.to(gpu.DEVICE)
    loader = DataLoader(sides.made_dataset(n, transform), batches[0], num_workers=8, pin_memory=gpu.ON_CARD)
    theirs: list[torch.Tensor] = []

    def embed() -> None:
        theirs.clear()
        with torch.no_grad(), torch.autocast(gpu.DEVICE.type, torch.bfloat16):
            for pixels, _ in loader:
                features = model.encode_image(pixels.to(gpu.DEVICE, non_blocking=True))
                theirs.append(F.normalize(features, dim=-1).float().cpu())

    rate, (best, batch) = n / gpu.seconds_of(embed), min((value, key) for key, value in seconds.items())
    cosine = float((ours * torch.cat(theirs).numpy()).sum(axis=1).min())
    note = f"eight workers, bf16 autocast; ours {FASTEST}, batches of {batch}; least cosine {cosine:.4f}"
    ahead(f"{n:,} arrays against an open_clip loop", n / best, rate, unit="images/s", least=5, note=note)


def heads(work: Work) -> None:
    """Epochs of the trained heads on the device, against two cores of this CPU."""
    from clipcifar.methods.trained.mlp_probe import MLPProbe
    from clipcifar.methods.trained.projection import Projection
    from clipcifar.methods.trained.training import Labelled, TrainingParams, train

    (rows, labels), cut, epochs = clip_like(work.sizes.rows), work.sizes.rows * 9 // 10, work.sizes.epochs
    params = TrainingParams(512, 0.2, 1e-3, 1e-4, 512, epochs, epochs, (0,), "auto")

    def run(method: str, kind: str) -> None:
        there = torch.device(kind)
        parts = [Labelled.on(there, rows[part], labels[part]) for part in (slice(cut), slice(cut, None))]
        known, shape = parts[0].embeddings, {"hidden": 512, "dropout": 0.2}
        if method == "MLP probe":
            build: Any = partial(MLPProbe, known, num_classes=len(CLASSES), **shape)
        else:
            build = partial(Projection, known[: len(CLASSES)], logit_scale=100.0, **shape)
        train(build, *parts, params=params, seed=0)

    for method in ("MLP probe", "projection heads"):
        (ours,) = paired(partial(run, method, gpu.DEVICE.type), rounds=2)
        with gpu.two_cores():
            (theirs,) = paired(partial(run, method, "cpu"), rounds=1)
        note = f"{cut:,} rows of 512; the other side is our own on two CPU cores of this machine"
        ahead(f"{method}, an epoch", ours / epochs, theirs / epochs, unit="s", least=10, note=note)


def profile(work: Work) -> None:
    """Where an extraction's time goes, at the smallest and at the largest batch."""
    n, tower, shards = (
        work.sizes.profiled,
        work.tower(FASTEST),
        ShardFolder(work.folder / "profiled", "0" * 64),
    )
    source, ids = ArraySource(photographs(n)), [str(i) for i in range(n)]

    def once(size: int) -> None:
        with shards.locked():
            tuple(
                extract(source, tower.encode_images, ids=ids, batch_size=size, multiple=size, shards=shards)
            )
            shards.remove()

    for batch in (work.sizes.batches[0], work.sizes.batches[-1]):
        seconds, waiting, shares = gpu.profiled(partial(once, batch))
        parts = ", ".join(f"{kind} {share:.1%}" for kind, share in gpu.by_kind(shares).items())
        note = f"{n / seconds:,.0f} images/s under the profiler; the host waits {waiting:.1%}; {parts}"
        name = f"device at work, {FASTEST}, batches of {batch}"
        measured(name, sum(shares.values()), unit="of the time", note=note)
    for kernel, share in sorted(shares.items(), key=lambda item: -item[1])[:8]:
        measured(f"kernel `{kernel[:80]}`", share, unit="of the time")


def text(work: Work) -> None:
    """Sentences through the text tower, which stays in fp32 on a card."""
    sentences, tower = sides.sentences(work.sizes.sentences), work.tower(FASTEST)
    rate = len(sentences) / gpu.seconds_of(lambda: list(tower.encode_sentences(sentences)))
    measured(f"{len(sentences):,} sentences", rate, unit="sentences/s")


def jpegs(work: Work) -> None:
    """Photographs, decoded by a process for each core."""
    from PIL import Image

    for size, n in work.sizes.jpegs:
        folder, contents = work.folder / "jpegs", []
        for pixels in photographs(min(n, 64), size):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=90)
            contents.append(stream.getvalue())
        ids = [f"{size}-{i:06d}.jpg" for i in range(n)]
        folder.mkdir(exist_ok=True)
        for i, name in enumerate(ids):
            (folder / name).write_bytes(contents[i % len(contents)])
        digests = [sha256(content).hexdigest() for content in contents]
        data = work.dataset(np.array([digests[i % len(digests)] for i in range(n)], "S64"), ids)
        rate = n / work.embed(data, FASTEST, work.sizes.batches[0])[1]
        measured(
            f"{n:,} JPEGs {size} pixels wide, {FASTEST}",
            rate,
            unit="images/s",
            note="workers' start included",
        )


def tower(work: Work) -> None:
    """The image tower alone on prepared input; and cast in every call, as it was before."""
    for precision in [*gpu.precisions(), "autocast"]:
        visual = work.tower("fp32" if precision == "autocast" else precision)._model.visual
        product = gpu.DTYPES.get(precision, torch.bfloat16)
        limit = gpu.matrix_rate(FASTEST if precision == "autocast" else precision, work.sizes.matrix)
        for batch in (work.sizes.batches[0], work.sizes.batches[-1]):
            pixels = work.prepared_input(batch, next(visual.parameters()).dtype)
            mixed = torch.autocast(gpu.DEVICE.type, product, enabled=precision == "autocast")
            with gpu.set_to(precision), torch.inference_mode(), mixed:
                rate = batch / gpu.seconds_of(partial(visual, pixels), rounds=5)
            tflops = rate * GFLOP_COMPUTED / 1e3
            note = f"{tflops:.4g} TFLOP/s, {tflops / limit:.1%} of the matrix product"
            measured(f"tower alone, {precision}, batches of {batch}", rate, unit="images/s", note=note)


def compiled(work: Work) -> None:
    """The tower alone through torch's compiler, against itself as it is."""
    visual, batch = work.tower(FASTEST)._model.visual, work.sizes.batches[0]
    pixels = work.prepared_input(batch, next(visual.parameters()).dtype)
    with torch.inference_mode():
        plain = batch / gpu.seconds_of(partial(visual, pixels), rounds=5)
        faster = torch.compile(visual, backend="inductor" if gpu.ON_CARD else "eager")
        start = time.perf_counter()
        faster(pixels)
        gpu.sync()
        note = f"compiling took {time.perf_counter() - start:.1f} s; the other side is not compiled"
        rate = batch / gpu.seconds_of(partial(faster, pixels), rounds=5)
    name = f"tower compiled, {FASTEST}, batches of {batch}"
    row(name, rate, plain, unit="images/s", ratio=rate / plain, note=note)
