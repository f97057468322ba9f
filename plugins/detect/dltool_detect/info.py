"""What a detector is, and which ones there are; nothing here loads torch or writes a file."""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from dltool import headers, runs
from dltool.console import Console, table
from dltool.errors import CheckpointError
from dltool_detect.config import MODELS, OWN

TOPIC = "detect"
SHIPPED = "shipped"
AUTO_MODEL = "fasterrcnn-mobilenet"
DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
# how the names of torchvision's files begin
FILES = {
    "fasterrcnn-mobilenet": "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn-mobilenet-320": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn-resnet50": "fasterrcnn_resnet50_fpn_coco",
    "fasterrcnn-resnet50-v2": "fasterrcnn_resnet50_fpn_v2_coco",
    "retinanet": "retinanet_resnet50_fpn_coco",
    "retinanet-v2": "retinanet_resnet50_fpn_v2_coco",
    "ssd300": "ssd300_vgg16_coco",
    "ssdlite": "ssdlite320_mobilenet_v3_large_coco",
    "fcos": "fcos_resnet50_fpn_coco",
}


def weights_file(name: str) -> Path | None:
    """Return the file of weights where torch keeps what it fetched, if it is there."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser()
    found = sorted((home / "hub" / "checkpoints").glob(f"{FILES[name]}-*.pth"))
    return found[0] if found else None


def list_models(console: Console) -> None:
    """Print the detectors that can be named, and which have their weights here."""
    rows = [
        {
            "name": name,
            "about": about,
            "published": name not in OWN,
            "weights": None if name in OWN else str(weights_file(name) or ""),
        }
        for name, about in MODELS.items()
    ]
    with as_file(files("dltool_detect") / SHIPPED) as folder:
        shipped = _model_facts(folder)
    data = {"models": rows, "auto": AUTO_MODEL, "shipped": shipped}
    cells = [[row["name"], _state(row), row["about"]] for row in rows]
    about = f"{shipped['architecture']['name']} for {', '.join(shipped['classes'])}"
    cells.append([SHIPPED, "comes along", about])
    note = f"auto is {AUTO_MODEL}, or {SHIPPED} where its weights cannot be had"
    console.result(data, f"{table(cells, ['detector', 'trained', 'about'])}\n\n{note}")


def _state(row: dict[str, Any]) -> str:
    if not row["published"]:
        return "by you"
    return "on COCO, here" if row["weights"] else "on COCO, to fetch"


def describe(name: str, console: Console) -> None:
    """Print what one detector is: network, classes, size, results.

    Raises:
        CheckpointError: there is no such run or model, or it is damaged.
    """
    if name in FILES:
        found = weights_file(name)
        data: dict[str, Any] = {"name": name, "about": MODELS[name], "weights": found}
        where = found or "not here yet; fetched when it is used first"
        console.result(data, f"model      {name}: {MODELS[name]}\nweights    COCO, {where}")
        return
    if name == SHIPPED:
        with as_file(files("dltool_detect") / SHIPPED) as folder:
            facts, run = _model_facts(folder), None
    else:
        folder = runs.locate(name, TOPIC)
        facts = _model_facts(folder)
        run = runs.read_json(folder) if (folder / "run.json").exists() else None
    console.result({"name": name, **facts, "run": run}, "\n".join(_lines(facts, run)))


def _model_facts(folder: Path) -> dict[str, Any]:
    """Return what `model.json` and the header of the weights tell."""
    for place in (folder / "model", folder, folder / "checkpoints" / "best"):
        if (place / WEIGHTS).is_file():
            told = place if (place / DESCRIPTION).is_file() else folder
            description = runs.read_json(told, DESCRIPTION)
            if description.get("topic") != TOPIC:
                owner = description.get("topic")
                raise CheckpointError(
                    "E513",
                    f"{folder} is a model of {owner}, not of {TOPIC}",
                    cure=f"dltool {owner} info {folder}",
                )
            values = sum(entry.values for entry in headers.read(place / WEIGHTS))
            named = {key: description.get(key) for key in ("results", "preprocessing")}
            return {
                "folder": str(place),
                "architecture": description["architecture"],
                "classes": list(description["classes"]),
                "values": values,
                **named,
            }
    raise CheckpointError(
        "E511",
        f"{folder} holds no trained detector yet",
        cure=f"finish it: dltool detect train --resume {folder}",
    )


def _lines(facts: dict[str, Any], run: dict[str, Any] | None) -> list[str]:
    spec, classes = facts["architecture"], facts["classes"]
    size = f"{spec['image_size']} pixels square" if spec["image_size"] else "any size"
    more = ", …" if len(classes) > 20 else ""
    lines = [
        f"model      {spec['name']}, {facts['values']:,} numbers",
        f"pictures   {size}; others are brought to it inside the model",
        f"classes    {len(classes)}: {', '.join(classes[:20])}{more}",
    ]
    if run:
        lines.append(f"run        {run['status']}, {run['created']}, grade {run['grade']}")
    test = (facts.get("results") or {}).get("test") or {}
    if "ap50" in test:
        lines.append(f"test       AP50 {test['ap50']:.3f}, n = {test.get('images')} images")
    return lines
