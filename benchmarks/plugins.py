"""Start-up with many plugins: help and tab completion with 30 installed, five of them broken.

    python benchmarks/plugins.py [--repeats 15]

The plugins are packages in a temporary folder on PYTHONPATH; each broken one is so in its own way.
The same commands without them stand beside, so that a busy machine can be told from a slow program.
The commands take turns, and the table shows medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT = 30
KINDS = ("raises", "syntax_error", "missing_package", "other_api", "manifest_is_binary")
LIMITS_MS = {
    "dltool --help": 200,
    "dltool --help, after a check": 200,
    "bash: dltool <TAB>": 150,
    "bash: dltool good-3 <TAB>": 150,
    "zsh: dltool <TAB>": 150,
    "zsh: dltool good-3 <TAB>": 150,
}
WITHOUT = ("python: pass", "python: import typer", "dltool --help, only ours")


def hostile_module():
    """Load the maker of plugins from the tests."""
    path = Path(__file__).parents[1] / "tests" / "hostile.py"
    spec = importlib.util.spec_from_file_location("hostile", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile"] = module
    spec.loader.exec_module(module)
    return module


def install(folder):
    """Put the plugins into folders of their own; return the path that finds them."""
    hostile = hostile_module()
    site = folder / "site"
    site.mkdir()
    for number in range(COUNT - len(KINDS)):
        hostile.install(site, f"good-{number}", summary=f"Topic number {number}")
    paths = [site]
    matrix = hostile.matrix()
    for kind in KINDS:
        place = folder / kind
        place.mkdir()
        matrix[kind].make(place)
        for file in [*place.rglob("*.dist-info")]:
            text = (file / "entry_points.txt").read_text(encoding="utf-8")
            renamed = text.replace("evil = plug_evil", f"{kind} = plug_{kind}")
            (file / "entry_points.txt").write_text(renamed, encoding="utf-8")
            head = (file / "METADATA").read_text(encoding="utf-8")
            name = f"Name: dltool-{kind}"
            (file / "METADATA").write_text(
                head.replace("Name: dltool-evil", name), encoding="utf-8"
            )
        (place / "plug_evil").rename(place / f"plug_{kind}")
        paths.append(place)
    return os.pathsep.join(map(str, paths))


def commands(folder, path):
    """Return each command with its environment."""
    program = [sys.executable, "-m", "dltool"]
    base = {key: value for key, value in os.environ.items() if not key.startswith("DLTOOL_")}
    base |= {"DLTOOL_HOME": str(folder / "home")}
    # what users have: byte code, and no flags of a build machine
    base.pop("PYTHONDONTWRITEBYTECODE", None)
    base.pop("PYTHONUNBUFFERED", None)
    many = {**base, "PYTHONPATH": path}
    found = {
        "python: pass": ([sys.executable, "-c", "pass"], base),
        "python: import typer": ([sys.executable, "-c", "import typer"], base),
        "dltool --help, only ours": ([*program, "--help"], base),
        "dltool --help": ([*program, "--help"], many),
        "dltool --help, after a check": (
            [*program, "--help"],
            {**many, "DLTOOL_HOME": str(folder / "checked")},
        ),
    }
    for shell in ("bash", "zsh"):
        for line in ("dltool ", "dltool good-3 "):
            asked = {
                "_DLTOOL_COMPLETE": f"complete_{shell}",
                "COMP_WORDS": line,
                "COMP_CWORD": str(len(line.split())),
                "_TYPER_COMPLETE_ARGS": line,
            }
            found[f"{shell}: {line}<TAB>"] = (program, {**many, **asked})
    return found


def prove(found, folder):
    """Stop unless help shows every plugin and each cause, and completion lists them."""
    check, environment = found["dltool --help, after a check"]
    subprocess.run(
        [*check[:-1], "plugin", "check"], env=environment, capture_output=True, check=False
    )
    for text, broken in (("dltool --help", 4), ("dltool --help, after a check", 5)):
        line, environment = found[text]
        shown = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
        assert shown.stdout.count("[broken]") == broken, shown.stdout
        assert shown.stdout.count("Topic number") == COUNT - len(KINDS)
    line, environment = found["bash: dltool <TAB>"]
    shown = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.count("good-") == COUNT - len(KINDS)
    line, environment = found["zsh: dltool good-3 <TAB>"]
    shown = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert '"say"' in shown.stdout


def main():
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/plugins.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = commands(folder, install(folder))
        prove(found, folder)
        times = {text: [] for text in found}
        for repeat in range(arguments.repeats + 2):
            for text, (line, environment) in found.items():
                started = time.perf_counter()
                subprocess.run(line, env=environment, capture_output=True, check=True)
                if repeat >= 2:  # two rounds warm the file cache
                    times[text].append(1000 * (time.perf_counter() - started))
    rows = {}
    for text, values in times.items():
        rows[text] = {
            "median_ms": round(statistics.median(values), 1),
            "min_ms": round(min(values), 1),
            "max_ms": round(max(values), 1),
            "limit_ms": LIMITS_MS.get(text),
        }
        limit = f"limit {LIMITS_MS[text]}" if text in LIMITS_MS else ""
        row = rows[text]
        print(
            f"{text:30} median {row['median_ms']:6.1f} ms  least {row['min_ms']:6.1f} ms  {limit}"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"plugins": COUNT, "broken": KINDS, "repeats": arguments.repeats, "commands": rows}
    arguments.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
