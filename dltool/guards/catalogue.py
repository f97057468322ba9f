"""What every guard looks for, read from `catalogue.toml`; light enough for `dltool explain`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

STAGES = {
    "model": "on one batch, before the first step",
    "data": "on the data, before the first step",
    "training": "while training",
    "result": "on the finished run",
}


@dataclass(frozen=True)
class Guard:
    """One entry of the catalogue.

    Attributes:
        code: such as `G-P09`.
        stage: a key of `STAGES`.
        severity: the worst it says: `fail` is almost surely a mistake, `warn` deserves a look.
        title: the mistake, in one line.
        limit: from when on it speaks.
        cause: what is usually behind it.
        cure: what to change.
    """

    code: str
    stage: str
    severity: str
    title: str
    limit: str
    cause: str
    cure: str

    def as_dict(self) -> dict[str, str]:
        """Return the entry for `--json`."""
        return {name: str(value) for name, value in vars(self).items()}


@cache
def guards() -> dict[str, Guard]:
    """Return every guard of the core by its code, in the order of the stages."""
    text = resources.files(__package__).joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {code: Guard(code=code, **entry) for code, entry in tomllib.loads(text).items()}
