"""Write a detector as ONNX or as a torch.export program, and check it against the detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import exports
from dltool.console import Console
from dltool.device import generator
from dltool.errors import CheckFailed, ConfigError
from dltool.exports import Call
from dltool.files import write_json_atomic
from dltool_detect.chosen import choose
from dltool_detect.dense import WHOLE_SCORE, Whole, dense_part, finished, places_of
from dltool_detect.models.build import Detector

FORMATS = ("onnx", "pt2")
DEFAULT_SIDE = 320
# of scores; and of boxes, in shares of the picture's side
TOLERANCE = 1e-3


def export_model(
    model: str,
    *,
    format: str,
    out: Path,
    weights: Path | None,
    image_size: int,
    console: Console,
) -> None:
    """Export, load what was written, and compare it with the detector on made-up pictures.

    Raises:
        ConfigError: E205, the detector cannot be written in this format.
        MissingExtra: the packages of ONNX are not installed.
        CheckFailed: the file gives other results than the detector; it is removed.
    """
    if format == "onnx":
        exports.require_onnx()
    chosen = choose(model, weights, torch.device("cpu"), console)
    detector = chosen.detector
    part = dense_part(detector).eval()
    if isinstance(part, Whole) and format == "pt2":
        raise ConfigError(
            "E205",
            f"{detector.name} has two stages, whose second depends on what the first finds; "
            "a torch.export program cannot hold that",
            cure="use --format onnx, or export a model of one stage",
        )
    side = detector.spec.image_size or image_size or DEFAULT_SIDE
    if image_size not in (0, side):
        raise ConfigError(
            "E205",
            f"the detector sees pictures of {side} pixels",
            received=f"--image-size {image_size}",
            cure="leave --image-size out",
        )
    example = _picture(side, 0)
    with exports.checked_file(out) as temporary:
        written = _write_onnx if format == "onnx" else exports.write_program
        call = written(part, (example,), temporary)
        difference = _compare(detector, part, call, side)
    facts = _facts(detector, part, side)
    sidecar = out.with_suffix(".json")
    write_json_atomic(sidecar, facts)
    size = out.stat().st_size
    result = {
        "model": chosen.as_dict(),
        "file": str(out),
        "format": format,
        "bytes": size,
        "description": str(sidecar),
        "largest_difference": difference,
        **facts,
    }
    text = (
        f"{out}: {size / 1e6:.1f} MB, checked: it differs from the detector by {difference:.1e}\n"
        f"{sidecar}: what goes in and comes out"
    )
    console.result(result, text)


def _picture(side: int, number: int) -> Tensor:
    """Return a made-up picture (1, 3, side, side) uint8 with edges, smooth parts and noise."""
    stream = generator(number, "detect", "export")
    coarse = torch.rand(1, 3, 8, 8, generator=stream)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="nearest")
    noise = torch.rand(1, 3, side, side, generator=stream)
    return ((0.8 * smooth + 0.2 * noise) * 255).to(torch.uint8)


def _write_onnx(part: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> Call:
    is_whole = isinstance(part, Whole)
    return exports.write_onnx(
        part,
        inputs,
        path,
        input_names=["images"],
        output_names=["boxes", "scores", "labels"] if is_whole else ["boxes", "scores"],
        # the number of boxes of two stages is known to the older exporter only
        by_tracing=is_whole,
    )


@torch.no_grad()
def _compare(detector: Detector, part: nn.Module, call: Call, side: int) -> float:
    """Return the largest difference between the file's results and the detector's.

    Every number of the graph is compared, and what is left after suppression with what the
    detector itself says.

    Raises:
        CheckFailed: it is above the tolerance.
    """
    worst = 0.0
    for number in range(3):
        images = _picture(side, number)
        expected, got = part(images), call(images)
        for one, other, unit in zip(expected[:2], got[:2], (side, 1.0), strict=True):
            if one.shape != other.shape:
                raise _differs(f"{tuple(other.shape)} results in place of {tuple(one.shape)}")
            if one.numel():
                worst = max(worst, float((one - other).abs().max()) / unit)
        worst = max(worst, _against_detector(detector, part, got, images))
    if not worst <= TOLERANCE:
        raise _differs(f"by {worst:.2e}")
    return worst


def _against_detector(
    detector: Detector, part: nn.Module, got: Sequence[Tensor], images: Tensor
) -> float:
    """Return how far the best scores after suppression are from the detector's."""
    mine = detector.detect([images[0]], min_score=0.05, max_boxes=20)[0].scores
    if isinstance(part, Whole):
        theirs = got[1][got[1] >= 0.05][:20]
    else:
        overlap = float(part.overlap)  # type: ignore[arg-type]  # nn.Module hides its attributes
        theirs = finished(got[0], got[1], overlap=overlap, min_score=0.05, max_boxes=20).scores
    count = min(len(mine), len(theirs))
    if not count:
        return 0.0
    return float((mine[:count] - theirs[:count]).abs().max())


def _differs(how: str) -> CheckFailed:
    return CheckFailed(
        "E601",
        f"the exported file differs from the detector: {how}",
        expected=f"at most {TOLERANCE:g}",
        cure="report it, with the model's name",
    )


def _facts(detector: Detector, part: nn.Module, side: int) -> dict[str, Any]:
    """Return what a program that uses the file must know."""
    is_whole = isinstance(part, Whole)
    has_own_size = bool(detector.spec.image_size)
    numbers = places_of(detector) if is_whole else list(range(len(detector.classes)))
    outputs: dict[str, str] = {"boxes": "float32 (A, 4), x1 y1 x2 y2 in pixels of the input"}
    if is_whole:
        outputs["scores"] = "float32 (A,), best first, overlaps suppressed"
        outputs["labels"] = "int64 (A,), numbers of classes"
        after = f"cut at a score; those below {WHOLE_SCORE} are left out already"
    else:
        outputs["scores"] = "float32 (A, C), one column a class"
        after = (
            f"cut at a score, then non-maximum suppression within each class at IoU {part.overlap}"
        )
    resize = f"stretch the picture to {side}×{side}, bilinear with antialiasing"
    return {
        "input": {
            "name": "images",
            "shape": [1, 3, side, side],
            "type": "uint8 RGB",
            "resize": resize if has_own_size else f"bring the picture to {side}×{side}, or pad it",
        },
        "outputs": outputs,
        "after": after,
        "classes": [
            {"number": number, "name": name}
            for number, name in zip(numbers, detector.classes, strict=True)
        ],
    }
