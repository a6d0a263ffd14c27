"""What says which class an image is of: equal to the pipeline's own answers, whatever form images have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

import clipcifar
from clipcifar.api.estimator import logistic_regression
from clipcifar.core.errors import DataError
from clipcifar.methods.linear import Linear
from clipcifar.methods.zero_shot import class_weights
from clipcifar.store import heads
from clipcifar.store.dataset import Prepared
from clipcifar.store.images import read_images
from clipcifar.store.predictions import inherited, read_predictions, read_set_predictions
from tests.support import made

METHODS = [
    *("zero_shot", "rank_prompts", "prompt_weighting", "gda"),
    *("linear_probe", "mlp_probe", "projection"),
]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_answers_from_embeddings_as_its_stage_did(project: clipcifar.Project, method: str) -> None:
    classifier, images = project.classifier(method), project.images("test")
    stored = read_predictions(project.root / f"data/predictions/{method}.h5")
    assert stored.ids == images.ids
    scores = classifier.scores(images.embeddings)
    np.testing.assert_allclose(scores, stored.scores, atol=1e-4, rtol=0)
    assert classifier.temperature == pytest.approx(float(stored.attributes["temperature"]), abs=1e-5)
    exponentials = np.exp(stored.scores.astype(np.float64) / float(stored.attributes["temperature"]))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(images.embeddings), expected, atol=1e-4)
    class_names = project.class_names  # each time it is asked for, the project is looked at again
    assert classifier.predict(images.embeddings) == [class_names[i] for i in stored.predicted]


@pytest.mark.parametrize("name", ["photo", "digits"])
def test_a_prompt_set_answers_as_the_stage_did(project: clipcifar.Project, name: str) -> None:
    stored = read_set_predictions(project.root / "data/predictions/prompt_sets.h5").scores[name]
    scores = project.zero_shot(name).scores(project.images("test").embeddings)
    np.testing.assert_allclose(scores, stored, atol=1e-4, rtol=0)


def test_templates_of_a_set_are_the_set(project: clipcifar.Project) -> None:
    rows = project.images("test").embeddings
    of_set = project.zero_shot("photo")
    typed = project.zero_shot(templates=["a photo of a {classname}."])
    assert (typed.scores(rows) == of_set.scores(rows)).all()
    assert typed.temperature == of_set.temperature
    other = project.zero_shot(templates=["a photo of a {classname}.", "the {classname}"])
    assert not (other.scores(rows) == of_set.scores(rows)).all()


def test_own_labels_are_classes_without_a_temperature(project: clipcifar.Project) -> None:
    """By hand: the softmax of scaled cosines with each label's one embedding."""
    labels = ["the digit three", "the digit one"]
    classifier, rows = project.zero_shot(labels=labels), project.images("test").embeddings[:50]
    assert (classifier.class_names, classifier.temperature) == (labels, None)
    weights = class_weights(project.embed_sentences(labels), np.arange(2), class_names=labels)
    logits = float(project.provenance["logit_scale"]) * (rows.astype(np.float64) @ weights.T)
    expected = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
    np.testing.assert_allclose(classifier.predict_proba(rows)[:, 0], expected, atol=1e-4)


@pytest.fixture(scope="module")
def files(dataset: Prepared, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{i}.png" for i in range(20)]
    for path, pixels in zip(paths, dataset.test.content, strict=False):
        Image.fromarray(pixels).save(path)
    return paths


def test_an_image_answers_in_every_form_as_its_embedding(
    project: clipcifar.Project, dataset: Prepared, files: list[Path]
) -> None:
    """Paths few and many, PIL images, arrays, and mixed: the rows are those that the stage made."""
    stored = project.images("test").embeddings[:20]
    pixels = dataset.test.content[:20]
    forms = [files, [*map(str, files)], files[:5], pixels, [*pixels], [Image.fromarray(p) for p in pixels]]
    forms.append([files[0], pixels[1], Image.open(files[2])])
    for images in forms:
        rows = project.embed_images(images)
        np.testing.assert_allclose((rows * stored[: len(rows)]).sum(axis=1), 1, atol=1e-6)
    assert project.embed_images([]).shape == (0, stored.shape[1])
    for method in METHODS:
        classifier = project.classifier(method)
        assert classifier.predict(files) == classifier.predict(stored)
        for single in (files[0], str(files[0]), pixels[0], Image.fromarray(pixels[0])):
            assert classifier.predict(single) == classifier.predict(stored[:1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_a_pil_image_is_what_its_file_would_be(project: clipcifar.Project, mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    colours = Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65_000, (40, 30)).astype(np.uint16))
    elif mode in ("LA", "RGBA"):
        image = colours.convert(mode)
        image.putalpha(Image.fromarray(rng.integers(0, 255, (40, 30), dtype=np.uint8)))
    else:
        image = colours.convert(mode)
    path = tmp_path / f"image.{'tiff' if mode in ('CMYK', 'YCbCr', 'F') else 'png'}"
    image.save(path)
    assert (project.embed_images(image) == project.embed_images(path)).all()


def test_a_turned_pil_image_is_turned_as_its_file(project: clipcifar.Project, tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 90, 3)))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        turned = project.embed_images(opened)
    assert (turned == project.embed_images(tmp_path / "turned.png")).all()
    assert not np.allclose(turned, project.embed_images(image), atol=1e-3)


def test_what_is_no_image_and_no_embedding_is_told(project: clipcifar.Project, tmp_path: Path) -> None:
    probe, rows = project.classifier("linear_probe"), project.images("test").embeddings
    (tmp_path / "no.jpg").write_text("no image")
    for images, words in [
        (tmp_path / "no.jpg", "not an image of a known format"),
        ([tmp_path / "gone.jpg"] * 20, "No such file"),
        ([tmp_path / "gone.jpg"], "No such file"),
        (rows * 2, "not a unit vector"),
        (rows * 2, "divide each row by its length"),
        (rows[0], "neither embeddings nor images"),
        (rows[:, :-1] / np.linalg.norm(rows[:, :-1], axis=1, keepdims=True), "(N, 32) floats"),
        (np.zeros((4, 4), np.uint8), "an image is (H, W, 3) uint8"),
        ([3.5], "not an image: float"),
        (3, "not an image: int"),
    ]:
        with pytest.raises(DataError) as caught:
            probe.predict(images)  # type: ignore[arg-type]
        assert words in str(caught.value), words


def test_the_linear_probe_is_scikit_learns(project: clipcifar.Project) -> None:
    """Its decision function is the stage's scores; its probabilities are those before calibration."""
    estimator, images = project.linear_probe(), project.images("test")
    stored = read_predictions(project.root / "data/predictions/linear_probe.h5")
    assert isinstance(estimator, LogisticRegression)
    np.testing.assert_allclose(estimator.decision_function(images.embeddings), stored.scores, atol=1e-4)
    assert (estimator.predict(images.embeddings) == stored.predicted).all()
    assert estimator.score(images.embeddings, images.labels) == pytest.approx(
        (stored.predicted == stored.labels).mean()
    )
    metrics = project.metrics("linear_probe")
    assert metrics["selected"]["c"] == estimator.C
    assert metrics["iterations"]["scikit_learn"] == estimator.n_iter_[0] > 0


def test_of_two_classes_the_estimator_has_the_difference(tmp_path: Path) -> None:
    """A hand case: logits (1, 3) of one row are odds of e² for the second class."""
    made.write_embeddings(tmp_path, class_names=["cat", "dog", "eel"])
    images = read_images(tmp_path / "images")
    two = {**images.attributes, "class_names": '["cat", "dog"]'}
    images = type(images)(images.train, images.test, two)
    coefficients = np.zeros((2, made.DIM), np.float32)
    coefficients[:, 0] = 1, 3
    probe = Linear(coefficients, np.array([0.5, 0.5], np.float32))
    trained = {"c": 2.0, "max_iter": 300, "iterations": 7}
    heads.write(tmp_path / "p.h5", "linear_probe", probe.arrays, {**inherited(images.attributes), **trained})
    estimator = logistic_regression(tmp_path / "p.h5", images)
    row = np.eye(1, made.DIM, dtype=np.float32)
    assert estimator.coef_.shape == (1, made.DIM)
    assert (estimator.C, estimator.max_iter, estimator.n_iter_.tolist()) == (2.0, 300, [7])
    np.testing.assert_allclose(estimator.predict_proba(row)[0, 1], 1 / (1 + np.exp(-2.0)), rtol=1e-6)
    assert estimator.predict(row) == [1]
