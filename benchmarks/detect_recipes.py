"""Average precision and training time of `detect train` from scratch, by the command itself.

    python benchmarks/detect_recipes.py --data-root FOLDER [--only fruit,bccd] [--threads 1]

FOLDER holds fruit-voc.zip and bccd-voc.zip. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# the model card of the shipped detector gives the first of these commands
RECIPES: dict[str, dict[str, Any]] = {
    "fruit": {
        "goal": 0.60,
        "words": ["--data", "fruit-voc.zip", "--image-size", "256", "--epochs", "150"],
    },
    "bccd": {
        "goal": 0.80,
        "words": [
            *("--data", "bccd-voc.zip", "--epochs", "60"),
            *("--augment", "flip,vflip,rotate,scale,color,mosaic"),
        ],
    },
}


def run(name: str, root: Path, extra: list[str]) -> dict[str, Any]:
    """Train with the recipe and return what it reached and how long it took."""
    words = [str(root / word) if word.endswith(".zip") else word for word in RECIPES[name]["words"]]
    with tempfile.TemporaryDirectory() as folder:
        command = ["detect", "train", *words, *extra, "--out", f"{folder}/run", "--json"]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "dltool", *command],
            check=True,
            stdout=subprocess.PIPE,
        )
        whole = time.perf_counter() - started
    result = json.loads(done.stdout)["data"]
    kept = ("split", "ap50", "ap", "text", "baseline_ap50", "best_epoch", "training_seconds")
    return {
        "goal": RECIPES[name]["goal"],
        **{key: result[key] for key in kept},
        "command_seconds": round(whole, 1),
        "command": " ".join(["dltool", *command[:-3]]),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--only", default=",".join(RECIPES))
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--threads", default="1")
    arguments = parser.parse_args()
    extra = ["--precision", arguments.precision, "--threads", arguments.threads]
    results = {name: run(name, arguments.data_root, extra) for name in arguments.only.split(",")}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
