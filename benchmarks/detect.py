"""`dltool detect` over 100 pictures, against torchvision's bare model plus decoding by Pillow.

    python benchmarks/detect.py [--model fasterrcnn-mobilenet-320] [--images FOLDER] [--rounds 5]

The same network, weights, pictures and batches on both sides, in one process and in turn. Bare:
Pillow decodes every picture, then the model sees the batches. Ours: what `dltool detect` does once
its model is loaded: finding the files, decoding in threads, detecting, and putting the results into
JSON; without and with the annotated pictures. Start-up is told apart: one picture, from the call of
a fresh process to its end, with weights on the disk. Without --weights the weights are drawn from a
seed; what the model computes does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from dltool_detect import predict
from dltool_detect.bench import made_up
from dltool_detect.chosen import Chosen
from dltool_detect.models.build import pretrained
from dltool_detect.models.zoo import ENTRIES
from dltool_detect.outputs import plan
from dltool_detect.predict import Wishes
from dltool_detect.sources import gather
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from dltool import timing
from dltool.console import Console

LIMIT_RATIO, LIMIT_SECONDS = 1.10, 3.0


def bare(model: torch.nn.Module, paths: list[Path], batch_size: int) -> list[object]:
    """Decode with Pillow, then run the model on batches."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(transforms.pil_to_tensor(image.convert("RGB")) / 255)
    found: list[object] = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            found += model(images[start : start + batch_size])
    return found


def ours(chosen: Chosen, folder: Path, out: Path, batch_size: int, *, save: bool) -> object:
    """Do what the command does after loading its model."""
    console = Console("detect")
    with contextlib.redirect_stderr(io.StringIO()):
        sources, _ = gather([str(folder)])
        places = plan(sources, out, pictures=save, crops=False)
        wishes = Wishes(0.5, 100, (), save, False, 1, batch_size)
        looked, _ = predict.look_at_all(sources, places, chosen, wishes, console)
    return predict.as_json(looked, [], chosen)


def processor_seconds(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least processor time of each function, which other programs disturb less."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.process_time()
            function()
            taken[name].append(time.process_time() - started)
    return {name: min(values) for name, values in taken.items()}


def one_picture(
    path: Path, model: str, weights: Path, rounds: int
) -> tuple[list[float], list[float]]:
    """Time whole processes for one picture: by the clock, and their processor time."""
    seconds, processor = [], []
    words = ["-m", "dltool", "detect", str(path), "--model", model, "--weights", str(weights)]
    for _ in range(rounds):
        started, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
        after = os.times()
        own = after.children_user + after.children_system
        processor.append(own - before.children_user - before.children_system)
    return seconds, processor


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fasterrcnn-mobilenet-320")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        folder = options.images or root / "pictures"
        if options.images is None:
            folder.mkdir()
            for number in range(options.count):
                (folder / f"{number:03}.jpg").write_bytes(made_up(number))
        weights = options.weights or root / "weights.pth"
        if options.weights is None:
            torch.manual_seed(0)
            fresh = ENTRIES[options.model].builder(weights=None, weights_backbone=None)
            torch.save(fresh.state_dict(), weights)
        detector = pretrained(options.model, weights)
        chosen = Chosen(detector, "torchvision", options.model)
        paths = [source.path for source in gather([str(folder)])[0] if source.path is not None]
        model = detector.core.model
        detector.detect([torch.zeros(3, 64, 64, dtype=torch.uint8)], min_score=0.5)
        size = options.batch_size
        functions: dict[str, Callable[[], object]] = {
            "bare": lambda: bare(model, paths, size),
            "detect": lambda: ours(chosen, folder, root / "out", size, save=False),
            "detect and draw": lambda: ours(chosen, folder, root / "out", size, save=True),
        }
        times = timing.compare(functions, repeats=options.rounds)
        worked = processor_seconds(functions, options.rounds)
        alone, alone_worked = one_picture(paths[0], options.model, weights, options.rounds)
    ratios = {name: timing.ratio(times[name], times["bare"]) for name in times if name != "bare"}
    result = {
        "model": options.model,
        "pictures": len(paths),
        "batch_size": size,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "seconds": {name: value.as_dict() for name, value in times.items()},
        "ratio_to_bare": ratios,
        "processor_seconds": worked,
        "processor_ratio_to_bare": {
            name: value / worked["bare"] for name, value in worked.items() if name != "bare"
        },
        "limit": LIMIT_RATIO,
        "holds": ratios["detect"] <= LIMIT_RATIO,
        "one_picture": {
            "median": statistics.median(alone),
            "min": min(alone),
            "processor_seconds": min(alone_worked),
            "limit": LIMIT_SECONDS,
            "holds": statistics.median(alone) <= LIMIT_SECONDS,
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
