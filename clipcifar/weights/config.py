"""The config of a model in open_clip's format, written by somebody else: what it must and must not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipcifar.core.errors import DataError
from clipcifar.core.files import canonical_json, copy_file, fault_behind, read_json, write_json
from clipcifar.store.model import CONFIG_FILE

TEXT_CONFIG = "text_config"  # folder beside the config, for a text tower of another library
# What open_clip's own tokenizers take. The rest would reach transformers, `trust_remote_code` among it.
TOKENIZER_OPTIONS = {"clean", "language", "reduction_mask", "strip_sep_token"}


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.

    Raises:
        DataError: it is not one, or it would have a library fetch or run something that we have not seen.
    """
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        text, vision = config["model_cfg"]["text_cfg"], config["model_cfg"]["vision_cfg"]
        options, image_tower = set(text.get("tokenizer_kwargs", {})), vision.get("timm_model_name") or ""
        names = (image_tower, text.get("hf_model_name") or "", text.get("hf_tokenizer_name") or "")
        dict(config.get("preprocess_cfg") or {})
        canonical_json(config)  # refuses NaN
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise fault_behind(error, path) or DataError(
            f"not an open_clip config: {error}", where=str(path)
        ) from error
    if not all(isinstance(name, str) for name in names):
        raise DataError("not an open_clip config: the name of a tower is not text", where=str(path))
    if ":" in image_tower or "/" in image_tower:  # timm would fetch that repository
        raise DataError(
            f"timm_model_name is {image_tower!r}, which is not an architecture of timm but a place",
            where=str(path),
            fix="use another model, or name an architecture in a copy of your own",
        )
    if not options <= TOKENIZER_OPTIONS:
        raise DataError(
            f"tokenizer_kwargs sets {', '.join(sorted(options - TOKENIZER_OPTIONS))}",
            where=str(path),
            fix="use another model, or take that out of a copy of your own, if you trust the rest",
        )
    return config


def libraries(config: Mapping[str, Any]) -> list[str]:
    """The libraries that a model takes a tower or its tokenizer from, besides open_clip."""
    vision, text = config["model_cfg"]["vision_cfg"], config["model_cfg"]["text_cfg"]
    of_text = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    return [
        name for name, used in (("timm", vision.get("timm_model_name")), ("transformers", of_text)) if used
    ]


def copy_without_code(source: Path, target: Path) -> None:
    """Copy a file of another library, leaving out where it would have code of a repository run.

    transformers asks on the terminal whether to run what `auto_map` names; here nobody is to be asked.
    """
    if source.suffix == ".json" and b'"auto_map"' in source.read_bytes():
        content = read_json(source)
        if isinstance(content, dict):
            write_json(target, {key: value for key, value in content.items() if key != "auto_map"})
            return
    copy_file(source, target)


def at_home(folder: Path) -> bool:
    """Whether the config of a folder of ours names the text tower's config that lies beside it, or none."""
    named = _text(read_json(folder / CONFIG_FILE)).get("hf_model_name")
    return not named or Path(named) == folder / TEXT_CONFIG


def rehome(folder: Path, home: Path) -> None:
    """Before `folder` is renamed to `home`: name the text tower's config by the path that it will have."""
    config = read_json(folder / CONFIG_FILE)
    text = _text(config)
    if text.get("hf_model_name"):
        text["hf_model_name"] = str(home / TEXT_CONFIG)
        write_json(folder / CONFIG_FILE, config)


def _text(config: dict[str, Any]) -> dict[str, Any]:
    text: dict[str, Any] = config["model_cfg"]["text_cfg"]
    return text
