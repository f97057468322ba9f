"""Read detections that a program wrote in COCO's results form."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dltool.console import Console
from dltool.errors import DataError
from dltool.files import read_limited
from dltool_detect.data import DetectionSet
from dltool_detect.detections import Detections, nothing
from dltool_detect.formats import parse_json


def read_results(path: Path, truth: DetectionSet, data: Path, console: Console) -> list[Detections]:
    """Return the detections of each picture of `truth`.

    A bare list of COCO results takes its image and category ids from the COCO file that is the
    data. What `dltool detect --json` prints names its images and categories itself.

    Raises:
        DataError: E502 the file is none of these, E506 no row fits a picture and a class.
    """
    document = parse_json(_bytes(path), str(path))
    if isinstance(document, dict):
        document = document.get("data", document)
    names: Any = document
    rows: Any = document
    if isinstance(document, list):
        names = _coco(data)
    elif isinstance(document, dict):
        rows = document.get("results")
    if not isinstance(rows, list) or not isinstance(names, dict):
        raise DataError(
            "E502",
            f"{path} holds no detections",
            expected="a list of COCO results, or what dltool detect --json printed",
        )
    images = _by_id(names.get("images"), "file_name")
    categories = _by_id(names.get("categories"), "name")
    return _sorted(rows, images, categories, truth, path, console)


def _bytes(path: Path) -> bytes:
    try:
        return read_limited(path, 1 << 30)
    except (OSError, ValueError) as error:
        raise DataError("E502", f"{path} cannot be read: {error}") from error


def _coco(data: Path) -> Any:
    """Return the COCO file whose ids a bare list uses."""
    if data.suffix.lower() == ".json" and data.is_file():
        return parse_json(_bytes(data), str(data))
    found = sorted(data.rglob("*.json")) if data.is_dir() else []
    documents = [parse_json(_bytes(file), str(file)) for file in found]
    usable = [item for item in documents if isinstance(item, dict) and "images" in item]
    if len(usable) == 1:
        return usable[0]
    raise DataError(
        "E506",
        "a list of results has ids only, and these are of one COCO file",
        received=f"{data} with {len(usable)} COCO files",
        cure="name that file: --data annotations.json",
    )


def _by_id(rows: Any, key: str) -> dict[Any, str]:
    entries = rows if isinstance(rows, list) else []
    return {
        row["id"]: row[key]
        for row in entries
        if isinstance(row, dict) and isinstance(row.get(key), str) and "id" in row
    }


def _sorted(
    rows: list[Any],
    images: Mapping[Any, str],
    categories: Mapping[Any, str],
    truth: DetectionSet,
    path: Path,
    console: Console,
) -> list[Detections]:
    bases = Counter(posixpath.basename(item.name) for item in truth.items)
    places = {
        base: index
        for index, item in enumerate(truth.items)
        if bases[base := posixpath.basename(item.name)] == 1
    }
    places |= {item.name: index for index, item in enumerate(truth.items)}
    labels = {name: label for label, name in enumerate(truth.classes)}
    found: list[list[tuple[list[float], float, int]]] = [[] for _ in truth.items]
    strange = 0
    for row in rows:
        taken = _row(row)
        image = images.get(row.get("image_id"), "") if taken else ""
        name = image.replace("\\", "/")
        place = places.get(name, places.get(posixpath.basename(name)))
        label = (
            labels.get(" ".join(categories.get(row.get("category_id"), "").split()))
            if taken
            else None
        )
        if taken is None or place is None or label is None:
            strange += 1
            continue
        (x, y, width, height), score = taken
        found[place].append(([x, y, x + width, y + height], score, label))
    if strange:
        console.warn(f"{strange:,} of {len(rows):,} rows fit no picture and class of the data")
    if rows and strange == len(rows):
        raise DataError(
            "E506",
            f"no row of {path} fits a picture and a class of the data",
            expected=f"classes {', '.join(truth.classes[:10])}",
            cure="use the data that the detections were made on",
        )
    return [_detections(item) for item in found]


def _row(row: Any) -> tuple[list[float], float] | None:
    if not isinstance(row, dict):
        return None
    box, score = row.get("bbox"), row.get("score")
    values = [*box, score] if isinstance(box, list) and len(box) == 4 else []
    good = bool(values) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )
    hashable = all(isinstance(row.get(key), int | str) for key in ("image_id", "category_id"))
    return ([float(value) for value in values[:4]], float(values[4])) if good and hashable else None


def _detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    if not rows:
        return nothing()
    rows = sorted(rows, key=lambda row: -row[1])
    return Detections(
        torch.tensor([box for box, _, _ in rows], dtype=torch.float64),
        torch.tensor([score for _, score, _ in rows], dtype=torch.float64),
        torch.tensor([label for _, _, label in rows]),
    )
