"""Where a run happens: versions, machine, variables that change results."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dltool import __version__

RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "safetensors", "pillow", "scikit-learn")
RECORDED_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Describe where a run happens: versions, machine, variables that change results."""
    return {
        "dltool": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "variables": {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ},
        "working_folder": str(Path.cwd()),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what differs between two environments, without the working folder."""
    found = []
    for name in sorted({*before, *after} - {"working_folder"}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [
                {"name": key, "before": old.get(key), "now": new.get(key)}
                for key in sorted({*old, *new})
                if old.get(key) != new.get(key)
            ]
        elif old != new:
            found.append({"name": name, "before": old, "now": new})
    return found
