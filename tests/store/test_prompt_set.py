"""What is said of prompt sets beside their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipcifar.core.errors import DataError
from clipcifar.store import prompt_set


def test_sets_that_were_left_out_are_read_and_none_where_there_is_no_file(tmp_path: Path) -> None:
    assert prompt_set.left_out(tmp_path) == {}
    (tmp_path / prompt_set.LEFT_OUT).write_text('{"wide": 60000}')
    assert prompt_set.left_out(tmp_path) == {"wide": 60_000}


@pytest.mark.parametrize("content", ["[1]", '{"wide": "many"}', '{"wide": null}', '{"wide": true}', "3"])
def test_what_says_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / prompt_set.LEFT_OUT).write_text(content)
    with pytest.raises(DataError) as caught:
        prompt_set.left_out(tmp_path)
    assert caught.value.where == str(tmp_path / prompt_set.LEFT_OUT)
