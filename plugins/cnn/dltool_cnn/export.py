"""Write a classifier for other programs, and check the file against the classifier.

Scaling and normalisation are inside the program: bytes go in, logits and probabilities come out.
What the caller must still do (mode, size) and the classes in their order stand in the metadata.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dltool import exports
from dltool.console import Console
from dltool.device import generator
from dltool.errors import ConfigError, DltoolError
from dltool_cnn.evaluate import stored_batches
from dltool_cnn.predict import LoadedModel, load_classifier

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors"}
SAMPLES = 64
INPUT, OUTPUTS = "images", ("logits", "probabilities")


class Answering(nn.Module):
    """The classifier with its probabilities beside its logits."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities (B, num_classes) for bytes (B, C, H, W)."""
        logits = self.classifier(images)
        return logits, logits.softmax(1)


def chosen_format(format: str | None, out: Path | None) -> str:
    """Return the format that is named, or that the file's suffix tells; onnx without either.

    Raises:
        ConfigError: E206, it is not known; E205, name and suffix contradict each other.
    """
    if format is not None and format not in SUFFIXES:
        raise ConfigError("E206", f"--format {format!r} is not known", expected=", ".join(SUFFIXES))
    if out is None:
        return format or "onnx"
    told = next((name for name, end in SUFFIXES.items() if out.suffix.lower() == end), None)
    if told is None:
        raise ConfigError(
            "E206",
            f"the suffix of {str(out)!r} names no format",
            expected=", ".join(SUFFIXES.values()),
            cure=f"use --out model{SUFFIXES[format or 'onnx']}",
        )
    if format not in (None, told):
        raise ConfigError(
            "E205",
            f"--format {format} and --out {out.name} contradict each other",
            expected=f"a name that ends in {SUFFIXES[format or told]}",
        )
    return told


def export_run(
    folder: Path,
    out: Path | None,
    format: str,
    *,
    tolerance: float,
    data: str | None,
    data_root: Path | None,
    console: Console,
) -> None:
    """Write a file, load it again, and compare its answers with the classifier's.

    Args:
        data: where the images to compare on come from; the run's own data by default.

    Raises:
        MissingExtra: the packages of ONNX are not installed.
        CheckFailed: E601, the file's answers are further off than `tolerance`; it is not kept.
    """
    if format == "onnx":
        exports.require_onnx()
    loaded = load_classifier(folder, torch.device("cpu"))
    images, source = _samples(folder, loaded, data, data_root, console)
    place = out or folder / "export" / f"model{SUFFIXES[format]}"
    facts = describe(loaded)
    answering = Answering(loaded.model).eval()
    with exports.checked_file(place) as temporary:
        call = _writer(format)(loaded, answering, images, temporary, facts)
        difference = compare(answering, call, images)
        exports.refuse_difference(
            difference,
            tolerance,
            "the model",
            "allow more with --tolerance, or use another --format",
        )
    size = place.stat().st_size
    result = {
        "run": str(folder),
        "file": str(place),
        "format": format,
        "bytes": size,
        "largest_difference": difference,
        "tolerance": tolerance,
        "checked_on": {"images": len(images), "source": source},
        **facts,
    }
    text = (
        f"{place}: {size / 1e6:.2f} MB, {format}\n"
        f"checked on {len(images)} images ({source}): largest difference {difference:.1e}, "
        f"allowed {tolerance:g}"
    )
    console.result(result, text)


def describe(loaded: LoadedModel) -> dict[str, Any]:
    """Return what a program that uses the file must know."""
    form, count = loaded.form, len(loaded.classes)
    prepared = loaded.description["preprocessing"]
    return {
        "topic": "cnn",
        "architecture": loaded.description["architecture"],
        "classes": list(loaded.classes),
        "input": {
            "name": INPUT,
            "type": "uint8, 0 to 255",
            "shape": ["batch", form.channels, form.height, form.width],
            "mode": form.mode,
            "resize": prepared["resize"],
        },
        "inside": {
            "scale": "x / 255",
            "normalise": "(x - mean) / std",
            "mean": prepared["mean"],
            "std": prepared["std"],
        },
        "outputs": dict.fromkeys(OUTPUTS, f"float32 (batch, {count})"),
    }


Writer = Callable[[LoadedModel, Answering, Tensor, Path, dict[str, Any]], exports.Call]


def _writer(format: str) -> Writer:
    return {"onnx": _onnx, "pt2": _program, "safetensors": _weights}[format]


def _free_batch() -> Any:
    return ({0: torch.export.Dim("batch", min=1)},)


def _onnx(
    loaded: LoadedModel, answering: Answering, images: Tensor, path: Path, facts: dict[str, Any]
) -> exports.Call:
    return exports.write_onnx(
        answering,
        (images[:2],),
        path,
        input_names=[INPUT],
        output_names=OUTPUTS,
        dynamic_shapes=_free_batch(),
        metadata=facts,
    )


def _program(
    loaded: LoadedModel, answering: Answering, images: Tensor, path: Path, facts: dict[str, Any]
) -> exports.Call:
    return exports.write_program(
        answering, (images[:2],), path, dynamic_shapes=_free_batch(), metadata=facts
    )


def _weights(
    loaded: LoadedModel, answering: Answering, images: Tensor, path: Path, facts: dict[str, Any]
) -> exports.Call:
    """Write the weights alone, and read them into a network that has lost its own."""
    own = loaded.model.state_dict()
    weights = {name: value.contiguous() for name, value in own.items()}
    save_file(weights, path, exports.described(facts))
    fresh = copy.deepcopy(loaded.model)
    for value in fresh.state_dict().values():
        value.zero_()  # what the file lacks cannot be right by chance
    fresh.load_state_dict(load_file(path))
    return Answering(fresh).eval()


@torch.no_grad()
def compare(answering: Answering, call: exports.Call, images: Tensor) -> float:
    """Return the largest difference of a logit or probability, for one image and for many."""
    worst = 0.0
    for some in (images, images[:1]):
        expected: Sequence[Tensor] = answering(some)
        worst = max(worst, exports.largest_difference(expected, call(some)))
    return worst


def _samples(
    folder: Path, loaded: LoadedModel, data: str | None, data_root: Path | None, console: Console
) -> tuple[Tensor, str]:
    """Return images (N, C, H, W) uint8 of the run's test split, or made-up ones where it is gone.

    Raises:
        DltoolError: the data that was asked for cannot be used.
    """
    try:
        batches, source = stored_batches(
            folder, loaded, data, data_root, "test", torch.device("cpu"), console
        )
        images, _ = next(iter(batches.batches(0)))
        if len(images) == 1:
            images = images.repeat(2, 1, 1, 1)
        return images[:SAMPLES].contiguous(), f"{source}, test"
    except DltoolError as error:
        if data is not None or data_root is not None:
            raise
        console.warn(f"checked on made-up images, as the run's data is not here: {error.message}")
    form = loaded.form
    shape = (SAMPLES, form.channels, form.height, form.width)
    noise = torch.randint(0, 256, shape, generator=generator(0, "cnn", "export"))
    return noise.to(torch.uint8), "made up"
