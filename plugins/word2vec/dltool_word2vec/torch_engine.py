"""Train the torch model of skipgram.py with the core's session: the files are those of gensim."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from dltool import device as devices
from dltool import training
from dltool.console import Console
from dltool.errors import DataError
from dltool.runs import Run
from dltool_word2vec import loss
from dltool_word2vec.config import TrainConfig
from dltool_word2vec.corpus import Corpus
from dltool_word2vec.loop import Outcome
from dltool_word2vec.loss import Loss, Sample
from dltool_word2vec.phrases import lines_of
from dltool_word2vec.skipgram import BREAK, Blocks, RowSGD, SkipGram, numbered
from dltool_word2vec.store import Array

LEAST_SHARE = 0.004  # of the learning rate at the end, as with gensim


def run_torch(
    config: TrainConfig,
    corpus: Corpus,
    counts: Mapping[str, int],
    start: Mapping[str, Array],
    run: Run,
    device: torch.device,
    console: Console,
    *,
    resume: bool,
) -> Outcome:
    """Train with torch and return the vectors.

    Args:
        start: arrays of the vectors to train further; empty for new ones.
    """
    words, numbers = list(counts), list(counts.values())
    blocks = make_blocks(config, corpus, counts, device)
    torch.manual_seed(devices.derive_seed(config.seed, "weights"))
    model = SkipGram(len(words), config.dim)
    _fill(model, start)
    model.to(device)
    optimizer = RowSGD(model.parameters(), lr=config.learning_rate)
    total = len(blocks) * config.epochs
    scheduler = LambdaLR(optimizer, lambda step: max(1 - step / total, LEAST_SHARE))
    sample = loss.draw(
        corpus.folder / corpus.parts[0].name,
        {word: row for row, word in enumerate(words)},
        numbers,
        config.window,
        config.negative,
        devices.derive_seed(config.seed, "loss"),
    )
    settings = training.Settings.of(config, device, monitor="sample_loss")
    with training.session(
        run, model, optimizer, settings, scheduler=scheduler, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(config.epochs):
            for batch in session.batches(blocks, label=f"epoch {epoch + 1}/{config.epochs}"):
                with session.attempt():
                    total_loss, pairs = model(batch, config.negative)
                    optimizer.weigh(pairs, model.terms(batch, config.negative))
                    session.step(total_loss / pairs.clamp(min=1), count=batch.words.numel())
            measured = sample_loss(model, sample)
            rate = corpus.words * (session.epoch + 1) / max(session.stopwatch.seconds, 1e-9)
            console.note(f"{rate:,.0f} words/s")
            session.report(
                {
                    "sample_loss": measured.value,
                    "sample_loss_reach": measured.reach,
                    "n": measured.n,
                    "words_per_second": round(rate),
                }
            )
        # the rate fell to the end: the last vectors are the ones, not those of the best epoch
        measured = sample_loss(model, sample)
        arrays = {"vectors": _array(model.input), "output": _array(model.output)}
        trained = corpus.words * config.epochs
        return Outcome(arrays, words, numbers, measured, session.stopwatch.seconds, trained)


def make_blocks(
    config: TrainConfig, corpus: Corpus, counts: Mapping[str, int], device: torch.device
) -> Blocks:
    """Put the corpus on the device as int32 and return its batches.

    Raises:
        DataError: E503, it has no line with two words of the vocabulary.
    """
    index = {word: row for row, word in enumerate(counts)}
    ids = numbered(lines_of(corpus), index)
    if not bool((ids != BREAK).any()):
        raise DataError("E503", "no word of the text has a vector", cure="lower --min-count")
    return Blocks(
        ids.to(device),
        torch.tensor(list(counts.values()), device=device),
        window=config.window,
        sample=config.sample,
        block=config.block,
        noise=config.noise,
        generator=lambda epoch, place: devices.generator(
            config.seed, "pairs", epoch, place, device=device
        ),
    )


@torch.no_grad()
def _fill(model: SkipGram, start: Mapping[str, Array]) -> None:
    for name, matrix in (("vectors", model.input), ("output", model.output)):
        if name in start:
            rows = torch.from_numpy(np.array(start[name], np.float32))
            matrix.weight[: len(rows)] = rows


def _array(matrix: torch.nn.Embedding) -> Array:
    return matrix.weight.detach().cpu().numpy()


def sample_loss(model: SkipGram, sample: Sample) -> Loss:
    """Return the loss on the fixed windows, by the same code as gensim's vectors are measured."""
    vectors, output = _array(model.input), _array(model.output)
    hidden = loss.hidden(sample, lambda rows: np.asarray(vectors[rows]), mean=False)
    return loss.negative_sampling(hidden, output, sample)
