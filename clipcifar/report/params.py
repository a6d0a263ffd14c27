"""The `report` section of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportParams:
    """How the main page is headed; without a title, by the dataset and the model."""

    title: str | None = None
