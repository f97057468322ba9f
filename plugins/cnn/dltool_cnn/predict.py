"""Use a trained classifier on image files; its own preprocessing and class names apply."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dltool import checkpoint, plots, runs, trained
from dltool import device as devices
from dltool.console import Console
from dltool.data import images as image_files
from dltool.errors import DataError
from dltool_cnn import gradcam, lora
from dltool_cnn.data import Form
from dltool_cnn.model import Classifier, Spec, build, count_parameters
from dltool_cnn.tta import mirrored_too

Item = TypeVar("Item")

GRID_LIMIT = 100
MOST_EXPLAINED = 48
DESCRIPTION = checkpoint.DESCRIPTION


@dataclass(frozen=True)
class LoadedModel:
    """A classifier with what it needs to be used right."""

    model: Classifier
    classes: tuple[str, ...]
    form: Form
    description: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """One decoded image to be named: (H, W, C) bytes."""

    name: str
    pixels: np.ndarray[Any, np.dtype[np.uint8]]


def describe_model(
    spec: Spec,
    classes: Sequence[str],
    form: Form,
    mean: Sequence[float],
    std: Sequence[float],
    low_rank: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what `model.json` tells: how to build the network and how to feed it.

    Args:
        low_rank: rank, alpha and targets of changes that are still beside the weights.
    """
    description: dict[str, Any] = {
        "topic": "cnn",
        "architecture": spec.as_dict(),
        "classes": list(classes),
        "preprocessing": {
            "mode": form.mode,
            "height": form.height,
            "width": form.width,
            "resize": "shorter side, bilinear with antialias, centre crop",
            "mean": list(mean),
            "std": list(std),
            "enlarged_to": spec.side,
            "inside_model": "values 0 to 255 go in; scaling and normalisation are in the model",
        },
    }
    if low_rank:
        description["low_rank"] = dict(low_rank)
    return description


def load_classifier(folder: Path, device: torch.device) -> LoadedModel:
    """Load a model folder, or a run folder's model; an unfinished run gives its best so far.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another topic's.
    """
    tensors, description = trained.load(folder, "cnn")
    with trained.described(folder, "classifier"):
        spec = Spec.from_dict(description["architecture"])
        prepared = description["preprocessing"]
        model = build(spec, prepared["mean"], prepared["std"])
        form = Form(prepared["mode"], prepared["height"], prepared["width"])
        classes = tuple(description["classes"])
        low_rank = description.get("low_rank")
        if low_rank:
            targets = tuple(low_rank["targets"])
            lora.add(model.network, targets, low_rank["rank"], low_rank["alpha"])
    checkpoint.load_weights(model, tensors, folder)
    if low_rank:
        lora.merge(model.network)
    return LoadedModel(model.to(device).eval(), classes, form, description)


@torch.no_grad()
def probabilities(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Return class probabilities (N, num_classes) for uint8 images (N, C, H, W)."""
    chances: Tensor = model(images.to(device)).softmax(1).cpu()
    return chances


def predict_files(
    folder: Path,
    inputs: Sequence[str],
    *,
    top: int,
    grid: Path | None,
    explain: Path | None,
    batch_size: int,
    tta: str,
    device: str,
    console: Console,
) -> None:
    """Name what is on image files and print one line for each.

    Args:
        explain: picture to write of where the network looked, for the first images.

    Raises:
        DataError: no image could be read.
        ConfigError: E205, the network is none that `explain` can show.
    """
    choice = devices.choose(device)
    loaded = load_classifier(folder, choice.device)
    model = mirrored_too(loaded.model, tta)
    layer = _explained_layer(loaded, choice.device) if explain is not None else ""
    top = min(top, len(loaded.classes))
    rows: list[dict[str, Any]] = []
    shown: list[Picture] = []
    for pictures in _chunks(_read(inputs, loaded.form, console), batch_size):
        stacked = np.stack([picture.pixels for picture in pictures])  # (N, H, W, C)
        images = torch.from_numpy(stacked).permute(0, 3, 1, 2)
        chances = probabilities(model, images, choice.device)
        rows += [_row(p.name, c, loaded, top) for p, c in zip(pictures, chances, strict=True)]
        shown += pictures[: max(0, GRID_LIMIT - len(shown))]
    if not rows:
        raise DataError("E502", "no image could be read", cure="give image files or folders")
    result: dict[str, Any] = {"run": str(folder), "predictions": rows}
    if grid is not None:
        _write_grid(shown, rows, grid, console)
        result["grid"] = str(grid)
    if explain is not None:
        _write_explained(loaded, layer, shown, rows, explain, choice.device)
        console.note(f"where the network looked: {explain}")
        result["explained"] = {"file": str(explain), "layer": layer}
    console.result(result, "\n".join(_line(row) for row in rows))


def _row(name: str, chances: Tensor, loaded: LoadedModel, top: int) -> dict[str, Any]:
    values, order = chances.topk(top)
    best = [
        {"label": loaded.classes[index], "probability": round(value, 6)}
        for value, index in zip(values.tolist(), order.tolist(), strict=True)
    ]
    parent = Path(name).parent.name
    true = parent if parent in loaded.classes else None
    return {"file": name, **best[0], "top": best, "true": true}


def _line(row: dict[str, Any]) -> str:
    names = "  ".join(f"{item['label']} {item['probability']:.4f}" for item in row["top"])
    return f"{row['file']}: {names}"


def _write_grid(
    shown: list[Picture], rows: list[dict[str, Any]], path: Path, console: Console
) -> None:
    titles, wrong = [], []
    for row in rows[: len(shown)]:
        true = row["true"]
        titles.append(row["label"] if true in (None, row["label"]) else f"{row['label']} ({true})")
        wrong.append(true is not None and true != row["label"])
    plots.image_grid([picture.pixels for picture in shown], titles, path, wrong=wrong)
    if len(rows) > len(shown):
        console.note(f"the grid shows the first {len(shown)} of {len(rows)} images")


def _explained_layer(loaded: LoadedModel, device: torch.device) -> str:
    form = loaded.form
    blank = torch.zeros(1, form.channels, form.height, form.width, dtype=torch.uint8, device=device)
    return gradcam.target_layer(loaded.model, blank)


def _write_explained(
    loaded: LoadedModel,
    layer: str,
    shown: Sequence[Picture],
    rows: Sequence[dict[str, Any]],
    path: Path,
    device: torch.device,
) -> None:
    """Draw the first images with what spoke for the answer that was given."""
    some = shown[:MOST_EXPLAINED]
    images = torch.from_numpy(np.stack([picture.pixels for picture in some])).permute(0, 3, 1, 2)
    chosen = torch.tensor([loaded.classes.index(row["label"]) for row in rows[: len(some)]])
    titles = [f"{row['label']} {row['probability']:.3f}" for row in rows[: len(some)]]
    heats = [
        gradcam.maps(loaded.model, part.to(device), labels, layer).cpu()
        for part, labels in zip(images.split(16), chosen.split(16), strict=True)
    ]
    gradcam.draw_explained([picture.pixels for picture in some], torch.cat(heats), titles, path)


def _read(inputs: Sequence[str], form: Form, console: Console) -> Iterator[Picture]:
    """Decode every input in order; a broken one is reported and left out."""

    def decode(source: tuple[str, bytes | None]) -> Picture | DataError:
        name, data = source
        try:
            content = Path(name).read_bytes() if data is None else data
            size = (form.height, form.width)
            return Picture(name, image_files.decode(content, name, form.mode, size))
        except OSError as error:
            return DataError("E501", f"cannot read {name}: {error.strerror}")
        except DataError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        for group in _chunks(_sources(inputs), 256):
            for picture in pool.map(decode, group):
                if isinstance(picture, DataError):
                    console.warn(picture.one_line())
                else:
                    yield picture


def _sources(inputs: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield (name, content) of every input; folders give their images, `-` gives stdin."""
    for text in inputs:
        path = Path(text)
        if text == "-":
            yield from _from_stdin()
        elif path.is_dir():
            found = [item for item in sorted(path.rglob("*")) if image_files.is_image(item.name)]
            if not found:
                raise DataError("E503", f"there is no image in {path}", cure="check the path")
            yield from ((str(item), None) for item in found)
        elif path.exists():
            yield str(path), None
        else:
            raise DataError("E501", f"there is no file {text!r}", cure="check the path")


def _from_stdin() -> Iterator[tuple[str, bytes | None]]:
    """Take stdin as one image, or as a list of image paths, one a line."""
    content = sys.stdin.buffer.read()
    try:
        lines = [line.strip() for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError:
        lines = []
    if lines and all(Path(line).exists() for line in lines):
        yield from ((line, None) for line in lines)
    elif content:
        yield "-", content
    else:
        raise DataError("E502", "stdin is empty", expected="an image or a list of image paths")


def _chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def describe(folder: Path, console: Console) -> None:
    """Print what a run or model folder is."""
    loaded = load_classifier(folder, torch.device("cpu"))
    facts = runs.read_json(folder) if (folder / "run.json").exists() else {}
    parameters = count_parameters(loaded.model)
    data = {
        "folder": str(folder),
        "parameters": parameters,
        **{key: loaded.description.get(key) for key in ("architecture", "classes")},
        "preprocessing": loaded.description["preprocessing"],
        "results": loaded.description.get("results"),
        "run": facts or None,
    }
    architecture = loaded.description["architecture"]
    form = loaded.form
    lines = [
        f"model          {architecture['name']}, {parameters:,} parameters",
        f"images         {form.mode} {form.height}x{form.width}; others are brought to it",
        f"classes        {len(loaded.classes)}: {', '.join(loaded.classes[:20])}",
    ]
    if facts:
        lines.append(
            f"run            {facts['status']}, {facts['created']}, grade {facts['grade']}"
        )
    results = loaded.description.get("results")
    if results:
        lines.append(f"test accuracy  {results['test_accuracy']['text']}")
    console.result(data, "\n".join(lines))
