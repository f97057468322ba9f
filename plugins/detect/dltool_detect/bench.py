"""How fast a detector is here: decoding, the model, and all together."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dltool import device as devices
from dltool import timing
from dltool.console import Console, table
from dltool.device import generator
from dltool.errors import DataError
from dltool_detect.chosen import Chosen, choose
from dltool_detect.data import read_picture
from dltool_detect.draw import boxes_on, encoded
from dltool_detect.sources import gather

WIDTH, HEIGHT = 640, 480


def bench_model(
    model: str,
    images: list[str],
    *,
    weights: Path | None,
    batch_size: int,
    repeats: int,
    device: str,
    threads: int,
    console: Console,
) -> None:
    """Time decoding, the model and drawing on the same pictures, in turn; medians are told.

    Raises:
        DataError: none of the pictures can be read.
    """
    choice = devices.choose(device)
    if threads:
        torch.set_num_threads(threads)
    files = _files(images) if images else [made_up(number) for number in range(batch_size)]
    files = (files * batch_size)[: max(batch_size, len(files))]
    chosen = choose(model, weights, choice.device, console)
    batch = [read_picture(data, "picture").to(choice.device) for data in files][:batch_size]
    drawn = [image.cpu().permute(1, 2, 0).contiguous().numpy() for image in batch]
    found = _detect(chosen, batch)
    stages = {
        "decode": lambda: [read_picture(data, "picture") for data in files[:batch_size]],
        "detect, one by one": lambda: [_detect(chosen, [image]) for image in batch],
        f"detect, batch of {batch_size}": lambda: _detect(chosen, batch),
        "draw and encode": lambda: [
            encoded(boxes_on(pixels, item, chosen.classes), ".jpg")
            for pixels, item in zip(drawn, found, strict=True)
        ],
    }
    times = timing.compare(stages, repeats=repeats, device=choice.device)
    rows = [_row(name, time, batch_size) for name, time in times.items()]
    result = {
        "model": chosen.as_dict(),
        "parameters": sum(value.numel() for value in chosen.detector.parameters()),
        "device": str(choice.device),
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "picture": [int(batch[0].shape[2]), int(batch[0].shape[1])],
        "stages": rows,
    }
    cells = [[row["stage"], f"{row['ms']:.1f}", f"{row['per_second']:.1f}"] for row in rows]
    text = (
        f"{chosen.name}, {result['parameters']:,} parameters, {choice.device}, "
        f"{result['threads']} threads, pictures of {WIDTH}×{HEIGHT}"
    )
    if images:
        text = text.rpartition(",")[0] + ", your pictures"
    console.result(result, f"{text}\n{table(cells, ['stage', 'ms a picture', 'pictures/s'])}")


def _files(images: list[str]) -> list[bytes]:
    sources, failed = gather(images)
    for failure in failed:
        raise DataError("E501", failure.text(), cure="check the path")
    return [source.read() for source in sources if not source.is_video]


def made_up(number: int) -> bytes:
    """Return a made-up picture of 640×480 pixels as a JPEG file."""
    stream = generator(number, "detect", "bench")
    coarse = torch.rand(1, 3, 12, 16, generator=stream)
    pixels = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic")
    array = (pixels[0].clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stored, "JPEG", quality=90)
    return stored.getvalue()


def _detect(chosen: Chosen, batch: list[Tensor]) -> Any:
    with torch.inference_mode():
        return chosen.detector.detect(batch, min_score=chosen.usual_score)


def _row(name: str, time: timing.Timing, count: int) -> dict[str, Any]:
    return {
        "stage": name,
        "ms": 1000 * time.median / count,
        "per_second": count / time.median,
        "seconds": time.as_dict(),
    }
