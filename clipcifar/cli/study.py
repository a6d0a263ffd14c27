"""`clipcifar study`: run a study, or list them."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from clipcifar.cli.command import Command, in_project, refuse_without_train
from clipcifar.core.terminal import note

ON_TEST_ALONE = ("models",)  # the others need what learns from train images, where not those themselves


@in_project()
def _study(arguments: Namespace) -> str:
    from clipcifar.project import missing
    from clipcifar.project.overview import overview_of_studies
    from clipcifar.project.studies import find_study

    if arguments.name is None:
        return "\n".join(overview_of_studies(Path.cwd()))
    study = find_study(Path.cwd(), arguments.name)
    if study.name not in ON_TEST_ALONE:
        refuse_without_train(f"the study {study.name} needs")
    if said := missing.advice(Path.cwd()):
        note(
            "results of the last run are not here, and are made again; to have them instead, end this "
            f"and {said}"
        )
    code = study.run()
    if code and study.is_hidden:
        note(f"{study.name} stays hidden from DVC until a whole run has succeeded")
    if code:
        sys.exit(code)
    return f"{study.name} has run: report/{study.name}.html. Commit studies/{study.name}, which records it."


STUDY = Command(
    _study,
    help="run a study, or list them",
    description="Run a further question's own pipeline, or without a name list them all with what they "
    "ask. DVC sees a study once a whole run of it is recorded. The exit code is that of `dvc repro`.",
    arguments=lambda parser: parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of a folder of studies/"
    ),
)
