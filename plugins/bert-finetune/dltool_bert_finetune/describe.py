"""Say what a run or model folder is: from its files alone, without building the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dltool import checkpoint, headers, runs
from dltool.console import Console, table
from dltool.errors import CheckpointError
from dltool_bert_finetune import hub

TOPIC = "bert-finetune"
LAYER = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)\.")


def describe(folder: Path, console: Console) -> None:
    """Print what a run or model folder is.

    Raises:
        CheckpointError: it is none, or a file of it is damaged.
    """
    place = next(
        (each for each in (folder / "model", folder, folder / "start") if _is_model(each)),
        None,
    )
    if place is None:
        hub.check_folder(folder, str(folder))
        raise CheckpointError("E511", f"{folder} holds no model")
    description = _description(folder, place)
    settings = json.loads((place / "config.json").read_text(encoding="utf-8"))
    facts = runs.read_json(folder) if (folder / "run.json").exists() else {}
    groups: dict[str, dict[str, Any]] = description.get("groups") or _groups(place)
    targets = description.get("targets") or {}
    names = settings.get("id2label") or {}
    classes = targets.get("classes") or [names[key] for key in sorted(names, key=int)]
    data = {
        "folder": str(folder),
        "architecture": settings.get("model_type"),
        "kind": description.get("kind", "foreign"),
        "task": targets.get("task"),
        "paired": description.get("paired"),
        "parameters": sum(entry["parameters"] for entry in groups.values()),
        "trained": sum(entry["trained"] or 0 for entry in groups.values()) or None,
        "groups": groups,
        "classes": classes,
        "max_length": description.get("max_length"),
        "vocabulary": settings.get("vocab_size"),
        "source": description.get("source"),
        "results": description.get("results"),
        "run": facts or None,
    }
    console.result(data, _text(data))


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and _model_type(folder / "config.json") != ""


def _model_type(path: Path) -> str:
    """Return the architecture that a config names; a run's own config.json names none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return str(values.get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _description(folder: Path, place: Path) -> dict[str, Any]:
    if (place / checkpoint.MANIFEST).exists():
        checkpoint.verify(place)
    for each in (place, folder):
        if (each / checkpoint.DESCRIPTION).exists():
            found = runs.read_json(each, checkpoint.DESCRIPTION)
            if found.get("topic") != TOPIC:
                owner = found.get("topic")
                raise CheckpointError("E513", f"{folder} is a model of {owner}, not of {TOPIC}")
            return found
    return {}


def _groups(folder: Path) -> dict[str, dict[str, Any]]:
    """Count the weights in the files by embeddings, layer and head."""
    groups: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for entry in headers.read(path):
            found = LAYER.search(entry.name)
            place = "embeddings" if "embedding" in entry.name else "head"
            group = f"layer {int(found[1]) + 1}" if found else place
            count = groups.setdefault(group, {"parameters": 0, "trained": None})
            count["parameters"] += entry.values
    return groups


def _text(data: dict[str, Any]) -> str:
    source = data["source"] or {}
    origin = " ".join(str(part) for part in source.values() if part) or "another program"
    trained = f", {data['trained']:,} trained" if data["trained"] else ""
    vocabulary = data["vocabulary"] or 0
    lines = [
        f"model          {data['architecture']}, {data['parameters']:,} parameters{trained}; "
        f"from {origin}",
        f"texts          {data['max_length'] or 'unknown'} tokens at most, "
        f"{vocabulary:,} word pieces",
    ]
    if data["task"]:
        lines.append(f"task           {data['task']}{', of pairs' if data['paired'] else ''}")
    classes = data["classes"]
    if classes and data["task"] != "regress":
        more = f", and {len(classes) - 20} more" if len(classes) > 20 else ""
        lines.append(f"classes        {len(classes)}: {', '.join(classes[:20])}{more}")
    if data["run"]:
        facts = data["run"]
        lines.append(
            f"run            {facts['status']}, {facts['created']}, grade {facts['grade']}"
        )
    if data["results"]:
        lines.append(f"result         {data['results']['headline']}")
    is_known = bool(data["trained"])
    rows = [
        [name, entry["parameters"], *([entry["trained"]] if is_known else [])]
        for name, entry in data["groups"].items()
    ]
    header = ("group", "parameters", "trained") if is_known else ("group", "parameters")
    return "\n".join(lines) + "\n\n" + table(rows, header)
