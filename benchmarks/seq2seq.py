"""The figures of seq2seq: sums, fitting sentence pairs, decoding speed, Multi30k.

    python benchmarks/seq2seq.py arithmetic [--model transformer|lstm] [--threads 1]
    python benchmarks/seq2seq.py fit --data eng-fra.txt [--epochs 60]
    python benchmarks/seq2seq.py multi30k --data FOLDER [--max-time 9m]
    python benchmarks/seq2seq.py decode --run RUN [--data FOLDER of Multi30k]

`fit` trains on the first 600 pairs and compares the speed with the loop that tutorials write: one
sentence a step, the decoder one token a step, every sentence padded to ten tokens; the two take
turns on the same model. `decode` compares the batches with KV cache with one sentence at a time,
every prefix computed anew. `multi30k` trains German to English, two epochs; with
--max-time it stops, and goes on when it is called again. One JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

FOUR = ("Go.", "I lost.", "I'm calm.", "He's wet.")
PADDED = 10
# a run that ends within minutes on two cores
SHORT = ["--level", "subword", "--share-vocab", "--vocab-size", "4000", "--width", "128"]
SHORT += ["--layers", "2", "--dropout", "0", "--batch-size", "64", "--lr", "0.003"]
SHORT += ["--epochs", "2", "--warmup", "0.2"]


def dltool(*words: object) -> dict[str, Any]:
    """Run a command and return its data."""
    command = [sys.executable, "-m", "dltool", "seq2seq", *map(str, words), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return dict(json.loads(done.stdout)["data"]) if done.returncode == 0 else {}


def arithmetic(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the default recipe; measure held-out sums and longer ones."""
    found = {}
    for model in [arguments.model] if arguments.model else ["transformer", "lstm"]:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            begun = time.perf_counter()
            result = dltool("train", "--model", model, "--threads", arguments.threads, "--out", run)
            seconds = time.perf_counter() - begun
            longer = dltool("evaluate", run, "--max-value", "9999")
        found[model] = {
            "exact_match": result["exact_match"],
            "parameters": result["parameters"],
            "training_seconds": result["training_seconds"],
            "command_seconds": round(seconds, 1),
            "four_digits": longer["exact_match"],
        }
    return found


# ---- fitting ----------------------------------------------------------------------------------


def fit(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit the first 600 pairs with three models, and compare the speed with a tutorial's loop."""
    models = {
        "gru": ["--model", "gru", "--attention", "none"],
        "gru-attention": ["--model", "gru", "--attention", "additive"],
        "transformer": ["--model", "transformer"],
    }
    found = {}
    for name, words in models.items():
        if arguments.model not in ("", name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            same = ["--task", arguments.data, "--limit", 600, "--level", "word", "--lower"]
            held = ["--val-fraction", 0, "--test-fraction", 0, "--min-freq", 1, "--width", 128]
            rate = [
                "--lr",
                0.003,
                "--batch-size",
                32,
                "--label-smoothing",
                0,
                "--dropout",
                0,
                "--layers",
                2,
            ]
            length = ["--epochs", arguments.epochs, "--threads", arguments.threads]
            result = dltool("train", *same, *held, *rate, *length, *words, "--out", run)
            found[name] = {
                "loss": result["test_loss"],
                "training_seconds": result["training_seconds"],
                **answers(run, arguments.data),
                **speed(run, arguments.rounds),
            }
    return found


def answers(run: Path, data: str) -> dict[str, Any]:
    """Score the model on the sentences that it was trained on, against all their translations."""
    import torch
    from dltool_seq2seq.decode import Search
    from dltool_seq2seq.translate import load

    translator = load(run, torch.device("cpu"))
    lines = Path(data).read_text(encoding="utf-8").splitlines()[:600]
    references: dict[str, list[str]] = {}
    for line in lines:
        source, target = line.split("\t")[:2]
        references.setdefault(source, []).append(target)
    sources = list(references)
    given = [text for text, _ in translator.answers(sources, Search(), 256)]
    cut = translator.target.cut
    scores = [
        max(bleu_2(cut(text), cut(other)) for other in references[source])
        for source, text in zip(sources, given, strict=True)
    ]
    by_source = dict(zip(sources, scores, strict=True))
    return {
        "distinct_sources": len(sources),
        "bleu_2_mean": round(statistics.mean(scores), 4),
        "one_of_the_translations": sum(score == 1 for score in scores),
        "bleu_2_of_four": {text: round(by_source[text], 3) for text in FOUR if text in by_source},
    }


def bleu_2(given: list[str], wanted: list[str]) -> float:
    """Return the documents' own BLEU of one sentence: weights 1/2 and 1/4, not standard BLEU."""
    score = math.exp(min(0.0, 1 - len(wanted) / max(len(given), 1)))
    for order in (1, 2):
        if len(given) < order or len(wanted) < order:
            return score if given == wanted else 0.0
        pieces = [
            Counter(tuple(side[i : i + order]) for i in range(len(side) - order + 1))
            for side in (given, wanted)
        ]
        share = (pieces[0] & pieces[1]).total() / pieces[0].total()
        score *= share ** (0.5**order)
    return score


def speed(run: Path, rounds: int) -> dict[str, Any]:
    """Train on with both loops in turn; return target tokens a second, padding not counted."""
    import torch
    from dltool_seq2seq.config import TrainConfig
    from dltool_seq2seq.data import load as load_pairs
    from dltool_seq2seq.model import loss_of
    from dltool_seq2seq.translate import load

    from dltool import runs
    from dltool.console import Console

    config, _ = runs.read_config(run, TrainConfig)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    translator = load(run, torch.device("cpu"))
    model = translator.model.train()
    words = (translator.source, translator.target)
    data = load_pairs(config, torch.device("cpu"), Console("benchmark"), words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def learn(loss: torch.Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def ours(epoch: int) -> float:
        begun, tokens = time.perf_counter(), 0
        for batch in data.train.batches(epoch):
            learn(loss_of(model, batch, 0.0))
            tokens += int((batch.target != 0).sum())
        return tokens / (time.perf_counter() - begun)

    def by_hand(epoch: int, sentences: int = 60) -> float:
        begun, tokens = time.perf_counter(), 0
        for row in torch.randperm(len(data.train.texts))[:sentences]:
            batch = data.train.batch(row[None])
            source = torch.nn.functional.pad(
                batch.source, (0, max(0, PADDED - len(batch.source[0])))
            )
            state = model.start(source, batch.lengths)
            loss = torch.zeros(())
            for place in range(batch.target.shape[1]):
                logits, state = model.step(batch.decoder_input[:, place : place + 1], state)
                loss = loss + torch.nn.functional.cross_entropy(
                    logits[0], batch.target[0, place : place + 1]
                )
            learn(loss / batch.target.shape[1])
            tokens += batch.target.shape[1]
        return tokens / (time.perf_counter() - begun)

    pairs = [(ours(epoch), by_hand(epoch)) for epoch in range(rounds)]
    ratios = sorted(ours / hand for ours, hand in pairs)
    return {
        "tokens_per_second": round(statistics.median(ours for ours, _ in pairs)),
        "tokens_per_second_by_hand": round(statistics.median(hand for _, hand in pairs)),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "goal": 2.0,
    }


# ---- Multi30k ---------------------------------------------------------------------------------


def multi30k(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train German to English on the full 29,000 pairs; BLEU on test_2016_flickr."""
    folder, run = Path(arguments.data), Path(arguments.run or "multi30k-run")

    def both(part: str) -> str:
        return f"{folder / f'{part}.de.gz'},{folder / f'{part}.en.gz'}"

    if (run / "run.json").exists():
        words = ["--resume", run]
    else:
        parts = ["--task", both("train"), "--val", both("val"), "--test", both("test_2016_flickr")]
        words = [*parts, *SHORT, "--out", run]
        words += ["--threads", arguments.threads]
    limit = ["--max-time", arguments.max_time] if arguments.max_time else []
    dltool("train", *words, *limit)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if facts["status"] != "finished":
        # the best weights so far, at a rate that has not come down yet
        found = dltool("evaluate", run)
        kept = {key: found[key] for key in ("bleu", "chrf", "perplexity") if key in found}
        return {"options": " ".join(SHORT), "status": facts["status"], "run": str(run), **kept}
    beam = dltool("evaluate", run, "--decoder", "beam", "--beam", 5, "--length-penalty", 1)
    result = facts["result"]
    kept = ("bleu", "chrf", "perplexity", "parameters", "training_seconds", "pairs_per_second")
    return {
        "options": " ".join(SHORT),
        "greedy": {key: result[key] for key in kept},
        "beam_5": {key: beam[key] for key in ("bleu", "chrf")},
        "goal_on_a_gpu": 36.5,
    }


# ---- decoding ---------------------------------------------------------------------------------


def decode(arguments: argparse.Namespace) -> dict[str, Any]:
    """Decode 1,000 test sentences, or test sums, in both ways; compare time and outputs."""
    import torch
    from dltool_seq2seq.data import directed
    from dltool_seq2seq.decode import Search
    from dltool_seq2seq.decode import decode as decoded
    from dltool_seq2seq.translate import load

    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    translator = load(Path(arguments.run), torch.device("cpu"))
    lines = test_sources(Path(arguments.run), arguments.data)[: arguments.sentences]
    sources = [
        directed(translator.source.encode(line), backwards=translator.reverse_source)
        for line in lines
    ]
    begun = time.perf_counter()
    batched = [
        found.tokens for found in decoded(translator.model, sources, Search(), batch_size=256)
    ]
    middle = time.perf_counter()
    single = [one_by_one(translator.model, source) for source in sources]
    end = time.perf_counter()
    same = sum(one == other for one, other in zip(batched, single, strict=True))
    return {
        "sentences": len(sources),
        "seconds_batched_with_cache": round(middle - begun, 2),
        "seconds_one_by_one": round(end - middle, 2),
        "ratio": round((end - middle) / (middle - begun), 1),
        "same_outputs": same,
        "goal": 10.0,
    }


def test_sources(run: Path, data: str) -> list[str]:
    """Return the German test sentences of Multi30k, or the test sources of a generated task."""
    import gzip

    from dltool_seq2seq import tasks
    from dltool_seq2seq.config import TrainConfig

    from dltool import runs

    if data:
        content = (Path(data) / "test_2016_flickr.de.gz").read_bytes()
        return gzip.decompress(content).decode().splitlines()
    config, _ = runs.read_config(run, TrainConfig)
    return [source for source, _ in tasks.generate(config)["test"]]


def one_by_one(model: Any, source: list[int]) -> list[int]:
    """Decode one sentence greedily, computing encoder and prefix anew for every token."""
    import torch
    from dltool_seq2seq.decode import padded
    from dltool_seq2seq.vocab import BOS, EOS, PAD

    tokens = [BOS]
    with torch.no_grad():
        while len(tokens) < model.spec.max_length:
            logits = model(*padded([source], torch.device("cpu")), torch.tensor([tokens]))[0, -1]
            logits[[PAD, BOS]] = -math.inf
            picked = int(logits.argmax())
            if picked == EOS:
                break
            tokens.append(picked)
    return tokens[1:]


def main() -> None:
    """Measure one part and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["arithmetic", "fit", "multi30k", "decode"])
    parser.add_argument("--data", default="", help="eng-fra.txt, or the folder of Multi30k")
    parser.add_argument("--model", default="", help="this model alone")
    parser.add_argument("--run", default="", help="a run of multi30k")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--max-time", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    parts = {"arithmetic": arithmetic, "fit": fit, "multi30k": multi30k, "decode": decode}
    print(json.dumps(parts[arguments.part](arguments), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
