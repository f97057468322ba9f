"""Judge plugins by what they declare and by what an import in a child process shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dltool import plugins
from dltool.errors import PluginError
from dltool.machine import Finding, Severity, count_of
from dltool.plugins import Plugin, places, settings
from dltool.plugins.probe import TIMEOUT_SECONDS, Report, probe


@dataclass(frozen=True)
class Checked:
    """A plugin, and what its import showed."""

    plugin: Plugin
    report: Report

    @property
    def problem(self) -> str:
        """Why it cannot be used, or an empty string."""
        return self.plugin.problem or self.report.problem

    @property
    def is_sound(self) -> bool:
        """Whether it can be used and its import is light."""
        return not self.problem and not self.report.heavy

    @property
    def remarks(self) -> list[str]:
        """What is odd about it beside the problem, a line each."""
        heavy = [
            f"imports {package} at start-up ({place})"
            for package, place in self.report.heavy.items()
        ]
        return [*heavy, *self.report.faults, *self.plugin.notes, *_verbs(self)]

    def as_dict(self) -> dict[str, Any]:
        """Return the check's result for `--json`."""
        return {
            "name": self.plugin.name,
            "qualified": self.plugin.qualified,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "ok": self.is_sound,
            "problem": self.problem,
            "heavy_imports": dict(self.report.heavy),
            "remarks": self.remarks,
            "import_seconds": self.report.seconds,
            "commands": list(self.report.commands),
        }


def _verbs(checked: Checked) -> list[str]:
    real = {path.split()[1] for path in checked.report.commands if path.count(" ") == 1}
    declared = set(checked.plugin.verbs)
    if checked.problem or not declared or real == declared:
        return []
    return [f"its manifest declares the verbs {sorted(declared)}, its app has {sorted(real)}"]


def check(
    found: Iterable[Plugin], timeout: float = TIMEOUT_SECONDS, *, remember: bool = True
) -> list[Checked]:
    """Import each plugin in a process of its own.

    Args:
        remember: keep what is found, so that help and lists can tell it without an import.
    """

    def one(plugin: Plugin) -> Checked:
        return Checked(plugin, Report() if plugin.problem else probe(plugin, timeout))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(one, found))
    for result in results:
        if remember and not result.plugin.problem:
            plugins.remember(result.plugin, result.report.problem, result.report.missing)
    return results


def finding(checked: Checked) -> Finding:
    """Return one plugin's check as a finding with its cure."""
    plugin = checked.plugin
    source = f"{plugin.distribution} {plugin.version}".strip()
    title = f"plugin {plugin.name}"
    remedy = f"dltool plugin disable {plugin.qualified}, or dltool plugin uninstall"
    if checked.problem:
        fact, effect = f"{source}: {checked.problem}", "its command does not run"
        if checked.report.missing:
            remedy = f"install the package that brings {checked.report.missing}, or {remedy}"
        if plugin.is_own:
            remedy = "install dltool anew"
        cure = remedy if plugin.is_own else f"{remedy} {plugin.distribution}"
        return Finding("plugin-broken", "fail", title, fact, effect, cure)
    if checked.report.heavy:
        fact = f"{source}: {'; '.join(checked.remarks)}"
        cure = "ask its author to import them inside the functions that need them"
        return Finding("plugin-heavy", "fail", title, fact, "its help is slow", cure)
    if checked.remarks:
        fact = f"{source}: {'; '.join(checked.remarks)}"
        return Finding("plugin-odd", "warn", title, fact, "", "tell its author")
    count = count_of(len(checked.report.commands), "command")
    fact = f"{source}, {count}, imported in {1000 * checked.report.seconds:.0f} ms"
    return Finding("plugin", "ok", title, fact)


def examine(
    found: Sequence[Plugin], timeout: float = TIMEOUT_SECONDS, *, remember: bool = True
) -> list[Finding]:
    """Check every plugin and what they are to one another and to the user's choices."""
    enabled = [plugin for plugin in found if not plugin.is_disabled]
    findings = [finding(result) for result in check(enabled, timeout, remember=remember)]
    for plugin in found:
        findings += _names(plugin)
        findings += _shadow(plugin)
        findings += _requirements(plugin)
    return [*findings, *_choices(found)]


def _names(plugin: Plugin) -> list[Finding]:
    title = f"plugin {plugin.name}"
    if plugin.is_disabled:
        cure = f"dltool plugin enable {plugin.qualified}"
        return [Finding("plugin-disabled", "ok", title, "disabled by you", "", cure)]
    if not plugin.why or (plugin.rivals and "your choice" in plugin.why):
        return []
    if plugin.rivals and plugin.name != plugin.entry:
        return []  # told once, at the plugin that has the plain name
    fact = plugin.why
    if plugin.rivals:
        fact += f"; also {', '.join(plugin.rivals)}"
        cure = f"dltool plugin prefer {plugin.qualified}, or another of them"
        return [Finding("plugin-name", "warn", title, fact, "", cure)]
    return [Finding("plugin-name", "warn", title, fact, f"call it as {plugin.name}", "")]


def _shadow(plugin: Plugin) -> list[Finding]:
    if not plugin.is_own:
        return []
    own = places.find_own(plugin.package, plugin.entry)
    try:
        first = places.find_package(plugin.package)
    except PluginError:
        return []
    if own is None or first.origin == own.origin:
        return []
    fact = f"another {plugin.package} is first on the path: {first.origin}"
    cure = "remove that package, or correct PYTHONPATH"
    title = f"plugin {plugin.name}"
    return [Finding("plugin-shadowed", "warn", title, fact, "dltool uses its own", cure)]


def _requirements(plugin: Plugin) -> list[Finding]:
    """Compare what the plugin's package requires of dltool and others with what is installed."""
    if plugin.is_own or plugin.is_disabled:
        return []
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in requires(plugin.distribution) or []]
    except Exception:  # packaging is no dependency of ours, and metadata may be damaged
        return []
    bad = []
    for item in wanted:
        if item.marker and not item.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(item.name)
        except PackageNotFoundError:
            bad.append(f"{item.name} is not installed")
            continue
        if not item.specifier.contains(installed, prereleases=True):
            bad.append(f"{item.name} {installed} is not {item.specifier}")
    if not bad:
        return []
    severity: Severity = "warn"
    title = f"plugin {plugin.name}"
    cure = f"dltool plugin install --upgrade {plugin.distribution}"
    fact = f"its requirements do not hold: {'; '.join(bad)}"
    return [Finding("plugin-requirements", severity, title, fact, "it may fail", cure)]


def _choices(found: Sequence[Plugin]) -> list[Finding]:
    """Look for choices that lead nowhere."""
    choices = settings.read_choices()
    title = "plugin choices"
    if choices.problem:
        cure = "correct or remove the file"
        return [Finding("choices-damaged", "fail", title, choices.problem, "ignored", cure)]
    known = {plugin.qualified for plugin in found}
    findings = [
        Finding(
            "choice-stale",
            "warn",
            title,
            f"{name} is disabled but not installed",
            "",
            f"dltool plugin enable {name}",
        )
        for name in sorted(choices.disabled - known)
    ]
    for name, distribution in sorted(choices.preferred.items()):
        if f"{distribution}:{name}" not in known:
            fact = f"{distribution} is preferred for {name!r} but not installed"
            cure = f"dltool plugin prefer --forget {name}"
            findings.append(Finding("choice-stale", "warn", title, fact, "", cure))
    return findings
