"""Accuracy and training time of the default `cnn` recipes, by the command itself.

    python benchmarks/cnn_recipes.py --data-root FOLDER [--only digits,mnist,fashion-mnist]

FOLDER holds MNIST/raw and FashionMNIST/raw as torchvision lays them out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOALS = {
    "digits": {"accuracy": 0.98, "seconds": 30.0, "clock": "whole command"},
    "mnist": {"accuracy": 0.990, "seconds": 15.0, "clock": "training"},
    "fashion-mnist": {"accuracy": 0.915, "seconds": 120.0, "clock": "training"},
}


def run(data: str, data_root: Path | None, seed: int) -> dict[str, float]:
    """Train with the default recipe and return accuracy and times."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["cnn", "train", "--data", data, "--seed", str(seed), "--out", f"{folder}/run"]
        if data != "digits" and data_root is not None:
            words += ["--data-root", str(data_root)]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dltool", *words, "--json"],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        whole = time.perf_counter() - started
    result = json.loads(done.stdout)["data"]
    return {
        "test_accuracy": result["test_accuracy"]["value"],
        "training_seconds": result["training_seconds"],
        "command_seconds": round(whole, 1),
        "images_per_second": result["images_per_second"],
    }


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--only", default=",".join(GOALS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cnn_recipes.json"))
    arguments = parser.parse_args()
    results = {}
    for data in arguments.only.split(","):
        rows = [run(data, arguments.data_root, seed) for seed in range(arguments.seeds)]
        results[data] = {"goal": GOALS[data], "runs": rows}
        for row in rows:
            print(data, row, flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
