"""Attention: masks, softmax over what is valid, and the four ways to score a query against keys.

Every function takes lengths or a mask, so that padding has no influence; none changes its
arguments. Shapes: B batch, Q queries, S keys, E features, H heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KINDS = ("additive", "dot", "multiplicative")


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size) booleans: True at the first `lengths[b]` places of row b."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def causal_mask(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (size, size) booleans: True where a query (row) may look, at itself and before."""
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the last axis, exactly 0 where `mask` is False.

    A row without any valid place gives zeros: nothing is attended to, and nothing becomes NaN.

    Args:
        scores: (..., S) of any finite values.
        mask: booleans that broadcast to the scores.
    """
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask, lowest).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


class Scorer(nn.Module):
    """Score decoder states against encoder states.

    dot             q·k / √E                        Luong et al., 2015, scaled as in Vaswani, 2017
    multiplicative  qᵀ W k                          Luong et al., 2015, "general"
    additive        vᵀ tanh(W q + U k)              Bahdanau et al., 2015; memory B·Q·S·E

    Args:
        kind: one of `KINDS`.
        query_size, key_size: features of queries and keys; equal for `dot`.
        hidden: width of the additive score.
    """

    def __init__(self, kind: str, query_size: int, key_size: int, hidden: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"unknown attention {kind!r}")
        if kind == "dot" and query_size != key_size:
            raise ValueError("dot attention needs queries and keys of one size")
        self.kind = kind
        if kind == "multiplicative":
            self.key = nn.Linear(key_size, query_size, bias=False)
        if kind == "additive":
            self.query = nn.Linear(query_size, hidden, bias=False)
            self.key = nn.Linear(key_size, hidden, bias=False)
            self.value = nn.Linear(hidden, 1, bias=False)

    def prepare(self, keys: Tensor) -> Tensor:
        """Return what of the keys (B, S, E) is the same for every query."""
        prepared: Tensor = keys if self.kind == "dot" else self.key(keys)
        return prepared

    def forward(self, queries: Tensor, prepared: Tensor) -> Tensor:
        """Return scores (B, Q, S) of queries (B, Q, E) against prepared keys."""
        if self.kind == "additive":
            summed = self.query(queries)[:, :, None] + prepared[:, None]  # (B, Q, S, hidden)
            scores: Tensor = self.value(torch.tanh(summed)).squeeze(-1)
            return scores
        scores = queries @ prepared.transpose(1, 2)
        return scores / math.sqrt(queries.shape[-1]) if self.kind == "dot" else scores


def split_heads(states: Tensor, heads: int) -> Tensor:
    """Bring (B, S, E) to (B, H, S, E / H)."""
    batch, size, width = states.shape
    return states.view(batch, size, heads, width // heads).transpose(1, 2)


def join_heads(states: Tensor) -> Tensor:
    """Bring (B, H, S, E / H) back to (B, S, E)."""
    return states.transpose(1, 2).flatten(2)


def sinusoids(size: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Return positions (size, width): sin in even columns, cos in odd ones.

    Column 2i and 2i+1 turn with 1 / 10000^(2i / width) (Vaswani et al., 2017, section 3.5); the
    norm of each row is √(width / 2).
    """
    places = torch.arange(size, device=device, dtype=torch.float32)[:, None]
    columns = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    angles = places / torch.pow(10000.0, columns / width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


def rotated(states: Tensor, start: int) -> Tensor:
    """Turn pairs of features by an angle that grows with the position (RoPE, Su et al., 2021).

    A product of a turned query and a turned key depends on the distance of their positions alone.

    Args:
        states: (B, H, S, D), D even; position of the first is `start`.
    """
    size, width = states.shape[-2:]
    table = sinusoids(start + size, width, states.device)[start:].to(states.dtype)
    sin, cos = table[:, 0::2], table[:, 1::2]  # (S, D / 2)
    even, odd = states[..., 0::2], states[..., 1::2]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2)


class MultiHead(nn.Module):
    """Multi-head attention (Vaswani et al., 2017, section 3.2.2) over torch's SDPA.

    Args:
        width: features E of queries, keys and values.
        heads: H, a divisor of E.
        dropout: share of weights that training leaves out.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        for part in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)

    def project(self, states: Tensor, start: int, *, turned: bool) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, S, D) of states (B, S, E)."""
        keys = split_heads(self.key(states), self.heads)
        values = split_heads(self.value(states), self.heads)
        return (rotated(keys, start) if turned else keys), values

    def queries(self, states: Tensor, start: int, *, turned: bool) -> Tensor:
        """Return queries (B, H, Q, D)."""
        queries = split_heads(self.query(states), self.heads)
        return rotated(queries, start) if turned else queries

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        *,
        is_causal: bool = False,
    ) -> Tensor:
        """Return softmax(QKᵀ/√D) V, heads joined: (B, Q, E).

        Args:
            mask: (B, 1, 1 or Q, S) booleans, True where a query may look.
        """
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
        )
        joined: Tensor = self.out(join_heads(mixed))
        return joined


def weights(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Return the attention weights (B, H, Q, S) that SDPA keeps to itself, for pictures."""
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return masked_softmax(scores, mask)
