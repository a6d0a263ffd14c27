"""Whether a model works here, its packages, tokenizer and both towers, before anything costly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch

from clipcifar.backbone.device import is_out_of_memory
from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.files import fault_behind
from clipcifar.store.model import LOCAL_DIR
from clipcifar.weights.config import libraries

_SHORT = "a photo of a cat."  # padded
_LONG = "a photo of a cat and a dog, " * 60  # over every context
_TOLERANCE = 1e-3
_PACKAGES = {"protobuf": "google.protobuf"}  # by what pip calls them, where that is not what Python does
_SENTENCEPIECE = ("sentencepiece", "protobuf")


def require_packages(config: Mapping[str, Any], folder: Path) -> None:
    """Raise EnvironmentFault where a package that a model needs is not installed, naming all of them.

    Args:
        config: of the model.
        folder: with its tokenizer.
    """
    needed = libraries(config)
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        is_sentencepiece = any(folder.glob("*.model")) and not (folder / "tokenizer.json").is_file()
        needed += _SENTENCEPIECE * is_sentencepiece
    if missing := [name for name in needed if not _is_installed(name)]:
        raise EnvironmentFault(
            f"the tokenizer or a tower of this model needs {' and '.join(missing)}, not installed here",
            where="params.yaml: model.name",
            fix=f"pip install {' '.join(missing)}",
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(_PACKAGES.get(package, package)) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def tokenizer_works(config: Mapping[str, Any], folder: Path) -> None:
    """Raise DataError unless the tokenizer of a model, if it brings one, pads a sentence and cuts another.

    Needs no weights, so that nothing large is fetched for a tokenizer that does not work.
    """
    if not config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        return  # open_clip's own
    fix = "see that its files are whole: those of the repository that hf_tokenizer_name names in the config"
    with _told("tokenizer", folder, fix):
        tokenizer = open_clip.get_tokenizer(f"{LOCAL_DIR}{folder}")
        rows = tokenizer([_SHORT, _LONG])
        if tuple(rows.shape) != (2, tokenizer.context_length):
            raise ValueError(f"two sentences make tokens of the shape {tuple(rows.shape)}")
        if torch.equal(rows[0], rows[1]):
            raise ValueError(f"{_SHORT!r} and {_LONG[:40]!r}… are the same tokens")


def towers_work(backbone: Backbone, folder: Path) -> None:
    """Count the tokens of a short sentence and a long one; embed an image and the short one.

    Raises:
        DataError: a tower fails, or gives anything but finite unit vectors; says which.
    """
    with _told("tokenizer", folder, "run `dvc repro -f fetch_model`"):
        short, long = (backbone.count_tokens(sentence) for sentence in (_SHORT, _LONG))
        if not 1 <= short <= backbone.context_length or long <= short:
            raise ValueError(
                f"it counts {short} tokens in {_SHORT!r} and {long} in one of {len(_LONG.split())} words, "
                f"the model reads {backbone.context_length}"
            )
    fix = "see that the weights are whole and were made for this architecture"
    with _told("image tower", folder, fix):
        image = torch.full((1, 3, *backbone.preprocess.size), 128, dtype=torch.uint8)
        _require_unit(backbone.encode_images(image).cpu())
    with _told("text tower", folder, fix):
        _, rows = next(iter(backbone.encode_sentences([_SHORT])))
        _require_unit(torch.from_numpy(rows))


def _require_unit(rows: torch.Tensor) -> None:
    """Raise ValueError unless the one row is a finite unit vector."""
    norms = torch.linalg.vector_norm(rows, dim=1)
    if len(rows) != 1 or not bool((norms - 1).abs().max() < _TOLERANCE):  # also of NaN
        raise ValueError(f"it gives {len(rows)} vectors of the norms {norms.tolist()}, no unit vector")


@contextmanager
def _told(part: str, folder: Path, fix: str) -> Iterator[None]:
    """Let an error say which part of the model does not work."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentFault(
            f"the {part} needs another package: {_first_line(error)}",
            where=str(folder),
            fix="pip install what it names",
        ) from error
    except Exception as error:  # they raise many types
        if isinstance(error, EnvironmentFault):
            raise
        if is_out_of_memory(error):
            fix = "free some memory, or use a smaller model"
            raise EnvironmentFault(f"out of memory in the {part}", where=str(folder), fix=fix) from error
        said = error.what if isinstance(error, ClipcifarError) else _first_line(error)
        raise fault_behind(error, folder) or DataError(
            f"the {part} does not work: {said}", where=str(folder), fix=fix
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
