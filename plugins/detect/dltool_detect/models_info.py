"""What a detector is, and which ones there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dltool import runs
from dltool.console import Console, table
from dltool_detect.chosen import AUTO_MODEL, PUBLISHED, SHIPPED, TOPIC
from dltool_detect.config import MODELS
from dltool_detect.models.build import Detector, load_run, pretrained, shipped
from dltool_detect.models.zoo import ENTRIES


def list_models(console: Console) -> None:
    """Print the detectors that can be named, and which have their weights here."""
    rows = []
    for name, text in MODELS.items():
        rows.append(
            {"name": name, "about": text, "weights_here": name in PUBLISHED and has_weights(name)}
        )
    detector = shipped()
    data: dict[str, Any] = {
        "models": rows,
        "auto": AUTO_MODEL,
        "shipped": {"classes": list(detector.classes), "parameters": _count(detector)},
    }
    cells = [[row["name"], _state(row), row["about"]] for row in rows]
    classes = ", ".join(detector.classes)
    cells.append([SHIPPED, "shipped", f"{detector.name} trained on pictures of {classes}"])
    notes = f"auto is {AUTO_MODEL}, or {SHIPPED} where its weights cannot be had"
    console.result(data, f"{table(cells, ['detector', 'COCO weights', 'about'])}\n\n{notes}")


def _state(row: dict[str, Any]) -> str:
    if row["name"] not in PUBLISHED:
        return "none"
    return "here" if row["weights_here"] else "download"


def has_weights(name: str) -> bool:
    """Tell whether torchvision's weights lie in torch's cache."""
    file = ENTRIES[name].weights.url.rsplit("/", 1)[-1]
    return Path(torch.hub.get_dir(), "checkpoints", file).is_file()


def describe(name: str, console: Console) -> None:
    """Print what one detector is: network, classes, size, results.

    Raises:
        CheckpointError: there is no such run or model, or its weights are not here.
    """
    detector, folder = _opened(name)
    facts, results = _run_facts(folder)
    spec = detector.spec.as_dict()
    data = {
        "name": name,
        "folder": None if folder is None else str(folder),
        "architecture": spec,
        "parameters": _count(detector),
        "classes": list(detector.classes),
        "results": results,
        "run": facts,
    }
    size = f"{spec['image_size']} pixels square" if spec["image_size"] else "any size"
    shown = ", ".join(detector.classes[:20]) + (", …" if len(detector.classes) > 20 else "")
    lines = [
        f"model      {spec['name']}, {data['parameters']:,} parameters",
        f"pictures   {size}; others are brought to it inside the model",
        f"classes    {len(detector.classes)}: {shown}",
    ]
    if facts:
        lines.append(f"run        {facts['status']}, {facts['created']}, grade {facts['grade']}")
    if results and isinstance(results.get("test"), dict) and "ap50" in results["test"]:
        lines.append(f"test AP50  {results['test']['ap50']:.3f}")
    console.result(data, "\n".join(lines))


def _opened(name: str) -> tuple[Detector, Path | None]:
    if name == SHIPPED:
        return shipped(), None
    if name in PUBLISHED:
        return pretrained(name, None, offline=True), None
    folder = runs.locate(name, TOPIC)
    return load_run(folder), folder


def _run_facts(folder: Path | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    if folder is None or not (folder / "run.json").exists():
        return None, None
    facts = runs.read_json(folder)
    result = facts.get("result")
    return facts, result if isinstance(result, dict) else None


def _count(detector: Detector) -> int:
    return sum(value.numel() for value in detector.parameters())
