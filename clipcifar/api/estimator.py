"""The linear probe as scikit-learn's own estimator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipcifar.core.errors import DataError
from clipcifar.methods.classifiers import linear_probe
from clipcifar.methods.optimum import TOLERANCE
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


def logistic_regression(path: Path, images: ImageEmbeddings) -> LogisticRegression:
    """The fitted estimator of a head's file, for (N, D) float embeddings; its classes are 0 to C - 1.

    Its settings are those that the probe was refitted with, so that a clone learns likewise from a start
    at zero. Its `predict_proba` is not calibrated. Of two classes scikit-learn keeps one row: that of the
    second minus that of the first.

    Raises:
        DataError: the file is missing, damaged, or was trained on other embeddings than `images`.
    """
    from sklearn.linear_model import LogisticRegression

    arrays, attributes = heads.read_for(path, images, method="linear_probe")
    try:
        probe = linear_probe(arrays, images)
        c, max_iter = float(attributes["c"]), int(attributes["max_iter"])
        iterations = int(attributes["iterations"])
    except (KeyError, ValueError) as error:
        raise DataError(f"not a linear probe: {error}", where=str(path), fix="run `dvc repro`") from error
    estimator = LogisticRegression(C=c, tol=TOLERANCE, max_iter=max_iter)
    coefficients, intercepts = probe.coefficients, probe.intercepts
    if len(intercepts) == 2:
        coefficients, intercepts = coefficients[1:] - coefficients[:1], intercepts[1:] - intercepts[:1]
    estimator.coef_, estimator.intercept_ = coefficients.copy(), intercepts.copy()
    estimator.classes_ = np.arange(len(images.class_names))
    estimator.n_iter_ = np.array([iterations], np.int32)
    estimator.n_features_in_ = coefficients.shape[1]
    return estimator
