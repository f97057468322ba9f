"""word2vec beside gensim called by hand: time, memory, scores, and the speed of a search.

    python benchmarks/word2vec.py speed TEXT [--epochs 1] [--rounds 2] [--workers 2]
    python benchmarks/word2vec.py scores RUN [RUN ...]
    python benchmarks/word2vec.py memory TEXT [--megabytes 1000] [--max-time 4m]
    python benchmarks/word2vec.py lookup [--words 400000] [--dim 300] [--rounds 7]

TEXT has one text a line, plain or packed. JSON on stdout. Every side runs in a process of its own,
the sides in turn, and is told the same parameters and tokeniser. Times are wall seconds and
processor seconds: on a busy machine only the second compares.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PARAMETERS = "vector_size=100, window=5, negative=5, sg=1, min_count=5, sample=1e-3"
READ = """
import json, sys, time
from gensim.models import Word2Vec
from gensim.utils import simple_preprocess
from dltool.data import texts
source, workers, epochs, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
class Timed(Word2Vec):
    seconds = 0.0
    def train(self, *args, **kwargs):
        begun = time.perf_counter()
        super().train(*args, **kwargs)
        Timed.seconds = time.perf_counter() - begun
"""
# the best of gensim's input paths: tokenise once into a file, which its threads read themselves
BY_HAND = (
    READ
    + f"""
with open(folder + "/words.txt", "w", encoding="utf-8") as stream:
    for line in texts.lines(source):
        stream.write(" ".join(simple_preprocess(line)) + "\\n")
model = Timed(corpus_file=folder + "/words.txt", workers=workers, epochs=epochs, {PARAMETERS})
model.wv.save_word2vec_format(folder + "/vectors.bin", binary=True)
print(json.dumps({{"training": Timed.seconds}}))
"""
)
# what most tutorials show
USUAL = (
    READ
    + f"""
class Sentences:
    def __iter__(self):
        for line in texts.lines(source):
            yield simple_preprocess(line)
model = Timed(sentences=Sentences(), workers=3, epochs=epochs, {PARAMETERS})
model.wv.save_word2vec_format(folder + "/vectors.bin", binary=True)
print(json.dumps({{"training": Timed.seconds}}))
"""
)


def measured(command: list[str]) -> dict[str, float | str]:
    """Run a command; return wall and processor seconds, peak memory and its last line."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    out = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:4]} ended with {process.returncode}")
    return {
        "wall": time.perf_counter() - begun,
        "cpu": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / 1024,
        "out": out.strip().splitlines()[-1],
    }


def ours(text: str, folder: Path, *options: str) -> list[str]:
    """Return the command that trains with dltool."""
    words = ["word2vec", "train", text, "--out", str(folder), "--save-every", "1h", "--json"]
    return [sys.executable, "-m", "dltool", *words, *options]


def keep(found: dict[str, list[dict[str, float | str]]], side: str, run: dict[str, Any]) -> None:
    """Take one measurement and tell it at once: a round takes minutes."""
    found[side].append(run)
    told = {key: round(value, 1) for key, value in run.items() if key != "out"}
    print(side, told, file=sys.stderr, flush=True)


def speed(arguments: argparse.Namespace) -> dict[str, object]:
    """Train by each side in turn."""
    epochs, workers = str(arguments.epochs), str(arguments.workers)
    found: dict[str, list[dict[str, float | str]]] = {"ours": [], "by_hand": [], "usual": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            options = ("--epochs", epochs, "--workers", workers)
            run = measured(ours(arguments.text, folder / "run", *options))
            run["training"] = json.loads(str(run["out"]))["data"]["training_seconds"]
            keep(found, "ours", run)
            for side, script in (("by_hand", BY_HAND), ("usual", USUAL)):
                line = [sys.executable, "-c", script, arguments.text, workers, epochs, name]
                run = measured(line)
                run["training"] = json.loads(str(run["out"]))["training"]
                keep(found, side, run)
    best = {
        side: {key: min(float(run[key]) for run in runs) for key in ("wall", "cpu", "training")}
        for side, runs in found.items()
    }
    kinds = ("wall", "cpu", "training")
    return {
        "epochs": arguments.epochs,
        "rounds": arguments.rounds,
        "workers": arguments.workers,
        "best": best,
        "ours_over_by_hand": {k: best["ours"][k] / best["by_hand"][k] for k in kinds},
        "usual_over_ours": {k: best["usual"][k] / best["ours"][k] for k in kinds},
        "runs": {
            side: [{k: v for k, v in run.items() if k != "out"} for run in runs]
            for side, runs in found.items()
        },
    }


def scores(arguments: argparse.Namespace) -> dict[str, object]:
    """Evaluate finished runs."""
    result = {}
    for run in arguments.runs:
        line = [sys.executable, "-m", "dltool", "word2vec", "evaluate", run, "--json"]
        data = json.loads(str(measured(line)["out"]))["data"]
        data["analogies"].pop("sections")
        facts = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))["result"]
        result[run] = {**data, "words_per_second": facts["words_per_second"], "loss": facts["loss"]}
    return result


def memory(arguments: argparse.Namespace) -> dict[str, object]:
    """Train on a text of so many megabytes and set the peak beside what must be held."""
    from dltool.data import texts

    with tempfile.TemporaryDirectory() as name:
        large, wanted = Path(name, "large.txt"), arguments.megabytes * 1_000_000
        with large.open("w", encoding="utf-8") as stream:
            while stream.tell() < wanted:
                for line in texts.lines(arguments.text):
                    stream.write(line + "\n")
        size = large.stat().st_size
        folder = Path(name, "run")
        workers = str(arguments.workers)
        options = ("--epochs", "1", "--max-time", arguments.max_time, "--workers", workers)
        run = measured(ours(str(large), folder, *options))
        known = sum(path.stat().st_size for path in folder.rglob("model.safetensors"))
        index = json.loads((folder / "data.json").read_text(encoding="utf-8"))["counts"]
    vectors = known / 1e6
    return {
        "text_megabytes": size / 1e6,
        "corpus": index,
        "peak_megabytes": run["megabytes"],
        "vectors_megabytes": vectors,
        "beyond_vectors_megabytes": float(run["megabytes"]) * 1.048576 - vectors,
        "wall": run["wall"],
    }


def lookup(arguments: argparse.Namespace) -> dict[str, object]:
    """Time `similar` in a fresh process, the file in the page cache and out of it."""
    import numpy as np
    from dltool_word2vec import vectors

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        rng = np.random.default_rng(0)
        matrix = rng.standard_normal((arguments.words, arguments.dim), dtype=np.float32)
        words = [f"word{n}" for n in range(arguments.words)]
        vectors.save(folder, words, [1] * arguments.words, {"vectors": matrix}, {})
        del matrix
        file = folder / "model.safetensors"
        ask = [sys.executable, "-m", "dltool", "word2vec", "similar", str(folder), "word9"]
        blank = [sys.executable, "-c", "print(1)"]
        runs: dict[str, list[dict[str, Any]]] = {"interpreter": [], "cached": [], "uncached": []}
        measured(ask)
        for _ in range(arguments.rounds):
            runs["interpreter"].append(measured(blank))
            runs["cached"].append(measured(ask))
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            runs["uncached"].append(measured(ask))
        shutil.rmtree(folder)
    best = {
        key: {kind: min(float(run[key]) for run in each) for kind, each in runs.items()}
        for key in ("wall", "cpu")
    }
    return {
        "words": arguments.words,
        "dim": arguments.dim,
        "best": best,
        "median_wall": {
            kind: statistics.median(float(run["wall"]) for run in each)
            for kind, each in runs.items()
        },
        "after_the_interpreter": {
            key: {kind: each[kind] - each["interpreter"] for kind in ("cached", "uncached")}
            for key, each in best.items()
        },
    }


def main() -> None:
    """Read the command line, run one part, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    each = parts.add_parser("speed")
    each.add_argument("text")
    each.add_argument("--epochs", type=int, default=1)
    each.add_argument("--rounds", type=int, default=2)
    each.add_argument("--workers", type=int, default=2)
    each = parts.add_parser("scores")
    each.add_argument("runs", nargs="+")
    each = parts.add_parser("memory")
    each.add_argument("text")
    each.add_argument("--megabytes", type=int, default=1000)
    each.add_argument("--max-time", default="4m")
    each.add_argument("--workers", type=int, default=2)
    each = parts.add_parser("lookup")
    each.add_argument("--words", type=int, default=400_000)
    each.add_argument("--dim", type=int, default=300)
    each.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    part = {"speed": speed, "scores": scores, "memory": memory, "lookup": lookup}[arguments.part]
    print(json.dumps({"benchmark": f"word2vec {arguments.part}", **part(arguments)}, indent=2))


if __name__ == "__main__":
    main()
