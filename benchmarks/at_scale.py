"""The table of docs/scale.md: a run at 10⁸ and 10⁹ images, computed from measured figures."""

from __future__ import annotations

IMAGES = (10**8, 10**9)
GPUS = 8
IMAGE_BYTES = 100e3  # a JPEG of about half a megapixel
GPU_RATE = 5000  # images a second through ViT-B/32 where it is fed; assumed, not measured here
DECODE_S = 1.4e-3  # of a core: such a JPEG read, decoded and fitted to 224 pixels
LINK = 10e9 / 8  # bytes a second of a 10 Gbit/s network
SHARD_IMAGES, PART_ROWS, ROW_BYTES = 10_000, 65_536, 2048
# Of a core for each of 2,000,000 rows.
WRITE_S, VERIFY_S, ZERO_SHOT_S, RANKING_S = 5.7e-6, 2.6e-6, 3.0e-6, 37e-6
LISTED_BYTES = 120  # of memory in prepare: id, label, digest
# Between two failures (Llama Team 2024, arXiv:2407.21783, table 5).
INTERRUPTED_GPU_H = 16_384 * 54 * 24 / 419


def amount(value: float, *units: tuple[float, str]) -> str:
    """A number in the largest unit that it fills, to two digits."""
    size, unit = next((each for each in units if value >= each[0]), units[-1])
    shown = value / size
    return f"{shown:,.0f} {unit}" if shown >= 10 else f"{shown:.2g} {unit}"


def duration(seconds: float) -> str:
    return amount(seconds, (86_400 * 2, "days"), (3600, "h"), (60, "min"), (1, "s"))


def num_bytes(value: float) -> str:
    return amount(value, (1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"))


def cells(n: int) -> dict[str, str]:
    """The rows of the table for n images."""
    gpu_s, decode_s, of_shard = n / GPU_RATE, n * DECODE_S, num_bytes(SHARD_IMAGES * IMAGE_BYTES)
    return {
        f"GPU time, at {GPU_RATE:,} images a second": f"{gpu_s / 3600:,.1f} GPU-hours",
        f"on {GPUS} GPUs, where they are fed": duration(gpu_s / GPUS),
        f"cores that decode for {GPUS} GPUs": f"{GPUS * GPU_RATE * DECODE_S:,.0f}",
        "input": num_bytes(n * IMAGE_BYTES),
        f"input that {GPUS} GPUs want": f"{num_bytes(GPUS * GPU_RATE * IMAGE_BYTES)}/s",
        "through one link of 10 Gbit/s, once for `prepare` and once for the GPUs": duration(
            2 * n * IMAGE_BYTES / LINK
        ),
        f"shards of {SHARD_IMAGES:,} images, {of_shard} each": f"{n // SHARD_IMAGES:,}",
        "`prepare`, 64 cores of one machine, where they are fed": duration(decode_s / 64),
        "memory of `prepare`": num_bytes(n * LISTED_BYTES),
        "parts": f"{-(-n // PART_ROWS):,}",
        "embeddings on disk": num_bytes(n * ROW_BYTES),
        "the same as float16": num_bytes(n * ROW_BYTES / 2),
        "writing them, one core": duration(n * WRITE_S),
        "verifying them, one core": duration(n * VERIFY_S),
        "zero-shot, one core": duration(n * ZERO_SHOT_S),
        "ranking of 300 templates, one core": duration(n * RANKING_S),
        "failures of a GPU to expect in the run": f"{gpu_s / 3600 / INTERRUPTED_GPU_H:.2g}",
    }


def table() -> str:
    """In markdown."""
    columns = [cells(n) for n in IMAGES]
    head = ["| | " + " | ".join(f"10{'⁸⁹'[i]} images" for i in range(len(IMAGES))) + " |", "|---|---:|---:|"]
    return "\n".join(
        [*head, *(f"| {name} | {' | '.join(c[name] for c in columns)} |" for name in columns[0])]
    )


if __name__ == "__main__":
    print(table())
