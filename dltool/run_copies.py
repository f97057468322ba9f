"""A run as the ranks beside the first see it: they read it, and what they write goes away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dltool.runs import Run


@dataclass
class RunCopy(Run):
    """A run that another process writes.

    Attributes:
        folder: a scratch folder, so that a topic need not know which rank it runs in.
        original: the run folder itself.
        known: what `run.json` said when the run was opened.
    """

    original: Path = Path()
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        """Never: the first rank writes."""
        return False

    @property
    def home(self) -> Path:
        """The folder that the first rank writes."""
        return self.original

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` said when the run was opened."""
        return dict(self.known)

    def settle_changes(self, step: int) -> None:
        """Leave it to the first rank."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Leave it to the first rank."""

    def truncate_log(self, step: int) -> None:
        """Leave it to the first rank."""

    def update(self, **values: Any) -> None:
        """Leave it to the first rank."""
