"""Tokens of large sets: made once, then mapped from the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dltool import files
from dltool.console import Console
from dltool.data.download import cache_folder
from dltool_bert_finetune.tokens import Numbers, Tokeniser, Tokens

FROM = 4 << 20  # characters; less is tokenised in a moment
FORMAT = 2

Made = TypeVar("Made")


def tokens(tokeniser: Tokeniser, texts: list[str], seconds: list[str], console: Console) -> Tokens:
    """Return the tokens of texts or of pairs of texts."""
    size = sum(map(len, texts)) + sum(map(len, seconds))
    parts = [*texts, "", *seconds]
    return through(
        Tokens, lambda: tokeniser.encode(texts, seconds), tokeniser, "", parts, size, console
    )


def through(
    kind: type[Made],
    make: Callable[[], Made],
    tokeniser: Tokeniser,
    settings: str,
    parts: Iterable[str],
    size: int,
    console: Console,
) -> Made:
    """Return what `make` gives, from the cache where it is large and was made before.

    The cache's name is a hash of all that it depends on.

    Args:
        kind: a dataclass of arrays, whole numbers and further such dataclasses.
        settings: what beside tokeniser and texts shapes the result.
        parts: the texts, and what divides them.
        size: their characters.
    """
    if size < FROM:
        return make()
    folder = cache_folder("bert-finetune-tokens") / _key(kind, tokeniser, settings, parts)
    found = _mapped(kind, folder)
    if found is None:
        console.note(f"tokenising {size:,} characters, once; the tokens are kept in {folder}")
        made = make()
        with files.folder_written_atomically(folder) as temporary:
            arrays = dict(_arrays(made))
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array)
            files.write_json_atomic(temporary / "facts.json", {"arrays": sorted(arrays)})
        found = _mapped(kind, folder) or made
    return found


def _key(kind: type[Any], tokeniser: Tokeniser, settings: str, parts: Iterable[str]) -> str:
    digest = hashlib.sha256(tokeniser.files()["tokenizer.json"])
    shape = f"{FORMAT} {kind.__name__} {tokeniser.max_length} {tokeniser.segments} {settings}"
    digest.update(shape.encode())
    for text in parts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:32]


def _arrays(value: Any, prefix: str = "") -> Iterator[tuple[str, Numbers]]:
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            yield from _arrays(part, f"{prefix}{field.name}-")
        else:
            yield prefix + field.name, np.asarray(part)


def _mapped(kind: type[Made], folder: Path) -> Made | None:
    """Return what is in the cache, or nothing where it is not whole."""
    try:
        names = json.loads((folder / "facts.json").read_text(encoding="utf-8"))["arrays"]
        arrays = {name: _loaded(folder / f"{name}.npy") for name in names}
        built: Made = _built(kind, arrays)
        return built
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _loaded(path: Path) -> Numbers:
    is_empty = path.stat().st_size <= 136  # a header alone, or one number: nothing to map
    return np.load(path, mmap_mode=None if is_empty else "r")  # type: ignore[no-any-return]


def _built(kind: Any, arrays: dict[str, Numbers], prefix: str = "") -> Any:
    values = {}
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            values[name] = _built(hint, arrays, f"{prefix}{name}-")
        else:
            array = arrays[prefix + name]
            values[name] = int(array) if hint is int else array
    return kind(**values)
