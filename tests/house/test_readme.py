"""README and the pages it leads to: short, true of the code where code can tell, and of nobody's machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import pytest
import yaml
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser

from clipcifar.cli import main as cli
from clipcifar.core import params
from clipcifar.datasets.params import DatasetParams
from clipcifar.datasets.registry import REGISTRY
from clipcifar.evaluation.headline import HEADLINE
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.save import overlay
from clipcifar.prompts.sets import expand_set
from clipcifar.store.model import ModelParams
from tests.house.test_docs import FILES
from tests.support.import_closure import ROOT
from tests.support.workspace import TEXT_SIDE

README = (ROOT / "README.md").read_text()
MAX_LINES, MAX_WIDTH = 150, 130
PAGES = [name for name in sorted(FILES) if name.endswith(".md") and name != "CHANGELOG.md"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def test_readme_is_read_in_minutes() -> None:
    assert len(README.splitlines()) <= MAX_LINES
    assert [line for line in README.splitlines() if len(line) > MAX_WIDTH] == []


def test_the_first_screen_has_a_picture_an_answer_and_two_commands() -> None:
    first, *_ = README.split("\n## ")
    sentence, picture, *_ = first.split("\n\n")[1:]
    assert ". " not in sentence
    assert sentence.endswith(".")
    assert picture.startswith("![")
    answer, commands = blocks(first, "console")
    assert answer.startswith("$ clipcifar try '")
    assert [line.split("#")[0].strip() for line in commands.splitlines()] == ["$ make demo", "$ dvc repro"]


# Of whoever writes this: on which machine, and what was not at hand there.
PERSONAL = re.compile(
    r"\b(?<!the )(?:two|four|eight) cores\b|\b(?:our|my) (?:machine|computer|laptop|network)\b|\bat hand\b"
    r"|\bcannot run here\b|\bthe authors\b|\bwe (?:have|had|ran|measured|tried)\b"
)


@pytest.mark.parametrize("name", PAGES)
def test_no_page_speaks_of_its_authors_machine(name: str) -> None:
    assert [line for line in (ROOT / name).read_text().splitlines() if PERSONAL.search(line)] == []


def test_a_page_that_does_is_noticed() -> None:
    for line in ("a minute on two cores", "no GPU was at hand", "not run by the authors", "on my laptop"):
        assert PERSONAL.search(line), line
    assert not PERSONAL.search("an hour on two CPU cores; on your machine, or on a quiet one")


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a page's console blocks, without their remarks and what they answer."""
    for block in blocks(text, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                words = shlex.split(re.split(" [>|] ", line[2:])[0], comments=True)
                while "&&" in words:
                    yield words[: words.index("&&")]
                    words = words[words.index("&&") + 1 :]
                yield words


def wrong(words: list[str]) -> bool:
    """Whether a command of ours, of make or of DVC cannot be meant as it is typed."""
    if words[0] == "make":
        made = (ROOT / "Makefile").read_text()
        targets = re.findall(r"^([\w-]+):", made, flags=re.M)
        settings = {word for word in words[1:] if "=" in word}
        read = all(f"$({word.partition('=')[0]})" in made for word in settings)
        return not (read and set(words[1:]) - settings <= set(targets))
    if words[0] not in ("clipcifar", "dvc"):
        return False
    parser = cli._parser() if words[0] == "clipcifar" else get_main_parser()
    try:
        parser.parse_args([word.replace("<study>", "few_shot") for word in words[1:]])
    except SystemExit as exit_:
        return exit_.code != 0
    except DvcParserError:
        return True
    return False


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_is_understood(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert [" ".join(words) for words in commands((ROOT / name).read_text()) if wrong(words)] == []


def test_a_command_that_is_not_there_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = "$ make demo && clipcifar shwo  # x\n$ make it\n$ dvc reproduce\n$ clipcifar show > x\n$ ls\nx\n"
    said = list(commands(f"```console\n{lines}```\n"))
    assert [words[0] for words in said] == ["make", "clipcifar", "make", "dvc", "clipcifar", "ls"]
    assert [words[1] for words in said if wrong(words)] == ["shwo", "it", "reproduce"]


def test_every_command_of_ours_is_in_readme_or_a_page_that_it_leads_to() -> None:
    texts = "\n".join((ROOT / name).read_text() for name in PAGES)
    assert [name for name in cli.COMMANDS if not re.search(rf"clipcifar {name}\b", texts)] == []


def settings_of(block: str) -> dict[str, Any]:
    """params.yaml with a block of a page laid over it."""
    settings = params.load(ROOT / "params.yaml")
    overlay(settings, yaml.safe_load(block))
    return settings


@pytest.mark.parametrize("block", [*blocks(README, "yaml"), *blocks(page("photos"), "yaml")])
def test_what_is_to_be_written_into_params_yaml_is_understood(block: str) -> None:
    settings = settings_of(block)
    params.read(settings, "dataset", DatasetParams)
    prompts = params.read(settings, "prompts", PromptsParams)
    values = prompts.sets[prompts.active]
    assert expand_set(prompts.active, values, class_names=["cat", "dog"], dataset="imagefolder") is not None


def test_brackets_hold_as_many_templates_as_the_pages_say() -> None:
    for text in (README, page("prompts")):
        (line,) = [
            line
            for line in text.splitlines()
            if line.endswith("# brackets hold alternatives: four templates")
        ]
        template = line.split("#")[0].strip().removeprefix("- ")
        values = {"template_mode": "shared", "templates": [template]}
        expanded = expand_set("x", values, class_names=["cat", "dog"], dataset="x")
        assert expanded is not None
        assert len(expanded.sentences) == 2 * 4


def first_column(text: str) -> set[str]:
    """What is in backticks in the first cell of every row of a page's tables."""
    cells = re.findall(r"^\| (.*?) \|", text, flags=re.M)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_dataset_has_its_row_and_every_key_of_the_headline() -> None:
    assert set(REGISTRY) <= first_column(page("datasets"))
    headline = page("metrics").split("\n## ")[1]
    keys = {name.split(".")[0] for name in first_column(headline) if not name.startswith(("<", "."))}
    assert keys == set(HEADLINE)


def test_every_way_to_name_a_backbone_is_one_of_params_yaml() -> None:
    head, *rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| `(\S+)` \|", page("backbones"), flags=re.M)
    keys = [name.removeprefix("model.") for name in head]
    assert len(rows) == 6
    for row in rows:
        block = yaml.safe_dump({"model": dict(zip(keys, map(yaml.safe_load, row), strict=True))})
        params.read(settings_of(block), "model", ModelParams)


def drawn(text: str) -> set[tuple[str, str]]:
    """The arrows of a mermaid flowchart."""
    arrows = set()
    for line in blocks(text, "mermaid")[0].splitlines()[1:]:
        groups = [group.strip().split(" & ") for group in line.split("-->")]
        for before, after in pairwise(groups):
            arrows |= set(product(before, after))
    return arrows


def ordered(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Who waits for whom, directly or not."""
    closed = set(arrows)
    while further := {(a, d) for a, b in closed for c, d in closed if b == c} - closed:
        closed |= further
    return closed


def test_the_picture_of_the_stages_is_the_order_of_dvc_yaml() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    makers = {}
    for name, stage in stages.items():
        for out in (out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])):
            makers[next(iter(out)) if isinstance(out, dict) else out] = name
    needed = {
        (maker, name)
        for name, stage in stages.items()
        for dep in stage["deps"]
        for made, maker in makers.items()
        if maker != name and (dep == made or dep.startswith(f"{made}/") or made.startswith(f"{dep}/"))
    }
    text = page("running")
    assert ordered(drawn(text)) == ordered(needed)
    (said,) = re.findall(r"After an edit of a prompt only (.*?) can run", text, flags=re.S)
    assert set(re.findall(r"`(\w+)`", said)) == TEXT_SIDE
    assert ordered(drawn(text.replace("prepare --> prompts --> ", "prompts --> "))) != ordered(needed)
