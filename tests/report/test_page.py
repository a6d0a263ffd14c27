"""The page: what it says, that names stay text, and that it needs nothing beside itself."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare, signs
from clipcifar.evaluation.names import METHODS
from clipcifar.render import site
from clipcifar.render.cells import DARKEST
from clipcifar.render.pictures import Pictures
from clipcifar.report import cards, confusion, facts, page, sections, verdicts
from clipcifar.store.dataset import OWN_VAL, PreparedSplit
from clipcifar.store.fields import INHERITED
from clipcifar.store.predictions import inherited, read_predictions
from tests.support import finished_run
from tests.support.import_closure import ROOT

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}$x^2$"


class Tags(HTMLParser):
    """The elements of a page with their attributes' names, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.text: list[str] = []
        self.values: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag, tuple(sorted(name for name, _ in attrs))] += 1
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def html_of(folder: Path, *, active: str = "photo") -> str:
    found = finished_run.read(folder, active=active)
    return page.render(found, Pictures(found.dataset.test, folder), split="10 % val, seed 0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finished_run.write(folder)
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return html_of(folder)


def test_the_page_has_the_numbers_of_the_files(folder: Path, html: str) -> None:
    text, found = " ".join(Tags(html).text), finished_run.read(folder)
    for method, metrics in found.metrics.items():
        assert f"{metrics['accuracy']:.4f}" in text, method
        calibrated = metrics["calibrated"]
        assert f"ECE {metrics['ece']:.3f} → {calibrated['ece']:.3f}" in text
    for item in found.set_differences:
        assert f"{100 * item.paired.difference:+.2f}" in text
        assert f"{item.name} instead of photo: {item.paired.only_b} won, {item.paired.only_a} lost" in text
    for part in (
        "ab" * 32,
        found.dataset.digest,
        "numpy 1.2.3",
        "10 % val, seed 0",
        "Gain over photo: +2.00",
    ):
        assert part in text


def test_where_the_dataset_has_val_images_none_are_said_to_be_drawn(folder: Path) -> None:
    read = finished_run.read(folder)
    own = replace(read, dataset=replace(read.dataset, notes=[OWN_VAL]))
    text = " ".join(Tags(page.render(own, Pictures(own.dataset.test, folder), split="10 % val, seed 0")).text)
    assert "val images of the dataset's own" in text
    assert "10 % val" not in text


def test_where_the_active_set_is_kept_the_page_says_so_and_offers_nothing_to_write(tmp_path: Path) -> None:
    finished_run.write(tmp_path)
    chosen, path = html_of(tmp_path), tmp_path / "ranking.json"
    files.write_json(path, {**files.read_json(path), **finished_run.KEPT})
    html = html_of(tmp_path)
    assert html.count("The search keeps the active set photo: val prefers no other prompts.") == 2
    for absent in ("Best prompts, chosen", "Chosen on train and val", "The chosen prompts", "search --write"):
        assert absent in chosen
        assert absent not in html


def test_every_section_of_the_contents_is_there_once(html: str) -> None:
    ids = re.findall(r'<h2 id="([^"]+)"', html)
    assert ids == [anchor for anchor, _ in page.SECTIONS if anchor != "superclasses"]
    assert re.findall(r'<a href="#([^"]+)"', html) == ids


def test_what_kind_the_intervals_of_the_verdicts_are_is_said_of_both_accuracies(html: str) -> None:
    assert "They are Bonett and Price’s; those of balanced accuracy are normal, and wide where" in html


def test_where_images_have_copies_it_is_said_which_intervals_allow_for_them_and_which_do_not() -> None:
    right = np.array([True, True, False, False])
    copied = compare.corrected([("gda", compare.paired(right, ~right, np.array([0, 0, 2, 3])))])
    (said,) = verdicts.of_copies([*copied, *copied])
    assert said.startswith("1 image is an exact copy of others among the 4: the test takes")
    assert said.endswith("The interval of an accuracy alone counts every copy, and is too narrow.")
    assert not verdicts.of_copies(compare.corrected([("gda", compare.paired(right, ~right))]))


def test_no_method_is_called_by_a_name_that_reads_as_two() -> None:
    assert not [name for name in METHODS.values() if "," in name]


def test_of_heads_with_seeds_one_line_says_what_their_p_values_cover(html: str) -> None:
    said = "<li>P values of MLP probe and projection heads cover other test images, not retraining.</li>"
    assert html.count(said) == 1
    none = compare.NamedDifference(
        "linear_probe", compare.from_counts(9, n_correct_a=5, only_a=1, only_b=1), 1.0
    )
    assert len(verdicts.of_methods([none], reference="zero_shot")) == 1


def test_nothing_is_from_elsewhere_but_links_to_the_pages_of_studies(html: str) -> None:
    parsed = Tags(html)
    assert not [tag for tag, _ in parsed.found if tag in ("iframe", "object", "form", "base")]
    assert not [names for _, names in parsed.found if any(name.startswith("on") for name in names)]
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert links
    assert {link for link in links if not link.startswith(("#", "data:"))} == {
        f"{study}.html" for study in site.STUDIES
    }


def digests(html: str, tag: str) -> list[str]:
    """What a policy would have to name for the text of each element of that kind to be let in."""
    texts = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]


def test_the_policy_lets_in_one_style_and_one_script_by_their_digests_and_nothing_else(
    tmp_path: Path,
) -> None:
    finished_run.write(tmp_path, class_names=[f"class {i}" for i in range(21)], n=84)
    html = html_of(tmp_path)
    (style,), (script,) = digests(html, "style"), digests(html, "script")
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'"
    )
    parsed = Tags(html)
    assert not [names for _, names in parsed.found if "style" in names]


def test_the_bar_leads_to_every_study_by_the_folders_name_and_says_what_makes_its_page(html: str) -> None:
    assert list(site.STUDIES) == re.findall(
        r"`clipcifar study (\w+)` \|", (ROOT / "studies/README.md").read_text()
    )
    assert set(site.STUDIES) == {path.parent.name for path in ROOT.glob("studies/*/dvc.yaml")}
    bar = html.split('aria-label="Pages"')[1].split("</nav>")[0]
    assert re.findall(r'href="(\w+)\.html" title="made by clipcifar study (\w+)"', bar) == [
        (study, study) for study in site.STUDIES
    ]
    assert '<strong aria-current="page">Main page</strong>' in bar
    assert "<code>clipcifar study NAME</code>" in bar


def test_ids_are_unique_and_references_resolve(html: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)", html) + re.findall(r'href="#([^"]+)"', html)
    assert used
    assert set(used) <= set(ids)


def test_no_stand_in_colour_is_left(html: str) -> None:
    from clipcifar.render import svg

    assert "var(--accent)" in html
    assert not [colour for colour in svg.VARIABLES if colour in html]
    declared = set(re.findall(r"(--[a-z0-9-]+):", html))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", html)) <= declared


def test_markup_in_names_and_prompts_stays_text(tmp_path: Path) -> None:
    """The parsed page of a hostile run has the elements of a benign one, and the names as text."""
    plain = {"class_names": ["cat" * 8, "dog"], "sets": ["photo", "other"], "templates": ["p" * 40, "q" * 40]}
    hostile = {
        "class_names": [HOSTILE, "dog"],
        "sets": ["photo", "other"],
        "templates": [HOSTILE, "$\\frac{1}{0}$ =cmd() 😀 \u202e"],
    }
    for name, values in (("plain", plain), ("hostile", hostile)):
        finished_run.write(tmp_path / name, **values)  # type: ignore[arg-type]
    benign, odd = (Tags(html_of(tmp_path / name)) for name in ("plain", "hostile"))
    glyphs = ("path", "use", "g", "defs")  # a longer name makes another layout, not another element
    assert {key: n for key, n in odd.found.items() if key[0] not in glyphs} == {
        key: n for key, n in benign.found.items() if key[0] not in glyphs
    }
    assert HOSTILE in odd.text
    assert any(HOSTILE in value for value in odd.values)


def test_pictures_are_those_of_the_rows(folder: Path) -> None:
    found = finished_run.read(folder)
    pictures = Pictures(found.dataset.test, folder)
    for row in (0, 7):
        encoded = pictures.data_uri(row).removeprefix("data:image/png;base64,")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        np.testing.assert_array_equal(pixels, found.dataset.test.content[row])


def test_a_photograph_is_made_small_and_a_missing_one_is_said_to_be_gone(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (255, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    split = PreparedSplit(np.array([b"0"] * 3), np.zeros(3, np.int64), ["a.png", "b.png", "c.png"])
    pictures = Pictures(split, tmp_path)
    encoded = pictures.data_uri(0).removeprefix("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (96, 48)
    assert pictures.data_uri(1) == pictures.data_uri(2) == ""


def test_the_page_says_where_a_picture_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pictures, "data_uri", lambda self, row: "")
    parsed = Tags(html_of(folder))
    assert "picture gone" in parsed.text
    assert not [tag for tag, _ in parsed.found if tag == "img"]


def test_the_page_says_what_was_settled_for_weights_without_a_tag(folder: Path, html: str) -> None:
    assert "settled for the weights" not in html
    run = finished_run.read(folder, active="photo")
    remarks = ["preprocessing: that of X's known weights (a)", f"activation: {HOSTILE}"]
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, remarks=remarks))
    tags = Tags(page.render(run, Pictures(run.dataset.test, folder), split="10 % val, seed 0"))
    assert "; ".join(remarks) in tags.text


def test_equal_runs_give_equal_pages(folder: Path, html: str) -> None:
    assert html_of(folder) == html


def test_one_prompt_set_alone_is_no_error(tmp_path: Path) -> None:
    finished_run.write(tmp_path, sets=["photo"])
    text = " ".join(Tags(html_of(tmp_path)).text)
    assert "There is one prompt set only" in text
    assert "instead of photo" not in text


def test_of_very_many_classes_the_least_accurate_are_shown(tmp_path: Path) -> None:
    names = [f"class{i:03d}" for i in range(30)]
    finished_run.write(tmp_path, class_names=names, n=180)
    found = finished_run.read(tmp_path)
    shown = found.shown_classes()
    said = found.predictions["zero_shot"].scores.argmax(axis=1)
    accuracy = np.array([(said[found.sets.labels == c] == c).mean() for c in range(30)])
    assert len(shown) == facts.MAX_CLASSES
    assert shown == sorted(shown)
    assert accuracy[shown].max() <= np.delete(accuracy, shown).min()
    note = f"The table has all 30 classes, the chart the {len(shown)} classes on which zero-shot is least"
    assert note in sections.classes(found)["note"]


def test_predictions_of_other_images_are_refused(folder: Path, tmp_path: Path) -> None:
    finished_run.write(tmp_path)
    finished_run.write(tmp_path / "more", n=30)
    (tmp_path / "predictions" / "projection.h5").write_bytes(
        (tmp_path / "more" / "predictions" / "projection.h5").read_bytes()
    )
    with pytest.raises(DataError, match="predictions of projection were made with dataset_digest"):
        finished_run.read(tmp_path)


def test_all_methods_are_tested_against_zero_shot_and_corrected(folder: Path) -> None:
    found = finished_run.read(folder)
    differences = found.method_differences
    assert [item.name for item in differences] == [
        "rank_prompts",
        "prompt_weighting",
        "gda",
        "linear_probe",
        "mlp_probe",
        "projection",
    ]
    said = {
        method: read_predictions(folder / "predictions" / f"{method}.h5").scores.argmax(axis=1)
        for method in found.metrics
    }
    labels = found.sets.labels
    plain = [compare.paired(said["zero_shot"] == labels, said[item.name] == labels) for item in differences]
    assert [item.paired for item in differences] == plain
    assert [item.p_holm for item in differences] == signs.holm([item.p_value for item in plain])
    kept = replace(found, ranking={**found.ranking, **finished_run.KEPT})
    assert [item.paired for item in kept.method_differences] == plain[1:]


def test_a_card_says_what_both_sets_said(folder: Path) -> None:
    found = finished_run.read(folder)
    change = cards.changes(found, Pictures(found.dataset.test, folder))[0]
    name, card = change["name"], change["won"][0]
    row = found.dataset.test.ids.index(card.alt.split()[2].rstrip(","))
    for set_name, line in zip(("photo", name), card.lines, strict=True):
        scores = found.sets.scores[set_name][row].astype(float)
        share = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        assert line == f"{set_name}: {finished_run.NAMES[int(scores.argmax())]} {share.max():.2f}"
    assert card.title == finished_run.NAMES[found.sets.labels[row]]
    assert card.file == found.dataset.test.ids[row]


def test_every_picture_is_named_by_its_file_and_the_page_by_the_command_that_looks_further(html: str) -> None:
    pictures = html.count("<img ")
    assert len(re.findall(r'<span class="file">test/\d{5}</span></figcaption>', html)) == pictures > 20
    assert "<code>clipcifar explore</code>" in html


def test_only_the_sets_that_differ_beyond_chance_are_said_to(folder: Path) -> None:
    def difference(name: str, only_a: int, only_b: int, p: float) -> compare.NamedDifference:
        found = compare.from_counts(1000, n_correct_a=500, only_a=only_a, only_b=only_b)
        return compare.NamedDifference(name, found, p)

    said = verdicts.of_sets(
        [difference("a", 90, 30, 0.001), difference("b", 5, 6, 1.0), difference("c", 20, 80, 0.002)],
        active="photo",
    )
    assert [sentence.split(":")[0] for sentence in said] == [
        "c is better than photo",
        "a is worse than photo",
        "No difference shown between photo and b.",
    ]


def test_a_confusion_matrix_is_a_table_of_what_each_class_was_called(folder: Path, html: str) -> None:
    found = finished_run.read(folder)
    labels, said = found.sets.labels, found.predictions["linear_probe"].predicted
    title = METHODS["linear_probe"]
    table = html.split(f'aria-label="Confusion matrix of {title}"')[1].split("</table>")[0]
    cells = [
        re.findall(r'<td class="shade-(\d+)"(?: title="([^"]*)")?>(\d*)</td>', row)
        for row in table.split("</tr>")[1:-1]
    ]
    assert [len(row) for row in cells] == [3, 3, 3]
    for actual, row in enumerate(cells):
        for predicted, (shade, hover, text) in enumerate(row):
            share = float((said[labels == actual] == predicted).mean())
            assert text == (f"{100 * share:.0f}" if share >= 0.005 else "")
            assert int(shade) == max(round(20 * share), 1 if share else 0)
            names = finished_run.NAMES[actual], finished_run.NAMES[predicted]
            assert hover == (f"{names[0]} called {names[1]}: {100 * share:.1f} %" if share else "")
    assert len({text for row in cells for _, _, text in row}) > 2  # negative control: they differ


def test_the_cells_of_many_classes_have_no_numbers() -> None:
    assert confusion.cell(0.25, "a", "b", confusion.NUMBERED) == (5, "25", "a called b: 25.0 %")
    assert confusion.cell(0.25, "a", "b", confusion.NUMBERED + 1) == (5, "", "a called b: 25.0 %")
    assert confusion.cell(0.004, "a", "b", 3) == (1, "", "a called b: 0.4 %")
    assert confusion.cell(0.0, "a", "b", 3) == (0, "", "")
    assert confusion.cell(1.0, "a", "a", 3).shade == DARKEST


def test_the_largest_confusions_of_more_classes_than_cells_can_number_are_a_table() -> None:
    names = ["a", "b", "c"]
    matrix = np.array([[7, 3, 0], [0, 4, 0], [1, 1, 0]])
    assert confusion.pair_rows(matrix, names) == [
        ["c", "a", "50 %", "1 of 2"],
        ["c", "b", "50 %", "1 of 2"],
        ["a", "b", "30 %", "3 of 10"],
    ]
    assert confusion.largest_pairs(matrix, 2) == [(2, 0), (2, 1)]
    assert confusion.largest_pairs(matrix, 9) == [(2, 0), (2, 1), (0, 1)]


def test_every_class_is_in_the_table_though_the_chart_shows_the_least_accurate(tmp_path: Path) -> None:
    names = [f"class{i:03d}" for i in range(30)]
    finished_run.write(tmp_path, class_names=names, n=180)
    run = finished_run.read(tmp_path)
    rows = sections.classes(run)["rows"]
    assert [row[0] for row in rows] == names
    said = run.predictions["gda"].predicted
    of_last = run.sets.labels == 29
    assert rows[29][1] == str(of_last.sum())
    assert rows[29][2 + list(METHODS).index("gda")] == f"{(said[of_last] == 29).mean():.3f}"
    page_of_it = html_of(tmp_path)
    assert page_of_it.count('class="search" hidden') == 1
    assert "The 20 largest confusions" in page_of_it


def test_few_classes_need_no_search_and_no_script(html: str) -> None:
    assert "script" not in {tag for tag, _ in Tags(html).found}
    assert "script-src" not in html
    assert 'class="search"' not in html
    assert "largest confusions" not in html


def test_a_matrix_of_very_many_classes_is_a_picture_and_says_its_largest_confusions(tmp_path: Path) -> None:
    names = [f"class{i:03d}" for i in range(40)]
    finished_run.write(tmp_path, class_names=names, n=400)
    found = finished_run.read(tmp_path)
    shown = confusion.confusions(found)[0]
    assert shown.title == "zero-shot"
    assert shown.picture is not None
    assert "<image" in shown.picture
    assert len(shown.picture) < 50_000
    assert len(shown.pairs) == confusion.PAIRS
    assert shown.rows == []
    labels, said = found.sets.labels, found.predictions["zero_shot"].predicted
    (share,) = re.findall(r"called class\d+ (\d+) %", shown.caption)[:1]
    most = max(((said == b) & (labels == a)).sum() for a in range(40) for b in range(40) if a != b)
    assert int(share) == round(100 * most / 10)


def test_a_perfect_method_confuses_nothing() -> None:
    names = ["a", "b"]
    assert confusion.largest(np.eye(2), names) == "No image is confused."
    assert confusion.largest(np.array([[0.75, 0.25], [0, 1]]), names) == "Most often: a called b 25 %."


@pytest.mark.parametrize("what", ["active", "ranking", "sets"])
def test_results_of_another_active_set_are_refused(tmp_path: Path, what: str) -> None:
    finished_run.write(tmp_path)
    if what == "ranking":
        path = tmp_path / "ranking.json"
        path.write_text(path.read_text().replace('"active": "photo"', '"active": "wide"'))
    if what == "sets":
        for path in (tmp_path / "metrics").rglob("prompt_sets.json"):
            path.write_text(path.read_text().replace('"scenes"', '"seens"'))
    with pytest.raises(DataError, match="not those of the active set"):
        finished_run.read(tmp_path, active="absent" if what == "active" else "photo")


def test_a_colour_in_a_prompt_is_text(tmp_path: Path) -> None:
    said = 'fill: #010101; style="fill: #010101" {classname}'
    finished_run.write(tmp_path, templates=[said, "a {classname}"])
    assert Tags(html_of(tmp_path)).text.count(said) == 3  # in the table, among the chosen, in the chart


def test_a_set_that_is_called_like_a_method_is_compared_as_a_set(tmp_path: Path) -> None:
    finished_run.write(tmp_path, sets=["projection", "other"])
    assert "clipcifar compare set:projection other " in html_of(tmp_path, active="projection")


def test_very_many_sets_are_counted_not_named() -> None:
    found = compare.from_counts(1000, n_correct_a=500, only_a=5, only_b=5)
    same = [compare.NamedDifference(f"set{i}", found, 1.0) for i in range(60)]
    assert verdicts.of_sets(same, active="photo") == ["No difference shown between photo and 60 other sets."]


def test_the_page_says_what_was_left_out_and_what_else_there_is_to_know_of_the_images(folder: Path) -> None:
    known = finished_run.read(folder)

    def text(**changes: Any) -> str:
        told = replace(known, dataset=replace(known.dataset, **changes))
        return " ".join(
            " ".join(Tags(page.render(told, Pictures(told.dataset.test, folder), split="s")).text).split()
        )

    assert "left out nothing" in text()
    said = text(left_out={".heic": 3, "hidden": 12}, notes=["all of it was drawn", HOSTILE])
    assert "left out 12 hidden, 3 .heic" in said
    assert "of the images all of it was drawn" in said
    assert HOSTILE in said  # as text


@pytest.mark.parametrize(
    ("storage", "said"), [("float32", "cpu, bf16"), ("float16", "cpu, bf16, stored as float16")]
)
def test_provenance_says_how_embeddings_were_made_and_are_stored(storage: str, said: str) -> None:
    whole = {**dict.fromkeys((*INHERITED, "fingerprint"), "x"), "max_per_class": 0, "device": "cpu"}
    assert page._how_embedded(inherited({**whole, "precision": "bf16", "storage": storage})) == said


def test_top_5_stands_beside_top_1_where_there_are_more_than_ten_classes(tmp_path: Path) -> None:
    finished_run.write(tmp_path, class_names=[f"class {i}" for i in range(11)], n=44)
    run = finished_run.read(tmp_path)
    table = sections.methods(run)
    column = table["header"].index("top-5")
    assert [row[column] for row in table["rows"]] == [
        f"{run.metrics[method]['top5_accuracy']:.4f}" for method in METHODS
    ]
    assert all(len(row) == len(table["header"]) for row in table["rows"])
    assert "top-5" in html_of(tmp_path)


def test_ten_classes_have_no_top_5(folder: Path) -> None:
    assert "top-5" not in html_of(folder)


@pytest.mark.parametrize("title", [None, "", "  \n"])
def test_without_a_title_the_page_is_headed_by_dataset_and_model(title: str | None, folder: Path) -> None:
    run = finished_run.read(folder)
    html = page.render(run, Pictures(run.dataset.test, folder), split="s", title=title)
    assert "<h1>toy with ViT-B-32 tag</h1>" in html
    assert html.count("toy with ViT-B-32 tag") == 2  # in the window's title, too


def test_a_title_of_ones_own_heads_the_page_as_text_and_the_model_comes_second(folder: Path) -> None:
    run = finished_run.read(folder)

    def tags(title: str) -> Tags:
        return Tags(page.render(run, Pictures(run.dataset.test, folder), split="s", title=title))

    hostile, benign = tags(f"{HOSTILE}\u202e"), tags("Our birds")
    assert hostile.found == benign.found
    assert benign.text.count("Our birds") == 1
    assert "clipcifar: Our birds" in benign.text
    assert f"{HOSTILE}\\u202e" in hostile.text
    assert any(text.startswith("toy with ViT-B-32 tag · ") for text in benign.text)
