"""Words as points in the plane: a picture, and a page of its own that zooms."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from dltool import drawing, files, ranges
from dltool.console import Console
from dltool.errors import ConfigError, DataError
from dltool_word2vec import vectors
from dltool_word2vec.store import Array
from dltool_word2vec.vectors import Vectors

METHODS = ("pca", "tsne")
NEIGHBORS = 8  # drawn around each word that is named
INCHES = 9.0
LETTERS = 28


def principal_plane(rows: Array) -> tuple[Array, float]:
    """Return points (N, 2) in the plane of most variance, and its share of the whole.

    Signs are free; the largest coordinate of each axis is made positive, so that it repeats.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :2] * sizes[:2]
    if points.shape[1] < 2:
        points = np.column_stack([points, np.zeros(len(points))])
    largest = np.abs(points).argmax(axis=0)
    signs = np.sign(points[largest, (0, 1)])
    signs[signs == 0] = 1
    total = float((sizes**2).sum())
    return points * signs, float((sizes[:2] ** 2).sum()) / total if total else 0.0


def tsne_plane(rows: Array, perplexity: float, seed: int) -> tuple[Array, float]:
    """Return points (N, 2) by t-SNE (van der Maaten and Hinton, 2008), and its divergence."""
    from sklearn.manifold import TSNE

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = TSNE(
            n_components=2,
            perplexity=perplexity,
            random_state=seed % 2**32,
            metric="cosine",
            init="random",
            n_jobs=1,
        ).fit(rows)
    return np.asarray(fitted.embedding_, np.float64), float(fitted.kl_divergence_)


def choose(known: Vectors, named: Sequence[str], top: int, skip: int) -> tuple[list[str], set[str]]:
    """Return the words to draw, and those that the user named; each brings its neighbours."""
    if not named:
        chosen = known.words[skip : skip + top] or known.words[:top]
        return list(chosen), set()
    rows = [known.row(word) for word in named]
    words = {known.words[row]: None for row in rows}
    for row in rows:
        for word, _ in known.nearest(known.rows([row])[0], NEIGHBORS, [row]):
            words.setdefault(word)
    return list(words), {known.words[row] for row in rows}


def plot_run(
    folder: Path,
    named: Sequence[str],
    *,
    out: Path | None,
    method: str,
    top: int,
    skip: int,
    perplexity: float,
    seed: int,
    console: Console,
) -> None:
    """Write a PNG, an HTML page, or both, of the words of a model."""
    ranges.one_of("--method", method, METHODS)
    ranges.inside("--perplexity", perplexity, 0.0, 1e6, open_low=True)
    if out is not None and out.suffix.lower() not in (".png", ".html"):
        raise ConfigError(
            "E202",
            "words are drawn to a picture or a page",
            received=str(out),
            expected="a name in .png or .html",
            cure="use --out words.html",
        )
    known = vectors.load(folder)
    words, marked = choose(known, named, top, skip)
    if len(words) < 3:
        raise DataError(
            "E503", f"{len(words)} words make no picture", expected="3 or more", cure="name more"
        )
    rows = np.stack([known.vector(word) for word in words])
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if method == "pca":
        points, share = principal_plane(units)
        quality = {"explained_variance": share}
        said = f"{share:.0%} of the variance is in this plane"
    else:
        perplexity = min(perplexity, (len(words) - 1) / 3)
        points, divergence = tsne_plane(units, perplexity, seed)
        quality = {"kl_divergence": divergence, "perplexity": perplexity}
        said = (
            f"t-SNE, perplexity {perplexity:g}: only neighbourhoods mean something, not distances"
        )
    title = f"word2vec {method}: {len(words):,} words of {folder.name}"
    made = (
        [out] if out is not None else [folder / f"words-{method}{end}" for end in (".png", ".html")]
    )
    for path in made:
        if path.suffix.lower() == ".png":
            draw(path, words, points, marked, title)
        else:
            write_page(path, words, points, marked, title)
    data: dict[str, Any] = {"files": [str(path) for path in made], "words": len(words), **quality}
    console.note(said)
    console.result(data, "\n".join(map(str, made)))


def write_page(
    path: Path, words: Sequence[str], points: Array, marked: set[str], title: str
) -> None:
    """Write one HTML file with everything in it: no script, font or picture from elsewhere."""
    listed = [
        [word, round(float(x), 5), round(float(y), 5), int(word in marked)]
        for word, (x, y) in zip(words, points, strict=True)
    ]
    # `</script>` in a word must not end the script, nor a line separator a line
    text = json.dumps(listed, ensure_ascii=True).replace("<", "\\u003c").replace("&", "\\u0026")
    page = resources.files("dltool_word2vec").joinpath("page.html").read_text(encoding="utf-8")
    # the points last: a word may hold the mark of the title
    filled = page.replace("__TITLE__", html.escape(title)).replace("__POINTS__", text)
    files.write_bytes_atomic(path, filled.encode())


def draw(path: Path, words: Sequence[str], points: Array, marked: set[str], title: str) -> None:
    """Write a picture; a word is left out where it would lie upon another one."""
    from matplotlib.figure import Figure

    drawing.check_name(path)
    with drawing.drawing():
        figure = Figure(figsize=(INCHES, INCHES), dpi=drawing.DPI, layout="constrained")
        axes = figure.add_subplot()
        colors = [drawing.BLUE if word in marked else drawing.GREY for word in words]
        axes.scatter(points[:, 0], points[:, 1], s=9, c=colors, linewidths=0)
        axes.set_title(drawing.heading(title, INCHES))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.07)
        figure.canvas.draw()
        _label(figure, axes, words, points, marked)
        drawing.save(figure, path)


def _label(figure: Any, axes: Any, words: Sequence[str], points: Array, marked: set[str]) -> None:
    pixels = axes.transData.transform(points)
    size = 8 * drawing.DPI / 72  # pixels of an 8 point letter
    taken: list[tuple[float, float, float, float]] = []
    order = sorted(range(len(words)), key=lambda i: (words[i] not in marked, i))
    for i in order:
        text = drawing.shorten(drawing.clean(words[i]), LETTERS)
        x, y = pixels[i]
        box = (x, y - 0.7 * size, x + 0.62 * size * len(text) + 8, y + 0.7 * size)
        is_marked = words[i] in marked
        if not is_marked and any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        axes.annotate(
            text,
            points[i],
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=drawing.BLUE if is_marked else drawing.INK,
            fontweight="bold" if is_marked else "normal",
        )


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
