"""Looking back: list a thousand runs, compare twenty long ones, report one, as processes.

    python benchmarks/runs.py [--repeats 5]

The runs are made here in the form that training writes. Limits: a thousand listed within 500 ms,
twenty of 100,000 logged lines each compared within 3 s, the report of 100 epochs at most 2 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("dltool")
LIMITS = {
    "list 1,000 runs": 0.5,
    "list 1,000 runs, filtered and sorted": 0.5,
    "compare 20 runs of 100,000 lines": 3.0,
}
REPORT_LIMIT = 2_000_000


def make_run(folder: Path, number: int, lines: int) -> None:
    """Write a finished run with so many logged lines; every second one is of another model."""
    folder.mkdir(parents=True)
    settings = {
        "data": "digits",
        "model": ("small", "wide")[number % 2],
        "seed": number // 2,
        **{f"setting_{place}": place for place in range(30)},
    }
    config = {key: {"value": value, "origin": "default"} for key, value in settings.items()}
    score = {"value": 0.9, "n": 360, "low": 0.87, "high": 0.93, "confidence": 0.95}
    facts = {
        "format": 1,
        "id": f"{number:016x}",
        "dltool": "0.1.0",
        "topic": "cnn",
        "name": "digits-small",
        "status": "finished",
        "grade": "bitwise",
        "created": f"2026-11-{number % 28 + 1:02}T10:00:00+00:00",
        "command": ["dltool", "cnn", "train"],
        "process": 1,
        "result": {"val_accuracy": 0.9 + number / 1e5, "test_accuracy": score, "best_epoch": 9},
    }
    for name, content in (("run", facts), ("config", config), ("environment", {"cores": 2})):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as stream:
        for epoch in range(1, lines + 1):
            loss = math.exp(-epoch / lines) * (1 + 0.01 * math.sin(epoch * (number + 1)))
            record = {
                "epoch": epoch,
                "step": 23 * epoch,
                "train_loss": loss,
                "val_loss": 1.1 * loss,
                "val_accuracy": 1 - loss / 3,
                "lr": 0.01,
                "seconds": round(0.1 * epoch, 3),
                "best": epoch % 7 == 0,
            }
            stream.write(json.dumps(record) + "\n")


def seconds(words: list[str], folder: Path, repeats: int) -> dict[str, float]:
    """Run a command several times after a warm one; return its seconds by the clock and CPU."""
    times, used = [], []
    for _ in range(repeats + 1):
        before, started = _cpu_seconds(), time.perf_counter()
        subprocess.run([str(SCRIPT), *words], cwd=folder, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
        used.append(_cpu_seconds() - before)
    kept = times[1:]
    found = {"median_s": statistics.median(kept), "min_s": min(kept), "max_s": max(kept)}
    return {**found, "cpu_s": statistics.median(used[1:])}


def _cpu_seconds() -> float:
    """Return what finished child processes have computed: less moved by others than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/runs.json"))
    arguments = parser.parse_args()
    commands = {
        "dltool --version": ["--version"],
        "list 1,000 runs": ["runs", "list", "--root", "many"],
        "list 1,000 runs, filtered and sorted": [
            *["runs", "list", "--root", "many", "--sort", "test_accuracy"],
            *["--where", "val_accuracy>=0.905", "--data", "digits"],
        ],
        "compare 20 runs of 100,000 lines": ["runs", "compare", "long"],
        "report 1 run of 100 epochs": ["runs", "report", "many/run-0", "--out", "report.html"],
    }
    rows = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(1000):
            make_run(folder / f"many/run-{number}", number, 100 if number == 0 else 3)
        for number in range(20):
            make_run(folder / f"long/run-{number}", number, 100_000)
        for name, words in commands.items():
            rows[name] = {
                **{
                    key: round(value, 3)
                    for key, value in seconds(words, folder, arguments.repeats).items()
                },
                "limit_s": LIMITS.get(name),
            }
            row = rows[name]
            print(
                f"{name:38} median {row['median_s']:6.3f} s  CPU {row['cpu_s']:6.3f} s  "
                f"limit {LIMITS.get(name)}"
            )
        size = (folder / "report.html").stat().st_size
    rows["report"] = {"bytes": size, "limit_bytes": REPORT_LIMIT}
    print(f"report of 100 epochs: {size:,} bytes")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
