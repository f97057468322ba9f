"""torchvision's detectors behind the interface of ours.

torchvision counts classes from 1, with 0 for background; outside of this file they count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models import detection as tv

from dltool.convert import load_foreign
from dltool.data.download import is_offline
from dltool.errors import CheckpointError, DataError
from dltool_detect.detections import Detections
from dltool_detect.models.square import grown
from dltool_detect.resize import resize_image

BACKGROUND_FIRST = 1


@dataclass(frozen=True)
class Entry:
    """One of torchvision's detectors: what builds it and where its COCO weights are."""

    builder: Callable[..., nn.Module]
    weights: Any
    is_fixed: bool = False


ENTRIES: dict[str, Entry] = {
    "fasterrcnn-mobilenet": Entry(
        tv.fasterrcnn_mobilenet_v3_large_fpn, tv.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1
    ),
    "fasterrcnn-mobilenet-320": Entry(
        tv.fasterrcnn_mobilenet_v3_large_320_fpn,
        tv.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
    ),
    "fasterrcnn-resnet50": Entry(
        tv.fasterrcnn_resnet50_fpn, tv.FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    ),
    "fasterrcnn-resnet50-v2": Entry(
        tv.fasterrcnn_resnet50_fpn_v2, tv.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    ),
    "retinanet": Entry(tv.retinanet_resnet50_fpn, tv.RetinaNet_ResNet50_FPN_Weights.COCO_V1),
    "retinanet-v2": Entry(
        tv.retinanet_resnet50_fpn_v2, tv.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1
    ),
    "ssd300": Entry(tv.ssd300_vgg16, tv.SSD300_VGG16_Weights.COCO_V1, is_fixed=True),
    "ssdlite": Entry(
        tv.ssdlite320_mobilenet_v3_large,
        tv.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
        is_fixed=True,
    ),
    "fcos": Entry(tv.fcos_resnet50_fpn, tv.FCOS_ResNet50_FPN_Weights.COCO_V1),
}


class Zoo(nn.Module):
    """One of torchvision's detectors: bytes in, `Detections` out; it resizes and normalises itself.

    Args:
        model: of torchvision, with a background class.
        places: number of each class among torchvision's; None: 1, 2, 3, …
        side: pictures are stretched to this square first, as in training; 0: torchvision's way.
    """

    def __init__(
        self, model: nn.Module, places: Sequence[int] | None = None, side: int = 0
    ) -> None:
        super().__init__()
        self.model, self.side = model, side
        self._label_of = None if places is None else {place: k for k, place in enumerate(places)}

    def losses(self, images: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return torchvision's parts of the loss for images (B, 3, H, W) uint8."""
        targets = [
            {"boxes": box[label >= 0], "labels": label[label >= 0] + BACKGROUND_FIRST}
            for box, label in zip(boxes, labels, strict=True)
        ]
        parts: dict[str, Tensor] = self.model([image / 255 for image in images], targets)
        return parts

    def detect(
        self, images: Sequence[Tensor], *, min_score: float, max_boxes: int
    ) -> list[Detections]:
        """Return what is on images (3, H, W) uint8 of any sizes."""
        _set_limits(self.model, min_score, max_boxes)
        device = next(self.model.parameters()).device
        shown = [image.to(device) for image in images]
        if self.side:
            shown = [resize_image(image, self.side) for image in shown]
        found = [self._ours(each) for each in self.model([image / 255 for image in shown])]
        if not self.side:
            return found
        return [grown(each, image, self.side) for each, image in zip(found, images, strict=True)]

    def _ours(self, found: Mapping[str, Tensor]) -> Detections:
        boxes, scores, labels = found["boxes"], found["scores"], found["labels"]
        if self._label_of is None:
            return Detections(boxes, scores, labels - BACKGROUND_FIRST)
        # COCO's numbers have gaps: 91 numbers for 80 classes
        ours = labels.new_tensor([self._label_of.get(int(label), -1) for label in labels])
        known = ours >= 0
        return Detections(boxes[known], scores[known], ours[known])


def _set_limits(model: Any, min_score: float, max_boxes: int) -> None:
    """Put the limits where the kind of detector keeps them."""
    place = getattr(model, "roi_heads", model)
    place.score_thresh, place.detections_per_img = min_score, max_boxes


def fresh(name: str, num_classes: int, image_size: int) -> Zoo:
    """Build a detector with random weights for classes without background."""
    entry = ENTRIES[name]
    sizes = {} if entry.is_fixed else {"min_size": image_size, "max_size": image_size}
    model = entry.builder(
        weights=None,
        weights_backbone=None,
        num_classes=num_classes + BACKGROUND_FIRST,
        **sizes,
    )
    return Zoo(model, side=image_size)


def classes_of(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the names of the COCO classes and their numbers among torchvision's."""
    names = ENTRIES[name].weights.meta["categories"]
    used = [(k, each) for k, each in enumerate(names) if each not in ("N/A", "__background__")]
    return tuple(each for _, each in used), tuple(k for k, _ in used)


class Unfilled(TorchFunctionMode):
    """Leave new weights without values; on "meta" drawing them would load torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Skip what draws random values into a tensor."""
        given = dict(kwargs or {})
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def trained(name: str, weights: Path | None, offline: bool) -> tuple[Zoo, tuple[str, ...]]:
    """Return a detector trained on COCO, and its classes.

    Raises:
        DataError: E504, the weights are not here and cannot be fetched.
        CheckpointError: the file holds other weights.
    """
    names, places = classes_of(name)
    tensors = read_weights(name, weights, offline)
    # no weight is made and drawn at random only to be overwritten: two seconds less at start-up
    with torch.device("meta"), Unfilled():
        model = ENTRIES[name].builder(
            weights=None, weights_backbone=None, num_classes=places[-1] + BACKGROUND_FIRST
        )
    _refuse_others(model, tensors, weights)
    model.load_state_dict(tensors, assign=True)
    return Zoo(model, places), names


def _refuse_others(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | None) -> None:
    want = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    have = {key: tuple(value.shape) for key, value in tensors.items()}
    if want == have:
        return
    wrong = sorted(key for key in want.keys() | have.keys() if want.get(key) != have.get(key))
    raise CheckpointError(
        "E513",
        f"{source or 'the downloaded file'} does not hold these COCO weights: "
        f"{', '.join(wrong[:3])} ({len(wrong)} in all)",
        cure="give the .pth file that torchvision publishes for this model",
    )


def read_weights(name: str, weights: Path | None, offline: bool) -> dict[str, Tensor]:
    """Return the tensors of a file, of torch's cache, or of a download into it.

    Raises:
        DataError: E504, they are not here and cannot be fetched.
    """
    if weights is not None:
        return load_foreign(weights).tensors
    published = ENTRIES[name].weights
    target = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[-1]
    if not target.is_file():
        _download(name, published.url, target, published.meta.get("_file_size"), offline)
    return load_foreign(target).tensors


def _download(name: str, url: str, target: Path, megabytes: float | None, offline: bool) -> None:
    cure = f"download {url} elsewhere and give it as --weights FILE, or use another --model"
    if offline or is_offline():
        message = f"the weights of {name} are not in {target.parent}, and downloads are off"
        raise DataError("E504", message, cure=cure)
    import sys

    size = f" ({megabytes:.0f} MB)" if megabytes else ""
    print(f"downloading {url}{size} to {target}", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # the end of the file's name is the beginning of its SHA-256; torch compares them
        torch.hub.load_state_dict_from_url(
            url, str(target.parent), map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        message = f"the weights of {name} could not be fetched: {error}"
        raise DataError("E504", message, cure=cure) from error
