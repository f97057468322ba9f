"""What a detector's training begins from: random weights, a file, COCO's, or a `cnn` run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from dltool import device as devices
from dltool import runs
from dltool.console import Console
from dltool.convert import load_foreign
from dltool.data.download import is_offline
from dltool.errors import CheckpointError
from dltool_detect.config import TrainConfig
from dltool_detect.models import backbones, build, zoo
from dltool_detect.models.build import Detector
from dltool_detect.models.square import Square

NONE, COCO = "none", "coco"
# with less than this share of the weights taken over, the file is for another model
LEAST_TAKEN = 0.5


def detector(
    config: TrainConfig, classes: Sequence[str], console: Console, *, run: Path | None = None
) -> Detector:
    """Build the detector of a training.

    Args:
        run: the run that is gone on with; its checkpoint brings the weights.

    Raises:
        CheckpointError: the file or the `cnn` run does not fit.
        DataError: E504, COCO's weights cannot be fetched.
    """
    kind = ""
    weights: dict[str, Tensor] = {}
    if run is not None:
        stored = runs.read_json(run, "model.json").get("architecture", {})
        kind = str(stored.get("backbone", ""))
    elif config.backbone:
        kind, weights = backbones.read(runs.locate(config.backbone, "cnn"))
    made = build.build(
        config.model,
        classes,
        image_size=config.side,
        generator=devices.generator(config.seed, "weights"),
        backbone=kind,
    )
    if run is not None:
        return made
    if weights:
        assert isinstance(made.core, Square)
        body = made.core.network.get_submodule("backbone")
        backbones.fill(body, weights, Path(config.backbone))
        console.note(f"backbone {kind} from {config.backbone}: {len(weights)} tensors")
    if config.weights != NONE:
        _take(made, config, console)
    return made


def _take(made: Detector, config: TrainConfig, console: Console) -> None:
    path = Path(config.weights)
    if config.weights == COCO:
        tensors: Mapping[str, Tensor] = zoo.read_weights(config.model, None, is_offline())
        target: nn.Module = made.core.get_submodule("model")
    elif path.is_dir():
        found = build.load_run(path)
        tensors, target = found.state_dict(), made
        _refuse_other_model(found.name, made.name, path)
    else:
        tensors = load_foreign(path).tensors
        inner = made.core.get_submodule("model") if config.model in zoo.ENTRIES else made
        target = inner if _fits(tensors, inner) else made
    count = taken(tensors, target, path)
    fresh = len(target.state_dict()) - count
    console.note(f"weights of {config.weights}: {count} tensors taken over, {fresh} begin afresh")


def _refuse_other_model(name: str, wanted: str, path: Path) -> None:
    if name != wanted:
        raise CheckpointError(
            "E513", f"{path} is a {name}, not a {wanted}", cure=f"use --model {name}"
        )


def _fits(tensors: Mapping[str, Tensor], target: nn.Module) -> bool:
    own = target.state_dict()
    return any(name in own and own[name].shape == value.shape for name, value in tensors.items())


def taken(tensors: Mapping[str, Tensor], target: nn.Module, source: Path) -> int:
    """Put in the tensors whose name and shape fit; heads for other classes begin afresh.

    Returns:
        How many were put in.

    Raises:
        CheckpointError: E513, fewer than half fit.
    """
    own = target.state_dict()
    fitting = {
        name: value.to(own[name].dtype)
        for name, value in tensors.items()
        if name in own and own[name].shape == value.shape
    }
    if len(fitting) < LEAST_TAKEN * len(own):
        raise CheckpointError(
            "E513",
            f"{source} holds weights of another model: {len(fitting)} of {len(own)} tensors fit",
            cure="name the model that they were trained with by --model",
        )
    target.load_state_dict(fitting, strict=False)
    return len(fitting)
