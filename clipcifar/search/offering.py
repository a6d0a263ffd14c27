"""The templates to choose among, read from where the stages before left them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import read_json
from clipcifar.prompts import pool
from clipcifar.search import candidates
from clipcifar.search.candidates import Offered
from clipcifar.store.embeddings import ImageEmbeddings, TextEmbeddings, check_same_space, read_texts
from clipcifar.store.prompt_set import PromptSet


def read(
    images: ImageEmbeddings, *, prompts: Path, texts_folder: Path, pool_path: Path
) -> tuple[Offered, Mapping[str, TextEmbeddings]]:
    """Every single template of the embedded sets and of the pool, in the space of these images.

    Args:
        prompts: the folder of expanded sets.
        texts_folder, pool_path: where they, and the pool, are embedded.

    Returns:
        The templates, and the embedded sets by name.

    Raises:
        DataError: a file is missing, damaged, or of another model or other classes.
    """
    texts = {path.stem: read_texts(path) for path in sorted(texts_folder.glob("*.h5"))}
    embedding_of: dict[str, NDArray[np.float32]] = {}
    for embedded in [*texts.values(), read_texts(pool_path)]:
        check_same_space(images, embedded)
        embedding_of.update(zip(embedded.sentences, embedded.embeddings, strict=True))
    names, dataset = images.class_names, str(images.attributes["dataset"])
    sets = [PromptSet.from_json(read_json(prompts / f"{name}.json")) for name in texts]
    sets.append(pool.expand(names, dataset=dataset).only(set(embedding_of)))
    return candidates.offer(sets, embedding_of, num_classes=len(names)), texts
