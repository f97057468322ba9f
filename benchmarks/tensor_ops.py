"""Time of `dltool tensor-ops run --all`, as a process, and of its slowest demos.

    python benchmarks/tensor_ops.py [--repeats 3]

The goal is at most 20 s of wall time on two cores. On a busy machine compare the processor time.
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

LIMIT_SECONDS = 20
COMMAND = [sys.executable, "-m", "dltool", "tensor-ops", "run", "--all", "--device", "cpu"]


def measure(*options: str) -> tuple[float, float, list[dict[str, object]]]:
    """Run the command once; return wall and processor seconds, and what it says of the demos."""
    with tempfile.TemporaryDirectory() as folder:
        before, started = os.times(), time.perf_counter()
        done = subprocess.run(
            [*COMMAND, "--json", *options], cwd=folder, capture_output=True, check=True
        )
        wall, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return wall, used, json.loads(done.stdout)["data"]["demos"]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tensor_ops.json"))
    arguments = parser.parse_args()
    rows: dict[str, object] = {"limit_s": LIMIT_SECONDS}
    for name, options in (("run --all", []), ("run --all --plot", ["--plot", "pictures"])):
        runs = [measure(*options) for _ in range(arguments.repeats)]
        walls, used = [run[0] for run in runs], [run[1] for run in runs]
        rows[name] = {"wall_s": walls, "processor_s": used}
        print(
            f"{name:18} wall {statistics.median(walls):5.1f} s "
            f"({min(walls):.1f} to {max(walls):.1f}), processor {statistics.median(used):5.1f} s"
        )
    demos = sorted(runs[-1][2], key=lambda demo: -float(str(demo["seconds"])))
    rows["slowest"] = {str(demo["name"]): demo["seconds"] for demo in demos[:5]}
    print("slowest:", ", ".join(f"{name} {taken} s" for name, taken in rows["slowest"].items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
