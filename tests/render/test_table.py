from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt  # of rich, which DVC needs
from wcwidth import wcswidth

from clipcifar.api.comparing import Compared
from clipcifar.cli import comparison
from clipcifar.evaluation import compare, plots
from clipcifar.evaluation.headline import HEADLINE
from clipcifar.render import table


def _metrics(accuracy: float, **more: Any) -> dict[str, Any]:
    interval = {"low": accuracy - 0.1, "high": accuracy + 0.05}
    per_class = {"cat": accuracy, "<b>dog|": 0.5}
    base = {
        "accuracy": accuracy,
        "accuracy_ci95": interval,
        "balanced_accuracy": accuracy - 0.2,
        "ece": 0.01,
        "nll": 0.3,
        "n": 40,
        "max_per_class": 0,
    }
    return {**base, "per_class": per_class, **more}


SEEDS = {"n": 3, "accuracy_mean": 0.71, "accuracy_std": 0.02}
ALL = {
    "zero_shot": _metrics(0.6),
    "rank_prompts": _metrics(0.61),
    "prompt_weighting": _metrics(0.66),
    "gda": _metrics(0.68),
    "linear_probe": _metrics(0.7, max_per_class=5),
    "mlp_probe": _metrics(0.72, seeds=SEEDS),
    "projection": _metrics(0.73, seeds=SEEDS),
}


IMAGES = {"cat": 39, "<b>dog|": 1}


def test_the_reported_accuracy_is_one_models_and_the_mean_stands_beside_it() -> None:
    row = next(line for line in table.methods_table(ALL) if "MLP" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "0.7200"
    assert cells[3] == "0.7100 ± 0.0200 (3)"


def test_top_5_has_a_column_where_a_method_has_it() -> None:
    """A dash for one whose numbers are of an earlier dataset, of fewer classes."""
    header, _, *rows = table.methods_table(
        {**ALL, "mlp_probe": {**ALL["mlp_probe"], "top5_accuracy": 0.98765}}
    )
    column = [line.strip("|").split("|")[3].strip() for line in (header, *rows)]
    assert column == ["top-5", *["–"] * 5, "0.9877", "–"]
    assert "top-5" not in "".join(table.methods_table(ALL))


def test_a_single_seed_has_no_deviation() -> None:
    assert table.seeds_text({"seeds": {**SEEDS, "n": 1, "accuracy_std": 0.0}}) == "0.7100 (1)"


def test_methods_of_other_classes_stand_beside_each_other() -> None:
    """As after other photographs and `dvc repro zero_shot`: the other methods are of the earlier ones."""
    earlier = {**ALL["linear_probe"], "per_class": {"cat": 0.25, "eel": 0.5}}
    _, _, *rows = table.per_class_table({"zero_shot": ALL["zero_shot"], "linear_probe": earlier}, shown=str)
    assert [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows] == [
        ["cat", "0.6000", "0.2500"],
        [r"<b>dog\|", "0.5000", "–"],
        ["eel", "–", "0.5000"],
    ]


def test_a_subset_is_said_beside_the_number() -> None:
    lines = table.methods_table(ALL)
    assert "40 (at most 5 per class)" in next(line for line in lines if "linear" in line)
    assert "at most" not in next(line for line in lines if "MLP" in line)


def test_rare_classes_show_in_the_mean_over_classes_and_in_their_number_of_images() -> None:
    header, _, row, *_ = (line.strip("|").split("|") for line in table.methods_table(ALL))
    assert [cell.strip() for cell in header][4] == "balanced"
    assert [cell.strip() for cell in row][4] == "0.4000"
    lines = [
        [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")]
        for line in table.per_class_table(ALL, images=IMAGES)
    ]
    assert [line[1] for line in lines if "-:" not in line[1]] == ["images", "39", "1"]
    assert lines[2][2] == "0.6000"


def test_columns_line_up() -> None:
    lines = table.per_class_table(ALL)
    assert len({len(line) for line in lines}) == 1
    assert all(line.startswith("|") for line in lines)


def test_markup_in_names_stays_text() -> None:
    text = "\n".join(table.per_class_table(ALL))
    assert "<b>" not in text
    assert "\\<b\\>dog\\|" in text
    assert table.escape("a\nb  `c`") == "a b \\`c\\`"


def test_the_report_ranks_sets_on_train_and_compares_them_on_test() -> None:
    def entry(train: float, test: float) -> dict[str, Any]:
        interval = {"low": test - 0.1, "high": test + 0.1}
        return {
            "n_sentences": 10,
            "train": {"accuracy": train},
            "accuracy": test,
            "test": {"accuracy_ci95": interval, "balanced_accuracy": 0.7},
        }

    sets = {"photo": entry(0.6, 0.9), "wide": entry(0.8, 0.5)}
    labels = np.zeros(40, dtype=np.int64)
    differences = compare.against(labels, {"wide": labels + 1}, labels, class_names=["cat", "dog"])
    text = table.report(ALL, sets, differences, active="photo", images=IMAGES, dataset="d", model="m")
    lines = text.splitlines()
    ranked = [line for line in lines if line.startswith(("| wide ", "| photo (active)"))]
    assert [line.split()[1] for line in ranked] == ["wide", "photo", "wide"]
    assert "-100.00 | -100.00 to -86.02 |   0 |   40 | < 0.0001 |" in ranked[-1]
    assert "Against photo, image by image" in text
    alone = table.report(ALL, sets, [], active="photo", images=IMAGES, dataset="d", model="m")
    assert "Against photo" not in alone


def test_a_comparison_reads_as_markdown_and_as_data() -> None:
    labels = np.repeat([0, 1], 50)
    found = compare.compare(labels, np.zeros(100, dtype=np.int64), labels, class_names=["cat", "dog"])
    named = Compared(found.overall, found.per_class, found.flows, name_a="photo", name_b="sc*nes")
    text = comparison.as_table(named)
    assert "sc\\*nes is worse than photo: -50.0 points" in text
    assert len({len(line) for line in text.splitlines() if line.startswith("| ") and "dog" in line}) == 2
    data = json.loads(json.dumps(comparison.as_data(named)))
    assert data["overall"]["only_a"] == 50
    assert data["flows"] == [{"label": "dog", "from_a": "dog", "to_b": "cat", "n": 50}]


def test_show_prints_the_table_and_names_a_missing_file(tmp_path: Path) -> None:
    script = [sys.executable, "-c", "from clipcifar.cli.main import main; main()"]
    (tmp_path / "details").mkdir()
    for method, numbers in ALL.items():
        for folder, is_headline in ((tmp_path, True), (tmp_path / "details", False)):
            part = {key: value for key, value in numbers.items() if (key in HEADLINE) == is_headline}
            (folder / f"{method}.json").write_text(json.dumps(part))
    shown = subprocess.run(
        [*script, "show", "--per-class", "--metrics", str(tmp_path)], capture_output=True, text=True
    )
    assert shown.stdout.splitlines() == [
        *table.methods_table(ALL),
        "",
        *table.per_class_table(ALL, shown=str),
    ]
    (tmp_path / "mlp_probe.json").unlink()
    failed = subprocess.run([*script, "show", "--metrics", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 3
    assert "mlp_probe.json" in failed.stderr
    assert "dvc repro" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\tx"])
def test_csv_cells_cannot_run(tmp_path: Path, text: str) -> None:
    plots.write_csv(tmp_path / "x.csv", [{"class": text, "accuracy": 0.123456789}])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert rows == [{"class": "'" + text, "accuracy": "0.12346"}]


def test_the_confusion_file_has_a_row_per_image(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    plots.write_confusion(
        path, labels=np.array([0, 1, 1]), predicted=np.array([0, 0, 1]), class_names=["a", 'b",']
    )
    rows = list(csv.reader(io.StringIO(path.read_text())))
    assert rows == [["actual", "predicted"], ["a", "a"], ['b",', "a"], ['b",', 'b",']]


PUNCTUATION = "\\`*_{}[]<>()#+!|~"


@settings(max_examples=100)
@given(st.text(alphabet=PUNCTUATION + "ab1 \n\té", max_size=12))
def test_escaped_text_reads_back_and_is_one_line(text: str) -> None:
    escaped = table.escape(text)
    assert re.sub(r"\\([^\w\s])|\\(_)", lambda m: m[1] or m[2], escaped) == " ".join(text.split())
    bare = re.sub(r"\\.", "", escaped)  # what no backslash protects
    assert not set(bare) & set(PUNCTUATION) - {"_"}
    assert not re.search(r"(?<![A-Za-z0-9\\])_", re.sub(r"\\[^_]", "x", escaped))


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "[x](http://a)",
        "![x](y)",
        "`code`",
        "**b**",
        "_i_",
        "a|b",
        "# h",
        "~~s~~",
    ],
)
def test_a_report_with_hostile_names_parses_to_the_tags_of_a_benign_one(name: str) -> None:
    def tags(name: str) -> list[tuple[str, str]]:
        found = {method: {**values, "per_class": {name: 0.5, "cat": 0.25}} for method, values in ALL.items()}
        test = {"accuracy_ci95": {"low": 0.4, "high": 0.6}, "balanced_accuracy": 0.5}
        sets = {name: {"n_sentences": 1, "accuracy": 0.5, "train": {"accuracy": 0.5}, "test": test}}
        labels = np.zeros(40, dtype=np.int64)
        differences = compare.against(labels, {name: labels + 1}, labels, class_names=["cat", "dog"])
        text = table.report(
            found, sets, differences, active=name, images={name: 3, "cat": 4}, dataset=name, model=name
        )
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        inline = [child for token in tokens for child in token.children or []]
        return [(token.type, token.tag) for token in [*tokens, *inline] if token.type != "text_special"]

    def kinds(name: str) -> Counter[tuple[str, str]]:
        counted = Counter(tags(name))
        del counted["text", ""]  # an escaped character divides a text
        return counted

    assert kinds(name) == kinds("benign")
    assert kinds("benign")["table_open", "table"] == 4


def test_a_method_without_seeds_claims_none() -> None:
    rows = table.methods_table(ALL)[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[3] != "" for row in cells] == [*[False] * 5, True, True]
    # What is reported as top-1 is the file's accuracy, though the mean over seeds is another number.
    assert [row[1] for row in cells] == [
        f"{accuracy:.4f}" for accuracy in (0.6, 0.61, 0.66, 0.68, 0.7, 0.72, 0.73)
    ]


def test_columns_line_up_and_numbers_end_at_the_right() -> None:
    lines = table.markdown_table(["name", "n"], [["a", "1"], ["a longer name", "12345"]])
    assert lines == [
        "| name          |     n |",
        "|---------------|------:|",
        "| a             |     1 |",
        "| a longer name | 12345 |",
    ]
    for table_of in (table.methods_table, table.per_class_table):
        bars = [[i for i, c in enumerate(line.replace("\\|", "xx")) if c == "|"] for line in table_of(ALL)]
        assert all(positions == bars[0] for positions in bars)


NAMES = [
    "dog",
    "卡车",
    "猫",
    "cafe\u0301",
    "👨\u200d👩\u200d👧",
    "❤\ufe0f",
    "שלום",
    "a\u200bb",
    "a|b",
    "a\x1b[2Jb",
    "\u202egnp",
]


def test_columns_line_up_for_wide_combined_and_zero_width_names() -> None:
    rows = [[name, "0.5"] for name in NAMES]
    lines = table.markdown_table(["class", "accuracy"], rows)
    assert lines[2:6] == [
        "| dog         |      0.5 |",
        "| 卡车        |      0.5 |",
        "| 猫          |      0.5 |",
        "| cafe\u0301        |      0.5 |",
    ]
    assert {wcswidth(line) for line in lines} == {26}
    assert len({len(line) for line in lines}) > 1  # by characters they do not
    right = table.markdown_table(["n", "class"], [["1", name] for name in NAMES])
    assert {wcswidth(line) for line in right} == {19}
    assert right[3] == "| 1 |        卡车 |"


def test_a_name_ends_no_cell_and_steers_no_terminal() -> None:
    lines = table.markdown_table(["class"], [[name] for name in NAMES])
    assert [line.strip("| ") for line in lines[-3:]] == ["a\\|b", "a\\u001b[2Jb", "\\u202egnp"]
    html = MarkdownIt("commonmark").enable("table").render("\n".join(lines))
    assert html.count("<td>") == len(NAMES)
    assert "<td>a|b</td>" in html
    escaped = table.markdown_table(["class"], [[table.escape("a|b")]])
    assert escaped[-1] == "| a\\|b  |"  # once, not twice
    assert table.markdown_table(["a\nb"], []) == ["| a\\u000ab |", "|----------|"]


def test_only_the_active_set_is_marked() -> None:
    test = {"accuracy_ci95": {"low": 0.4, "high": 0.6}, "balanced_accuracy": 0.5}
    sets = {
        name: {"n_sentences": 1, "accuracy": 0.5, "train": {"accuracy": 0.5}, "test": test}
        for name in ("a", "ab", "b")
    }
    lines = table.prompt_sets_table(sets, "a")
    assert [line for line in lines if "(active)" in line] == [line for line in lines if "| a " in line]
