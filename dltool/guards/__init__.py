"""Checks that find silent mistakes before they cost a run; see docs/guards.md.

from dltool import guards

report = guards.check(model, (inputs, labels), loss=loss, optimizer=optimizer)
print(report.text())
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# torch is loaded with the first name that needs it
PLACES = {
    "CheckFailed": "dltool.errors",
    "ConfigError": "dltool.errors",
    "Watch": "dltool.guards.monitors",
    "check": "dltool.guards.preflight",
    "check_data": "dltool.guards.data",
    "Facts": "dltool.guards.facts",
    "Finding": "dltool.guards.findings",
    "Report": "dltool.guards.report",
}


def __getattr__(name: str) -> Any:
    if name in PLACES:
        return getattr(import_module(PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
