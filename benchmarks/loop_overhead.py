"""What the session around a training loop costs, against the same steps written by hand.

    python benchmarks/loop_overhead.py [--rounds 9] [--steps 60]

Both loops train the default network on MNIST-sized images with the same batches, optimizer and
schedule; the session adds position, signals, the NaN watch, progress, metrics, a checkpoint at the
end of the round and the preflight guards once a run (reported apart). Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from dltool_cnn.model import Spec, build

from dltool import optim, runs, training
from dltool.console import Console
from dltool.data.resident import Resident
from dltool.guards.classifier import check_classifier

BATCH = 256


def setup(steps: int):
    """Return data, model, optimizer and scheduler of one round; the same every time."""
    stream = torch.Generator().manual_seed(0)
    count = steps * BATCH
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=stream)
    labels = torch.randint(0, 10, (count,), generator=stream)
    torch.manual_seed(0)
    model = build(Spec("simple-cnn", 1, 28, 28, 10), [0.13], [0.31])
    optimizer = torch.optim.AdamW(optim.parameter_groups(model, 0.01), lr=0.01)
    data = Resident(images, labels, batch_size=BATCH, seed=0, shuffle=True)
    scheduler = optim.schedule(optimizer, "one-cycle", steps)
    return data, model, optimizer, scheduler


def by_hand(steps: int) -> float:
    """Train one round with nothing around the steps; return seconds."""
    data, model, optimizer, scheduler = setup(steps)
    model.train()
    started = time.perf_counter()
    for images, labels in data.batches(0):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
    return time.perf_counter() - started


def with_session(steps: int, folder: Path) -> float:
    """Train the same round inside a session that logs and saves; return seconds."""
    data, model, optimizer, scheduler = setup(steps)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"format": 1, "topic": "bench"}', encoding="utf-8")
    run = runs.Run(folder, "bench")
    settings = training.Settings(device=torch.device("cpu"), monitor="loss")
    started = time.perf_counter()
    with training.session(
        run, model, optimizer, settings, scheduler=scheduler, console=Console("bench")
    ) as session:
        for _ in session.epochs(1):
            for images, labels in session.batches(data):
                with session.attempt():
                    loss = F.cross_entropy(model(images), labels)
                    session.step(loss, count=len(labels))
            session.report({"loss": 0.0})
    return time.perf_counter() - started


def preflight(steps: int) -> float:
    """Return the seconds that the guards take once before a run."""
    data, model, optimizer, _ = setup(steps)
    images, labels = next(iter(data.batches(0)))
    started = time.perf_counter()
    check_classifier(model, optimizer, F.cross_entropy, images[:64], labels[:64], 10)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loop_overhead.json"))
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"by hand": [], "session": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds + 1):
            # the order alternates, so that a slow spell of the machine hits both alike
            for name in sorted(times, reverse=bool(number % 2)):
                seconds = (
                    by_hand(arguments.steps)
                    if name == "by hand"
                    else with_session(arguments.steps, Path(folder, str(number)))
                )
                if number:
                    times[name].append(seconds)
        guards = statistics.median(preflight(arguments.steps) for _ in range(5))
    hand, ours = statistics.median(times["by hand"]), statistics.median(times["session"])
    ratios = [b / a for a, b in zip(times["by hand"], times["session"], strict=True)]
    result = {
        "steps": arguments.steps,
        "by_hand_ms_per_step": round(1000 * hand / arguments.steps, 3),
        "session_ms_per_step": round(1000 * ours / arguments.steps, 3),
        "ratio_of_medians": round(ours / hand, 4),
        "median_of_ratios": round(statistics.median(ratios), 4),
        "preflight_seconds_once": round(guards, 3),
    }
    print(json.dumps(result, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
