"""Make a model folder out of weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dltool import checkpoint, convert
from dltool.console import Console
from dltool.errors import CheckpointError, ConfigError, DltoolError
from dltool_cnn.data import Form
from dltool_cnn.model import Spec, build, count_parameters
from dltool_cnn.predict import describe_model


def import_weights(
    weights: Path,
    spec: Spec,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    out: Path,
    key: str | None,
    strip_prefix: str | None,
    console: Console,
) -> None:
    """Load foreign weights into a network of ours and write a model folder.

    Args:
        mean, std: per channel on the 0-to-1 scale, as in the training of these weights.

    Raises:
        CheckpointError: names or shapes differ from the network's; the differences are listed.
        ConfigError: mean or deviation do not have one number a channel.
    """
    if out.exists():
        raise DltoolError("E101", f"{out} exists already", cure="name a new folder with --out")
    for option, values in (("--mean", mean), ("--std", std)):
        if len(values) != spec.channels:
            raise ConfigError(
                "E202",
                f"{option} needs one number for each of {spec.channels} channels",
                received=", ".join(map(str, values)),
            )
    if not all(value > 0 for value in std):
        raise ConfigError("E202", "--std must be above 0", received=", ".join(map(str, std)))
    model = build(spec, mean, std)
    own = model.network.state_dict()
    target = {name: tuple(value.shape) for name, value in own.items()}
    mapped = convert.load_foreign(weights, key=key, strip_prefix=strip_prefix, target=target)
    tensors = dict(mapped.tensors)
    if not any(name.endswith("num_batches_tracked") for name in tensors):
        # weights from before torch 0.4.1: the counter is only used without a momentum
        counters = {name for name in own if name.endswith("num_batches_tracked")}
        tensors |= {name: own[name] for name in counters}
    fit = convert.compare(tensors, target)
    if not fit.is_exact:
        raise CheckpointError(
            "E513",
            f"{weights} does not fit {spec.name}: {fit.text()}",
            cure="choose the --model, --classes and --image-size of these weights",
        )
    model.network.load_state_dict(tensors)
    form = Form("L" if spec.channels == 1 else "RGB", spec.height, spec.width)
    description = describe_model(spec, classes, form, mean, std)
    description["imported"] = {"file": weights.name, "key": mapped.key, "names": mapped.names}
    checkpoint.save_model(out, model, description)
    parameters = count_parameters(model)
    result = {
        "model": str(out),
        "parameters": parameters,
        "tensors": len(mapped.tensors),
        "key": mapped.key,
        "stripped": mapped.stripped,
        "left_out": mapped.left_out,
    }
    console.result(
        result, f"{spec.name} with {parameters:,} parameters and {len(classes)} classes in {out}"
    )
    console.hint(f"dltool cnn evaluate {out} --data FOLDER")
