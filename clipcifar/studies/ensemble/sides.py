"""The logits that an ensemble mixes: of zero-shot and of every stored method, on val and on test.

The stored linear probe was refitted on train and val, so on val it looks better than it is. Its val logits
are those of a fit with the same C on train alone, as are its temperature's; its test logits are the
refit's. The MLP probe and the projection heads have not learnt val, but it chose their epoch and seed.
GDA is left out: it is such a mix already, of zero-shot and a discriminant, by a coefficient that val chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.names import TRAINED
from clipcifar.methods import classifiers, linear_probe, zero_shot
from clipcifar.methods.linear import Linear
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.splits import TrainVal
from clipcifar.studies.ensemble.mix import Side


@dataclass(frozen=True)
class Sides:
    """Zero-shot, every trained method by name, and the refitted linear probe itself.

    Attributes:
        n_not_converged: fits of the linear probe made here that did not converge.
    """

    zero_shot: Side
    trained: dict[str, Side]
    probe: Linear
    n_not_converged: int


def gather(
    images: ImageEmbeddings,
    rows: TrainVal,
    class_weights: NDArray[np.float32],
    *,
    heads_folder: Path,
    texts_fingerprint: Attribute,
    max_iter: int,
) -> Sides:
    """Score val and test with zero-shot and with the stored heads.

    Args:
        rows: train and val among the official train rows.
        class_weights: (C, D) float32 unit rows, the zero-shot classifier.
        texts_fingerprint: of the prompt set that it is made from.
        max_iter: of the linear probe's fit on train alone.

    Raises:
        DataError: a head was trained on other embeddings, or from another prompt set.
    """
    val, val_labels = images.train.part(rows.val)
    test = images.test.embeddings

    def side(of_val: NDArray[np.float32], of_test: NDArray[np.float32]) -> Side:
        return Side(of_val, of_test, fit_temperature(of_val, val_labels))

    scorers = classifiers.heads_in(heads_folder, images, methods=TRAINED)
    _, of_projection = heads.read(heads_folder / "projection.h5")
    if of_projection.get("texts_fingerprint") != texts_fingerprint:
        raise DataError(
            "the heads were trained from another prompt set",
            where=str(heads_folder / "projection.h5"),
            fix="run `dvc repro`",
        )
    arrays, of_probe = heads.read(heads_folder / "linear_probe.h5")
    alone, converged = linear_probe.fit(
        *images.train.part(rows.train),
        c=float(of_probe["c"]),
        max_iter=max_iter,
        class_names=images.class_names,
    )
    trained = {method: side(scorer(val), scorer(test)) for method, scorer in scorers.items()}
    trained["linear_probe"] = side(alone.scores(val), trained["linear_probe"].test)
    scale = images.logit_scale
    return Sides(
        side(*(zero_shot.logits(part, class_weights, logit_scale=scale) for part in (val, test))),
        trained,
        Linear.rebuilt(arrays),
        int(not converged),
    )
