from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import EnvironmentFault
from clipcifar.evaluation import plots

# What OWASP's page on CSV injection lists as able to start a formula.
STARTERS = "=+-@\t\r\n＝＋－＠"


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


@given(st.text(max_size=8) | st.text(alphabet=STARTERS + "a'\",; ", min_size=1, max_size=5))
def test_a_cell_is_the_text_itself_unless_it_could_run(text: str) -> None:
    expected, begins = "", True
    for place, letter in enumerate(text):
        rest = text[place:].lstrip()
        if begins and rest and rest[0] in "=+-@＝＋－＠":
            expected += "'"
        expected, begins = expected + letter, letter in ";\t\r\n"
    assert plots.cell(text) == ("'" + expected if expected and expected[0] in "\t\r\n" else expected)
    assert not plots.cell(text).startswith(tuple(STARTERS))


def test_a_spreadsheet_that_divides_at_semicolons_finds_no_formula_either(tmp_path: Path) -> None:
    plots.write_csv(tmp_path / "x.csv", [{"actual": "cat", "predicted": 'a;=cmd() & "'}])
    divided = list(csv.reader(io.StringIO((tmp_path / "x.csv").read_text()), delimiter=";"))
    assert not [cell for row in divided for cell in row if cell.startswith("=")]


def test_what_is_harmless_inside_a_text_stays_as_it_is() -> None:
    for text in ("a=b", "x-y", "me@home", "'quoted'", "", "1e-3", "<script>"):
        assert plots.cell(text) == text


def test_rows_come_back_as_they_went_in_whatever_their_text_holds(tmp_path: Path) -> None:
    texts = ["plain", 'a "quoted" one', "with, comma", "two\nlines", "é猫\U0001f408", " spaces ", "'", ""]
    rows = [{"text": text, "n": i} for i, text in enumerate(texts)]
    plots.write_csv(tmp_path / "x.csv", rows)
    assert read(tmp_path / "x.csv") == [{"text": text, "n": str(i)} for i, text in enumerate(texts)]


def test_numbers_are_not_taken_for_formulas_and_floats_have_five_digits(tmp_path: Path) -> None:
    plots.write_csv(tmp_path / "x.csv", [{"loss": -1 / 3, "epoch": -1, "accuracy": 2 / 3}])
    assert (tmp_path / "x.csv").read_text() == "loss,epoch,accuracy\n-0.33333,-1,0.66667\n"


def test_equal_rows_give_equal_bytes_with_unix_line_ends(tmp_path: Path) -> None:
    rows = [{"class": "cat", "accuracy": 0.5}, {"class": "dog", "accuracy": 1.0}]
    for name in ("a", "b"):
        plots.write_csv(tmp_path / f"{name}.csv", rows)
    content = (tmp_path / "a.csv").read_bytes()
    assert content == (tmp_path / "b.csv").read_bytes()
    assert b"\r" not in content


def test_a_row_with_a_key_of_its_own_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    plots.write_csv(path, [{"a": 1}])
    with pytest.raises(ValueError, match="'b'"):
        plots.write_csv(path, [{"a": 1}, {"a": 2, "b": 3}])
    assert read(path) == [{"a": "1"}]


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_surroundings(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot use"):
        plots.write_csv(tmp_path / "plots" / "per_class.csv", [{"class": "cat"}])


def test_the_confusion_file_counts_to_the_confusion_matrix(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["cat", "=dog()", "eel"]
    labels, predicted = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    plots.write_confusion(tmp_path / "c.csv", labels=labels, predicted=predicted, class_names=names)
    rows = read(tmp_path / "c.csv")
    expected = Counter(
        ("'" + names[a] if a == 1 else names[a], "'" + names[b] if b == 1 else names[b])
        for a, b in zip(labels.tolist(), predicted.tolist(), strict=True)
    )
    assert Counter((row["actual"], row["predicted"]) for row in rows) == expected
    assert [row["actual"].strip("'") for row in rows] == [names[label] for label in labels]


def test_predictions_for_other_images_than_the_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        plots.write_confusion(
            tmp_path / "c.csv", labels=np.array([0, 0]), predicted=np.array([0]), class_names=["cat"]
        )
    assert not (tmp_path / "c.csv").exists()


def test_the_reliability_rows_are_of_both_diagrams() -> None:
    """Logits 0 and log 3 are a confidence of 3/4; divided by 2, of sqrt(3) / (1 + sqrt(3))."""
    scores = np.log(np.array([[3, 1], [3, 1], [1, 3], [1, 3]], dtype=np.float32))
    labels = np.array([0, 1, 1, 1])
    cooled = pytest.approx(3**0.5 / (1 + 3**0.5), abs=1e-6)
    assert plots.reliability_rows(scores, labels, temperature=2.0) == [
        {"calibration": "raw", "confidence": pytest.approx(0.75), "accuracy": 0.75, "n": 4},
        {"calibration": "after temperature", "confidence": cooled, "accuracy": 0.75, "n": 4},
    ]
