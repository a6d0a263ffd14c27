"""Several backbones on the same images: accuracy, paired differences, speed and size."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, params
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.prompts.params import PromptsParams
from clipcifar.render.page_file import write_page
from clipcifar.store import inputs
from clipcifar.store.dataset import read_dataset
from clipcifar.store.model import ModelDescription, ModelParams
from clipcifar.store.prompt_set import PromptSet
from clipcifar.studies.models import findings, page, table
from clipcifar.studies.models.cache import embedded, resolved
from clipcifar.studies.models.params import OWN, ModelsParams, listed, named
from clipcifar.studies.models.study import Study
from stages import run


def main(
    settings: dict[str, Any],
    raw: Path,
    dataset_path: Path,
    splits_path: Path,
    prompts: Path,
    weights: Path,
    model_path: Path,
    images_path: Path,
    folder: Path,
    page_path: Path,
) -> None:
    model = params.read(settings, "model", ModelParams)
    others = listed(params.read(settings, "models", ModelsParams), model)
    embed = params.read(settings, "embed", EmbedParams)
    probe = params.read(settings, "linear_probe", LinearProbeParams)
    active = params.read(settings, "prompts", PromptsParams).active
    photographs = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    dataset = read_dataset(dataset_path)
    own = inputs.requested_images(images_path, settings)
    inputs.check_embedded(dataset, own, where=images_path)
    rows = inputs.train_val_if_any(own, splits_path)
    said = PromptSet.from_json(files.read_json(prompts / f"{active}.json"))
    backbones = {}
    for label, asked in others.items():  # all of them first: a typo in the last is told before any embeds
        with named(label):
            backbones[label] = resolved(asked)
    study = Study(said, rows, probe=probe, embed=embed, repository=Path())
    study.add(OWN, ModelDescription.read(model_path), weights, own)
    images_of = partial(
        embedded, dataset, photographs=photographs, embed=embed, repository=Path(), own=images_path
    )
    for label, (description, place) in backbones.items():
        with named(label):
            study.add(label, description, place, images_of(description, place))
    results = findings.measure(
        study.outcomes,
        study.sizes,
        own.test.labels,
        class_names=own.class_names,
        copies=own.test.copies,
    )
    timing = study.timing(device=str(own.attributes["device"]))
    findings.write(folder, results, timing, own)
    about: dict[str, Any] = {"active": active, "attributes": own.attributes}
    html = page.render(results, timing, descriptions=study.descriptions, **about)
    write_page(page_path, html)
    print(table.as_text(findings.as_metrics(results), timing))


if __name__ == "__main__":
    run(main)
