"""Fine-tuning as DVC runs it, on a miniature CLIP: inputs, protocol, kills, and what is reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from scipy.special import log_softmax

from clipcifar.backbone.preprocess import Preprocess
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation import compare, metrics
from clipcifar.store import container, heads, splits
from clipcifar.store.dataset import PreparedSplit, read_dataset, write_dataset
from clipcifar.store.embeddings import ImageEmbeddings, Split
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images
from clipcifar.store.predictions import Predictions, read_predictions
from clipcifar.studies.finetune.judge import findings, page
from clipcifar.studies.finetune.judge.findings import measure, read_rows
from clipcifar.studies.finetune.scores import FinetuneScores
from clipcifar.studies.finetune.train.inputs import read_head
from clipcifar.studies.finetune.train.pixels import of_split
from clipcifar.studies.finetune.train.run import check_start
from clipcifar.studies.finetune.train.tower import ImageTower, checkpoint_activations, load_image_tower
from studies.finetune import report as finetune_report, train
from tests.support import finetuning
from tests.support.faults import HOOKS
from tests.support.import_closure import ROOT
from tests.support.made import edit_images
from tests.support.waiting import PATIENCE_S, wait_for

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPCIFAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        finetuning.write(folder, tiny_clip)
    return folder


def tune(inputs: Path, clip: Path, out: Path, **params: Any) -> Path:
    train.main(finetuning.settings(clip, **params), *finetuning.arguments(inputs, out))
    return out


def report(inputs: Path, clip: Path, out: Path) -> dict[str, Any]:
    page = out / "finetune.html"
    finetune_report.main(finetuning.settings(clip), inputs / "images", inputs / "mlp_probe.h5", out, page)
    return numbers(out)


def numbers(out: Path) -> dict[str, Any]:
    """Both files of the metrics."""
    headline, details = (json.loads((out / f"{name}.json").read_text()) for name in ("metrics", "details"))
    assert not set(headline) & set(details)
    both = {**headline, **details}
    return {key: value for key, value in both.items() if not isinstance(value, list)}  # rows of a plot


@pytest.fixture(scope="module")
def tuned(inputs: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPCIFAR_CACHE", str(tmp_path_factory.mktemp("cache")))
        tune(inputs, tiny_clip, out, epochs=8, patience=8)
    report(inputs, tiny_clip, out)
    return out


def val_of(inputs: Path) -> tuple[np.ndarray[Any, Any], ImageEmbeddings]:
    images = read_images(inputs / "images")
    rows = splits.read_splits(inputs / "splits.h5", images.train.ids, dataset_digest=images.dataset_digest)
    return rows.val, images


def test_it_begins_as_the_frozen_probe(inputs: Path, tiny_clip: Path, tmp_path: Path) -> None:
    """Epoch 0 is chosen where no epoch may change anything: val, test and curve are the probe's own."""
    out = tune(inputs, tiny_clip, tmp_path, learning_rate=1e-9, epochs=1, warmup_epochs=0)
    scores, frozen = FinetuneScores.read(out / "scores.h5"), read_predictions(inputs / "mlp_probe.h5")
    assert scores.test_ids == frozen.ids
    np.testing.assert_allclose(scores.test, frozen.scores, atol=1e-4)
    assert float(frozen.scores.std()) > 100 * 1e-4
    val, images = val_of(inputs)
    head, _ = read_head(inputs / "head.h5", images, dropout=0.5)
    with torch.no_grad():
        expected = head.eval()(torch.from_numpy(images.train.embeddings[val])).numpy()
    np.testing.assert_allclose(scores.val, expected, atol=1e-4)
    accuracy = (expected.argmax(axis=1) == images.train.labels[val]).mean()
    curve = (out / "training.csv").read_text().splitlines()
    assert float(curve[1].split(",")[-1]) == pytest.approx(accuracy, abs=1e-5)


def test_the_training_uses_what_the_frozen_tower_could_not(tuned: Path) -> None:
    """The stripes' direction is nothing that a random tower sees well: training it shows."""
    found = numbers(tuned)
    assert found["accuracy"] >= found["frozen"]["accuracy"] + 0.2
    assert found["vs_frozen"]["difference"] == pytest.approx(
        found["accuracy"] - found["frozen"]["accuracy"], abs=2e-5
    )
    assert found["vs_frozen"]["p"] < 0.05


def test_activations_computed_twice_train_the_same_tower(
    inputs: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tune(inputs, tiny_clip, tmp_path / "plain")
    asked: list[ImageTower] = []
    real = checkpoint_activations
    monkeypatch.setattr(train, "checkpoint_activations", lambda tower: (asked.append(tower), real(tower)))
    sparing = tune(inputs, tiny_clip, tmp_path / "sparing", checkpoint_activations=True)
    assert len(asked) == 1
    a, b = (FinetuneScores.read(folder / "scores.h5") for folder in (plain, sparing))
    np.testing.assert_allclose(a.val, b.val, atol=1e-3)


def test_what_is_written_recomputes_from_the_saved_tower_and_head(
    inputs: Path, tuned: Path, tiny_clip: Path
) -> None:
    tower = load_image_tower(tiny_clip, CPU, precision="fp32")
    saved = safetensors.torch.load_file(tuned / "tower.safetensors")
    named = {f"visual.{name}": one for name, one in tower.visual.named_parameters()}
    assert set(saved) == set(named)
    with torch.no_grad():
        for name, one in named.items():
            one.copy_(saved[name])
    _, images = val_of(inputs)
    head, _ = read_head(inputs / "head.h5", images, dropout=0.0)
    head.load_state_dict({name: torch.from_numpy(a) for name, a in heads.read(tuned / "head.h5")[0].items()})
    pixels = torch.from_numpy(read_dataset(inputs / "dataset.h5").test.content).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = head.eval()(tower(pixels)).numpy()
    predictions = read_predictions(tuned / "predictions.h5")
    np.testing.assert_allclose(predictions.scores, logits, atol=1e-4)
    found = numbers(tuned)
    n_correct = int((logits.argmax(axis=1) == images.test.labels).sum())
    assert (found["n_correct"], found["n"]) == (n_correct, finetuning.N_TEST)
    again = metrics.rounded(
        metrics.summarise(predictions.scores, images.test.labels, class_names=finetuning.NAMES)
    )
    assert {key: found[key] for key in again} == again
    frozen = read_predictions(inputs / "mlp_probe.h5").predicted == images.test.labels
    expected = compare.paired(frozen, logits.argmax(axis=1) == images.test.labels)
    assert found["vs_frozen"]["p"] == pytest.approx(expected.p_value, abs=1e-5)


def test_metrics_follow_the_contract(tuned: Path, inputs: Path) -> None:
    def leaves(value: Any) -> list[Any]:
        return (
            [leaf for item in value.values() for leaf in leaves(item)] if isinstance(value, dict) else [value]
        )

    found = numbers(tuned)
    assert {"accuracy", "accuracy_ci95", "balanced_accuracy", "ece", "nll", "calibrated", "per_class"} <= set(
        found
    )
    assert all(type(leaf) in (int, float) and np.isfinite(leaf) for leaf in leaves(found))
    assert found["n_trained"] == found["n_parameters"]
    assert found["selected"]["epoch"] <= found["epochs"] == 8


def test_the_temperature_is_that_of_val_and_calibrates_test(tuned: Path, inputs: Path) -> None:
    found, scores = numbers(tuned), FinetuneScores.read(tuned / "scores.h5")
    val, images = val_of(inputs)
    smoothing = 1 / (len(val) + 1)  # of the labels, as the calibration of every method has it
    targets = (1 - smoothing) * np.eye(3)[images.train.labels[val]] + smoothing / 3
    tried = np.geomspace(0.05, 20, 4001)
    nll = [-(targets * log_softmax(scores.val / t, axis=1)).sum() for t in tried]
    temperature = found["calibrated"]["temperature"]
    assert temperature == pytest.approx(tried[int(np.argmin(nll))], rel=0.01)
    assert abs(temperature - 1) > 0.02
    predictions = read_predictions(tuned / "predictions.h5")
    softened = metrics.likelihood(predictions.scores / np.float32(temperature), images.test.labels)
    assert {name: found["calibrated"][name] for name in softened} == pytest.approx(softened, abs=2e-5)
    assert predictions.attributes["temperature"] == pytest.approx(temperature, abs=1e-5)


def test_the_epoch_that_is_named_is_the_one_whose_scores_are_kept(
    inputs: Path, tuned: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """Where training helps, and at a rate so high that it only harms and the start is kept."""
    tune(inputs, tiny_clip, tmp_path, learning_rate=0.03, epochs=4, patience=4)
    val, images = val_of(inputs)
    named = []
    for folder in (tuned, tmp_path):
        scores = FinetuneScores.read(folder / "scores.h5")
        epochs, _, losses, accuracies = np.loadtxt(folder / "training.csv", delimiter=",", skiprows=1).T
        chosen = min(range(len(epochs)), key=lambda i: (-accuracies[i], losses[i]))
        assert scores.attributes["epoch"] == epochs[chosen]
        assert scores.attributes["epochs"] == len(epochs) - 1
        nll = metrics.likelihood(scores.val, images.train.labels[val])["nll"]
        assert nll == pytest.approx(losses[chosen], abs=1e-4)
        named.append(chosen)
    assert named[0] > 0 == named[1]


def test_two_runs_give_the_same_bytes_and_another_seed_others(
    inputs: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    one, two, other = (
        finetuning.outputs(tune(inputs, tiny_clip, tmp_path / str(i), epochs=2, seed=seed))
        for i, seed in enumerate((0, 0, 1))
    )
    assert one == two
    assert all(one[name] != other[name] for name in ("scores.h5", "tower.safetensors", "head.h5"))


def test_test_labels_choose_nothing(inputs: Path, tiny_clip: Path, tmp_path: Path) -> None:
    """With other test labels in every input: the same curve, tower, head and scores."""
    changed = tmp_path / "inputs"
    shutil.copytree(inputs, changed)
    labels = (read_images(inputs / "images").test.labels + 1) % 3
    edit_images(changed / "images", {"test/labels": labels})
    here = tune(inputs, tiny_clip, tmp_path / "a", epochs=2)
    there = tune(changed, tiny_clip, tmp_path / "b", epochs=2)
    assert finetuning.outputs(here) == finetuning.outputs(there)
    predictions = container.read(inputs / "mlp_probe.h5", kind="predictions")
    own = {key: value for key, value in predictions.attributes.items() if key not in container._DIGESTS}
    arrays = {**predictions.arrays, "labels": labels}
    container.write(changed / "mlp_probe.h5", kind="predictions", arrays=arrays, attributes=own)
    found = [report(*pair) for pair in ((inputs, tiny_clip, here), (changed, tiny_clip, there))]
    assert found[0]["selected"] == found[1]["selected"]
    assert found[0]["calibrated"]["temperature"] == found[1]["calibrated"]["temperature"]
    assert found[0]["accuracy"] != found[1]["accuracy"]


def test_val_labels_do_choose(inputs: Path, tiny_clip: Path, tmp_path: Path) -> None:
    """Negative control of the test above."""
    changed = tmp_path / "inputs"
    shutil.copytree(inputs, changed)
    val, images = val_of(inputs)
    labels = images.train.labels.copy()
    labels[val] = (labels[val] + 1) % 3
    edit_images(changed / "images", {"train/labels": labels})
    here, there = (
        tune(folder, tiny_clip, tmp_path / name, epochs=2) for folder, name in ((inputs, "a"), (changed, "b"))
    )
    assert (here / "training.csv").read_bytes() != (there / "training.csv").read_bytes()


def _process(folder: Path, inputs: Path, cache: Path, **fault: float) -> subprocess.Popen[bytes]:
    paths = finetuning.arguments(inputs, folder / "out")
    return subprocess.Popen(
        [sys.executable, "-m", "studies.finetune.train", *map(str, paths)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": f"{HOOKS}{os.pathsep}{ROOT}",
            "FAULT": json.dumps(fault),
            "CLIPCIFAR_CACHE": str(cache),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_killed_run_ends_with_the_same_bytes(inputs: Path, tiny_clip: Path, tmp_path: Path) -> None:
    length = {"epochs": 12, "patience": 12}
    whole = yaml.safe_load((ROOT / "params.yaml").read_text())
    given = {**whole, **finetuning.settings(tiny_clip, **length)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given))
    cache = tmp_path / "cache"
    process = _process(tmp_path, inputs, cache, slow_write_s=0.1)  # so that there is time to kill it
    wait_for(
        lambda: _kept(cache)[-1:] >= [3] or process.poll() is not None, what="the third epoch's checkpoint"
    )
    found = _kept(cache)
    assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert found[-1] < 12
    assert not (tmp_path / "out" / "scores.h5").exists()
    assert _process(tmp_path, inputs, cache).wait(timeout=PATIENCE_S) == 0
    assert not _kept(cache)
    undisturbed = tune(inputs, tiny_clip, tmp_path / "whole", **length)
    assert finetuning.outputs(tmp_path / "out") == finetuning.outputs(undisturbed)


def test_a_training_that_nobody_will_record_is_not_done_twice(
    inputs: Path, tiny_clip: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan of a killed DVC finishes; the stage that DVC starts again finds every epoch."""
    monkeypatch.setattr(train, "nobody_waits", lambda: True)
    first = finetuning.outputs(tune(inputs, tiny_clip, tmp_path / "first"))
    assert _kept(own_cache)
    monkeypatch.setattr(train, "nobody_waits", lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr("clipcifar.studies.finetune.train.training._epoch", None)  # none may be trained
        assert finetuning.outputs(tune(inputs, tiny_clip, tmp_path / "again")) == first
    assert not _kept(own_cache)


def _kept(cache: Path) -> list[int]:
    """The epochs of whose checkpoints a part is there, ascending."""
    return sorted(int(path.name[:4]) for path in cache.glob("finetune/*/*-parameters.safetensors"))


def test_photographs_are_read_from_their_folder_in_any_order(tmp_path: Path) -> None:
    images, labels = finetuning.pixels(6, seed=0)
    split = PreparedSplit(images, labels, [f"{i}.png" for i in range(6)])
    preprocess = Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest", 0)
    streamed, resident = (
        of_split(one, root=tmp_path, preprocess=preprocess, workers=0, device=CPU)
        for one in (finetuning.as_photographs(split, tmp_path), split)
    )
    rows = [torch.tensor([4, 0, 4]), torch.tensor([2])]
    for ours, theirs, batch in zip(streamed.batches(rows), resident.batches(rows), rows, strict=True):
        np.testing.assert_array_equal(ours.permute(0, 2, 3, 1).numpy(), images[batch.numpy()])
        assert torch.equal(ours, theirs)


def test_photographs_train_the_tower_that_their_pixels_train(tiny_clip: Path, tmp_path: Path) -> None:
    """At the model's own size: photographs come fitted to it, and a crop before is not one after."""
    kinds: tuple[Literal["pixels", "photographs"], ...] = ("pixels", "photographs")
    for kind in kinds:
        finetuning.write(tmp_path / kind, tiny_clip, kind=kind, side=32)
    pixels, photographs = (
        FinetuneScores.read(
            tune(tmp_path / kind, tiny_clip, tmp_path / f"{kind}-out", dropout=0.0) / "scores.h5"
        )
        for kind in kinds  # torch's loader draws from the numbers that dropout goes on with
    )
    np.testing.assert_allclose(photographs.test, pixels.test, atol=1e-4)
    photo = tmp_path / "photographs" / "raw" / "train" / "007"
    photo.write_bytes((tmp_path / "photographs" / "raw" / "train" / "008").read_bytes())
    with pytest.raises(DataError, match="changed since it was listed") as caught:
        tune(tmp_path / "photographs", tiny_clip, tmp_path / "other")
    assert caught.value.where == str(photo)


def _rewritten(path: Path, target: Path, kind: str, **attributes: Any) -> None:
    file = container.read(path, kind=kind)
    own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
    container.write(target, kind=kind, arrays=file.arrays, attributes={**own, **attributes})


def test_inputs_that_do_not_belong_together_are_refused(
    inputs: Path, tiny_clip: Path, tuned: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "inputs"
    shutil.copytree(inputs, changed)
    _rewritten(inputs / "head.h5", changed / "head.h5", "head", images_fingerprint="0")
    with pytest.raises(DataError, match="the head was trained on other embeddings"):
        tune(changed, tiny_clip, tmp_path / "out")
    shutil.copyfile(inputs / "head.h5", changed / "head.h5")
    dataset = read_dataset(inputs / "dataset.h5")
    write_dataset(
        changed / "dataset.h5", dataset.train, dataset.train, class_names=finetuning.NAMES, name="stripes",
        max_per_class=0,
    )  # fmt: skip
    with pytest.raises(DataError, match="not of the prepared dataset: dataset_digest is"):
        tune(changed, tiny_clip, tmp_path / "out")
    _rewritten(inputs / "mlp_probe.h5", changed / "mlp_probe.h5", "predictions", images_fingerprint="0")
    out = tmp_path / "report"
    shutil.copytree(tuned, out)
    with pytest.raises(DataError, match="the MLP probe are of other embeddings"):
        report(changed, tiny_clip, out)


def test_a_tower_that_does_not_give_the_heads_embeddings_is_refused() -> None:
    scores = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    check_start(scores, scores)
    two, three = scores.copy(), scores.copy()
    two[:2] = -two[:2]
    three[:3] = -three[:3]
    check_start(two, scores)
    with pytest.raises(DataError, match="3 of 100 val images are classified otherwise"):
        check_start(three, scores)


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"warmup_epochs": 4}, "finetune.warmup_epochs"),
        ({"crop": "random"}, "finetune.crop"),
        ({"unfrozen_blocks": -1}, "finetune.unfrozen_blocks"),
        ({"unfrozen_blocks": 3}, "finetune.unfrozen_blocks"),
        ({"precision": "bf16"}, "finetune.precision"),
        ({"layer_decay": 1.5}, "finetune.layer_decay"),
        ({"checkpoint_activations": "yes"}, "finetune.checkpoint_activations"),
    ],
)
def test_a_wrong_parameter_is_named(
    inputs: Path, tiny_clip: Path, tmp_path: Path, changed: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tune(inputs, tiny_clip, tmp_path, **changed)
    assert caught.value.where == f"params.yaml: {where}"


def _judged(ids: list[str], found: list[str]) -> Any:
    embeddings = np.eye(3, dtype=np.float32)
    labels = np.arange(3)
    attributes = {
        "class_names": class_names_attribute(finetuning.NAMES),
        "fingerprint": "f",
        "images_fingerprint": "f",
    }
    images = ImageEmbeddings(
        Split(embeddings, labels, ["v0", "v1", "v2"]), Split(embeddings, labels, ids), attributes
    )
    rows = [ids.index(name) for name in found if name in ids]
    own = np.eye(3, dtype=np.float32)[rows + [0] * (len(found) - len(rows))]
    tuned = FinetuneScores(
        np.eye(3, dtype=np.float32)[::-1].copy(), ["v2", "v1", "v0"], own, found, attributes
    )
    frozen = Predictions(np.roll(np.eye(3, dtype=np.float32), 1, axis=1), labels, ids, attributes)
    return measure(tuned, frozen, images)


def test_scores_are_joined_by_id_not_by_row() -> None:
    for order in (["a", "b", "c"], ["c", "a", "b"]):
        found = _judged(["a", "b", "c"], order)
        assert (found.comparison.overall.accuracy_a, found.comparison.overall.accuracy_b) == (0, 1)
    assert _judged(["a", "b", "c"], ["a", "b", "c"]).temperature == pytest.approx(
        _judged(["a", "b", "c"], ["c", "b", "a"]).temperature
    )
    with pytest.raises(DataError, match="1 image is not among the fine-tuned scores, 'b' for one"):
        _judged(["a", "b", "c"], ["a", "x", "c"])


def test_the_temperature_worked_out_by_hand() -> None:
    """Three of four right at logits (3, 0, 0); labels smoothed by 1/5 ask for 4/5 3/4 + 1/5 1/3 = 2/3.

    softmax gives 2/3 where e^(3/T) / (e^(3/T) + 2) does, at e^(3/T) = 4.
    """
    attributes = {
        "class_names": class_names_attribute(finetuning.NAMES),
        "fingerprint": "f",
        "images_fingerprint": "f",
    }
    eye, ids = np.eye(3, dtype=np.float32), ["a", "b", "c", "d"]
    labels = np.array([0, 1, 2, 0])
    split = Split(eye[labels], labels, ids)
    val = 3 * eye[[0, 1, 2, 1]]
    tuned = FinetuneScores(val, ids, eye[labels], ids, attributes)
    found = measure(
        tuned,
        Predictions(eye[labels], labels, ids, attributes),
        ImageEmbeddings(split, split, attributes),
    )
    assert found.temperature == pytest.approx(3 / np.log(4), abs=1e-3)


def test_scores_on_disk_are_checked(tmp_path: Path) -> None:
    attributes = {"class_names": class_names_attribute(finetuning.NAMES)}
    good, ids = np.zeros((2, 3), np.float32), ["a", "b"]
    path = tmp_path / "scores.h5"
    FinetuneScores(good, ids, good, ids, attributes).write(path)
    assert FinetuneScores.read(path).test_ids == ids
    for bad, names in (
        (good[:1], ids),
        (good[:, :2], ids),
        (good.astype(np.float64), ids),
        (np.full_like(good, np.nan), ids),
        (good, ["a", "a"]),
    ):
        FinetuneScores(good, ids, bad, names, attributes).write(path)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="not fine-tuned scores"):
            FinetuneScores.read(path)
    path.unlink()
    for read in (FinetuneScores.read, read_rows):
        with pytest.raises(DataError) as caught:
            read(path)
        assert caught.value.fix == "run `clipcifar study finetune`"


def test_the_page_says_what_was_found(tuned: Path, inputs: Path, tiny_clip: Path, tmp_path: Path) -> None:
    html = (tuned / "finetune.html").read_text()
    found = numbers(tuned)
    assert "The fine-tuned tower is better than the MLP probe on the frozen tower: " in html
    assert f"<td>{found['accuracy']:.4f}</td>" in html
    assert f"<td>{found['frozen']['accuracy']:.4f}</td>" in html
    assert f"Val chose epoch {found['selected']['epoch']} of the 8 that were trained." in html
    for name in finetuning.NAMES:
        assert name in html
    rate = finetuning.FINETUNE["learning_rate"] * finetuning.FINETUNE["layer_decay"] ** 2
    assert f"<td>{rate:.2g}</td>" in html  # of the first of two blocks
    still = tune(
        inputs, tiny_clip, tmp_path, learning_rate=1e-9, epochs=1, warmup_epochs=0, unfrozen_blocks=0
    )
    report(inputs, tiny_clip, still)
    other = (still / "finetune.html").read_text()
    assert "is better than" not in other
    assert "right on exactly the same images" in other
    assert "This is one seed: interval and p value cover other test images, not retraining." in other


@pytest.mark.parametrize(
    ("epoch", "epochs", "allowed", "said"),
    [
        (0, 3, 3, "No epoch of 3 was better on val than the frozen probe, so that is what was chosen."),
        (2, 3, 3, "Val chose epoch 2 of the 3 that were trained."),
        (3, 3, 9, "Val chose epoch 3 of the 3 that were trained."),
        (
            3,
            3,
            3,
            "Val chose epoch 3 of the 3 that were trained. It is the last that was allowed: more epochs may "
            "bring more.",
        ),
    ],
)
def test_more_epochs_are_advised_only_where_all_were_used_and_the_last_was_best(
    epoch: int, epochs: int, allowed: int, said: str
) -> None:
    attributes = {"epoch": epoch, "epochs": epochs, "params": json.dumps({"epochs": allowed})}
    scores, ids = np.zeros((2, 3), np.float32), ["a", "b"]
    found = _judged(["a", "b", "c"], ["a", "b", "c"])
    assert findings.verdicts(found, FinetuneScores(scores, ids, scores, ids, attributes))[1] == said


def test_the_page_shows_no_p_value_as_nought() -> None:
    labels = np.repeat([0, 1], 50)
    found = compare.compare(np.zeros(100, np.int64), labels, labels, class_names=["cat", "dog"])
    nothing = np.zeros((100, 2), np.float32)
    table = page._classes(findings.Findings(nothing, nothing, 1.0, found)).tables[0]
    assert [row[-1] for row in table.rows] == ["1.0000", "< 0.0001"]


def test_a_curve_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    for content in (None, b"epoch\xff\n"):
        if content is not None:
            path.write_bytes(content)
        said = "cannot be read" if content else "there is no curve.csv"
        with pytest.raises(DataError, match=said) as caught:
            read_rows(path)
        assert caught.value.where == str(path)
    path.write_text("epoch,train_loss\n0,1.5\n")
    assert read_rows(path) == [{"epoch": "0", "train_loss": "1.5"}]
