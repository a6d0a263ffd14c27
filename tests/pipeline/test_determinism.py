"""Each statement of docs/limits.md on what stays equal to the bit: runs, threads, batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from clipcifar.methods import gda, linear_probe, zero_shot
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.projection import Projection
from clipcifar.methods.trained.training import Labelled, TrainingParams, train
from clipcifar.search import ranking
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from stages import embed_images, embed_texts, fetch_model, prepare, prompts
from tests.support import stage_runs
from tests.support.synthetic import task
from tests.support.workspace import QUICK, ROOT, SETS

CPU = torch.device("cpu")
STAND_IN = ROOT / "data" / "demo" / "clip"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads as OMP_NUM_THREADS would give, for torch and for NumPy's BLAS."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, prompts and the stand-in, ready to be embedded."""
    folder = tmp_path_factory.mktemp("w")
    _write_params(folder)
    for main, paths in (
        (prepare.main, ("raw", "d.h5", "s.h5", "c.json")),
        (prompts.main, ("c.json", "prompts")),
        (fetch_model.main, ("weights", "model.json")),
    ):
        ended = stage_runs.run(main, *paths, folder=folder)
        assert ended.code == 0, ended.error
    return folder


def _write_params(folder: Path, **embed: Any) -> None:
    changes = {
        **QUICK,
        "dataset": {"name": "digits", "max_per_class": 8},
        "split": {"val_fraction": 0.25},
        "model": {"name": f"local-dir:{STAND_IN}", "pretrained": None, "path": str(STAND_IN)},
        "embed": {"device": "cpu", **embed},
        "prompts": {"active": "photo", "sets": SETS},
    }
    stage_runs.write_params(folder, changes)


Run = tuple[NDArray[np.float32], dict[str, bytes]]


@pytest.fixture(scope="module")
def embedded(folder: Path) -> Callable[..., Run]:
    """Image embeddings by batch size and number of threads, and the bytes of their files."""
    known: dict[tuple[int, int, int], Run] = {}

    def embed(batch_size: int, count: int = 1, again: int = 0) -> Run:
        if (batch_size, count, again) not in known:
            _write_params(folder, batch_size=batch_size)
            with threads(count):
                paths = ("raw", "d.h5", "weights", "model.json", "images")
                ended = stage_runs.run(embed_images.main, *paths, folder=folder)
            assert ended.code == 0, ended.error
            images = read_images(folder / "images")
            rows = np.concatenate([images.train.embeddings, images.test.embeddings])
            made = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
            known[batch_size, count, again] = rows, made
        return known[batch_size, count, again]

    return embed


@pytest.mark.parametrize("count", [1, 2])
def test_image_embeddings_are_the_same_bytes_run_again(embedded: Callable[..., Run], count: int) -> None:
    once = embedded(256, count)
    assert len(once[0]) == 160
    assert embedded(256, count, again=1)[1] == once[1]


def _same_but_for_last_digits(
    usual: NDArray[np.float32],
    other: NDArray[np.float32],
    folder: Path,
    patch: pytest.MonkeyPatch,
    cache: Path,
) -> int:
    """Assert close embeddings, and equal predictions but for ties; how many predictions changed."""
    exact = usual.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(other.astype(np.float64), axis=1)
    assert ((exact * other).sum(axis=1) / lengths).min() >= 1 - 1e-5
    _embed_texts(folder, patch, cache)
    weights = zero_shot.classifier(read_texts(folder / "texts" / "digits.h5"))
    scores = usual @ weights.T
    changed = int((scores.argmax(axis=1) != (other @ weights.T).argmax(axis=1)).sum())
    ordered = np.sort(scores, axis=1)
    assert changed <= (ordered[:, -1] - ordered[:, -2] < 1e-5).sum()
    assert len(set(scores.argmax(axis=1))) > 5  # the predictions say something
    return changed


@pytest.mark.parametrize("batch_size", [7, 256])
def test_another_number_of_threads_moves_image_embeddings_in_their_last_digits_at_most(
    batch_size: int,
    folder: Path,
    embedded: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """On some processors they are the same bytes; on others the work is cut in another way."""
    one, two = embedded(batch_size)[0], embedded(batch_size, 2)[0]
    changed = _same_but_for_last_digits(one, two, folder, monkeypatch, tmp_path)
    record_property(f"predictions changed by two threads, batches of {batch_size}", changed)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_another_batch_size_moves_embeddings_in_their_last_digits_and_predictions_only_between_ties(
    batch_size: int,
    folder: Path,
    embedded: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    (usual, usual_file), (other, other_file) = embedded(256), embedded(batch_size)
    assert usual_file != other_file  # the batch size is part of what the file says of itself
    changed = _same_but_for_last_digits(usual, other, folder, monkeypatch, tmp_path)
    record_property(f"predictions changed by batch size {batch_size}", changed)


def _embed_texts(folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> dict[str, bytes]:
    """Without a memo of earlier runs."""
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(cache))
    ended = stage_runs.run(embed_texts.main, "prompts", "weights", "model.json", "texts", folder=folder)
    assert "20 sentences in 2 sets, 20 of them new" in ended.output, ended
    return {path.name: path.read_bytes() for path in (folder / "texts").iterdir()}


def test_sentence_embeddings_are_the_same_bytes_run_again_and_on_two_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    for i, count in enumerate((1, 1, 2)):
        with threads(count):
            found.append(_embed_texts(folder, monkeypatch, tmp_path / str(i)))
    assert set(found[0]) == {"photo.h5", "digits.h5"}
    assert found[0] == found[1] == found[2]


ROWS, LABELS = task(1500, num_classes=5, dim=256, noise=3.0)
TRAIN, VAL = (ROWS[:1200], LABELS[:1200]), (ROWS[1200:], LABELS[1200:])
CENTRES = ranking.normalised(np.stack([TRAIN[0][TRAIN[1] == label].mean(axis=0) for label in range(5)]))
TRAINING = TrainingParams(256, 0.2, 1e-3, 1e-4, 256, 2, 8, (0,), "cpu")


def _trained(build: Callable[[Labelled], torch.nn.Module]) -> bytes:
    on_train, on_val = (Labelled.on(CPU, *part) for part in (TRAIN, VAL))
    found = train(lambda: build(on_train), on_train, on_val, params=TRAINING, seed=0)
    return b"".join(tensor.numpy().tobytes() for tensor in found.state.values())


def _linear_probe() -> bytes:
    probe, _ = linear_probe.fit(*TRAIN, c=10.0, max_iter=500, class_names=list("abcde"))
    return probe.coefficients.tobytes() + probe.intercepts.tobytes()


def _gda() -> bytes:
    return b"".join(array.tobytes() for array in gda.fit(*TRAIN, class_names=list("abcde")))


def _mlp_probe() -> bytes:
    return _trained(lambda data: MLPProbe(data.embeddings, num_classes=5, hidden=256, dropout=0.2))


def _projection() -> bytes:
    weights = torch.from_numpy(CENTRES)
    return _trained(lambda data: Projection(weights, logit_scale=100.0, hidden=256, dropout=0.2))


def _ranking() -> bytes:
    noise = np.random.default_rng(0).standard_normal((40, *CENTRES.shape)).astype(np.float32)
    found = ranking.select(TRAIN, VAL, 20 * CENTRES + noise, reference=CENTRES, logit_scale=100.0)
    template_weights = np.array(found.template_weights).tobytes()
    return found.weights.tobytes() + found.order.tobytes() + found.singles.hits.tobytes() + template_weights


def _zero_shot() -> bytes:
    return zero_shot.logits(ROWS, CENTRES, logit_scale=100.0).tobytes()


def _found(method: Callable[[], bytes], *counts: int) -> list[bytes]:
    """A method's result on each of these numbers of threads."""
    found = []
    for count in counts:
        with threads(count):
            found.append(method())
    return found


@pytest.mark.parametrize("method", [_zero_shot, _gda, _linear_probe, _ranking])
def test_methods_are_the_same_bytes_run_again_and_on_two_threads(method: Callable[[], bytes]) -> None:
    first, again, on_two = _found(method, 1, 1, 2)
    assert first == again == on_two


@pytest.mark.parametrize("method", [_mlp_probe, _projection])
def test_trained_heads_are_the_same_bytes_run_again_and_close_on_another_number_of_threads(
    method: Callable[[], bytes],
) -> None:
    first, again, on_two, on_two_again = _found(method, 1, 1, 2, 2)
    assert first == again
    assert on_two == on_two_again
    one, two = (np.frombuffer(found, np.float32) for found in (first, on_two))
    assert float(np.abs(one - two).max()) <= 1e-5  # after ten steps of which each moves up to 1e-3
    assert float(np.abs(one).max()) > 0.01
