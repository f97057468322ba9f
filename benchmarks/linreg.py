"""Training on a million rows of CSV, against reading them alone plus a closed-form solve.

    python benchmarks/linreg.py [--rows 1000000] [--columns 20] [--rounds 5]

Each round measures both in processes of their own, in turn: pyarrow's `read_csv` and the normal
equations in NumPy; and `dltool linreg train` from its call on: it reads, splits, scales, solves,
tests and saves. Imports are left out on both sides and told apart. Memory is the growth of the
process over its state after the imports, divided by the array of features and target in float64.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LIMIT_TIME, LIMIT_MEMORY = 1.5, 4.0
START = """
import json, resource, sys, time
def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
path, out = sys.argv[1:3]
begun = time.perf_counter()
"""
END = """
print(json.dumps({"seconds": time.perf_counter() - started, "imports": started - begun,
                  "memory": memory() - before, "weights": weights}))
"""
ALONE = """
import numpy as np
import pyarrow.csv
before, started = memory(), time.perf_counter()
table = pyarrow.csv.read_csv(path)
names = [name for name in table.column_names if name != "y"]
x = np.stack([table[name].to_numpy() for name in names] + [np.ones(table.num_rows)], 1)
y = table["y"].to_numpy()
weights = np.linalg.solve(x.T @ x, x.T @ y).tolist()
"""
OURS = """
import contextlib, os
from pathlib import Path
import numpy, pyarrow.csv, torch
from dltool.console import Console
from dltool_linreg.config import TrainConfig
from dltool_linreg.train import train
before, started = memory(), time.perf_counter()
config = TrainConfig(data=path, target="y")
origins = dict.fromkeys(TrainConfig.__dataclass_fields__, "default")
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    with contextlib.redirect_stderr(nowhere):
        train(config, origins, console=Console("linreg train"), out=Path(out))
seconds = time.perf_counter() - started
result = json.loads((Path(out) / "run.json").read_text())["result"]
weights = [row["weight"] for row in result["weights"]]
started = time.perf_counter() - seconds
"""


def write(path: Path, rows: int, columns: int) -> None:
    """Write the CSV file: normal features, known weights, a little noise."""
    import pyarrow
    from pyarrow import csv

    stream = np.random.default_rng(0)
    x = stream.normal(size=(rows, columns)).round(6)
    y = x @ stream.normal(size=columns) + 3 + 0.1 * stream.normal(size=rows)
    named = {f"x{place}": x[:, place] for place in range(columns)}
    csv.write_csv(pyarrow.table({**named, "y": y.round(6)}), path)


def measure(code: str, path: Path, out: Path) -> dict[str, float]:
    """Run one side in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", START + code + END, str(path), str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure both sides in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"alone": [], "dltool": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.csv"
        write(path, arguments.rows, arguments.columns)
        for number in range(arguments.rounds):
            sides = [("alone", ALONE), ("dltool", OURS)]
            for name, code in sides if number % 2 else reversed(sides):
                found[name].append(measure(code, path, Path(folder) / f"run-{number}"))
    array = arguments.rows * (arguments.columns + 1) * 8
    pairs = list(zip(found["dltool"], found["alone"], strict=True))
    ratios = [ours["seconds"] / alone["seconds"] for ours, alone in pairs]
    apart = [
        max(abs(a - b) for a, b in zip(ours["weights"], alone["weights"], strict=True))
        for ours, alone in pairs
    ]
    result = {
        "rows": arguments.rows,
        "columns": arguments.columns,
        "seconds": {
            k: round(statistics.median(r["seconds"] for r in v), 2) for k, v in found.items()
        },
        "imports": {
            k: round(statistics.median(r["imports"] for r in v), 2) for k, v in found.items()
        },
        "time_ratio": round(statistics.median(ratios), 3),
        "time_ratios": [round(ratio, 3) for ratio in ratios],
        "time_limit": LIMIT_TIME,
        "memory_in_arrays": {
            k: round(max(r["memory"] for r in v) / array, 2) for k, v in found.items()
        },
        "memory_limit": LIMIT_MEMORY,
        "largest_weight_difference": max(apart),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
