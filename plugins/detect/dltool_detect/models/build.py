"""Every detector behind one class: build it, train it, detect with it, load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dltool import checkpoint, runs
from dltool.errors import CheckpointError, ConfigError
from dltool_detect.config import FIXED_SIZES, MODELS
from dltool_detect.detections import Detections
from dltool_detect.models import zoo
from dltool_detect.models.square import Square

NAMES = tuple(MODELS)
TOPIC = "detect"
SHIPPED = "shipped"


@dataclass(frozen=True)
class Spec:
    """What builds a detector.

    Attributes:
        name: of `NAMES`.
        image_size: side in pixels of the square that it sees; 0: torchvision's own sizes.
        backbone: kind of a network that came from a `cnn` run; empty: the model's own.
    """

    name: str
    image_size: int
    backbone: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


class Detector(nn.Module):
    """A detector with its classes: bytes of any size in, boxes in their pixels out.

    Args:
        core: `Square` or `Zoo`; all preprocessing is inside it.
        classes: names; label k is classes[k].
    """

    def __init__(self, spec: Spec, classes: Sequence[str], core: nn.Module) -> None:
        super().__init__()
        self.spec, self.classes, self.core = spec, tuple(classes), core

    @property
    def name(self) -> str:
        """The model's name, of `NAMES`."""
        return self.spec.name

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the parts of the training loss by name.

        Args:
            images: (B, 3, S, S) uint8 at the size of training.
            boxes: (B, M, 4) x1 y1 x2 y2 in their pixels.
            labels: (B, M) int64, 0-based; -1 in rows without an object.
        """
        parts: dict[str, Tensor] = cast(Any, self.core).losses(images, boxes, labels)
        return parts

    def forward(self, images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss: the sum of `losses`."""
        return torch.stack(list(self.losses(images, boxes, labels).values())).sum()

    @torch.no_grad()
    def detect(
        self, images: list[Tensor], *, min_score: float = 0.05, max_boxes: int = 100
    ) -> list[Detections]:
        """Return what is on each image, best first, boxes in pixels of the image as given.

        Args:
            images: (3, H, W) uint8 RGB, of any sizes. min_score: of a box that is kept, 0 to 1.
            max_boxes: per image.
        """
        if not images:
            return []
        was_training = self.training
        self.eval()
        try:
            found: list[Detections] = cast(Any, self.core).detect(
                images, min_score=min_score, max_boxes=max_boxes
            )
        finally:
            self.train(was_training)
        return [Detections(d.boxes.cpu(), d.scores.cpu(), d.labels.cpu()) for d in found]


def build(
    name: str,
    classes: Sequence[str],
    *,
    image_size: int,
    generator: torch.Generator | None = None,
    backbone: str = "",
) -> Detector:
    """Build a detector with fresh weights.

    Args:
        generator: what the weights are drawn from; the global streams are left as they were.

    Raises:
        ConfigError: the name is not known, or the model has another size.
    """
    if name not in MODELS:
        raise ConfigError(
            "E206", f"no detector is named {name!r}", expected=f"one of {', '.join(NAMES)}"
        )
    check_size(name, image_size)
    spec = Spec(name, image_size, backbone)
    if generator is None:
        return Detector(spec, classes, _core(spec, len(classes)))
    with torch.random.fork_rng(devices=[]):
        seed = int(torch.randint(2**62, (), generator=generator))
        torch.default_generator.manual_seed(seed)
        return Detector(spec, classes, _core(spec, len(classes)))


def check_size(name: str, image_size: int) -> None:
    """Refuse an image size that the model cannot have.

    Raises:
        ConfigError: E205.
    """
    fixed = FIXED_SIZES.get(name)
    if fixed is not None and image_size != fixed:
        raise ConfigError(
            "E205",
            f"{name} sees pictures of {fixed}x{fixed} pixels",
            received=f"--image-size {image_size}",
            cure=f"leave --image-size out, or use {fixed}",
        )


def _core(spec: Spec, num_classes: int) -> nn.Module:
    if spec.name in zoo.ENTRIES:
        return zoo.fresh(spec.name, num_classes, spec.image_size)
    from dltool_detect.models import backbones
    from dltool_detect.models.fast_rcnn import FastRCNN
    from dltool_detect.models.rcnn import RCNN
    from dltool_detect.models.ssd import SSDTiny

    body = backbones.build(spec.backbone) if spec.backbone else None
    kinds: dict[str, Any] = {"ssd-tiny": SSDTiny, "rcnn": RCNN, "fast-rcnn": FastRCNN}
    network: nn.Module = kinds[spec.name](num_classes, body)
    return Square(network.to(memory_format=torch.channels_last), spec.image_size)


def pretrained(name: str, weights: Path | None = None, offline: bool = False) -> Detector:
    """Return one of torchvision's detectors with its COCO weights.

    Args:
        weights: a file that holds them; None: torch's cache, or a download into it.
        offline: never download.

    Raises:
        ConfigError: E206, torchvision has no such detector.
        DataError: E504, the weights are not here and cannot be fetched.
        CheckpointError: the file holds other weights.
    """
    if name not in zoo.ENTRIES:
        raise ConfigError(
            "E206", f"no published weights for {name!r}", expected=", ".join(zoo.ENTRIES)
        )
    core, classes = zoo.trained(name, weights, offline)
    return Detector(Spec(name, 0), classes, core).eval()


def describe(detector: Detector) -> dict[str, Any]:
    """Return what `model.json` tells: how to build the detector and how to feed it."""
    return {
        "topic": TOPIC,
        "architecture": detector.spec.as_dict(),
        "classes": list(detector.classes),
        "preprocessing": {
            "resize": f"stretched to {detector.spec.image_size} pixels square, antialiased",
            "inside_model": "uint8 RGB of any size goes in, boxes in its pixels come out",
        },
    }


def rebuilt(
    tensors: Mapping[str, Tensor], description: Mapping[str, Any], source: Path
) -> Detector:
    """Return the detector that a description and its weights make; half precision becomes single.

    Raises:
        CheckpointError: it is another topic's, or they do not fit.
    """
    owner = description.get("topic")
    if owner != TOPIC:
        raise CheckpointError(
            "E513", f"{source} is a model of {owner}, not of {TOPIC}", cure=f"dltool {owner} --help"
        )
    try:
        spec = Spec(**description["architecture"])
        classes = tuple(str(name) for name in description["classes"])
        core = _core(spec, len(classes))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "E513", f"{source} describes no detector", cure="restore model.json"
        ) from error
    detector = Detector(spec, classes, core)
    whole = {
        name: value.float() if value.dtype == torch.float16 else value
        for name, value in tensors.items()
    }
    checkpoint.load_weights(detector, whole, source)
    return detector.eval()


def load_run(path: Path) -> Detector:
    """Return the detector of a run or model folder; an unfinished run gives its best so far.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another topic's.
    """
    for folder in (path / "model", path):
        names = (checkpoint.MANIFEST, checkpoint.DESCRIPTION)
        if all((folder / name).exists() for name in names):
            tensors, description = checkpoint.load_model(folder)
            return rebuilt(tensors, description, folder)
    best = path / "checkpoints" / "best"
    if (path / checkpoint.DESCRIPTION).exists() and best.exists():
        description = runs.read_json(path, checkpoint.DESCRIPTION)
        return rebuilt(checkpoint.load(best).model, description, best)
    raise CheckpointError(
        "E511",
        f"{path} holds no trained detector yet",
        cure=f"finish it: dltool detect train --resume {path}",
    )


def shipped() -> Detector:
    """Return the small detector that comes with dltool: apple, banana and orange."""
    with as_file(files("dltool_detect") / SHIPPED) as folder:
        return load_run(folder)
