"""What `dvc exp run --set-param` does to params.yaml: for one key it writes the whole file anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

from clipcifar.core import strict_yaml
from clipcifar.core.errors import ConfigError


def spoiled_sections(path: Path) -> list[str]:
    """The sections of params.yaml that would mean something else, or nothing, once DVC has rewritten them.

    DVC drops quotes, which text with a colon needs inside braces, and gives `${` and `???` a meaning.

    Raises:
        ConfigError: the file is not valid as it is.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides
    from dvc.utils.serialize import dumps_yaml, load_yaml, parse_yaml_for_update
    from omegaconf.errors import OmegaConfBaseException

    settings = strict_yaml.load_mapping(path)
    spoiled = []
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder, "params.yaml")
        try:
            document = parse_yaml_for_update(path.read_text(encoding="utf-8"), str(path))
        except DvcException as error:
            raise ConfigError(
                f"DVC cannot read {path.name}: {error.__cause__ or error}",
                where=str(path),
                fix="write mappings one key a line, without braces",
            ) from error
        for section, values in document.items():
            try:
                rewritten.write_text(dumps_yaml({section: values}), encoding="utf-8")
                apply_overrides(str(rewritten), [])
                ours, theirs = strict_yaml.load_mapping(rewritten), load_yaml(str(rewritten))
            except (ConfigError, DvcException, OmegaConfBaseException):
                spoiled.append(section)
            else:
                if not ours == theirs == {section: settings[section]}:
                    spoiled.append(section)
    return spoiled
