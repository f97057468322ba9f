"""Train word vectors.

    dltool word2vec train                        gensim's 300 news articles, in seconds
    dltool word2vec train texts/ --workers 8     your own text: a folder, files, or - for stdin
    dltool word2vec train texts/ --engine torch  skip-gram on a GPU

word2vec (Mikolov et al., 2013), fastText (Bojanowski et al., 2017) and paragraph vectors (Le and
Mikolov, 2014) by gensim; skip-gram with negative sampling also by our own model in skipgram.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import files, resuming, runs
from dltool.console import Console
from dltool.errors import ConfigError, Interrupted
from dltool.guards.findings import Finding, act
from dltool.runs import Run
from dltool.signals import Watch
from dltool_word2vec import corpus as corpora
from dltool_word2vec import gensim_engine, preflight, sif, vectors
from dltool_word2vec.config import TrainConfig
from dltool_word2vec.corpus import Corpus
from dltool_word2vec.loop import Outcome, run_gensim
from dltool_word2vec.store import Array
from dltool_word2vec.vectors import TOPIC, Vectors

# settings that belong to a vector, and that further training therefore keeps
INHERITED = ("algorithm", "arch", "dim", "tokenizer", "segmenter", "min_n", "max_n", "bucket")


@dataclass(frozen=True)
class Material:
    """A text that was read: its words in files, the vocabulary with counts, what guards say."""

    corpus: Corpus
    counts: dict[str, int]
    findings: list[Finding]


def inherited(start_from: str) -> dict[str, Any]:
    """Return the settings that vectors to train further bring along.

    Raises:
        CheckpointError: there are none, or they cannot be trained.
    """
    about = vectors.load(runs.locate(start_from, TOPIC)).about
    return {name: about[name] for name in INHERITED if about.get(name) not in (None, "")}


def train(
    config: TrainConfig,
    origins: Mapping[str, str],
    *,
    console: Console,
    out: Path | None = None,
    resume: Path | None = None,
) -> None:
    """Run or go on with one training, from the text to the searchable vectors."""
    if resume is not None and not resuming.is_changed(origins):
        result = resuming.finished(resume, TOPIC, console)
        if result is not None:
            console.result(result, _summary(result))
            console.hint(f"dltool {TOPIC} similar {resume} WORD")
            return
    if config.engine == "torch":
        console.loading()
    device, grade = _grade(config, console)
    base = _base(config)
    name = f"{runs.short_name(config.data[0])}-{config.algorithm}"
    material = None
    if resume is None:
        # a text that cannot be used leaves no run behind
        out, material = _read(config, name, out, base, console)
    with (
        resuming.opened(
            TOPIC, name, config, origins, grade, out=out, resume=resume, console=console
        ) as run,
        Watch() as watch,
    ):
        try:
            _run(config, run, material, base, device, console, watch)
        except Interrupted as error:
            if error.cure.startswith("dltool"):
                raise
            # before the first step: there is nothing to save
            run.update(status="interrupted", step=0)
            message = f"stopped before the first step in {run.folder}"
            raise Interrupted(error.exit_code - 128, message, cure=run.resume_command) from None


def _read(
    config: TrainConfig, name: str, out: Path | None, base: Vectors | None, console: Console
) -> tuple[Path, Material]:
    """Claim a run folder and read the text beside it; when that fails, leave neither.

    Raises:
        ConfigError: E204, the folder is taken.
        DataError: the text cannot be read or holds too little.
        CheckFailed: a guard found a mistake.
    """
    folder = runs.claim(TOPIC, name, out)
    beside = files.temporary_name(folder)
    try:
        with Watch():
            return folder, _material(config, beside, base, console)
    except BaseException as error:
        files.remove(beside)
        with suppress(OSError):
            folder.rmdir()
        if isinstance(error, Interrupted):
            message = "stopped while the text was read; nothing is left of it"
            raise Interrupted(error.exit_code - 128, message) from None
        raise


def _material(
    config: TrainConfig, folder: Path, base: Vectors | None, console: Console
) -> Material:
    tokenize = base.tokenizer(config.segmenter) if base is not None else None
    corpus = corpora.prepare(config, folder, console, tokenize)
    counts = corpora.vocabulary(corpus, config.min_count, _known(base))
    findings = [] if config.guards == "off" else preflight.look(config, corpus, counts)
    findings = act(findings, console, mode=config.guards, without=config.without)
    _announce(config, corpus, counts, console)
    return Material(corpus, counts, findings)


def _grade(config: TrainConfig, console: Console) -> tuple[Any, str]:
    """Return the torch engine's device and the run's grade."""
    if config.engine == "torch":
        from dltool import device as devices

        device = devices.prepare(
            config.device,
            console,
            seed=config.seed,
            threads=config.threads,
            deterministic=config.deterministic,
        )
        return device, devices.guarantee(device, deterministic=config.deterministic)
    count = gensim_engine.threads(config)
    if config.device not in ("auto", "cpu"):
        _refuse_device(config.device)
    grade = "bitwise" if count == 1 else "statistical"
    why = "" if count == 1 else ": threads write into the same vectors; --workers 1 repeats exactly"
    console.note(f"gensim with {count} threads, {grade}{why}")
    return None, grade


def _refuse_device(name: str) -> None:
    from dltool import device as devices

    devices.choose(name)  # says what is wrong with a name or device that is not there
    raise ConfigError(
        "E205",
        f"gensim trains on the CPU, not on {name}",
        cure=f"add --engine torch, or leave --device {name} out",
    )


def _base(config: TrainConfig) -> Vectors | None:
    """Return the vectors to train further, if there are any.

    Raises:
        ConfigError: E205, a setting differs that belongs to them.
        CheckpointError: they are damaged or cannot be trained.
    """
    if not config.start_from:
        return None
    base = vectors.load(runs.locate(config.start_from, TOPIC), verify=True)
    for name in INHERITED:
        theirs, ours = base.about.get(name), getattr(config, name)
        if theirs not in (None, "") and theirs != ours:
            raise ConfigError(
                "E205",
                f"the vectors of {config.start_from} have {name} {theirs}",
                received=ours,
                cure=f"leave --{name.replace('_', '-')} out",
            )
    if "codes" in base.arrays or base.arrays["vectors"].dtype.name != "float32":
        raise ConfigError(
            "E205", "quantized vectors cannot be trained further", cure="name the run they are from"
        )
    if config.algorithm == "fasttext" and "ngrams" not in base.arrays:
        raise ConfigError(
            "E205", f"{config.start_from} has no letter groups", cure="leave --start-from out"
        )
    if config.phrases:
        raise ConfigError(
            "E205",
            "--phrases is settled by the vectors that are trained further",
            cure="leave --phrases out",
        )
    return base


def _run(
    config: TrainConfig,
    run: Run,
    material: Material | None,
    base: Vectors | None,
    device: Any,
    console: Console,
    watch: Watch,
) -> None:
    """Train on what was read, or on what the run that goes on has kept of its text."""
    console.note(f"run folder {run.folder}")
    folder, resume = run.folder / corpora.FOLDER, material is None
    if material is None:
        material = _material(config, folder, base, console)
    else:
        with files.explained(folder):
            os.replace(material.corpus.folder, folder)
        material.corpus.folder = folder
    corpus, counts = material.corpus, material.counts
    resuming.check_data(run, corpus.facts(), is_new=not (run.folder / "data.json").exists())
    console.event("start", run=str(run.folder), epochs=config.epochs, words=corpus.words)
    start = base.arrays if base is not None else {}
    if config.engine == "torch":
        from dltool_word2vec.torch_engine import run_torch

        outcome = run_torch(config, corpus, counts, start, run, device, console, resume=resume)
    else:
        outcome = run_gensim(config, corpus, counts, start, run, console, watch, resume=resume)
    with watch.hold():
        _finish(config, run, corpus, outcome, base, material.findings, console)


def _known(base: Vectors | None) -> dict[str, int] | None:
    """Return the words that are trained further, with their counts; unknown counts are 1."""
    if base is None:
        return None
    return dict(zip(base.words, base.counts or [1] * len(base.words), strict=True))


def _announce(
    config: TrainConfig, corpus: Corpus, counts: Mapping[str, int], console: Console
) -> None:
    kept = sum(counts.values())
    share = min(kept / max(corpus.words, 1), 1.0)
    console.note(
        f"{', '.join(config.data)}: {corpus.texts:,} texts, {corpus.words:,} words, "
        f"{corpus.types:,} different ones"
    )
    console.note(
        f"{len(counts):,} words occur {config.min_count} times or more and get a vector of "
        f"{config.dim}; they are {share:.1%} of the text"
    )
    if corpus.cut and config.algorithm == "doc2vec":
        console.warn(
            f"{corpus.cut:,} texts are longer than {corpora.LONGEST_DOCUMENT:,} words; gensim "
            "reads no further in a text, so the rest of them is left out"
        )


def _finish(
    config: TrainConfig,
    run: Run,
    corpus: Corpus,
    outcome: Outcome,
    base: Vectors | None,
    findings: list[Finding],
    console: Console,
) -> None:
    """Write the model folder and the result; the prepared corpus goes."""
    matrix: Array = outcome.arrays["vectors"]
    common = sif.common_component(corpus, outcome.words, outcome.counts, matrix)
    untrained = loss_of_chance(config, outcome)
    result = {
        "run": str(run.folder),
        "model": str(run.folder / "model"),
        "words": len(outcome.words),
        "dim": config.dim,
        "corpus_words": corpus.words,
        "loss": {"value": outcome.loss.value, "n": outcome.loss.n, "reach": outcome.loss.reach},
        "loss_of_chance": untrained,
        "training_seconds": round(outcome.seconds, 3),
        "words_per_second": round(outcome.words_per_second, 1),
        "grade": runs.read_json(run.folder).get("grade"),
        "findings": [found.as_dict() for found in findings],
    }
    settings = {name: getattr(config, name) for name in INHERITED}
    about = {
        **settings,
        "engine": config.engine,
        "window": config.window,
        "negative": config.negative,
        "hs": config.hs,
        "corpus_words": corpus.words,
        "data": list(config.data),
        "settings": dataclasses.asdict(config),
        "results": {"loss": result["loss"], "loss_of_chance": untrained},
    }
    arrays = {**outcome.arrays, "common": common}
    phrases = base.phrases() if base is not None else corpus.phrases
    vectors.save(run.folder / "model", outcome.words, outcome.counts, arrays, about, phrases)
    corpora.discard(corpus.folder)
    run.finish(result)
    console.result(result, _summary(result))
    word = next((each for each in outcome.words[50:] if len(each) > 3), outcome.words[-1])
    console.hint(f"dltool {TOPIC} similar {run.folder} {word}")


def loss_of_chance(config: TrainConfig, outcome: Outcome) -> float | None:
    """Return the loss of a model that knows nothing: every choice is a coin's; None for a tree."""
    import math

    return None if config.hs else (1 + config.negative) * math.log(2)


def _summary(result: Mapping[str, Any]) -> str:
    loss = result["loss"]
    chance = result["loss_of_chance"]
    beside = f", chance is {chance:.4f}" if chance is not None else ""
    return (
        f"{result['words']:,} words, {result['dim']} dimensions, {result['grade']}\n"
        f"loss {loss['value']:.4f} ± {loss['reach']:.4f} on {loss['n']:,} windows of the "
        f"text{beside}\n"
        f"{result['training_seconds']:.1f} s of training, "
        f"{result['words_per_second']:,.0f} words/s\n"
        f"run   {result['run']}\nmodel {result['model']}"
    )
