"""Rank every single template on train images, choose an ensemble, and ask test once about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.core.counts import count_of
from clipcifar.core.files import write_json
from clipcifar.evaluation import results
from clipcifar.evaluation.plots import write_csv
from clipcifar.methods.zero_shot import classifier
from clipcifar.prompts.params import PromptsParams
from clipcifar.search import candidates, counting, kept_weights, offering, outcome, ranking
from clipcifar.store import inputs
from clipcifar.store.embeddings import read_texts
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    prompts: Path,
    texts_folder: Path,
    pool_path: Path,
    splits_path: Path,
    head: Path,
    ranking_path: Path,
    predictions: Path,
    metrics: Path,
    details: Path,
    plots_folder: Path,
) -> None:
    active = params.read(settings, "prompts", PromptsParams).active
    by = params.read(settings, "search", ranking.SearchParams).by
    images = inputs.requested_images(images_path, settings)
    rows = inputs.train_val_of(images, splits_path, learner="rank_prompts")
    (offered, sums, clashes, note), texts = offering.read(
        images, prompts=prompts, texts_folder=texts_folder, pool_path=pool_path
    )
    names, dataset = images.class_names, str(images.attributes["dataset"])
    reference = classifier(texts.get(active) or read_texts(texts_folder / f"{active}.h5"))
    train = images.train.part(counting.by_class(images.train.labels, rows.train))
    averaged = candidates.averageable(offered, clashes, class_names=names)
    selection = ranking.select(
        train,
        images.train.part(rows.val),
        sums,
        reference=reference,
        logit_scale=images.logit_scale,
        averaged=averaged,
        template_weights=kept_weights.read(head, images, sums[averaged]),
        clashes=clashes,
        by=by,
    )
    judgement = outcome.judge(selection, images, train, rows.val, reference=reference)
    data = outcome.as_data(offered, selection, judgement, active=active, class_names=names, dataset=dataset)
    write_json(ranking_path, data)
    write_csv(plots_folder / "ranking.csv", data["best"])
    results.write(
        "rank_prompts",
        judgement.scores,
        images,
        temperature=judgement.temperature,
        predictions_path=predictions,
        metrics_path=metrics,
        details_path=details,
        plots_folder=plots_folder,
        extra_metrics=outcome.metrics(selection, judgement),
    )
    ranked = f"{count_of(len(offered), 'template')} ranked on {count_of(selection.singles.n, 'train image')}"
    print(ranked + note)
    print(data["verdict"] if selection.kind == "active" else f"on test: {data['verdict']}")


if __name__ == "__main__":
    run(main)
