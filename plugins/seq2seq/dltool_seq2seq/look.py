"""Where the decoder looks: attention weights of a trained model on one text."""

from __future__ import annotations

from pathlib import Path

import torch

from dltool.console import Console
from dltool.errors import ConfigError, DataError
from dltool_seq2seq import pictures, tasks
from dltool_seq2seq import translate as translating
from dltool_seq2seq.data import directed
from dltool_seq2seq.decode import Search, decode, padded
from dltool_seq2seq.translate import Translator
from dltool_seq2seq.vocab import BOS, EOS, Vocabulary


def draw_attention(folder: Path, text: str, out: Path, console: Console) -> None:
    """Translate a text and draw the weights on its tokens, mean over the heads of each layer.

    Raises:
        ConfigError: E205, the model has no attention.
        DataError: E506, the text cannot be translated.
    """
    translator = translating.load(folder, torch.device("cpu"))
    spec = translator.model.spec
    if spec.name != "transformer" and spec.attention == "none":
        raise ConfigError(
            "E205",
            f"{folder} is a {spec.name} without attention",
            cure="train one with --attention dot, or a transformer",
        )
    problem = translator.problem(text)
    if problem:
        raise DataError("E506", f"{text!r} cannot be translated: {problem}", cure="see info")
    numbers = directed(
        translator.source.encode(tasks.tidied(translator.task, text)),
        backwards=translator.reverse_source,
    )
    found = decode(translator.model, [numbers], Search(), batch_size=1)[0]
    weights = weights_of(translator, numbers, found.tokens)  # (layers, H, T, S)
    rows = [*_named(translator.target, found.tokens), "<eos>"]
    columns = [*_named(translator.source, numbers), "<eos>"]
    pictures.attention(weights.mean(1), rows, columns, out)
    answer = translator.target.decode(directed(found.tokens, backwards=translator.reverse_target))
    result = {
        "run": str(folder),
        "source": text,
        "translation": answer,
        "source_tokens": columns,
        "target_tokens": rows,
        "weights": weights.tolist(),
        "plot": str(out),
    }
    console.result(result, f"{answer}\nattention: {out}")


def weights_of(translator: Translator, source: list[int], target: list[int]) -> torch.Tensor:
    """Return weights (layers, H, T, S): each row says where the decoder looks for one token."""
    translator.model.eval()
    tokens, lengths = padded([source], torch.device("cpu"))
    decoder_input = torch.tensor([[BOS, *target]])
    return translator.model.attention_weights(tokens, lengths, decoder_input)[0]


def _named(vocabulary: Vocabulary, numbers: list[int]) -> list[str]:
    return [vocabulary.tokens[number] if number != EOS else "<eos>" for number in numbers]
