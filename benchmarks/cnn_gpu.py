"""Time to 94 % and 96 % on CIFAR-10 on one GPU, cold and warm.

    python benchmarks/cnn_gpu.py [--data-root FOLDER] [--goal 94|96] [--width N] [--epochs N]

Cold is the first training of a fresh process: compiling, kernels and caches included; warm is the
second in the same process, with another seed. Both give the time of training alone and that of the
whole command. The settings of the two goals are where to begin: none was at hand to tune them on.
Without a GPU that torch can use the program ends with exit code 3.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "94": {"width": 96, "epochs": 16, "augment": "alternating-flip,crop"},
    "96": {"width": 160, "epochs": 50, "augment": "alternating-flip,crop,cutout"},
}


def trained(words: list[str]) -> dict[str, Any]:
    """Train by the command in this process and return its figures."""
    from dltool import cli

    out = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with contextlib.redirect_stdout(out):
            code = cli.run(["cnn", "train", *words, "--out", f"{folder}/run", "--json"])
        seconds = time.perf_counter() - started
    if code:
        raise SystemExit(code)
    result = json.loads(out.getvalue())["data"]
    return {
        "test_accuracy": result["test_accuracy"]["value"],
        "training_seconds": result["training_seconds"],
        "images_per_second": result["images_per_second"],
        "command_seconds": round(seconds, 2),
    }


def main() -> None:
    """Train cold and warm, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="cifar10, or a folder or zip of it")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--goal", choices=list(SETTINGS), default="94")
    parser.add_argument("--width", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cnn_gpu.json"))
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("cnn_gpu: torch finds no CUDA device here; see dltool doctor", file=sys.stderr)
        raise SystemExit(3)
    chosen = dict(SETTINGS[arguments.goal])
    chosen |= {k: v for k in ("width", "epochs") if (v := getattr(arguments, k)) is not None}
    words = ["--data", arguments.data, "--recipe", "fast", "--device", "cuda"]
    words += ["--precision", "bf16", "--guards", "off", "--batch-size", "512"]
    for name, value in chosen.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--data-root", str(arguments.data_root)] if arguments.data_root else []
    words += [] if arguments.no_compile else ["--compile"]
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "goal": arguments.goal}
    result["settings"] = chosen
    for seed, kind in enumerate(("cold", "warm")):
        result[kind] = trained([*words, "--seed", str(seed)])
        reached = result[kind]["test_accuracy"] >= int(arguments.goal) / 100
        print(kind, json.dumps(result[kind]), "reached" if reached else "not reached", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
