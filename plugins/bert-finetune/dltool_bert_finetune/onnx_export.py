"""A trained classifier as an ONNX graph, compared with the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dltool import exports
from dltool_bert_finetune import model
from dltool_bert_finetune.folder import Loaded

FILE = "model.onnx"


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
    exports.require_onnx()
    encoded = loaded.tokeniser.encode(
        ["a short text", "a text that is a little longer"],
        ["another", "and another"] if loaded.paired or loaded.targets.task == "qa" else [],
    )
    batch = encoded.batch([0, 1], loaded.tokeniser.pad)
    names = list(batch)
    export: Any = torch.export
    free = {0: export.Dim("batch"), 1: export.Dim("length", min=2, max=_longest(loaded))}
    with model.explained(str(folder)):
        exports.write_onnx(
            Logits(loaded.network, names).eval(),
            tuple(batch.values()),
            folder / FILE,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(dict(free) for _ in names),),
            one_file=False,
        )


def _longest(loaded: Loaded) -> int:
    return max(loaded.tokeniser.max_length, 4)


def logits_of(folder: Path, loaded: Loaded, texts: list[str], seconds: list[str]) -> Tensor:
    """Return what onnxruntime gives for texts (N, outputs), or for all of their tokens."""
    encoded = loaded.tokeniser.encode(texts, seconds)
    batch = encoded.batch(range(len(texts)), loaded.tokeniser.pad)
    logits = exports.onnx_call(folder / FILE, list(batch))(*batch.values())[0]
    return logits[batch["attention_mask"] != 0] if loaded.targets.by_token else logits
