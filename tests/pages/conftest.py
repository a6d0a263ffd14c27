from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import browser as browsing


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One for all pages."""
    with browsing.launched() as opened:
        yield opened
