"""The pages of a project, and the bar by which each leads to the others.

A page is an output of a stage, which DVC hands back for equal inputs. Which other pages lie beside it is none
of those inputs, so the bar names all that there can be, always alike, and the command that makes each.
"""

from __future__ import annotations

from typing import NamedTuple

MAIN = "index.html"
STUDIES = {  # as the folders in studies/ are called, in the order of studies/README.md
    "few_shot": "Few-shot",
    "ensemble": "Ensembles",
    "models": "Backbones",
    "label_errors": "Label errors",
    "near_duplicates": "Near-duplicates",
    "corruptions": "Corruptions",
    "finetune": "Fine-tuning",
}


class Link(NamedTuple):
    """A page in the bar; `command` makes it, and `is_here` is true of the page that shows the bar."""

    file: str
    title: str
    command: str
    is_here: bool


def bar(here: str) -> list[Link]:
    """The main page and those of all studies; `here` is the file of the page that shows them."""
    pages = {MAIN: ("Main page", "dvc repro")}
    pages |= {f"{name}.html": (title, f"clipcifar study {name}") for name, title in STUDIES.items()}
    return [Link(file, title, command, file == here) for file, (title, command) in pages.items()]
