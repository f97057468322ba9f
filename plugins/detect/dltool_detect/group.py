"""Let `dltool detect photo.jpg` stand for `dltool detect predict photo.jpg`."""

from __future__ import annotations

import difflib
import os
from typing import Any

from typer.core import TyperGroup

from dltool.errors import ConfigError

DEFAULT = "predict"
HELP_FLAGS = ("-h", "--help")


class InputGroup(TyperGroup):
    """Take a first word that is no command as the first input of `predict`.

    A word that looks like a command and is no file is refused with the nearest command, so that a
    slip of the keyboard is not searched for as a picture.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `predict` before inputs and before its options."""
        is_given = args and args[0] not in HELP_FLAGS and args[0] not in self.commands
        if is_given and not ctx.resilient_parsing:
            self._refuse_slip(next((word for word in args if word not in ("--", "--json")), ""))
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _refuse_slip(self, word: str) -> None:
        if not word or word.startswith("-") or looks_like_input(word) or os.path.lexists(word):
            return
        near = difflib.get_close_matches(word, list(self.commands), n=1, cutoff=0.5)
        hint = f"; did you mean dltool detect {near[0]}?" if near else ""
        raise ConfigError(
            "E201",
            f"{word!r} is neither a file nor a command of detect{hint}",
            expected=f"an image, a folder, a pattern, - or one of {', '.join(self.commands)}",
            cure=f"dltool detect {near[0]} --help" if near else "dltool detect --help",
        )


def looks_like_input(word: str) -> bool:
    """Tell whether a word can only mean a file: it has a folder, a suffix or a wildcard."""
    return any(mark in word for mark in "/\\.*?[")
