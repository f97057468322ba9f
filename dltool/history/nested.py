"""What differs between two nested values of dicts, lists and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def diff_values(left: Any, right: Any, path: str = "") -> list[dict[str, Any]]:
    """Return one entry for each plain value that differs between nested dicts and lists."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        found = []
        for key in [*left, *(key for key in right if key not in left)]:
            name = f"{path}.{key}" if path else str(key)
            if key not in left or key not in right:
                found.append({"value": name, "a": left.get(key), "b": right.get(key)})
            else:
                found += diff_values(left[key], right[key], name)
        return found
    if isinstance(left, list | tuple) and type(left) is type(right) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [item for i, (a, b) in pairs for item in diff_values(a, b, f"{path}[{i}]")]
    both_nan = left != left and right != right
    if (type(left) is type(right) and left == right) or both_nan:
        return []
    return [{"value": path, "a": left, "b": right}]
