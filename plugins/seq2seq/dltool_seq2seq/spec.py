"""What builds a model: plain values that `model.json` keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Spec:
    """The shape of an encoder-decoder.

    Attributes:
        name: `transformer`, `rnn`, `gru` or `lstm`.
        source_vocabulary, target_vocabulary: sizes, reserved tokens included.
        width: features of embeddings and of the Transformer; the recurrent state's size.
        max_length: places that learned positions have, and the longest sequence that is taken.
        attention: of a recurrent decoder: `none`, `additive`, `dot` or `multiplicative`.
        shared: source and target have one vocabulary and one embedding.
        tied: the output layer is the target embedding.
    """

    name: str
    source_vocabulary: int
    target_vocabulary: int
    width: int
    encoder_layers: int
    decoder_layers: int
    max_length: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    heads: int = 4
    feedforward: int = 512
    norm: str = "pre"
    positions: str = "sinusoidal"
    attention: str = "none"
    bidirectional: bool = False
    shared: bool = False
    tied: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """Build from plain values; TypeError when one is missing or unknown."""
        return cls(**values)
