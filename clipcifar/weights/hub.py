"""Files of a model repository on the hub, safetensors first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from clipcifar.core import first_use
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.core.links import is_filed
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE
from clipcifar.weights.config import TEXT_CONFIG, copy_without_code

T = TypeVar("T")
PICKLED_FILE = "open_clip_pytorch_model.bin"
# Of the model that a tokenizer is from, since some say only there which it is; and of older ones.
MORE_TOKENIZER_FILES = ("config.json", "added_tokens.json")
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model")
TRIES = 3
TIMEOUT_S = 10.0  # to connect, and for the answer to begin
_TEXT_CONFIG_FILE = "config.json"
_FINAL = (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError, OfflineModeIsEnabled)


def candidates(filename: str, allow_pickle: bool) -> list[str]:
    """File names to try in a hub repository, safetensors first and pickles only if allowed."""
    filename = filename or PICKLED_FILE
    safe = WEIGHTS_FILE if filename == PICKLED_FILE else str(Path(filename).with_suffix(".safetensors"))
    return [safe, filename] if allow_pickle else [safe]


def fetch(
    repository: str,
    filenames: list[str],
    revision: str | None,
    *,
    check: Callable[[str, Path], None] = first_use.check,
) -> Path:
    """Download the first of `filenames` that the repository has, or find it in the hub's own cache.

    Args:
        repository: on the hub.
        filenames: by preference.
        revision: a commit; None for the newest.
        check: raises an error on a file that is not the expected one, given what it was asked for as.

    Raises:
        ConfigError: it has none of them.
        DataError: it has another file under that name than expected.
        EnvironmentFault: the hub cannot be reached; the message says how to do without.
    """
    for filename in filenames:
        try:
            _require_answer(repository, filename, revision)
            path = Path(huggingface_hub.hf_hub_download(repository, filename, revision=revision))
        except LocalEntryNotFoundError as error:
            raise _unreachable(repository, filename, error) from error
        except EntryNotFoundError:
            continue
        except Exception as error:  # the hub's client raises the types of whichever HTTP library it uses
            raise _unreachable(repository, filename, error) from error
        check(f"{repository}/{filename}", path)
        return path
    raise ConfigError(
        f"the repository {repository} has none of {', '.join(filenames)}",
        where="params.yaml: model",
        fix=_what_else(filenames),
    )


def _what_else(filenames: list[str]) -> str:
    """What to do about a repository that has none of these files."""
    if filenames == [CONFIG_FILE]:
        return (
            "it is not in open_clip's format: choose a tag of open_clip, or give its architecture as "
            "model.name and its weights file as model.path"
        )
    if all(name.endswith(".safetensors") for name in filenames):
        return "choose another model; set model.allow_pickle: true if you trust pickled weights from there"
    return "choose another model, or download its weights file and set model.path to it"


def _require_answer(repository: str, filename: str, revision: str | None) -> None:
    """Ask the hub for a file that is not in its cache yet, before it is downloaded.

    On a network that drops packets, hf_hub_download alone would try for more than six minutes.
    """
    if not isinstance(huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision), str):
        url = huggingface_hub.hf_hub_url(repository, filename, revision=revision)
        _ask(partial(huggingface_hub.get_hf_file_metadata, url, timeout=TIMEOUT_S))


def _ask(question: Callable[[], T]) -> T:
    """Ask the hub until it answers, `TRIES` times at most."""
    for pause in range(1, TRIES):
        try:
            return question()
        except _FINAL:
            raise
        except Exception:  # as in fetch
            time.sleep(pause)
    return question()


def revision_of(path: Path) -> str:
    """The commit that the hub's cache filed a download under (…/snapshots/<commit>/<file>)."""
    return path.parent.name if path.parent.parent.name == "snapshots" else ""


def fetch_tokenizer(architecture: Mapping[str, Any], folder: Path) -> None:
    """Models with a tokenizer of their own name a hub repository; the default one ships with open_clip.

    Raises:
        DataError: the repository has other tokenizer files than at their first use.
        EnvironmentFault: the hub cannot be reached.
    """
    repository = architecture["text_cfg"].get("hf_tokenizer_name")
    if not repository:
        return
    try:
        # Asked file by file: unanswered, snapshot_download would take what it has to be complete.
        info = _ask(partial(huggingface_hub.model_info, repository, timeout=TIMEOUT_S))
    except Exception as error:  # as in fetch
        raise _unreachable(repository, "the tokenizer", error) from error
    names = sorted(item.rfilename for item in info.siblings or [])
    wanted = [name for name in names if _is_tokenizers(name)]
    paths = {name: fetch(repository, [name], info.sha) for name in wanted if "/" not in name}
    first_use.check_names(f"{repository}: which tokenizer files", list(paths))
    for name in MORE_TOKENIZER_FILES:  # each with its own record: older ones of those names hold without them
        if name in names:
            paths[name] = fetch(repository, [name], info.sha)
    for name, path in paths.items():
        copy_without_code(path, folder / name)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a tokenizer in a folder that somebody else may have made; they are taken as they are.

    Links are followed, as DVC's and the hub's own are, to files that are named after their digest. A link to
    any other file would carry that one, whatever it holds, to wherever the weights are pushed.

    Raises:
        DataError: a link leads nowhere, or to a file that is of no tokenizer.
    """
    named = sorted(
        path for path in folder.iterdir() if _is_tokenizers(path.name) or path.name in MORE_TOKENIZER_FILES
    )
    paths = [path for path in named if path.is_symlink() or path.is_file()]
    for path in paths:
        target = path.resolve()
        is_known = _is_tokenizers(target.name) or is_filed(target)
        if path.is_symlink() and not (target.is_file() and is_known):
            raise DataError(
                f"{path.name} is a link to {target}, which is no file of a tokenizer",
                where=str(path),
                fix="put the file itself there, or remove the link; where DVC made it, run `dvc checkout`",
            )
    return paths


def _is_tokenizers(name: str) -> bool:
    return not name.endswith(".py") and any(PurePosixPath(name).match(kind) for kind in TOKENIZER_FILES)


def with_text_config(architecture: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Place the config of a text tower of another library in `folder`, and name it instead of its repository.

    So whoever loads the folder later asks no hub for it. The name is a path from the current directory,
    as open_clip reads it; when the folder is renamed, `config.rehome` corrects it.

    Returns:
        The architecture as it is to be written.

    Raises:
        DataError: the repository has another config than at its first use.
        EnvironmentFault: the hub cannot be reached.
    """
    name = architecture["text_cfg"].get("hf_model_name")
    if not name:
        return dict(architecture)
    own = Path(name, _TEXT_CONFIG_FILE)
    copy_without_code(
        own if own.is_file() else fetch(name, [_TEXT_CONFIG_FILE], None),
        folder / TEXT_CONFIG / _TEXT_CONFIG_FILE,
    )
    text = {**architecture["text_cfg"], "hf_model_name": str(folder / TEXT_CONFIG)}
    return {**architecture, "text_cfg": text}


def _unreachable(repository: str, filename: str, error: Exception) -> EnvironmentFault:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return EnvironmentFault(
        f"could not download {filename} of {repository}: {reason}",
        where=f"{huggingface_hub.constants.ENDPOINT}/{repository}",
        fix="without a network, get the weights file elsewhere and set model.path to it, or for a repository "
        "put its config and weights into a folder and use local-dir:<folder>; `make demo` downloads nothing",
    )
