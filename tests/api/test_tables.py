"""What a method says of the test images, as columns."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from clipcifar.api.tables import answers_of, as_frame
from clipcifar.evaluation import headline
from clipcifar.evaluation.calibration import expected_calibration_error
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.predictions import Predictions, read_predictions
from tests.support import finished_run

NAMES = ["cat, wild", "卡车\n", 'e"el']


def predictions(temperature: float | None) -> Predictions:
    scores = np.log(np.array([[8, 1, 1], [1, 4, 4], [1, 2, 7]], dtype=np.float32))
    attributes = {} if temperature is None else {"temperature": temperature}
    return Predictions(
        scores,
        np.array([0, 2, 1]),
        ["a/1.jpg", "b", "c"],
        {"class_names": class_names_attribute(NAMES), **attributes},
    )


def test_answers_by_hand() -> None:
    answers = answers_of(predictions(None))
    assert list(answers) == ["id", "label", "predicted", "probability", "margin"]
    assert answers["id"].tolist() == ["a/1.jpg", "b", "c"]
    assert answers["label"].tolist() == [NAMES[0], NAMES[2], NAMES[1]]
    assert answers["predicted"].tolist() == [NAMES[0], NAMES[1], NAMES[2]]  # of equals, the first
    assert answers["probability"] == pytest.approx([0.8, 4 / 9, 0.7])
    assert answers["margin"] == pytest.approx([0.7, 0, 0.5])


def test_probabilities_are_calibrated_and_the_answer_stays() -> None:
    """At temperature 1/2 a probability is squared before it is normalised."""
    answers = answers_of(predictions(0.5))
    assert answers["probability"] == pytest.approx([64 / 66, 16 / 33, 49 / 54])
    assert answers["margin"] == pytest.approx([63 / 66, 0, 45 / 54])
    assert answers["predicted"].tolist() == answers_of(predictions(None))["predicted"].tolist()


def test_accuracy_and_calibration_recompute_from_the_columns(tmp_path: Path) -> None:
    finished_run.write(tmp_path)
    answers = answers_of(read_predictions(tmp_path / "predictions" / "zero_shot.h5"))
    numbers = headline.read(tmp_path / "metrics", "zero_shot")
    right = answers["label"] == answers["predicted"]
    error = expected_calibration_error(answers["probability"], right)
    assert right.mean() == pytest.approx(numbers["accuracy"], abs=1e-5)
    assert error == pytest.approx(numbers["calibrated"]["ece"], abs=1e-5)
    assert error != pytest.approx(numbers["ece"], abs=1e-3)


def test_a_frame_where_pandas_is_and_else_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answers_of(predictions(None))
    frame = as_frame(answers)
    assert isinstance(frame, pandas.DataFrame)
    assert frame["label"].tolist() == answers["label"].tolist()
    assert frame["probability"].dtype == np.float64
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert as_frame(answers) is answers
