"""Tab completion of commands and of topics' verbs from tables alone; Typer completes the rest."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable

VARIABLE = "_DLTOOL_COMPLETE"
OFFERED = re.compile(r"[\w.:-]+")
SHELL_LETTERS = re.compile(r"""[^\w ,.;/+=%@-]""")


def complete() -> bool:
    """Answer a shell's question for the next word where tables suffice; tell whether they did.

    The shells are bash and zsh, in the form of the scripts that `--show-completion` prints. No
    plugin is imported, and nothing but the answer is printed.
    """
    silence()
    shell = os.environ[VARIABLE].removeprefix("complete_")
    words = _words(shell)
    if words is None:
        return False
    *before, incomplete = words
    if len(before) > 1 or any(word.startswith("-") for word in words):
        return False
    offered = _verbs(before[0]) if before else _commands()
    if not offered:
        return False
    found = [
        (name, text)
        for name, text in offered
        if name.startswith(incomplete) and OFFERED.fullmatch(name)
    ]
    print(_bash(found) if shell == "bash" else _zsh(found))
    return True


def silence() -> None:
    """Let nothing reach stderr: the shell would show it in the middle of the user's line."""
    if not os.environ.get("DLTOOL_DEBUG"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def without_rich() -> None:
    """Keep Typer from importing rich for the answer to zsh, which takes longer than the rest."""
    os.environ["TYPER_USE_RICH"] = "0"
    try:
        from typer import _completion_classes

        _completion_classes._sanitize_help_text = lambda text: text
    except (ImportError, AttributeError):
        return  # another version of Typer: it answers, only later


def _words(shell: str) -> list[str] | None:
    """Return the words after `dltool`, the last one unfinished; None when not understood."""
    try:
        if shell == "bash":
            position = int(os.environ["COMP_CWORD"])
            words = shlex.split(os.environ["COMP_WORDS"])
            return [*words[1:position], words[position] if position < len(words) else ""]
        if shell == "zsh":
            line = os.environ["_TYPER_COMPLETE_ARGS"]
            words = shlex.split(line)[1:]
            return words if words and not line.endswith(" ") else [*words, ""]
    except (KeyError, ValueError):
        return None
    return None


def _commands() -> list[tuple[str, str]]:
    from dltool import plugins
    from dltool.commands import CORE_COMMANDS

    topics = [plugin for plugin in plugins.discover() if not plugin.is_disabled]
    core = [(name, text) for name, (_, text) in CORE_COMMANDS.items()]
    return [(topic.name, topic.problem or topic.summary) for topic in topics] + core


def _verbs(name: str) -> list[tuple[str, str]]:
    from dltool import plugins
    from dltool.commands import CORE_COMMANDS

    if name in CORE_COMMANDS:
        return []
    named = [plugin for plugin in plugins.discover() if name in (plugin.name, plugin.qualified)]
    return [(verb, "") for plugin in named[:1] for verb in plugin.verbs]


def _bash(found: Iterable[tuple[str, str]]) -> str:
    return "\n".join(name for name, _ in found)


def _zsh(found: Iterable[tuple[str, str]]) -> str:
    """Return what the zsh script evaluates: letters that mean something to a shell are left out."""
    lines = []
    for name, text in found:
        shown = SHELL_LETTERS.sub(" ", text)[:60].strip()
        escaped = name.replace(":", "\\\\:")
        lines.append(f'"{escaped}":"{shown}"' if shown else f'"{escaped}"')
    return "_arguments '*: :((" + "\n".join(lines) + "))'" if lines else "_files"


def main() -> None:
    """Answer by the tables, else by Typer."""
    if not complete():
        without_rich()
        from dltool.cli import run

        sys.exit(run([]))
