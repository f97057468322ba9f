"""What a `cnn` run can be told, and the recipes that fill what it is not told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from dltool import ranges
from dltool.errors import ConfigError
from dltool.training_config import TrainingConfig

MODELS = {
    "linear": "softmax regression: one linear layer",
    "mlp": "fully connected layers with ReLU (--hidden, --dropout)",
    "resmlp": "one fully connected layer used twice beside an identity (--hidden, one width)",
    "lenet": "LeNet-5 of 1998: sigmoid and average pooling; 61,706 parameters on 28x28",
    "lenet-bn": "LeNet with batch normalisation; 44,878 on 28x28",
    "simple-cnn": "three convolutions with batch normalisation (--width)",
    "preact": "a small pre-activation residual network for small images (--width)",
    "cnn-5x5": "two 5x5 convolutions of 10 and 20 channels; 8,490 on 28x28",
    "cnn16": "16 and 32 channels, a layer of 128; 206,922 on 28x28",
    "cnn2": "32 and 64 channels, a layer of 128; 421,642 on 28x28",
    "cnn2-bn": "cnn2 with batch normalisation; 421,834 on 28x28",
    "cnn5": "five convolutions up to 256 channels, dropout; 1,772,490 for grey images",
    "inception-small": "two small Inception blocks; 97,298 on 28x28",
    "resnet-small": "two residual blocks without norms; 41,514 on 28x28",
    "resnet20": "ResNet-20 for small images (He et al., 2015); 0.27 M parameters",
    "resnet18": "ResNet-18 from torchvision, with a small stem below 64 pixels",
    "resnet34": "ResNet-34 from torchvision, with a small stem below 64 pixels",
    "resnet18-d2l": "ResNet-18 as lessons build it; 11,178,378 for grey images",
    "plain18": "the same eighteen layers without shortcuts",
    "alexnet": "AlexNet for 224x224; 46,764,746 for grey images",
    "vgg11": "VGG-11 for 224x224; 128,806,154 for grey images (--width 16: a quarter)",
    "nin": "network in network for 224x224; 1,992,166 for grey images",
    "googlenet": "GoogLeNet: nine Inception blocks; 5,977,530 for grey images",
}
TORCHVISION = "tv:"
OPTIMIZERS = ("adamw", "sgd", "muon")
SCHEDULES = ("one-cycle", "cosine", "step", "plateau", "constant")
LOADERS = ("auto", "resident", "stream")
AUGMENTATIONS = (
    *("flip", "alternating-flip", "vflip", "crop", "rotate", "scale", "color"),
    *("cutout", "erase", "mixup", "cutmix"),
)
RECIPES = ("usual", "fast", "best")
LORA_TARGETS = ("query", "key", "value", "output")


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Everything that shapes a `cnn` training run.

    Attributes:
        data: a named set, an image folder or a zip of one.
        data_root: folder that holds named sets already; empty for the download cache.
        image_size: side in pixels that images are brought to; 0 keeps or chooses.
        learning_rate: peak of the schedule.
        augment: comma-separated names, or `none`.
        hidden: widths of the hidden layers of `mlp`, comma-separated.
        width: channels of the first layer of networks that can be had in widths; 0: their own.
        recipe: which settings fill what is not given, see `recipes`.
        balance: draw every class equally often.
        pretrained: begin from torchvision's published weights, `weights`: from those of a file.
        freeze: `backbone`, `none`, or how many of the first blocks.
        head_lr, backbone_lr: rates of the last layer and of all before; 0: `learning_rate`.
        lora_rank: train low-rank changes of attention and the head alone; 0: off.
        lora_alpha: scale of these changes is alpha / rank; 0: twice the rank.
        find_lr: test learning rates first, and take the suggested one where none is given.
        val_fraction, test_fraction: shares split off where the data has no such split.
        loader: `resident` holds all images on the device, `stream` reads them from disk.
    """

    data: str = "digits"
    data_root: str = ""
    model: str = "simple-cnn"
    epochs: int = 12
    recipe: str = "usual"
    optimizer: str = "adamw"
    schedule: str = "one-cycle"
    label_smoothing: float = 0.05
    augment: str = "none"
    image_size: int = 0
    hidden: str = "256"
    dropout: float = 0.0
    width: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    balance: bool = False
    loader: str = "auto"
    workers: int = 2
    pretrained: bool = False
    weights: str = ""
    freeze: str = "none"
    head_lr: float = 0.0
    backbone_lr: float = 0.0
    lora_rank: int = 0
    lora_alpha: float = 0.0
    lora_targets: str = "query,value"
    find_lr: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model.startswith(TORCHVISION):
            ranges.one_of("--model", self.model, tuple(MODELS))
        ranges.one_of("--recipe", self.recipe, RECIPES)
        ranges.one_of("--optimizer", self.optimizer, OPTIMIZERS)
        ranges.one_of("--schedule", self.schedule, SCHEDULES)
        ranges.one_of("--loader", self.loader, LOADERS)
        ranges.at_least("--width", self.width, 0)
        ranges.at_least("--image-size", self.image_size, 0)
        ranges.inside("--label-smoothing", self.label_smoothing, 0.0, 0.9)
        ranges.inside("--dropout", self.dropout, 0.0, 0.95)
        ranges.inside("--val-fraction", self.val_fraction, 0.0, 0.5, open_low=True)
        ranges.inside("--test-fraction", self.test_fraction, 0.0, 0.5, open_low=True)
        for name in self.augmentations:
            ranges.one_of("--augment", name, AUGMENTATIONS)
        self._check_transfer()
        if not self.hidden_widths or not all(width > 0 for width in self.hidden_widths):
            raise ConfigError(
                "E202",
                "--hidden needs positive widths",
                received=self.hidden,
                cure="use --hidden 256",
            )

    def _check_transfer(self) -> None:
        """Refuse settings of transfer learning that make no sense, alone or together."""
        ranges.inside("--head-lr", self.head_lr, 0.0, 100.0)
        ranges.inside("--backbone-lr", self.backbone_lr, 0.0, 100.0)
        ranges.at_least("--lora-rank", self.lora_rank, 0)
        ranges.inside("--lora-alpha", self.lora_alpha, 0.0, 1e6)
        for name in self.lora_modules:
            ranges.one_of("--lora-targets", name, LORA_TARGETS)
        if self.freeze not in ("backbone", "none") and not self.freeze.isdecimal():
            raise ConfigError(
                "E206",
                f"--freeze {self.freeze!r} is not known",
                expected="backbone, none, or a number of blocks",
                cure="use --freeze backbone",
            )
        is_fresh = not (self.pretrained or self.weights)
        if self.pretrained and self.weights:
            raise ConfigError("E205", "--pretrained and --weights both name weights")
        if self.pretrained and not self.model.startswith(TORCHVISION):
            raise ConfigError(
                "E205",
                f"there are no published weights for {self.model}",
                cure="use a model of torchvision, as --model tv:resnet18, or --weights FILE",
            )
        if is_fresh and (self.freeze != "none" or self.lora_rank):
            option = "--lora-rank" if self.lora_rank else "--freeze"
            raise ConfigError(
                "E205",
                f"{option} would keep random weights as they are",
                cure="add --pretrained or --weights FILE",
            )
        if self.lora_rank and self.freeze != "none":
            raise ConfigError(
                "E205", "--lora-rank freezes the network itself", cure="leave --freeze out"
            )

    @property
    def lora_modules(self) -> tuple[str, ...]:
        """The names in `lora_targets`."""
        return tuple(name.strip() for name in self.lora_targets.split(",") if name.strip())

    @property
    def lora_scale(self) -> float:
        """Alpha of the low-rank changes."""
        return self.lora_alpha or 2.0 * self.lora_rank

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names in `augment`."""
        names = [name.strip() for name in self.augment.split(",")]
        return tuple(name for name in names if name not in ("", "none"))

    @property
    def hidden_widths(self) -> tuple[int, ...]:
        """The numbers in `hidden`."""
        try:
            return tuple(int(width) for width in self.hidden.split(",") if width.strip())
        except ValueError as error:
            raise ConfigError(
                "E202",
                "--hidden is not understood",
                received=self.hidden,
                expected="whole numbers",
                cure="use --hidden 512,256,128",
            ) from error


def class_names(text: str) -> tuple[str, ...]:
    """Return names given with commas between them, or in a text file, one a line.

    Raises:
        ConfigError: fewer than two, or one twice.
    """
    path = Path(text)
    if "," not in text and path.is_file():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError("E203", f"cannot read the class names in {text}: {error}") from error
    else:
        lines = text.split(",")
    names = tuple(name.strip() for name in lines if name.strip())
    if len(names) < 2 or len(set(names)) != len(names):
        raise ConfigError(
            "E202",
            "--classes needs two or more different names",
            received=text[:80],
            cure="use --classes cat,dog or a file with one name a line",
        )
    return names


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Return numbers that are given with commas between them: 1 for grey, 3 for colour.

    Raises:
        ConfigError: they are no finite numbers, or not 1 or 3.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
        raise ConfigError(
            "E202",
            f"{option} is not understood",
            received=text,
            expected="1 or 3 numbers",
            cure=f"use {option} 0.485,0.456,0.406",
        )
    return values


def image_shape(text: str) -> tuple[int, int, int]:
    """Return channels, height and width out of `1x28x28`.

    Raises:
        ConfigError: it is not of that form, or no image has it.
    """
    parts = text.lower().split("x")
    values = [int(part) if part.isdecimal() else 0 for part in parts]
    if len(values) != 3 or values[0] not in (1, 3) or not all(0 < v <= 4096 for v in values[1:]):
        raise ConfigError(
            "E202",
            "--input is not understood",
            received=text,
            expected="1 or 3 channels, height and width",
            cure="use --input 3x224x224",
        )
    return values[0], values[1], values[2]
