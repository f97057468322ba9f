"""Hooks of mkdocs: pages from the READMEs and from the commands' own definitions.

A link between files of the repository becomes a link between pages; one to a source file, which is
no page, becomes plain text. What leads nowhere stays as it is, and stops the strict build.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "measurements.md",
    "examples/third_party_plugin/README.md": "topics/example.md",
    **{f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")},
    **{
        path.relative_to(ROOT).as_posix(): f"topics/{path.parent.name}.md"
        for path in (ROOT / "plugins").glob("*/README.md")
    },
}
IMAGES = {
    path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
    for path in (ROOT / "docs" / "images").glob("*")
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the READMEs and a page for each topic's and core command's words."""
    for source, place in PAGES.items():
        if not source.startswith("docs/"):
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, place, content=text))
    for place, text in command_pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to pages."""
    sources = {place: source for source, place in PAGES.items()}
    source = sources.get(page.file.src_uri)
    return markdown if source is None else linked(markdown, source, page.file.src_uri)


def linked(text: str, source: str, place: str) -> str:
    """Rewrite the links of a file of the repository for its page.

    Args:
        source: the file, from the repository's root.
        place: its page, from the root of all pages.
    """

    def replaced(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = PAGES.get(path) or IMAGES.get(path)
        if page is not None:
            relative = posixpath.relpath(page, posixpath.dirname(place) or ".")
            return f"[{label}]({relative}{anchor})"
        return label if (ROOT / path).exists() else match[0]

    return LINK.sub(replaced, text)


# ---- commands -------------------------------------------------------------------------------


def command_pages() -> dict[str, str]:
    """Return a page for each first word behind `dltool`, by its place."""
    # the pages are the same whatever is installed and set beside dltool
    os.environ["TYPER_USE_RICH"] = "0"
    from dltool import plugins
    from dltool.commands import CORE_COMMANDS

    own = [plugin.name for plugin in plugins.discover() if plugin.is_own]
    names = sorted({*own, *CORE_COMMANDS})
    return {f"commands/{name}.md": command_page(name) for name in names}


def command_page(name: str) -> str:
    """Return the page of all commands behind one word."""
    from dltool import tree

    group = tree.root(name)
    lines = [f"# dltool {name}", "", _plain(group.help or ""), ""]
    for words, command in tree.walk(group, (name,)):
        if words != (name,):
            lines += [f"## dltool {' '.join(words)}", "", _plain(command.help or ""), ""]
        lines += [*_usage(words, command), *_options(tree.parameters(command))]
    return "\n".join(lines)


def _usage(words: tuple[str, ...], command: Any) -> list[str]:
    from dltool import tree

    arguments = [each.metavar for each in tree.parameters(command) if not each.flags]
    line = " ".join(["dltool", *words, *arguments, "[OPTIONS]"])
    return ["```text", line, "```", ""]


def _options(parameters: list[Any]) -> list[str]:
    if not parameters:
        return []
    rows = ["| option | meaning | default |", "| --- | --- | --- |"]
    for each in parameters:
        names = ", ".join(f"`{name}`" for name in (*each.flags, *each.off_flags))
        shown = names or f"`{_cell(each.metavar)}`"
        rows.append(f"| {shown} | {_cell(_plain(each.help))} | {_cell(_default(each))} |")
    return [*rows, ""]


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.shown_default:
        return str(parameter.shown_default)
    if parameter.default in (None, "", ()):
        return ""
    value = parameter.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{', '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def _plain(text: str) -> str:
    """Keep what looks like markup as it is written."""
    text = re.sub(r"([<>*_\[\]])", r"\\\1", text.replace("\\", ""))
    return text.replace("\\>", "&gt;").replace("\\<", "&lt;")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
