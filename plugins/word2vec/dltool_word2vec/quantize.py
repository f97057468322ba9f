"""Smaller vectors: a byte or two for a number, fewer words; and what that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dltool import ranges
from dltool.console import Console
from dltool.errors import ConfigError
from dltool_word2vec import evaluate, store, vectors
from dltool_word2vec.cli_files import QUANTIZED
from dltool_word2vec.corpus import shipped
from dltool_word2vec.store import Array
from dltool_word2vec.vectors import Vectors

ASKED, NEAR = 500, 10
MOST = 127


def to_int8(matrix: Array) -> tuple[Array, Array]:
    """Return codes (V, D) int8 and a scale a row (V,): value = code * scale, symmetric.

    A row's largest number gets the code 127; the error of a number is at most half a scale.
    """
    scales = np.abs(matrix).max(axis=1) / np.float32(MOST)
    safe = np.where(scales == 0, 1, scales).astype(np.float32)
    codes = np.rint(matrix / safe[:, None]).clip(-MOST, MOST).astype(np.int8)
    return codes, scales.astype(np.float32)


def _arrays(known: Vectors, count: int, method: str) -> dict[str, Array]:
    if method == "fp16":
        halves = np.empty((count, known.dim), np.float16)
        for place in store.blocks(count):
            halves[place] = known.rows(place)
        return {"vectors": halves, "norms": vectors.lengths(halves)}
    codes = np.empty((count, known.dim), np.int8)
    scales, norms = np.empty(count, np.float32), np.empty(count, np.float32)
    for place in store.blocks(count):
        codes[place], scales[place] = to_int8(known.rows(place))
        unpacked = codes[place].astype(np.float32) * scales[place, None]
        norms[place] = np.linalg.norm(unpacked, axis=1)
    return {"codes": codes, "scales": scales, "norms": norms}


def quantize_run(folder: Path, out: Path, *, method: str, top: int, console: Console) -> None:
    """Write a smaller model folder and print size, kept neighbours and scores beside the old ones.

    Raises:
        ConfigError: the method is unknown, the vectors are small already, the folder is taken.
    """
    ranges.one_of("--method", method, QUANTIZED)
    refuse_taken(out)
    known = vectors.load(folder, verify=True)
    if "codes" in known.arrays or known.arrays["vectors"].dtype != np.float32:
        raise ConfigError(
            "E205", "these vectors are quantized already", cure="name those they were made from"
        )
    count = min(top or len(known.words), len(known.words))
    arrays = _arrays(known, count, method)
    if "common" in known.arrays:
        arrays["common"] = known.arrays["common"]
    about = {**known.about, "quantized": method, "quantized_from": str(known.folder)}
    vectors.save(out, known.words[:count], known.counts[:count], arrays, about, known.phrases())
    small = vectors.load(out)
    data = _comparison(known, small)
    lines = [
        f"{data['bytes_before'] / 1e6:,.2f} MB -> {data['bytes'] / 1e6:,.2f} MB "
        f"({data['bytes_before'] / data['bytes']:.1f} times smaller), {count:,} words",
        f"{data['kept_neighbors']:.1%} of the {NEAR} nearest words stay, over {data['n']:,} words",
    ]
    before, after = data["wordsim353_before"], data["wordsim353"]
    if before["spearman"] is not None and after["spearman"] is not None:
        lines.append(
            f"WordSim-353 {before['spearman']:.4f} (n {before['n']}) -> "
            f"{after['spearman']:.4f} (n {after['n']})"
        )
    console.result({"out": str(out), **data}, "\n".join([*lines, f"model {out}"]))
    console.hint(f"dltool word2vec similar {out} {known.words[min(50, count - 1)]}")


def refuse_taken(out: Path) -> None:
    """Refuse to write a model over what is there.

    Raises:
        ConfigError: E204.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("E204", f"{out} exists already", cure="choose another name")


def _comparison(known: Vectors, small: Vectors) -> dict[str, Any]:
    """Compare what a user asks for: the neighbours of words all over the vocabulary."""
    count = len(small.words)
    asked = np.unique(np.linspace(0, count - 1, min(ASKED, count)).astype(int))
    kept = total = 0
    for row in asked:
        before = known.nearest(known.rows([row])[0], NEAR, [int(row)], count)
        after = small.nearest(small.rows([row])[0], NEAR, [int(row)])
        kept += len({word for word, _ in before} & {word for word, _ in after})
        total += len(before)
    pairs = evaluate.read_pairs(shipped(evaluate.PAIRS["wordsim353"]))
    same = Vectors(known.folder, small.words, small.counts, known.arrays, known.about)
    scores = [evaluate.correlate(each, "wordsim353", pairs).as_dict() for each in (same, small)]
    sizes = [sum(path.stat().st_size for path in each.folder.iterdir()) for each in (known, small)]
    return {
        "words": count,
        "bytes_before": sizes[0],
        "bytes": sizes[1],
        "kept_neighbors": kept / max(total, 1),
        "n": len(asked),
        "wordsim353_before": scores[0],
        "wordsim353": scores[1],
    }
