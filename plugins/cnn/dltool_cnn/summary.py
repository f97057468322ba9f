"""What a network is made of: layers, output shapes, parameters, multiply-adds and memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from dltool.console import Console, table
from dltool_cnn.config import MODELS
from dltool_cnn.model import Classifier, Spec, build
from dltool_cnn.models import zoo

FLOAT_BYTES = 4
# weights, gradients and the two moments of AdamW
COPIES_IN_TRAINING = 4
# attention that uses the weights of its layers without calling them: one row each
WHOLE = (
    "MultiheadAttention",
    "ShiftedWindowAttention",
    "ShiftedWindowAttentionV2",
    "RelativePositionalMultiHeadAttention",
)
PROBE_MEAN = 0.5


@dataclass(frozen=True)
class Layer:
    """One layer of a network, for one image.

    Attributes:
        output: shape without the batch.
        multiply_adds: of convolutions and matrix products; norms, pooling and biases have none.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """A network on one image."""

    layers: list[Layer]
    parameters: int
    trainable: int
    multiply_adds: int
    activations: int

    def training_bytes(self, batch_size: int) -> int:
        """Return about what a training step with AdamW holds, in fp32."""
        return FLOAT_BYTES * (
            COPIES_IN_TRAINING * self.trainable
            + (self.parameters - self.trainable)
            + batch_size * self.activations
        )


class _Unfilled(TorchFunctionMode):
    """Leave new weights without values: drawing them on "meta" would load torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Skip what draws random values into a tensor."""
        given = kwargs or {}
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_")):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def build_empty(spec: Spec) -> Classifier:
    """Build a network without memory for its weights, to look at its shapes."""
    values = [PROBE_MEAN] * spec.channels
    with torch.device("meta"), _Unfilled():
        return build(spec, values, values)


def summarise(model: Classifier, spec: Spec) -> Summary:
    """Send one image through a network and note what every layer makes of it.

    Args:
        model: on any device; on "meta" nothing is computed.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, spec.channels, spec.height, spec.width, device=device)
    seen: dict[str, list[tuple[int, ...]]] = {}
    handles = []
    for name, module in model.network.named_modules():
        if _is_whole(module) or _own_parameters(module):
            handles.append(module.register_forward_hook(_noting(seen.setdefault(name, []))))
    was_training = model.training
    model.eval()
    # with gradients: without them attention takes a way that the counter does not see
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    layers = _layers(model, seen, counter)
    everything = list(model.parameters())
    return Summary(
        layers=layers,
        parameters=sum(parameter.numel() for parameter in everything),
        trainable=sum(p.numel() for p in everything if p.requires_grad),
        multiply_adds=counter.get_total_flops() // 2,
        activations=sum(_size(layer.output) for layer in layers),
    )


def _is_whole(module: nn.Module) -> bool:
    return type(module).__name__ in WHOLE or not any(True for _ in module.children())


def _own_parameters(module: nn.Module) -> int:
    """Return how many a module holds beside its layers, as the tokens of a transformer are."""
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def _noting(shapes: list[tuple[int, ...]]) -> Any:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        first: Tensor = output[0] if isinstance(output, tuple) else output
        shapes.append(tuple(first.shape[1:]))

    return note


def _layers(
    model: Classifier, seen: dict[str, list[tuple[int, ...]]], counter: FlopCounterMode
) -> list[Layer]:
    flops = counter.get_flop_counts()
    prefix = f"{type(model).__name__}.network"
    layers: list[Layer] = []
    inside: list[str] = []
    for name, module in model.network.named_modules():
        # an Identity, or a layer that this input never reaches, has nothing to show
        is_part = any(name.startswith(f"{whole}.") for whole in inside)
        if is_part or not seen.get(name) or isinstance(module, nn.Identity):
            continue
        is_whole = _is_whole(module)
        own: dict[Any, int] = {}
        parameters = _own_parameters(module)
        if is_whole:
            own = flops.get(f"{prefix}.{name}" if name else prefix, {})
            parameters = sum(parameter.numel() for parameter in module.parameters())
            inside.append(name)
        layers.append(
            Layer(
                name=name or "network",
                kind=type(module).__name__,
                output=seen[name][-1],
                parameters=parameters,
                multiply_adds=sum(own.values()) // 2,
            )
        )
    return layers


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def show(spec: Spec, batch_size: int, console: Console) -> None:
    """Print the summary of a model that need not be trained."""
    found = summarise(build_empty(spec), spec)
    training = found.training_bytes(batch_size)
    data = {
        "model": spec.name,
        "input": [spec.channels, *spec.seen],
        "classes": spec.num_classes,
        "layers": [{**asdict(layer), "output": list(layer.output)} for layer in found.layers],
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds,
        "flops": 2 * found.multiply_adds,
        "weights_bytes": found.parameters * FLOAT_BYTES,
        "activation_bytes_per_image": found.activations * FLOAT_BYTES,
        "batch_size": batch_size,
        "training_bytes": training,
    }
    console.result(data, "\n".join(_lines(spec, found, batch_size, training)))


def _lines(spec: Spec, found: Summary, batch_size: int, training: int) -> list[str]:
    rows = [
        [
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output)),
            f"{layer.parameters:>14,}",
            f"{layer.multiply_adds:>16,}",
        ]
        for layer in found.layers
    ]
    side = "x".join(map(str, (spec.channels, *spec.seen)))
    return [
        table(rows, ("layer", "kind", "output", f"{'parameters':>14}", f"{'multiply-adds':>16}")),
        "",
        f"{spec.name} on {side}, {spec.num_classes} classes",
        f"parameters     {found.parameters:,} ({_bytes(found.parameters * FLOAT_BYTES)} in fp32)",
        f"multiply-adds  {found.multiply_adds:,} an image ({2 * found.multiply_adds:,} FLOPs)",
        f"activations    {_bytes(found.activations * FLOAT_BYTES)} an image",
        f"training       about {_bytes(training)} with AdamW and batches of {batch_size}",
    ]


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000  # type: ignore[assignment]  # a number to show
    return f"{count:.3g} {unit}"


def show_models(find: str, console: Console) -> None:
    """Print the models that can be trained, ours and torchvision's."""
    own = [
        {"name": name, "what": what} for name, what in MODELS.items() if find in name or not find
    ]
    theirs = [_published(name) for name in zoo.names() if find in f"{zoo.PREFIX}{name}"]
    lines = [f"{row['name']:16} {row['what']}" for row in own]
    if theirs:
        rows = [
            [
                row["name"],
                f"{row['parameters']:>12,}",
                row["image_size"],
                round(row["accuracy"], 1),
                round(row["megabytes"]),
            ]
            for row in theirs
        ]
        heads = ("torchvision's", f"{'parameters':>12}", "side", "ImageNet %", "MB to fetch")
        lines += ["", table(rows, heads)]
    if not own and not theirs:
        lines = [f"no model has {find!r} in its name"]
    console.result({"models": own, "torchvision": theirs}, "\n".join(lines).strip("\n"))
    console.hint("dltool cnn summary MODEL --input 3x224x224")


def _published(name: str) -> dict[str, Any]:
    entry = zoo.weights_entry(name)
    return {
        "name": f"{zoo.PREFIX}{name}",
        "parameters": entry.meta["num_params"],
        "image_size": zoo.usual_side(name),
        "accuracy": entry.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        "megabytes": entry.meta["_file_size"],
        "weights": str(entry),
        "url": entry.url,
    }
