"""What a `detect` training can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dltool.errors import ConfigError
from dltool.ranges import inside, one_of
from dltool.training_config import TrainingConfig

MODELS = {
    "ssd-tiny": "single shot, 1.9 M parameters, learns from scratch on a CPU",
    "rcnn": "R-CNN of 2014: a small network looks at every window of the picture",
    "fast-rcnn": "Fast R-CNN of 2015: one feature map for all windows, region pooling",
    "fasterrcnn-mobilenet": "torchvision, MobileNetV3-Large and a pyramid",
    "fasterrcnn-mobilenet-320": "torchvision, the same for 320 pixels",
    "fasterrcnn-resnet50": "torchvision, ResNet-50 and a pyramid",
    "fasterrcnn-resnet50-v2": "torchvision, the improved recipe",
    "retinanet": "torchvision, one stage with focal loss",
    "retinanet-v2": "torchvision, the improved recipe",
    "ssd300": "torchvision, SSD on VGG-16, 300 pixels",
    "ssdlite": "torchvision, SSDlite on MobileNetV3, 320 pixels",
    "fcos": "torchvision, one stage without anchors",
}
OWN = ("ssd-tiny", "rcnn", "fast-rcnn")
FIXED_SIZES = {"ssd300": 300, "ssdlite": 320}
FORMATS = ("auto", "voc", "coco", "yolo")
SCHEDULES = ("one-cycle", "cosine", "constant")
AUGMENTATIONS = ("flip", "vflip", "rotate", "scale", "color", "mosaic")
# deepest stride is 32; below 64 pixels its map would be a single place
SMALLEST_SIZE, LARGEST_SIZE = 64, 2048


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes a `detect` training run.

    Attributes:
        data: a folder or zip in Pascal VOC, COCO or YOLO form, or `shapes`.
        classes: names in order where the data does not tell, or a choice of them; comma-separated.
        image_size: side of the square that pictures are brought to; 0: what the model wants.
        weights: `none`, `coco` (torchvision's, fetched once) or a file to begin from.
        backbone: a `cnn` run whose network looks at the pictures; empty: the model's own.
        learning_rate: peak of the schedule.
        augment: comma-separated names, or `none`.
        mosaic: share of the training pictures that are mosaics; none in the last epochs.
        val_split: share split off where the data has no validation part.
    """

    data: str = "shapes"
    format: str = "auto"
    classes: str = ""
    model: str = "ssd-tiny"
    image_size: int = 0
    weights: str = "none"
    backbone: str = ""
    epochs: int = 100
    batch_size: int = 16
    learning_rate: float = 0.002
    weight_decay: float = 0.05
    schedule: str = "one-cycle"
    augment: str = "flip,scale,color,mosaic"
    mosaic: float = 0.5
    clip: float = 10.0
    ema: float = 0.995
    val_split: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("--model", self.model, tuple(MODELS))
        one_of("--format", self.format, FORMATS)
        one_of("--schedule", self.schedule, SCHEDULES)
        for name in self.augmentations:
            one_of("--augment", name, AUGMENTATIONS)
        if self.image_size:
            inside("--image-size", self.image_size, SMALLEST_SIZE, LARGEST_SIZE)
        inside("--mosaic", self.mosaic, 0.0, 1.0)
        inside("--val-split", self.val_split, 0.01, 0.9)
        self._check_beginnings()

    def _check_beginnings(self) -> None:
        """Refuse beginnings of the training that contradict one another."""
        if self.backbone and self.model not in OWN:
            raise ConfigError(
                "E205",
                f"--backbone does not go with {self.model}",
                expected=f"one of {', '.join(OWN)}",
                cure="use --model ssd-tiny, or leave --backbone out",
            )
        if self.weights == "coco" and self.model in OWN:
            raise ConfigError(
                "E205",
                f"nobody publishes COCO weights for {self.model}",
                cure="leave --weights out, give a file, or use a model of torchvision",
            )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in `augment`."""
        names = [name.strip() for name in self.augment.split(",")]
        return tuple(name for name in names if name not in ("", "none"))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names in `classes`."""
        return tuple(name.strip() for name in self.classes.split(",") if name.strip())

    @property
    def side(self) -> int:
        """The side in pixels that pictures are trained at."""
        return self.image_size or FIXED_SIZES.get(self.model, 320)


# What a model wants; flags and --config come before it.
MODEL_RECIPES: dict[str, dict[str, Any]] = {
    "ssd-tiny": {},
    "rcnn": {"epochs": 30, "batch_size": 8, "learning_rate": 0.001, "image_size": 224},
    "fast-rcnn": {"epochs": 30, "batch_size": 8, "learning_rate": 0.001, "image_size": 256},
}
ZOO_RECIPE: dict[str, Any] = {"epochs": 40, "batch_size": 4, "learning_rate": 0.0005}
SHAPES_RECIPE: dict[str, Any] = {"epochs": 25, "batch_size": 8, "image_size": 96}


def recipe(data: str, model: str) -> dict[str, Any]:
    """Return the settings that suit a data set and a model."""
    by_model = MODEL_RECIPES.get(model, ZOO_RECIPE)
    by_data = SHAPES_RECIPE if data == "shapes" and model in OWN else {}
    return {**by_model, **by_data}
