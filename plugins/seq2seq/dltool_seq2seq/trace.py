"""Follow one batch through a model: the shape of every tensor, and the masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import runs
from dltool.console import Console, table
from dltool.errors import DataError
from dltool_seq2seq import pictures, tasks
from dltool_seq2seq import translate as translating
from dltool_seq2seq.attention import causal_mask, valid_mask
from dltool_seq2seq.config import TrainConfig
from dltool_seq2seq.data import directed
from dltool_seq2seq.decode import Search, decode, padded
from dltool_seq2seq.model import Model
from dltool_seq2seq.vocab import BOS

DRAWN = 24  # places of a mask that are printed
EXAMPLES = {
    "arithmetic": ("12+345", "7-9"),
    "reverse": ("hello", "tea"),
    "date": ("3 March 1998", "1998/3/3"),
    "spelling": ("teh geren hous", "smal brid sing"),
    "hello": ("hello",),
}


def trace_run(folder: Path, given: Sequence[str], out: Path | None, console: Console) -> None:
    """Print the shapes of a batch of texts on its way through a run's model.

    Raises:
        DataError: E506, a text cannot be translated; E503, there is none.
    """
    translator = translating.load(folder, torch.device("cpu"))
    batch = list(given) or list(EXAMPLES.get(translator.task, ())) or _first_texts(folder)
    if not batch:
        raise DataError("E503", "there is no text to trace", cure="give one or more texts")
    for text in batch:
        problem = translator.problem(text)
        if problem:
            raise DataError("E506", f"{text!r} cannot be read: {problem}", cure="see info")
    numbers = [
        directed(
            translator.source.encode(tasks.tidied(translator.task, text)),
            backwards=translator.reverse_source,
        )
        for text in batch
    ]
    found = decode(translator.model, numbers, Search(), batch_size=len(numbers))
    source, lengths = padded(numbers, torch.device("cpu"))
    targets, target_lengths = padded([each.tokens for each in found], torch.device("cpu"))
    begin = torch.full((len(batch), 1), BOS)
    decoder_input = torch.cat([begin, targets[:, :-1]], 1)
    rows = traced(translator.model, source, lengths, decoder_input)
    source_mask = valid_mask(lengths, source.shape[1])
    causal = causal_mask(decoder_input.shape[1])
    result: dict[str, Any] = {
        "run": str(folder),
        "texts": batch,
        "layers": rows,
        "source_lengths": lengths.tolist(),
        "source_mask": source_mask.int().tolist(),
        "causal_mask": causal.int().tolist(),
    }
    if out is not None:
        target_mask = valid_mask(target_lengths, targets.shape[1])
        pictures.masks(source_mask, causal, target_mask, out)
        result["plot"] = str(out)
    console.result(result, _text(result))


def _first_texts(folder: Path) -> list[str]:
    """Return two sources of the run's own file, as an example."""
    from dltool_seq2seq.data import read_pairs

    if not (folder / "config.json").exists():
        return []
    config, _ = runs.read_config(folder, TrainConfig)
    return [source for source, _ in read_pairs(config, config.task, limit=2)[0]]


def traced(
    model: Model, source: Tensor, lengths: Tensor, decoder_input: Tensor
) -> list[dict[str, Any]]:
    """Return name, kind, input and output shapes of every layer that a forward pass calls."""
    rows: list[dict[str, Any]] = []

    def note(name: str, module: nn.Module) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            kind = type(module).__name__
            rows.append(
                {"layer": name, "kind": kind, "input": _shapes(args), "output": _shapes(output)}
            )

        return module.register_forward_hook(hook)

    hooks = [note(name or "model", module) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(source, lengths, decoder_input)
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def _shapes(value: Any) -> list[list[int]]:
    """Return the shapes of the tensors in a nest of tuples; of a packed batch its data's."""
    if isinstance(value, Tensor):
        return [list(value.shape)]
    if isinstance(value, nn.utils.rnn.PackedSequence):
        return [list(value.data.shape)]
    if isinstance(value, tuple | list):
        return [shape for part in value for shape in _shapes(part)]
    return []


def _text(result: dict[str, Any]) -> str:
    rows = [
        [row["layer"], row["kind"], _shown(row["input"]), _shown(row["output"])]
        for row in result["layers"]
    ]
    shapes = table(rows, ("layer", "kind", "input", "output"))
    masks, causal = _drawn(result["source_mask"]), _drawn(result["causal_mask"])
    text = f"{shapes}\n\nsource mask (B, S)\n{masks}\n\ncausal mask (T, T)\n{causal}"
    return text + (f"\n\nmasks: {result['plot']}" if "plot" in result else "")


def _drawn(mask: list[list[int]]) -> str:
    """Return a mask as blocks and dots, its first places alone where it is large."""
    lines = ["".join("█" if bit else "·" for bit in row[:DRAWN]) for row in mask[:DRAWN]]
    if max(len(mask), len(mask[0])) > DRAWN:
        lines.append(f"(the first {DRAWN} places of {len(mask)} × {len(mask[0])})")
    return "\n".join(lines)


def _shown(shapes: list[list[int]]) -> str:
    return " ".join("×".join(map(str, shape)) for shape in shapes)
