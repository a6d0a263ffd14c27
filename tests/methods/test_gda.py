from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation.selection import most_accurate, most_likely
from clipcifar.methods import gda
from clipcifar.methods.gda import GDAParams
from clipcifar.methods.linear import Linear
from clipcifar.methods.zero_shot import logits
from tests.support.synthetic import DIM, prototypes, task, unit


def names(num_classes: int) -> list[str]:
    return [f"class {i}" for i in range(num_classes)]


def fitted(embeddings: NDArray[np.float32], labels: NDArray[np.int64], num_classes: int = 3) -> Linear:
    return gda.fit(embeddings, labels, class_names=names(num_classes))


def apart(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores without what an image has in common for all classes, of which no probability knows."""
    return np.asarray(scores - scores.mean(axis=1, keepdims=True), dtype=np.float64)


def of_the_paper(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], unseen: NDArray[np.float32], num_classes: int
) -> NDArray[np.float64]:
    """Equations 3 and 4 as they stand there, image by image and class by class."""
    x, (n, d) = embeddings.astype(np.float64), embeddings.shape
    means = [sum(x[i] for i in range(n) if labels[i] == k) / (labels == k).sum() for k in range(num_classes)]
    s = sum(np.outer(x[i] - means[labels[i]], x[i] - means[labels[i]]) for i in range(n)) / (n - 1)
    precision = d * np.linalg.inv((n - 1) * s + np.trace(s) * np.eye(d))
    return np.array(
        [
            [row @ precision @ m + np.log(1 / num_classes) - m @ precision @ m / 2 for m in means]
            for row in unseen.astype(np.float64)
        ]
    )


@pytest.mark.parametrize(("n", "num_classes"), [(200, 3), (12, 3), (9, 4), (40, 2)])  # of 24 dimensions
def test_the_discriminant_is_the_papers_times_n_minus_1_over_d(n: int, num_classes: int) -> None:
    embeddings, labels = task(n, num_classes=num_classes)
    unseen, _ = task(30, num_classes=num_classes, seed=2)
    expected = of_the_paper(embeddings, labels, unseen, num_classes) * (n - 1) / DIM
    scores = fitted(embeddings, labels, num_classes).scores(unseen)
    assert (scores.dtype, scores.shape) == (np.float32, (30, num_classes))
    np.testing.assert_allclose(apart(scores), apart(expected), atol=2e-4 * np.abs(expected).max())


class Shrunk(BaseEstimator):  # type: ignore[misc]
    """What scikit-learn asks for the covariance of the deviations from class means."""

    def fit(self, deviations: NDArray[np.float64]) -> Shrunk:
        n, dim = deviations.shape
        s = deviations.T @ deviations / (n - 1)
        self.covariance_ = s + np.trace(s) / (n - 1) * np.eye(dim)
        return self


def scikit_learns(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> LinearDiscriminantAnalysis:
    """With the covariance of all deviations; by itself it would take the mean of each class's own."""
    x, means = embeddings.astype(np.float64), [embeddings[labels == k].mean(axis=0) for k in range(3)]
    pooled = Shrunk().fit(x - np.array(means)[labels])

    class Pooled(Shrunk):
        def fit(self, _: NDArray[np.float64]) -> Shrunk:
            self.covariance_ = pooled.covariance_
            return self

    lda = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Pooled(), priors=[1 / 3] * 3)
    return lda.fit(x, labels)


@pytest.mark.parametrize("n", [300, 15])
def test_it_is_scikit_learns_discriminant_with_that_covariance(n: int) -> None:
    embeddings, labels = task(n, noise=1.5)
    unseen, _ = task(50, noise=1.5, seed=2)
    scores = fitted(embeddings, labels).scores(unseen)
    expected = scikit_learns(embeddings, labels).decision_function(unseen)
    np.testing.assert_allclose(apart(scores), apart(expected), atol=1e-3)


def test_its_shrinkage_is_scikit_learns_where_all_classes_are_as_large() -> None:
    """(1 - s) S + s tr(S) / D I is proportional to S + r I with r = s tr(S) / (D (1 - s))."""
    n = 90
    embeddings, labels = task(n, noise=1.5)
    unseen, _ = task(50, noise=1.5, seed=2)
    shrinkage = DIM / (n - 1) / (1 + DIM / (n - 1))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / 3] * 3)
    theirs = apart(lda.fit(embeddings.astype(np.float64), labels).decision_function(unseen))
    ours = apart(fitted(embeddings, labels).scores(unseen))
    scale = float((ours * theirs).sum() / (theirs * theirs).sum())
    np.testing.assert_allclose(ours, scale * theirs, atol=0.01 * np.abs(ours).max())
    other = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.9).fit(
        embeddings.astype(np.float64), labels
    )
    assert np.abs(ours - apart(other.decision_function(unseen))).max() > 0.1 * np.abs(ours).max()


def test_by_hand() -> None:
    """Classes at -1 and 1 on a line, deviations of 1/2: S = 4 (1/4) / 3 = 1/3, shrunk 1/3 + 1/9 = 4/9."""
    rows, labels = np.array([[-1.5], [-0.5], [0.5], [1.5]], np.float32), np.array([0, 0, 1, 1])
    np.testing.assert_allclose(gda.covariance(rows, labels, np.array([[-1.0], [1.0]])), [[4 / 9]])
    discriminant = fitted(rows, labels, 2)
    np.testing.assert_allclose(discriminant.coefficients, [[-9 / 4], [9 / 4]])
    np.testing.assert_allclose(discriminant.intercepts, [-9 / 8, -9 / 8])


def test_rows_in_blocks_are_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = task(50)
    at_once = fitted(embeddings, labels)
    monkeypatch.setattr(gda, "_BLOCK_ROWS", 7)
    np.testing.assert_allclose(fitted(embeddings, labels).coefficients, at_once.coefficients, rtol=1e-5)


def test_images_of_one_kind_per_class_are_told_apart() -> None:
    """One image per class, exact copies of it, and one image for all: no spread to divide by."""
    rows = prototypes(3)
    labels = np.arange(3)
    unseen, of_unseen = task(60, noise=0.5, seed=3)
    for k in (1, 4):
        scores = fitted(np.repeat(rows, k, axis=0), np.repeat(labels, k)).scores(unseen)
        assert (scores.argmax(axis=1) == of_unseen).mean() > 0.9
    same = fitted(np.repeat(rows[:1], 3, axis=0), labels)
    np.testing.assert_allclose(same.scores(unseen), 0, atol=1e-5)


def test_a_correlated_covariance_beats_the_nearest_mean() -> None:
    """The negative control: along one direction classes overlap, along another, narrow one, they do not."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    wide, narrow = rng.standard_normal(400), 0.1 * rng.standard_normal(400) + 0.2 * (2 * labels - 1)
    rows = np.column_stack([wide, narrow + 0.5 * wide]).astype(np.float32)
    discriminant = fitted(rows, labels, 2)
    means = gda.class_means(rows, labels, num_classes=2)
    nearest = ((rows[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (discriminant.scores(rows).argmax(axis=1) == labels).mean() > 0.95
    assert (nearest == labels).mean() < 0.8


def test_a_missing_class_and_a_single_one_are_refused() -> None:
    embeddings, labels = task(20, num_classes=2)
    with pytest.raises(DataError, match="no train images of class 2"):
        fitted(embeddings, labels, 3)
    with pytest.raises(DataError, match="is the only class"):
        fitted(embeddings, np.zeros_like(labels), 1)


def test_one_linear_classifier_says_what_both_do() -> None:
    embeddings, labels = task(100, noise=1.5)
    unseen, of_unseen = task(40, noise=1.5, seed=2)
    weights, discriminant = unit(prototypes(3) + 0.1), fitted(embeddings, labels)
    zero_shot = logits(unseen, weights, logit_scale=20)
    ours = discriminant.scores(unseen)
    alphas = (0.0, 0.3, 10.0)
    for alpha in alphas:
        folded = gda.folded(discriminant, weights, logit_scale=20, alpha=alpha)
        together = gda.added(zero_shot, ours, alpha)
        np.testing.assert_allclose(folded.scores(unseen), together, atol=1e-3)
        assert folded.coefficients.dtype == folded.intercepts.dtype == together.dtype == np.float32
    np.testing.assert_array_equal(gda.added(zero_shot, ours, 0), zero_shot)
    on_unseen = gda.standings(zero_shot, ours, of_unseen, alphas=alphas)
    right = [(gda.added(zero_shot, ours, a).argmax(axis=1) == of_unseen).mean() for a in alphas]
    assert [standing.accuracy for standing in on_unseen] == right
    rows = gda.curve_rows(alphas, on_unseen)
    assert [row["alpha"] for row in rows] == list(alphas)
    np.testing.assert_allclose([row["share"] for row in rows], [0, 3 / 13, 10 / 11])


def test_the_rule_that_chooses_alpha_is_the_callers() -> None:
    """A discriminant that is right but far too sure: accuracy wants it, likelihood does not."""
    labels = np.array([0] * 9 + [1])
    zero_shot = np.column_stack([np.ones(10), np.zeros(10)]).astype(np.float32)
    sure = np.column_stack([np.where(labels == 0, 1, -1), np.zeros(10)]).astype(np.float32) * 50
    sure[0] = [-50, 0]  # and wrong there
    sure[1] = [0, 0]
    standings = gda.standings(zero_shot, sure, labels, alphas=(0.0, 1.0))
    assert standings[0].accuracy == standings[1].accuracy == 0.9
    assert most_likely(standings) == most_accurate(standings) == 0
    sure[0] = [0, 0]
    standings = gda.standings(zero_shot, sure, labels, alphas=(0.0, 1.0))
    assert most_accurate(standings) == 1


def test_the_section_is_read_strictly() -> None:
    assert params.read({"gda": {"alphas": [0, 0.1, 1]}}, "gda", GDAParams).alphas == (0, 0.1, 1)
    for alphas in ([-1], [0.1, 0.1], []):
        with pytest.raises(ConfigError, match="alphas"):
            params.read({"gda": {"alphas": alphas}}, "gda", GDAParams)
