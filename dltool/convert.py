"""Foreign weights to safetensors: find the state dict, strip prefixes, rename, check the fit.

A `.pt`, `.pth`, `.th`, `.ckpt` or `.bin` file is a pickle and could run code; it is loaded with
torch's restricted reader only, which refuses everything but tensors and plain containers.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import checkpoint, files, headers, tensors
from dltool.data.archives import DAMAGE, safe_members
from dltool.errors import CheckpointError, ConfigError, DataError, DltoolError

# where trainers keep the weights inside what they save
KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "ema",
    "ema_state_dict",
    "model_ema",
)
PREFIXES = ("module.", "_orig_mod.", "model.")
MAX_DEPTH = 8
SHOWN = 8


@dataclass
class Mapped:
    """What was found in a file and how its names were changed.

    Attributes:
        tensors: by their new name.
        names: new name -> name in the file.
        key: where the state dict was, such as `state_dict`; empty when it is the file itself.
        other_keys: what else looked like weights.
        stripped: prefixes that were taken off, in order.
        left_out: entries of the state dict that are no tensors.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    key: str = ""
    other_keys: list[str] = field(default_factory=list)
    stripped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Fit:
    """How names and shapes differ from those of a target; all empty when they fit."""

    missing: list[str]
    extra: list[str]
    shapes: list[str]

    @property
    def is_exact(self) -> bool:
        """Whether every tensor has its place and every place its tensor."""
        return not (self.missing or self.extra or self.shapes)

    def text(self) -> str:
        """Name the differences, the first few of each kind."""
        kinds = (
            ("missing", self.missing),
            ("left over", self.extra),
            ("of another shape", self.shapes),
        )
        return "; ".join(
            f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{' ...' * (len(names) > SHOWN)}"
            for kind, names in kinds
            if names
        )


def load_foreign(
    path: Path,
    *,
    key: str | None = None,
    strip_prefix: str | None = None,
    rename: Sequence[tuple[str, str]] = (),
    target: Mapping[str, tuple[int, ...]] | None = None,
) -> Mapped:
    """Read the weights in a foreign file and bring their names into ours.

    Args:
        key: where the state dict is, dots between levels; otherwise the usual places are tried.
        strip_prefix: taken off where a name begins with it; otherwise `PREFIXES` are taken off
            as long as every name begins with one of them.
        rename: pairs (old, new): old is replaced wherever it stands in a name, `^old` only at its
            beginning.
        target: names and shapes that are wanted; stripping stops where the names fit.

    Raises:
        CheckpointError: the file is damaged, needs code to be loaded, or holds no weights.
        ConfigError: a prefix or a name that does not occur, or two tensors with one new name.
    """
    content = read_foreign(path)
    found, others = find_state_dict(content, path, key)
    flat: dict[str, Tensor] = {}
    left_out: list[str] = []
    _flatten(found[1], "", flat, left_out, MAX_DEPTH)
    names = {name: name for name in flat}
    names, stripped = _stripped(names, strip_prefix, target)
    names = _renamed(names, rename)
    return Mapped(
        tensors={new: flat[old] for new, old in names.items()},
        names=names,
        key=found[0],
        other_keys=others,
        stripped=stripped,
        left_out=left_out,
    )


def read_foreign(path: Path) -> Any:
    """Read a safetensors file or a file of `torch.save`, running no code that it brings.

    Raises:
        CheckpointError: it is missing, damaged, needs code, or is something else.
    """
    if not path.is_file():
        raise CheckpointError("E501", f"there is no file {path}", cure="check the path")
    if path.suffix == ".safetensors":
        headers.read(path)
        return tensors.read(path)
    is_zip = _check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # damage makes torch's reader raise nearly anything
        raise _refused(path, error) from error


def _check_zip(path: Path) -> bool:
    """Tell whether it is the zip kind of torch file; refuse one whose members are unsafe."""
    with path.open("rb") as stream:
        # zipfile's own test reads more, and fails on damage
        if stream.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.filename for member in safe_members(archive)]
    except DataError as error:
        raise CheckpointError(error.code, error.message, cure=error.cure) from error
    except (OSError, *DAMAGE) as error:
        raise headers.damaged(path, f"is a damaged zip archive: {error}") from error
    if any(name.endswith("/code/__torch__.py") or "/code/" in name for name in names):
        raise CheckpointError(
            "E502",
            f"{path} is a TorchScript program, not weights",
            cure="save its state_dict() where it was made",
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError("E502", f"{path} is a zip archive, not a file of torch.save")
    return True


def _refused(path: Path, error: Exception) -> CheckpointError:
    text = str(error)
    if unsafe := re.search(r"GLOBAL (\S+)", text):
        return CheckpointError(
            "E502",
            f"{path} needs code to be loaded: {unsafe[1]}",
            cure="save only model.state_dict() where it was made; dltool never runs a file's code",
        )
    if "legacy .tar" in text or "TorchScript" in text:
        return CheckpointError("E502", f"{path} cannot be read safely: {text.splitlines()[0]}")
    return headers.damaged(path, files.describe_damage(path))


def find_state_dict(
    content: Any, path: Path, key: str | None
) -> tuple[tuple[str, Mapping[Any, Any]], list[str]]:
    """Return (key, state dict) and the keys of others, without the optimizer's tensors.

    Raises:
        CheckpointError: there is none, or not at `key`.
    """
    if key is not None:
        value = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not _count(value):
            raise _no_weights(path, content, f"no weights under {key!r}")
        return (key, value), []
    if not isinstance(content, Mapping):
        raise _no_weights(path, content, f"a {type(content).__name__}, no state dict")
    places = [name for name in KEYS if isinstance(content.get(name), Mapping)]
    places = [name for name in places if _count(content[name])]
    if any(isinstance(value, Tensor) for value in content.values()):
        return ("", content), places
    if not places:
        raise _no_weights(path, content, "no weights under any of the usual keys")
    inner, others = find_state_dict(content[places[0]], path, None)
    name = f"{places[0]}.{inner[0]}" if inner[0] else places[0]
    return (name, inner[1]), places[1:] + [f"{places[0]}.{other}" for other in others]


def _count(value: Any, depth: int = MAX_DEPTH) -> int:
    if isinstance(value, Tensor):
        return 1
    if not isinstance(value, Mapping) or depth == 0:
        return 0
    return sum(_count(item, depth - 1) for item in value.values())


def _no_weights(path: Path, content: Any, what: str) -> CheckpointError:
    keys = [str(name) for name in content][:20] if isinstance(content, Mapping) else []
    holds = f"; its keys are {', '.join(keys)}" if keys else ""
    cure = "name the place with --key" if keys else "save model.state_dict() where it was made"
    return CheckpointError("E511", f"{path} holds {what}{holds}", cure=cure)


def _flatten(
    tree: Mapping[Any, Any], path: str, flat: dict[str, Tensor], left_out: list[str], depth: int
) -> None:
    """Collect the tensors of nested dicts under names with dots."""
    for key, value in tree.items():
        name = f"{path}{key}"
        if isinstance(value, Tensor) and not value.is_sparse and not value.is_quantized:
            flat[name] = value.detach()
        elif isinstance(value, Mapping) and depth and _count(value):
            _flatten(value, f"{name}.", flat, left_out, depth - 1)
        else:
            left_out.append(name)


def strip_prefixes(
    names: Sequence[str], target: Mapping[str, Any] | None = None
) -> tuple[list[str], list[str]]:
    """Take off wrappers' prefixes that every name has; return the new names and the prefixes.

    Args:
        target: wanted names; a prefix stays when fewer of them would be met without it.
    """
    current, stripped = list(names), []
    while current:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in current)), None)
        if prefix is None:
            break
        shorter = [name[len(prefix) :] for name in current]
        if target is not None and _met(shorter, target) < _met(current, target):
            break
        current = shorter
        stripped.append(prefix)
    return current, stripped


def _met(names: Sequence[str], target: Mapping[str, Any]) -> int:
    return sum(name in target for name in names)


def _stripped(
    names: dict[str, str], prefix: str | None, target: Mapping[str, Any] | None
) -> tuple[dict[str, str], list[str]]:
    if prefix is None:
        new, stripped = strip_prefixes(list(names), target)
        return _unique(zip(new, names, strict=True)), stripped
    if not any(name.startswith(prefix) for name in names):
        raise ConfigError(
            "E202",
            "no name begins with the prefix that is to be stripped",
            received=prefix,
            expected=f"a beginning of {next(iter(names))!r}",
        )
    return _unique((name.removeprefix(prefix), name) for name in names), [prefix]


def _renamed(names: dict[str, str], rename: Sequence[tuple[str, str]]) -> dict[str, str]:
    for old, new in rename:
        start = old.startswith("^")
        word = old[1:] if start else old
        if not any(name.startswith(word) if start else word in name for name in names):
            raise ConfigError(
                "E202", "no name holds what is to be renamed", received=f"{old}={new}"
            )
        names = _unique(
            (
                (new + name[len(word) :] if name.startswith(word) else name)
                if start
                else name.replace(word, new),
                source,
            )
            for name, source in names.items()
        )
    return names


def _unique(pairs: Any) -> dict[str, str]:
    result: dict[str, str] = {}
    for new, old in pairs:
        if new in result:
            raise ConfigError(
                "E205", f"{result[new]!r} and {old!r} would both become {new!r}", cure="rename less"
            )
        result[new] = old
    return result


def compare(have: Mapping[str, Tensor], want: Mapping[str, tuple[int, ...]]) -> Fit:
    """Say which wanted tensors are missing, left over, or of another shape."""
    return Fit(
        missing=sorted(set(want) - set(have)),
        extra=sorted(set(have) - set(want)),
        shapes=[
            f"{name} {tuple(have[name].shape)} for {shape}"
            for name, shape in want.items()
            if name in have and tuple(have[name].shape) != shape
        ],
    )


def write(mapped: Mapped, source: Path, out: Path) -> dict[str, Any]:
    """Write tensors to a .safetensors file, or to a checkpoint folder with a manifest.

    Raises:
        DltoolError: `out` exists already or cannot be written.
    """
    if out.exists():
        raise DltoolError("E101", f"{out} exists already", cure="name a new file or folder")
    state = {"source": source.name, "source_sha256": files.sha256(source), "key": mapped.key}
    if out.suffix == ".safetensors":
        with files.explained(out):
            files.make_folder(out.parent)
            temporary = files.temporary_name(out)
            try:
                entry = tensors.write(temporary, mapped.tensors)
                temporary.replace(out)
            finally:
                temporary.unlink(missing_ok=True)
            files.sync_folder(out.parent)
        return {**state, **entry}
    checkpoint.save(out, mapped.tensors, {}, state, check_finite=False)
    return state
