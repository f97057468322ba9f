"""`bert-finetune` beside the Trainer of `transformers`, and its accuracy with a pretrained encoder.

    python benchmarks/bert.py trainer --model FOLDER --data SST2
    python benchmarks/bert.py sst2    --model FOLDER --data SST2
    python benchmarks/bert.py imdb    --model FOLDER --data IMDB
    python benchmarks/bert.py frozen  --model FOLDER --data SST2

FOLDER is an encoder in the Hub's layout, SST2 a folder with train.tsv, dev.tsv and test.tsv, IMDB
one with train.csv.gz and test.csv.gz. JSON on stdout. `trainer` takes the same texts, batch size,
rate, epochs and seed for all three, in several rounds; the ratios are of one round. `frozen` trains
a head on a frozen encoder: with features that are computed once (`--freeze encoder`), and with the
encoder in every epoch (`--freeze LAYERS`).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dltool.data import texts
from dltool.metrics import wilson

BATCH, RATE, LENGTH = 16, 5e-5, 128
COMMAND = (sys.executable, "-m", "dltool", "bert-finetune", "train")


def command(*words: object) -> dict[str, Any]:
    """Run the command and return its result with the time of the whole process."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*COMMAND, *map(str, words), "--out", f"{folder}/run", "--json"],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    result = dict(json.loads(done.stdout)["data"])
    return {
        "accuracy": result["test"]["accuracy"],
        "training_seconds": result["training_seconds"],
        "command_seconds": round(time.perf_counter() - started, 1),
        "texts_per_second": result["texts_per_second"],
        "fill": result["fill"],
        "feature_seconds": result["feature_seconds"],
    }


def read(path: Path) -> tuple[list[str], list[int]]:
    """Return texts and labels of a file of SST-2."""
    rows = [row.cells for row in texts.rows(path, ["text", "label"])]
    return [row[0] for row in rows], [int(row[1]) for row in rows]


def with_trainer(
    model: str, train: tuple[list[str], list[int]], test: tuple[list[str], list[int]], static: bool
) -> dict[str, Any]:
    """Train as the Trainer's documentation shows it; the clock is the Trainer's own."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokeniser = transformers.AutoTokenizer.from_pretrained(model)
    tokeniser.backend_tokenizer.no_padding()
    torch.manual_seed(0)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    padding = "max_length" if static else False

    def rows(part: tuple[list[str], list[int]]) -> list[dict[str, Any]]:
        encoded = tokeniser(part[0], truncation=True, max_length=LENGTH, padding=padding)
        return [
            {**{name: encoded[name][i] for name in encoded}, "labels": label}
            for i, label in enumerate(part[1])
        ]

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=RATE,
            weight_decay=0.01,
            seed=0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
        )
        collate = transformers.DataCollatorWithPadding(tokeniser)
        trainer = transformers.Trainer(
            network, arguments, train_dataset=rows(train), data_collator=collate
        )
        trainer.remove_callback(transformers.PrinterCallback)  # stdout is for the result
        seconds = trainer.train().metrics["train_runtime"]
        dynamic = with_dynamic_padding(tokeniser, test)
        said = trainer.predict(dynamic).predictions.argmax(1)
    right = sum(int(a) == b for a, b in zip(said, test[1], strict=True))
    low, high = wilson(right, len(test[1]))
    return {
        "accuracy": {"value": right / len(test[1]), "n": len(test[1]), "low": low, "high": high},
        "training_seconds": round(seconds, 2),
        "texts_per_second": round(len(train[1]) / seconds, 1),
    }


def with_dynamic_padding(tokeniser: Any, part: tuple[list[str], list[int]]) -> list[Any]:
    """Return rows of the lengths that they have."""
    encoded = tokeniser(part[0], truncation=True, max_length=LENGTH)
    return [{name: encoded[name][i] for name in encoded} for i in range(len(part[1]))]


def against_trainer(model: str, data: Path, count: int, rounds: int, tested: int) -> dict[str, Any]:
    """Measure the Trainer with static and dynamic padding, and us, interleaved."""
    train, test = read(data / "train.tsv"), read(data / "test.tsv")
    chosen = random.Random(0).sample(range(len(train[1])), count)
    # the command draws its test texts itself: the same number, not the same texts
    test = (test[0][:tested], test[1][:tested])
    train = ([train[0][i] for i in chosen], [train[1][i] for i in chosen])
    found: dict[str, list[dict[str, Any]]] = {"static": [], "dynamic": [], "dltool": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.tsv"
        lines = "".join(f"{b}\t{a}\n" for a, b in zip(*train, strict=True))
        file.write_text("label\ttext\n" + lines, encoding="utf-8")
        ours = ("--model", model, "--data", file, "--val-data", data / "dev.tsv")
        ours += ("--test-data", data / "test.tsv", "--epochs", 1, "--batch-size", BATCH)
        ours += ("--max-eval", tested, "--lr", RATE, "--max-length", LENGTH, "--device", "cpu")
        for _ in range(rounds):
            found["dltool"].append(command(*ours))
            found["dynamic"].append(with_trainer(model, train, test, static=False))
            found["static"].append(with_trainer(model, train, test, static=True))
    ratios = {
        name: statistics.median(
            mine["texts_per_second"] / other["texts_per_second"]
            for mine, other in zip(found["dltool"], found[name], strict=True)
        )
        for name in ("static", "dynamic")
    }
    goals = {"static": 3.0, "dynamic": 1.3}
    return {"texts": count, "batch": BATCH, "runs": found, "times_faster": ratios, "goals": goals}


def frozen(model: str, data: Path, count: int, tested: int, epochs: int) -> dict[str, Any]:
    """Measure a head on cached features beside one behind an encoder that runs in every epoch."""
    settings = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    common = ("--model", model, "--data", data, "--epochs", epochs, "--lr", 1e-3)
    common += ("--max-train", count, "--max-eval", tested)
    once = command(*common, "--freeze", "encoder")
    each = command(*common, "--freeze", settings["num_hidden_layers"])
    spent = once["training_seconds"] + once["feature_seconds"]
    return {
        "texts": count,
        "epochs": epochs,
        "runs": {"features": once, "every epoch": each},
        "times_faster": {
            "training": each["training_seconds"] / spent,
            "command": each["command_seconds"] / once["command_seconds"],
        },
    }


def main() -> None:
    """Measure one part and print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("trainer", "sst2", "imdb", "frozen"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tested", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    common = ("--model", arguments.model, "--data", arguments.data, "--epochs", arguments.epochs)
    if arguments.part == "trainer":
        result = against_trainer(
            arguments.model, arguments.data, arguments.texts, arguments.rounds, arguments.tested
        )
    elif arguments.part == "frozen":
        result = frozen(
            arguments.model, arguments.data, arguments.texts, arguments.tested, arguments.epochs
        )
    elif arguments.part == "sst2":
        result = {"goal": {"accuracy": 0.88, "seconds": 360}, **command(*common)}
    else:
        limits = ("--max-train", 5000, "--max-eval", 5000, "--val-fraction", 0.04)
        result = {"goal": {"accuracy": 0.87}, **command(*common, *limits, "--max-length", 256)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
