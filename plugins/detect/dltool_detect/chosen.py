"""Which detector a command uses: torchvision's, a run of ours, or the one that is shipped."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import runs
from dltool.console import Console
from dltool.data.download import is_offline
from dltool.errors import CheckpointError, ConfigError, DataError, closest
from dltool_detect.config import MODELS, OWN
from dltool_detect.info import AUTO_MODEL, SHIPPED, TOPIC, weights_file
from dltool_detect.models.build import Detector, load_run, pretrained, shipped

WEIGHTS_HOST = "download.pytorch.org"
PATIENCE_SECONDS = 3.0
PUBLISHED = tuple(name for name in MODELS if name not in OWN)


@dataclass(frozen=True)
class Chosen:
    """A detector on its device, and where it came from.

    Args:
        kind: torchvision, run, or shipped.
        name: of the published model, or the run's folder.
        note: why it is this one, when nobody asked for it.
    """

    detector: Detector
    kind: str
    name: str
    note: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that labels are indices into."""
        return self.detector.classes

    @property
    def usual_score(self) -> float:
        """The score from which on a box is shown when nobody says else.

        Scores of our models are the overlap that they expect, which is lower than a certainty.
        """
        return 0.5 if self.kind == "torchvision" else 0.4

    def as_dict(self) -> dict[str, Any]:
        """Return what `--json` tells of the model."""
        return {
            "kind": self.kind,
            "name": self.name,
            "classes": len(self.classes),
            "is_fallback": bool(self.note),
            "note": self.note,
        }


def choose(name: str, weights: Path | None, device: torch.device, console: Console) -> Chosen:
    """Return the detector that a user means, ready to detect.

    Args:
        name: auto, shipped, a model of torchvision, a run or model folder, or latest.
        weights: a file with torchvision's weights for it.

    Raises:
        ConfigError: E205 weights for a model that has its own, E206 the name is not known.
        DataError: E504, the weights are not here and cannot be fetched.
        CheckpointError: the folder or the file cannot be used.
    """
    found = _found(name, weights, console)
    found.detector.to(device).eval()
    if found.note:
        console.note(found.note)
    return found


def _found(name: str, weights: Path | None, console: Console) -> Chosen:
    if weights is not None and not weights.is_file():
        raise CheckpointError("E501", f"there is no file {weights}", cure="check --weights")
    if name in PUBLISHED:
        return Chosen(pretrained(name, weights, is_offline()), "torchvision", name)
    if name == "auto" and weights is not None:
        return Chosen(pretrained(AUTO_MODEL, weights, True), "torchvision", AUTO_MODEL)
    if weights is not None:
        raise ConfigError(
            "E205",
            "--weights goes with a model of torchvision",
            received=f"--model {name}",
            expected=f"one of {', '.join(PUBLISHED)}",
        )
    if name == "auto":
        return _automatic()
    if name == SHIPPED:
        return Chosen(shipped(), "shipped", SHIPPED)
    return _run(name)


def _automatic() -> Chosen:
    """Take torchvision's small Faster R-CNN when its weights can be had, else the shipped one."""
    try:
        offline = is_offline() or not _is_reachable()
        return Chosen(pretrained(AUTO_MODEL, None, offline), "torchvision", AUTO_MODEL)
    except DataError as error:
        if error.code != "E504":
            raise
    detector = shipped()
    note = (
        f"no network and no weights of {AUTO_MODEL} here: using the small detector that is "
        f"shipped, which knows {', '.join(detector.classes)} only"
    )
    return Chosen(detector, "shipped", SHIPPED, note)


def _is_reachable() -> bool:
    """Tell within seconds whether weights could be fetched; only asked when they are not here."""
    if weights_file(AUTO_MODEL) is not None:
        return True
    answered: list[bool] = []

    def call() -> None:
        with contextlib.suppress(OSError):
            socket.create_connection((WEIGHTS_HOST, 443), timeout=PATIENCE_SECONDS).close()
            answered.append(True)

    # looking up a name has no time limit of its own
    asking = threading.Thread(target=call, daemon=True)
    asking.start()
    asking.join(PATIENCE_SECONDS)
    return bool(answered)


def _run(name: str) -> Chosen:
    try:
        folder = runs.locate(name, TOPIC)
    except CheckpointError as error:
        if Path(name).exists() or "/" in name:
            raise
        known = ("auto", SHIPPED, *PUBLISHED)
        near = closest(name, known)
        raise CheckpointError(
            "E501",
            f"{name!r} is neither a run nor a detector that is known"
            + (f"; did you mean {near}?" if near else ""),
            expected=f"a run folder, latest, or one of {', '.join(known)}",
            cure="see dltool runs list, or dltool detect info",
        ) from error
    return Chosen(load_run(folder), "run", str(folder))


def category_ids(chosen: Chosen) -> list[int]:
    """Return the category id of each class: COCO's own for torchvision's models, else 1, 2, 3, …"""
    if chosen.kind == "torchvision":
        from dltool_detect.models.zoo import classes_of

        return list(classes_of(chosen.name)[1])
    return list(range(1, len(chosen.classes) + 1))


def chosen_labels(text: str, classes: tuple[str, ...]) -> list[int]:
    """Return the labels of comma-separated class names; none means all.

    Raises:
        ConfigError: E206, the model has no such class.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    by_name = {name.lower(): label for label, name in enumerate(classes)}
    for name in names:
        if name.lower() not in by_name:
            near = closest(name.lower(), by_name)
            shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            raise ConfigError(
                "E206",
                f"the model has no class {name!r}" + (f"; did you mean {near}?" if near else ""),
                expected=shown,
                cure="choose --classes among them",
            )
    return [by_name[name.lower()] for name in names]
