"""Every method on the corrupted test images, and prompts that name the corruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import params
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.methods import classifiers, zero_shot
from clipcifar.prompts.params import PromptsParams
from clipcifar.render.page_file import write_page
from clipcifar.report import ranking
from clipcifar.store import inputs, model
from clipcifar.studies.corruptions.images.kinds import KNOWN
from clipcifar.studies.corruptions.judge import findings, naming, page
from clipcifar.studies.corruptions.params import CorruptionParams
from clipcifar.studies.corruptions.store import read_corrupted
from stages import run


def main(
    settings: dict[str, Any],
    corrupted: Path,
    images_path: Path,
    texts_folder: Path,
    heads: Path,
    ranking_path: Path,
    weights: Path,
    model_path: Path,
    folder: Path,
    page_path: Path,
) -> None:
    asked = params.read(settings, "corruptions", CorruptionParams)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    described = model.ModelDescription.read(model_path)
    model.check_described(images.attributes, described)
    names = [name for name in KNOWN if (corrupted / f"{name}.h5").is_file()]
    about: dict[str, Any] = {"class_names": images.class_names, "dataset": str(images.attributes["dataset"])}
    sets = naming.expand(asked.naming, names, **about)
    chosen = ranking.read(ranking_path)["set"]
    best = naming.searched(chosen, **about) if chosen else None  # None: the active set is kept
    embed = params.read(settings, "embed", EmbedParams)
    embedder = SentenceEmbedder(described, weights, embed, repository=Path())
    embeddings, _ = embedder.embed(naming.origins(sets, best))
    of_active = findings.text_classifier(zero_shot.classifier(texts), images)
    results = findings.measure(
        (read_corrupted(corrupted / f"{name}.h5", images) for name in names),
        images,
        {
            "zero_shot": of_active,
            "rank_prompts": findings.prompt_classifier(best, embeddings, images) if best else of_active,
            **classifiers.heads_in(heads, images),
        },
        {
            name: (len(own.sentences), findings.prompt_classifier(own, embeddings, images))
            for name, own in sets.items()
        },
    )
    findings.write(folder, results, images)
    write_page(page_path, page.render(results, images, active=active))
    robust = results.robustness["zero_shot"]
    means = (f"{kept.mean.value:.4f} over {results.said(key)}" for key, kept in robust.over.items())
    print(f"{results.source}: zero-shot {robust.clean.value:.4f} clean; {'; '.join(means)}")


if __name__ == "__main__":
    run(main)
