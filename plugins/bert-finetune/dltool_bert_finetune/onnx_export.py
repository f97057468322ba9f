"""A trained classifier as an ONNX graph, compared with the model itself."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool_bert_finetune import library, model
from dltool_bert_finetune.folder import Loaded

FILE = "model.onnx"
EXTRA = "onnx"


class Logits(nn.Module):
    """The network with plain tensors for input and output."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the logits of `input_ids`, `attention_mask` and maybe the segments."""
        return model.forward(self.network, dict(zip(self.names, inputs, strict=True)))


def write(folder: Path, loaded: Loaded) -> None:
    """Write `model.onnx`; batch and length of its inputs are free.

    Raises:
        MissingExtra: the packages for ONNX are not installed.
        CheckpointError: E513, the network cannot be written as a graph.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        library.load(name, EXTRA)
    encoded = loaded.tokeniser.encode(
        ["a short text", "a text that is a little longer"],
        ["another", "and another"] if loaded.paired or loaded.targets.task == "qa" else [],
    )
    batch = encoded.batch([0, 1], loaded.tokeniser.pad)
    names = list(batch)
    export: Any = torch.export
    free = {0: export.Dim("batch"), 1: export.Dim("length", min=2, max=_longest(loaded))}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with model.explained(str(folder)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            Logits(loaded.network, names).eval(),
            tuple(batch.values()),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(dict(free) for _ in names),),
            dynamo=True,
            verbose=False,
        )
        program.save(str(folder / FILE))


def _longest(loaded: Loaded) -> int:
    return max(loaded.tokeniser.max_length, 4)


def logits_of(folder: Path, loaded: Loaded, texts: list[str], seconds: list[str]) -> Tensor:
    """Return what onnxruntime gives for texts (N, outputs), or for all of their tokens."""
    onnxruntime = library.load("onnxruntime", EXTRA)
    session = onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
    encoded = loaded.tokeniser.encode(texts, seconds)
    batch = encoded.batch(range(len(texts)), loaded.tokeniser.pad)
    taken = {each.name for each in session.get_inputs()}
    inputs = {name: part.numpy() for name, part in batch.items() if name in taken}
    logits: Tensor = torch.from_numpy(session.run(["logits"], inputs)[0])
    return logits[batch["attention_mask"] != 0] if loaded.targets.by_token else logits
