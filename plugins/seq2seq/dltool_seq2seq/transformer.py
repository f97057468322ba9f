"""The Transformer of Vaswani et al., 2017, with what has proved itself since.

Pre- or post-norm, sinusoidal, learned or rotary positions, tied embeddings; attention by torch's
scaled_dot_product_attention. The causal mask holds in training and in evaluation alike, padding of
the source is masked in the encoder and in the decoder.

Shapes: B batch, S source places, T target places, E width, H heads, D = E / H, V vocabulary.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool_seq2seq.attention import MultiHead, sinusoids, valid_mask, weights
from dltool_seq2seq.spec import Spec

State = dict[str, Tensor]


class Embedding(nn.Module):
    """Token embeddings times √E, plus positions."""

    def __init__(self, spec: Spec, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, spec.width)
        nn.init.normal_(self.tokens.weight, std=spec.width**-0.5)
        self.positions, self.width = spec.positions, spec.width
        self.dropout = nn.Dropout(spec.dropout)
        if spec.positions == "learned":
            self.places = nn.Embedding(spec.max_length, spec.width)
            nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Return (B, T, E) for tokens (B, T), the first of which stands at place `start`."""
        states = self.tokens(tokens) * math.sqrt(self.width)
        end = start + tokens.shape[1]
        if self.positions == "sinusoidal":
            states = states + sinusoids(end, self.width, tokens.device)[start:]
        elif self.positions == "learned":
            states = states + self.places.weight[start:end]
        embedded: Tensor = self.dropout(states)
        return embedded


class Block(nn.Module):
    """What encoder and decoder layers share: residual branches with their norms."""

    def __init__(self, spec: Spec, branches: int) -> None:
        super().__init__()
        self.is_pre = spec.norm == "pre"
        self.turned = spec.positions == "rotary"
        self.norms = nn.ModuleList(nn.LayerNorm(spec.width) for _ in range(branches))
        self.dropout = nn.Dropout(spec.dropout)
        self.attention = MultiHead(spec.width, spec.heads, spec.attention_dropout)
        self.wide = nn.Linear(spec.width, spec.feedforward)
        self.narrow = nn.Linear(spec.feedforward, spec.width)
        for part in (self.wide, self.narrow):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)

    def enter(self, states: Tensor, branch: int) -> Tensor:
        """Return what branch number `branch` reads: normalised first in a pre-norm layer."""
        normed: Tensor = self.norms[branch](states) if self.is_pre else states
        return normed

    def leave(self, states: Tensor, change: Tensor, branch: int) -> Tensor:
        """Add a branch's output to the stream; a post-norm layer normalises the sum."""
        summed = states + self.dropout(change)
        left: Tensor = summed if self.is_pre else self.norms[branch](summed)
        return left

    def fed_forward(self, states: Tensor, branch: int) -> Tensor:
        """Run the last branch: two linear layers with ReLU between them."""
        hidden = self.dropout(F.relu(self.wide(self.enter(states, branch))))
        return self.leave(states, self.narrow(hidden), branch)


class EncoderLayer(Block):
    """Self-attention and feed-forward."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, 2)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, S, E); `mask` (B, 1, 1, S) hides the padding."""
        read = self.enter(states, 0)
        queries = self.attention.queries(read, 0, turned=self.turned)
        keys, values = self.attention.project(read, 0, turned=self.turned)
        states = self.leave(states, self.attention.attend(queries, keys, values, mask), 0)
        return self.fed_forward(states, 1)


class DecoderLayer(Block):
    """Causal self-attention, attention to the source, feed-forward."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, 3)
        self.cross = MultiHead(spec.width, spec.heads, spec.attention_dropout)

    def forward(
        self,
        states: Tensor,
        past: tuple[Tensor, Tensor] | None,
        source: tuple[Tensor, Tensor],
        mask: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return (B, T, E) and the keys and values of all places so far.

        Args:
            states: (B, T, E); T > 1 only without a past.
            past: keys and values (B, H, t, D) of the places before, the KV cache.
            source: keys and values (B, H, S, D) of the encoder's output.
            mask: (B, 1, 1, S).
        """
        states, kept = self.remember(states, past)
        return self.look(states, source, mask), kept

    def remember(
        self, states: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the first branch: attention to what was written so far."""
        start = past[0].shape[2] if past is not None else 0
        read = self.enter(states, 0)
        queries = self.attention.queries(read, start, turned=self.turned)
        keys, values = self.attention.project(read, start, turned=self.turned)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        # one new place may see all that are there; several are the whole prefix, masked causally
        mixed = self.attention.attend(queries, keys, values, is_causal=past is None)
        return self.leave(states, mixed, 0), (keys, values)

    def asks(self, states: Tensor) -> Tensor:
        """Return the queries (B, H, T, D) of the second branch, for the source."""
        return self.cross.queries(self.enter(states, 1), 0, turned=False)

    def look(self, states: Tensor, source: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Run the second branch, attention to the source, and the third."""
        states = self.leave(states, self.cross.attend(self.asks(states), *source, mask), 1)
        return self.fed_forward(states, 2)


class Transformer(nn.Module):
    """Encoder-decoder; see the module's text. One of the topic's two families of models."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.source = Embedding(spec, spec.source_vocabulary)
        self.target = self.source if spec.shared else Embedding(spec, spec.target_vocabulary)
        self.encoder = nn.ModuleList(EncoderLayer(spec) for _ in range(spec.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(spec) for _ in range(spec.decoder_layers))
        is_pre = spec.norm == "pre"
        self.encoded = nn.LayerNorm(spec.width) if is_pre else nn.Identity()
        self.decoded = nn.LayerNorm(spec.width) if is_pre else nn.Identity()
        self.output = nn.Linear(spec.width, spec.target_vocabulary)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        if spec.tied:
            self.output.weight = self.target.tokens.weight

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers of the decoder, by their own type."""
        return cast(list[DecoderLayer], list(self.decoder))

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, S, E) for source tokens (B, S) with `lengths` (B,) valid places."""
        mask = valid_mask(lengths, source.shape[1])[:, None, None]
        states: Tensor = self.source(source)
        for layer in self.encoder:
            states = layer(states, mask)
        encoded: Tensor = self.encoded(states)
        return encoded

    def start(self, source: Tensor, lengths: Tensor) -> State:
        """Encode, and return what the decoder needs at every step; every tensor is batch first."""
        memory = self.encode(source, lengths)
        state = {"mask": valid_mask(lengths, source.shape[1])}
        for number, layer in enumerate(self.decoder_layers):
            keys, values = layer.cross.project(memory, 0, turned=False)
            state[f"source_keys_{number}"], state[f"source_values_{number}"] = keys, values
        return state

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T) after those read before; return logits (B, T, V) and the new state.

        Teacher forcing is one step over the whole target; decoding is one step a token, where the
        state's keys and values (the KV cache) spare everything that was computed before.
        """
        cached = state.get("keys_0")
        states = self.target(tokens, cached.shape[2] if cached is not None else 0)
        mask, after = state["mask"][:, None, None], dict(state)
        for i, layer in enumerate(self.decoder_layers):
            past = None if cached is None else (state[f"keys_{i}"], state[f"values_{i}"])
            source = state[f"source_keys_{i}"], state[f"source_values_{i}"]
            states, (keys, values) = layer(states, past, source, mask)
            after[f"keys_{i}"], after[f"values_{i}"] = keys, values
        return self.output(self.decoded(states)), after

    def forward(self, source: Tensor, lengths: Tensor, decoder_input: Tensor) -> Tensor:
        """Return logits (B, T, V) under teacher forcing: place t sees the target before t."""
        logits, _ = self.step(decoder_input, self.start(source, lengths))
        return logits

    @torch.no_grad()
    def attention_weights(self, source: Tensor, lengths: Tensor, decoder_input: Tensor) -> Tensor:
        """Return the weights (B, layers, H, T, S) with which the decoder looks at the source."""
        state = self.start(source, lengths)
        states = self.target(decoder_input)
        mask = state["mask"][:, None, None]
        found = []
        for number, layer in enumerate(self.decoder_layers):
            source_states = state[f"source_keys_{number}"], state[f"source_values_{number}"]
            states, _ = layer.remember(states, None)
            found.append(weights(layer.asks(states), source_states[0], mask))
            states = layer.look(states, source_states, mask)
        return torch.stack(found, 1)
