"""Zero-shot prompt ensembling: templates weighted by images that need no labels. NumPy alone.

Allingham et al. 2023, "A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in
Text-Image Models", ICML, arXiv 2302.06235. Template t gives image n the logits l(n, t, c), and suits these
images as far as the largest of them stands out:

    s(t) = mean over n of  max over c of  (l(n, t, c) - b(t, c)),    w = softmax(s)

The bias b(t, c) is what class c scores in template t whatever the image, since its words are frequent. In
the paper it is half the mean of l over the images at hand and half that over 20,000 images of the model's
pretraining. No such images are at hand here, so all of it is the mean over the images at hand, which the
paper tries as well (the row "test" of its third table). Then l - b is the logit of the image minus the mean
image, and a template that scores all images alike gets nothing for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipcifar.store.rows import Embeddings, blocks_of, mean_of

_BLOCK_IMAGES = 1024
_BLOCK_LOGITS = 4_000_000  # at most so many at a time, 16 MB


def scores(
    images: Embeddings, classifiers: NDArray[np.float32], *, logit_scale: float
) -> NDArray[np.float64]:
    """How far the largest logit of an image stands out, on average, with each template.

    Block by block of images and templates: beside a copy of the images, memory depends on neither N nor T.

    Args:
        images: (N, D) float32 unit rows, at least one; whatever they show.
        classifiers: (T, C, D) float32 unit rows, the zero-shot classifier of each template alone.
        logit_scale: the model's, about 100.

    Returns:
        (T,) float64, none below 0, in logits.
    """
    num_templates, num_classes, dim = classifiers.shape
    mean = mean_of(images).astype(np.float32)
    step = max(1, _BLOCK_LOGITS // (num_classes * min(_BLOCK_IMAGES, len(images))))
    totals = np.zeros(num_templates)
    for _, rows in blocks_of(images):
        centred = rows - mean
        for first in range(0, num_templates, step):
            part = classifiers[first : first + step]
            # class by class, so that the maximum runs over whole rows
            flat = np.ascontiguousarray(part.transpose(1, 0, 2)).reshape(-1, dim)
            for start in range(0, len(centred), _BLOCK_IMAGES):
                standing_out = flat @ centred[start : start + _BLOCK_IMAGES].T
                largest = standing_out.reshape(num_classes, len(part), -1).max(axis=0)
                totals[first : first + step] += largest.sum(axis=1, dtype=np.float64)
    return logit_scale * totals / len(images)


def weights(
    images: Embeddings, classifiers: NDArray[np.float32], *, logit_scale: float
) -> NDArray[np.float64]:
    """The weight of each template, softmax of `scores`.

    Args:
        images, classifiers, logit_scale: as for `scores`; of train images, since what is chosen by test
            images, even without their labels, is no longer asked of them.

    Returns:
        (T,) float64, at least 0, of sum 1.
    """
    of_templates = scores(images, classifiers, logit_scale=logit_scale)
    shares = np.exp(of_templates - of_templates.max())
    return np.asarray(shares / shares.sum())


def weighted(classifiers: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """(C, D) float32 unit rows: the (T, C, D) classifiers summed with (T,) weights, normalised again."""
    summed = np.tensordot(weights.astype(np.float32), classifiers, axes=1)
    return np.asarray(summed / np.linalg.norm(summed, axis=1, keepdims=True), dtype=np.float32)
