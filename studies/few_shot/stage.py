"""Few-shot curves: every method on seeded draws of a few images per class, against zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.core.files import write_atomically, write_json
from clipcifar.core.progress import progress
from clipcifar.evaluation.metrics import rounded
from clipcifar.evaluation.plots import write_csv
from clipcifar.methods.zero_shot import classifier
from clipcifar.prompts.params import PromptsParams
from clipcifar.store import inputs
from clipcifar.store.predictions import inherited, write_answers
from clipcifar.studies.few_shot import draws, page, scores as few_shot_scores
from clipcifar.studies.few_shot.methods import FewShotParams
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    texts_folder: Path,
    splits_path: Path,
    folder: Path,
    page_path: Path,
) -> None:
    few_shot_params = params.read(settings, "few_shot", FewShotParams)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    rows = inputs.train_val_of(images, splits_path)
    with progress(total=draws.num_draws(few_shot_params), unit="draws", what="few-shot") as bar:
        study = draws.run(images, rows, classifier(texts), params=few_shot_params, on_draw=bar.update)
    write_csv(folder / "choices.csv", draws.choice_rows(study))
    origin = inherited(images.attributes)
    write_answers(
        folder / "predictions.h5",
        draws.prediction_arrays(study),
        images,
        kind="few-shot predictions",
        attributes={"texts_fingerprint": texts.attributes["fingerprint"]},
    )
    scores = few_shot_scores.score(study, images.test.labels, num_classes=len(images.class_names))
    write_csv(folder / "curves.csv", few_shot_scores.curve_rows(scores))
    failed = draws.num_not_converged(study)
    found = {**few_shot_scores.as_metrics(scores), "n_not_converged": failed}
    write_json(folder / "metrics.json", rounded(found))
    notes = [f"Not converged in {few_shot_params.max_iter} iterations and left out: {failed} fits."]
    notes = notes if failed else []
    html = page.render(scores, few_shot_params, attributes=origin, active=active, notes=notes)
    write_atomically(page_path, html.encode())
    print("\n".join([*notes, *few_shot_scores.verdicts(scores)]))


if __name__ == "__main__":
    run(main)
