"""What the session around a training loop costs, against the same steps written by hand.

    python benchmarks/loop_overhead.py [--rounds 5] [--steps 120]

Both loops train the default network on MNIST-sized images with the same batches, optimizer and
schedule; the session adds position, signals, the NaN watch, progress, metrics, and checkpoints as
a run writes them: the best weights and the whole state once a round. The two loops take turns step
by step, so that a slow spell of the machine hits both alike. The guards' preflight, once a run, is
reported apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
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


def by_hand(steps: int) -> Iterator[None]:
    """Train with nothing around the steps; yield after each."""
    data, model, optimizer, scheduler = setup(steps)
    model.train()
    for images, labels in data.batches(0):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield


def with_session(steps: int, folder: Path) -> Iterator[None]:
    """Train the same inside a session that logs and saves; yield after each step."""
    data, model, optimizer, scheduler = setup(steps)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"format": 1, "topic": "bench"}', encoding="utf-8")
    run = runs.Run(folder, "bench")
    settings = training.Settings(device=torch.device("cpu"), monitor="loss")
    with training.session(
        run, model, optimizer, settings, scheduler=scheduler, console=Console("bench")
    ) as session:
        for _ in session.epochs(1):
            for images, labels in session.batches(data):
                with session.attempt():
                    loss = F.cross_entropy(model(images), labels)
                    session.step(loss, count=len(labels))
                yield
            session.report({"loss": 0.0})


def round_of_both(steps: int, folder: Path) -> tuple[float, float]:
    """Return the seconds of the hand-written loop and of the session, taking turns."""
    loops = [by_hand(steps), with_session(steps, folder)]
    seconds = [0.0, 0.0]
    for step in range(steps + 1):  # one more: what comes after the last step, the saving
        for which in (0, 1) if step % 2 else (1, 0):
            started = time.perf_counter()
            next(loops[which], None)
            if step:  # the first step builds buffers
                seconds[which] += time.perf_counter() - started
    return seconds[0], seconds[1]


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loop_overhead.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            round_of_both(arguments.steps, Path(folder, str(number)))
            for number in range(arguments.rounds + 1)
        ][1:]
        guards = statistics.median(preflight(arguments.steps) for _ in range(5))
    hand, ours = (statistics.median(pair[which] for pair in pairs) for which in (0, 1))
    result = {
        "steps": arguments.steps,
        "by_hand_ms_per_step": round(1000 * hand / arguments.steps, 3),
        "session_ms_per_step": round(1000 * ours / arguments.steps, 3),
        "ratio_of_medians": round(ours / hand, 4),
        "ratios": [round(ours / hand, 4) for hand, ours in pairs],
        "preflight_seconds_once": round(guards, 3),
    }
    print(json.dumps(result, indent=2))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
