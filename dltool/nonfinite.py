"""What is done about a loss, a gradient or a weight that is not finite.

    stop      exit 7; the last good checkpoint stays
    skip      leave the step out: no weight, buffer or average is touched; stop after 10 in a row
    rollback  go back to the last checkpoint with half the learning rate, at most 3 times in a run

Whatever is chosen, nothing that is not finite is ever saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dltool.errors import ConfigError, Diverged

KINDS = ("stop", "skip", "rollback")
MOST_SKIPPED = 10
MOST_ROLLBACKS = 3


def check_kind(kind: str) -> None:
    """Refuse an unknown policy.

    Raises:
        ConfigError: E206.
    """
    if kind not in KINDS:
        raise ConfigError(
            "E206",
            f"--on-nan {kind!r} is not known",
            expected=f"one of {', '.join(KINDS)}",
            cure="use --on-nan stop",
        )


class Policy:
    """Count what was skipped and rolled back.

    Attributes:
        skipped, in_row: steps left out in all, and since the last good one.
        group_is_bad: a batch of the current step was not finite; the step will be left out.
        rollbacks: one record each: the step where it happened, the one it went back to.
    """

    def __init__(self, kind: str, rollbacks: Sequence[Mapping[str, int]] = ()) -> None:
        check_kind(kind)
        self.kind = kind
        self.skipped = self.in_row = 0
        self.group_is_bad = False
        self.rollbacks = [dict(record) for record in rollbacks]

    def rate_scale(self, step: int) -> float:
        """Return what the learning rate is multiplied by after `step`: 1/2 for each rollback."""
        return float(0.5 ** sum(record["to"] <= step for record in self.rollbacks))

    def skip(self, step: int) -> None:
        """Count a step that is left out.

        Raises:
            Diverged: E701, it was one too many in a row.
        """
        self.group_is_bad = False
        self.skipped += 1
        self.in_row += 1
        if self.in_row >= MOST_SKIPPED:
            raise Diverged(
                "E701",
                f"{self.in_row} steps in a row were not finite, the last at step {step}",
                cure="lower --lr, or look at the data for NaN",
            )

    def refuse_more_rollbacks(self, error: Diverged) -> None:
        """Stop when the run has gone back often enough.

        Raises:
            Diverged: with the words of `error`.
        """
        if len(self.rollbacks) >= MOST_ROLLBACKS:
            raise Diverged(
                error.code, f"{error.message}, after {MOST_ROLLBACKS} rollbacks", cure=error.cure
            )

    def state(self) -> dict[str, int]:
        """Return what a checkpoint keeps; rollbacks are in `run.json`."""
        return {"skipped": self.skipped, "in_row": self.in_row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.skipped, self.in_row = state["skipped"], state["in_row"]
        self.group_is_bad = False
