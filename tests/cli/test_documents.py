"""`show`, `compare` and `search` for other programs: what the text shows, and nothing else on stdout."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.api.comparing import Compared
from clipcifar.cli.comparison import as_table
from clipcifar.evaluation.compare import compare
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.seeds import OverSeeds, SeedsCompared
from tests.support import finished_run
from tests.support.command_line import record, run

AWKWARD = {'a,"b"': 0.5, "two\nlines": 0.25, "卡车 é": 1.0, "\x1b[2J": 0.125, "a\rb": 0.75, "": 0.0}
Said = tuple[int | str | None, Any, str]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def ask(*arguments: str) -> Said:
        """Exit code, the document, and what was said beside it."""
        code = run(monkeypatch, *arguments)
        output = capsys.readouterr()
        if code:
            assert output.out == ""
            return code, None, output.err
        return code, json.loads(output.out) if "--json" in arguments else rows_of(output.out), output.err

    return ask


def recorded(project: Path, metrics: Path) -> None:
    record(project, *(path.relative_to(project).as_posix() for path in metrics.rglob("*.json")))


def test_show_as_json_has_every_number_of_the_files(
    project: Path, metrics: Path, said: Callable[..., Said]
) -> None:
    recorded(project, metrics)
    code, shown, beside = said("show", "--json")
    assert (code, beside) == (0, "")
    assert (shown["left_out"], shown["notes"]) == ({}, [])
    for method, entry in shown["methods"].items():
        about = {key: entry.pop(key) for key in ("method", "name", "stale")}
        assert (about["method"], about["stale"]) == (method, False)
        paths = (metrics / f"{method}.json", metrics / "details" / f"{method}.json")
        assert entry == {key: value for path in paths for key, value in json.loads(path.read_text()).items()}
    assert next(iter(shown["methods"])) == "zero_shot"
    assert list(shown["methods"]) == list(METHODS)


def test_show_as_csv_has_the_numbers_of_the_json(
    project: Path, metrics: Path, said: Callable[..., Said]
) -> None:
    recorded(project, metrics)
    methods = said("show", "--json")[1]["methods"]
    code, rows, beside = said("show", "--csv")
    assert (code, beside, len(rows)) == (0, "", 7)
    for row in rows:
        entry = methods[row["method"]]
        assert (row["name"], row["stale"]) == (entry["name"], "False")
        assert float(row["accuracy"]) == entry["accuracy"]
        assert float(row["accuracy_ci95.low"]) == entry["accuracy_ci95"]["low"]
        assert row["seeds.n"] == (str(entry["seeds"]["n"]) if "seeds" in entry else "")
        assert not any(name.startswith("per_class") for name in row)
    code, rows, _ = said("show", "--csv", "--per-class")
    assert {(row["method"], row["class"]): float(row["accuracy"]) for row in rows} == {
        (method, name): accuracy
        for method, entry in methods.items()
        for name, accuracy in entry["per_class"].items()
    }


def test_show_marks_what_is_stale_in_both(project: Path, metrics: Path, said: Callable[..., Said]) -> None:
    recorded(project, metrics)
    path = project / "params.yaml"
    path.write_text(re.sub(r"c_grid: .*", "c_grid: [3]", path.read_text()))
    code, shown, beside = said("show", "--json")
    assert (code, beside) == (0, "")
    stale = [method for method, entry in shown["methods"].items() if entry["stale"]]
    assert stale == ["linear_probe"]
    assert "linear_probe.c_grid; run `dvc repro linear_probe`" in shown["notes"][0]
    code, rows, beside = said("show", "--csv")
    assert [row["method"] for row in rows if row["stale"] == "True"] == stale
    assert beside == f"note: {shown['notes'][0]}\n"


def test_of_a_folder_elsewhere_nobody_knows_what_is_stale(metrics: Path, said: Callable[..., Said]) -> None:
    """It has no val images, which the text would say too."""
    path = metrics / "details" / "zero_shot.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_val": 0}))
    _, shown, _ = said("show", "--metrics", str(metrics), "--json")
    assert [entry["stale"] for entry in shown["methods"].values()] == [None]
    (note,) = shown["notes"]
    assert note.startswith("The dataset has no val images")
    _, rows, beside = said("show", "--metrics", str(metrics), "--csv")
    assert ([row["stale"] for row in rows], beside) == ([""], f"note: {note}\n")


def test_show_names_what_was_left_out(metrics: Path, said: Callable[..., Said]) -> None:
    (metrics / "prompt_sets.json").write_text("{}")
    (metrics / "details" / "prompt_sets.json").write_text(json.dumps({"left out": {"wide": 90_000}}))
    _, shown, _ = said("show", "--metrics", str(metrics), "--json")
    assert shown["left_out"] == {"wide": 90_000}
    assert "wide" in shown["notes"][0]


def test_names_of_classes_come_through_a_pipe(metrics: Path) -> None:
    """Where stdout is no test's: what steers a terminal is an escape, which JSON reads back and CSV keeps."""
    for path in (metrics / "details").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "per_class": AWKWARD}))
    script = "from clipcifar.cli.main import main; main()"
    shown = {}
    for form in ("--json", "--csv"):
        command = [sys.executable, "-c", script, "show", "--per-class", "--metrics", str(metrics), form]
        shown[form] = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        assert "\x1b" not in shown[form]
    assert json.loads(shown["--json"])["methods"]["projection"]["per_class"] == AWKWARD
    rows = [row for row in rows_of(shown["--csv"]) if row["method"] == "projection"]
    escaped = {"\x1b[2J": "\\u001b[2J", "a\rb": "a\\u000db"}
    assert {row["class"]: float(row["accuracy"]) for row in rows} == {
        escaped.get(name, name): accuracy for name, accuracy in AWKWARD.items()
    }


@pytest.mark.parametrize("form", ["--json", "--csv"])
@pytest.mark.parametrize("content", ["{}", "[]", '{"accuracy": "high"}', "{"])
def test_show_refuses_in_every_form(
    metrics: Path, said: Callable[..., Said], form: str, content: str
) -> None:
    (metrics / "details" / "zero_shot.json").write_text(content)
    code, _, beside = said("show", "--metrics", str(metrics), form)
    assert code == 3
    assert beside.startswith("error: ")


def test_a_number_that_is_none_is_an_error_and_no_json(metrics: Path, said: Callable[..., Said]) -> None:
    path = metrics / "zero_shot.json"
    path.write_text(path.read_text().replace("0.4", "NaN"))
    code, _, beside = said("show", "--metrics", str(metrics), "--json")
    assert (code, "not metrics of this project" in beside) == (3, True)


@pytest.fixture
def searched(project: Path) -> dict[str, Any]:
    finished_run.write(
        project / "data", templates=["a, {classname}.", 'a "{classname}"', "ein {classname} ü"]
    )
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (project / "data" / "classes.json").write_text(json.dumps(classes))
    path = project / "data" / "ranking.json"
    ranked: dict[str, Any] = json.loads(path.read_text())
    for i, row in enumerate(ranked["candidates"]):
        row |= {"sets": ["photo", "pool"], "accuracy": 1 / 3 - i / 7}
    path.write_text(json.dumps(ranked))
    record(project, "data/ranking.json")
    return ranked


def test_search_as_json_has_what_was_found(searched: dict[str, Any], said: Callable[..., Said]) -> None:
    code, shown, beside = said("search", "--json")
    assert (code, beside) == (0, "")
    assert {key: shown.pop(key) for key in ("stale", "notes", "n_candidates")} == {
        "stale": False,
        "notes": [],
        "n_candidates": 3,
    }
    assert shown.pop("doubt") == "no difference for the better was shown on val and on test"
    assert shown == {key: value for key, value in searched.items() if key != "best"}
    assert said("search", "--json", "--top", "1")[1]["candidates"] == searched["candidates"][:1]


def test_search_as_csv_has_a_row_per_template(searched: dict[str, Any], said: Callable[..., Said]) -> None:
    code, rows, beside = said("search", "--csv")
    assert (code, beside) == (0, "")
    assert [row["template"] for row in rows] == [row["template"] for row in searched["candidates"]]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in searched["candidates"]]
    assert {(row["sets"], row["by"], row["stale"]) for row in rows} == {("photo;pool", "accuracy", "False")}
    assert len(said("search", "--csv", "--top", "2")[1]) == 2


def test_a_stale_search_is_marked_as_data_and_what_is_kept_is_noted(
    project: Path, searched: dict[str, Any], said: Callable[..., Said]
) -> None:
    code, shown, beside = said("search", "--write", "kept", "--json")
    assert (code, beside) == (0, "")
    assert "prompts.active: kept" in shown["notes"][0]
    assert shown["notes"][1].startswith("written, though no difference")
    path = project / "params.yaml"
    path.write_text(re.sub(r"^  by: .*", "  by: balanced_accuracy", path.read_text(), flags=re.M))
    code, shown, _ = said("search", "--json")
    assert (code, shown["stale"]) == (0, True)
    code, rows, beside = said("search", "--csv")
    assert (code, {row["stale"] for row in rows}) == (0, {"True"})
    assert beside == f"note: {shown['notes'][0]}\n"
    assert said("search", "--write", "more", "--csv")[0] == 2


def test_a_search_whose_numbers_are_none_is_an_error(
    project: Path, searched: dict[str, Any], said: Callable[..., Said]
) -> None:
    searched["candidates"][0]["extra"] = float("nan")
    (project / "data" / "ranking.json").write_text(json.dumps(searched))
    code, _, beside = said("search", "--json")
    assert (code, "not a ranking of prompts" in beside) == (3, True)


def compared(sizes: list[int], names: list[str], *notes: str) -> Compared:
    """B is wrong on the first class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    done = compare(labels, np.where(labels == 0, 1, labels), labels, class_names=names)
    return Compared(done.overall, done.per_class, done.flows, name_a="photo", name_b="c,d", notes=notes)


@pytest.fixture
def answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def answer(result: Compared, *said: str) -> None:
        """Let that be what comes of the next comparison."""

        def compare_sides(*_: str, on_note: Callable[[str], object], **__: Any) -> Compared:
            for line in said:
                on_note(line)
            return result

        monkeypatch.setattr("clipcifar.api.comparing.compare_sides", compare_sides)

    return answer


def test_a_comparison_as_csv_has_all_images_and_the_classes(
    answer: Callable[..., None], said: Callable[..., Said]
) -> None:
    names = ["all", 'e,"el"\n', "卡车"]  # a class may be called what the whole is
    answer(compared([5, 40, 40], names))
    code, rows, beside = said("compare", "--csv")
    assert (code, beside) == (0, "")
    assert [(row["a"], row["b"], row["of"], row["class"]) for row in rows] == [
        ("photo", "c,d", "all", ""),
        ("photo", "c,d", "balanced", ""),
        *(("photo", "c,d", "class", name) for name in names),
    ]
    whole, balanced, lost = rows[:3]
    assert (whole["n"], whole["only_a"], whole["only_b"], whole["p_holm"]) == ("85", "5", "0", "")
    assert float(whole["difference"]) == -5 / 85
    assert float(whole["p_value"]) == 2 / 2**5
    assert float(balanced["difference"]) == pytest.approx(-1 / 3)
    assert (balanced["n"], balanced["p_value"], balanced["stale"]) == ("", "", "False")
    assert (lost["accuracy_a"], lost["accuracy_b"], lost["p_holm"]) == ("1.0", "0.0", str(3 * 2 / 2**5))


def test_a_comparison_of_even_classes_has_no_row_of_its_own_for_those(
    answer: Callable[..., None], said: Callable[..., Said]
) -> None:
    answer(compared([5, 5], ["cat", "dog"]))
    assert [row["of"] for row in said("compare", "--csv")[1]] == ["all", "class", "class"]


OVER = OverSeeds(0.9, 0.88, -0.02, -0.035, -0.005, 0.012)


def test_a_comparison_over_seeds_is_a_sentence_a_row_and_data(
    answer: Callable[..., None], said: Callable[..., Said]
) -> None:
    done = replace(compared([5, 5], ["cat", "dog"]), name_b="b*", seeds=SeedsCompared(3, 2, OVER))
    answer(done)
    shown = said("compare", "--json")[1]
    assert shown["seeds"] == {"n_a": 3, "n_b": 2, "crossed": asdict(OVER)}
    assert shown["verdict"].endswith(
        "The p value covers other test images, not retraining. Covering both: b* (mean of 2 seeds) is worse "
        "than photo (mean of 3 seeds): -2.0 points [-3.5, -0.5], p = 0.0120."
    )
    rows = said("compare", "--csv")[1]
    assert [row["of"] for row in rows] == ["all", "seeds", "class", "class"]
    assert (rows[1]["accuracy_a"], rows[1]["p_value"], rows[1]["n"]) == ("0.9", "0.012", "")
    table = as_table(done)
    (row,) = (line for line in table.splitlines() if line.startswith("| seeds"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["seeds", "–", "0.9000", "0.8800", "-2.00", "-3.50 to -0.50", "–", "–", "0.0120"]
    assert r"Covering both: b\* (mean of 2 seeds)" in table


@pytest.mark.parametrize("seeds", [None, SeedsCompared(0, 1, None)])
def test_without_several_seeds_there_is_no_row_of_them(
    answer: Callable[..., None], said: Callable[..., Said], seeds: SeedsCompared | None
) -> None:
    done = replace(compared([5, 5], ["cat", "dog"]), seeds=seeds)
    answer(done)
    assert [row["of"] for row in said("compare", "--csv")[1]] == ["all", "class", "class"]
    assert "| seeds" not in as_table(done)
    assert ("not retraining: of c,d one seed is kept." in done.verdict) == (seeds is not None)


def test_what_is_known_of_a_side_is_data_in_json_and_beside_a_csv(
    answer: Callable[..., None], said: Callable[..., Said]
) -> None:
    answer(compared([5, 5], ["cat", "dog"], "v1 is stale"), "photo is of other code")
    _, shown, beside = said("compare", "--json")
    assert (shown["a"], shown["b"], shown["notes"], shown["stale"]) == ("photo", "c,d", ["v1 is stale"], True)
    assert shown["per_class"][0]["paired"]["only_a"] == 5
    assert shown["flows"] == [{"label": "cat", "from_a": "cat", "to_b": "dog", "n": 5}]
    assert shown["verdict"]
    assert beside == "note: photo is of other code\n"
    _, rows, beside = said("compare", "--csv")
    assert beside == "note: photo is of other code\nnote: v1 is stale\n"
    assert {row["stale"] for row in rows} == {"True"}
    answer(compared([5, 5], ["cat", "dog"]))
    assert said("compare", "--json")[1]["stale"] is False


def test_only_one_form_can_be_asked_for(project: Path, said: Callable[..., Said]) -> None:
    for forms in (("--md", "--csv"), ("--csv", "--json")):
        code, _, beside = said("compare", *forms)
        assert (code, "not allowed with" in beside) == (2, True)
