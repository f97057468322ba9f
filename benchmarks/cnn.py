"""`dltool cnn` beside a plain PyTorch script, and what its recipes reach.

    OMP_NUM_THREADS=1 python benchmarks/cnn.py speed --mnist FOLDER
    python benchmarks/cnn.py recipe --data fashion-mnist --data-root FOLDER --recipe fast --seeds 3
    python benchmarks/cnn.py recipe --data cifar10-jpeg.zip --recipe fast

FOLDER holds MNIST/raw/*.gz and FashionMNIST/raw/*.gz. `speed` lets the two sides take turns in one
run: the script in the usual manner (DataLoader, ToTensor, Normalize, Adam 1e-3, batches of 64), the
command with the same network and settings, and the command's own recipe for the time to 99 %.
Wall times are of training alone; processor times of the whole program, start-up included.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOAL = 0.99
MOST_EPOCHS = 6
SAME = (
    *("--model", "cnn16", "--batch-size", "64", "--lr", "0.001", "--schedule", "constant"),
    *("--weight-decay", "0", "--label-smoothing", "0", "--epochs", "1", "--guards", "off"),
)


def measured(words: list[str]) -> tuple[dict[str, Any], float, float]:
    """Run a program that prints JSON; return that, its wall and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), wall, cpu


def trained(*words: str) -> dict[str, float]:
    """Train by the command and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dltool", "cnn", "train", "--out", f"{folder}/run"]
        found, wall, cpu = measured([*command, *words, "--json"])
    result = found["data"]
    return {
        "test_accuracy": result["test_accuracy"]["value"],
        "parameters": result["parameters"],
        "training_seconds": result["training_seconds"],
        "images_per_second": result["images_per_second"],
        "command_seconds": round(wall, 1),
        "processor_seconds": round(cpu, 1),
    }


def plain(root: str, epochs: int) -> Iterator[dict[str, float]]:
    """Train the usual script; yield its figures after each epoch."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    torch.manual_seed(0)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    train_set = datasets.MNIST(root, train=True, transform=transform)
    test_set = datasets.MNIST(root, train=False, transform=transform)
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=64)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    seconds = images_seen = 0.0
    for epoch in range(epochs):
        model.train()
        started = time.perf_counter()
        for images, labels in train_loader:
            optimizer.zero_grad()
            criterion(model(images), labels).backward()
            optimizer.step()
            images_seen += len(labels)
        seconds += time.perf_counter() - started
        model.eval()
        right = 0
        with torch.no_grad():
            for images, labels in test_loader:
                right += int((model(images).argmax(1) == labels).sum())
        yield {
            "epoch": epoch + 1,
            "test_accuracy": right / len(test_set),
            "training_seconds": seconds,
            "images_per_second": images_seen / seconds,
        }


def play_plain(root: str) -> None:
    """Train the usual script until it reaches the goal, and print all its epochs."""
    rows = []
    for row in plain(root, MOST_EPOCHS):
        rows.append(row)
        if row["test_accuracy"] >= GOAL:
            break
    print(json.dumps(rows))


def unpacked(source: Path, target: Path) -> Path:
    """Unpack the files as torchvision's reader wants them."""
    raw = target / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (source / "MNIST" / "raw").glob("*.gz"):
        with gzip.open(packed) as reader, (raw / packed.stem).open("wb") as writer:
            shutil.copyfileobj(reader, writer)
    return target


def speed(root: Path, rounds: int) -> dict[str, Any]:
    """Let script and command take turns."""
    found: dict[str, Any] = {"script": [], "same network": [], "recipe": []}
    data = ("--data", "mnist", "--data-root", str(root))
    with tempfile.TemporaryDirectory() as folder:
        where = str(unpacked(root, Path(folder)))
        for number in range(rounds):
            rows, _, cpu = measured([sys.executable, __file__, "plain", "--mnist", where])
            found["script"].append({"epochs": rows, "processor_seconds": round(cpu, 1)})
            found["same network"].append(trained(*data, *SAME, "--seed", str(number)))
            found["recipe"].append(trained(*data, "--seed", str(number)))
            for side, runs in found.items():
                print(side, json.dumps(runs[-1]), flush=True)
    return {**found, "ratios": ratios(found)}


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """Return how much faster the command is, by images and by the time to 99 %."""
    pairs = list(zip(found["script"], found["same network"], found["recipe"], strict=True))
    by_images = [
        same["images_per_second"] / script["epochs"][0]["images_per_second"]
        for script, same, _ in pairs
    ]
    to_goal = [
        recipe["training_seconds"] / script["epochs"][-1]["training_seconds"]
        for script, _, recipe in pairs
        if recipe["test_accuracy"] >= GOAL
    ]
    return {
        "images_per_second": [round(value, 2) for value in by_images],
        "median": round(statistics.median(by_images), 2),
        "time_to_goal": [round(value, 2) for value in to_goal],
        "script_reached_goal": [s["epochs"][-1]["test_accuracy"] >= GOAL for s, _, _ in pairs],
    }


def recipes(data: str, root: Path | None, kind: str, seeds: int) -> dict[str, Any]:
    """Train with a recipe once a seed."""
    words = ["--data", data, "--recipe", kind]
    words += ["--data-root", str(root)] if root else []
    runs = []
    for seed in range(seeds):
        runs.append(trained(*words, "--seed", str(seed)))
        print(data, kind, seed, json.dumps(runs[-1]), flush=True)
    values = [run["test_accuracy"] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"data": data, "recipe": kind, "runs": runs, "mean": statistics.mean(values),
            "standard_deviation": spread}  # fmt: skip


def main() -> None:
    """Measure one part, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["speed", "recipe", "plain"])
    parser.add_argument("--mnist", type=Path, help="folder with MNIST/raw")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "plain":
        play_plain(str(arguments.mnist))
        return
    if arguments.part == "speed":
        if arguments.mnist is None:
            parser.error("speed needs --mnist FOLDER")
        result = speed(arguments.mnist, arguments.rounds)
    else:
        result = recipes(arguments.data, arguments.data_root, arguments.recipe, arguments.seeds)
    result["cores"] = os.cpu_count()
    result["threads"] = os.environ.get("OMP_NUM_THREADS", "torch's choice")
    out = arguments.out or Path(f"benchmarks/results/cnn-{arguments.part}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    shown = {k: v for k, v in result.items() if k in ("ratios", "mean", "standard_deviation")}
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
