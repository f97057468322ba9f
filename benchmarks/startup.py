"""Start-up times of light commands, as processes with a warm cache.

    python benchmarks/startup.py [--repeats 15]

Interleaved rounds; `python -c pass` and `import typer` stand beside them as the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("dltool")
LIMITS_MS = {
    "dltool --help": 150,
    "dltool --version": 60,
    "dltool cnn --help": 250,
    "dltool gpu info": 300,
}


def command(text: str) -> list[str]:
    """Return the words that run a command of this environment."""
    if text.startswith("dltool"):
        return [str(SCRIPT), *text.split()[1:]]
    return [sys.executable, "-c", text.removeprefix("python: ")]


def measure(texts: list[str], repeats: int) -> dict[str, list[float]]:
    """Run all commands in rounds and return their times in milliseconds."""
    times: dict[str, list[float]] = {text: [] for text in texts}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 2):
            for text in texts:
                started = time.perf_counter()
                subprocess.run(
                    command(text), cwd=folder, capture_output=True, check=True, env=os.environ
                )
                if repeat >= 2:  # two rounds warm the file cache
                    times[text].append(1000 * (time.perf_counter() - started))
    return times


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/startup.json"))
    arguments = parser.parse_args()
    texts = ["python: pass", "python: import typer", *LIMITS_MS]
    rows = {}
    for text, times in measure(texts, arguments.repeats).items():
        rows[text] = {
            "median_ms": round(statistics.median(times), 1),
            "min_ms": round(min(times), 1),
            "max_ms": round(max(times), 1),
            "limit_ms": LIMITS_MS.get(text),
        }
        limit = f"limit {LIMITS_MS[text]}" if text in LIMITS_MS else ""
        print(f"{text:22} median {rows[text]['median_ms']:6.1f} ms  {limit}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
