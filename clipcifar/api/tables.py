"""Results as columns: what one method says of every test image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.classifier import probabilities
from clipcifar.store.fields import class_names_of
from clipcifar.store.predictions import Predictions

if TYPE_CHECKING:
    import pandas

Columns = dict[str, NDArray[Any]]


def answers_of(predictions: Predictions) -> Columns:
    """The answers of one method as columns.

    Returns:
        Of N images each: `id` and the names of the classes, `label` and `predicted`, as text; `probability`
        of the predicted class, and `margin`, what it is above that of the next class, both float64 in [0, 1]
        and calibrated: from logits divided by the temperature that val chose, if there were val images.
    """
    names, attributes = np.array(class_names_of(predictions.attributes)), predictions.attributes
    temperature = float(attributes["temperature"]) if "temperature" in attributes else None
    ascending = np.sort(probabilities(predictions.scores, temperature), axis=1)
    return {
        "id": np.array(predictions.ids),
        "label": names[predictions.labels],
        "predicted": names[predictions.predicted],
        "probability": ascending[:, -1],
        "margin": ascending[:, -1] - ascending[:, -2],
    }


def as_frame(columns: Columns) -> pandas.DataFrame | Columns:
    """The columns as a pandas DataFrame where pandas is installed, and else as they are."""
    try:
        import pandas
    except ImportError:
        return columns
    return pandas.DataFrame(dict[str, Any](columns))
