"""Recurrent encoder-decoders: RNN, GRU and LSTM, with or without attention.

Sutskever et al., 2014, and Cho et al., 2014, without attention: the encoder's last state starts the
decoder and is read at every step. With attention the decoder's outputs are compared with all of the
encoder's (Luong et al., 2015: the context enters after the recurrent step), by the score of Luong
or of Bahdanau et al., 2015. So a teacher-forced pass is one call of torch's recurrent layer.

Shapes: B batch, S source places, T target places, E width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dltool_seq2seq.attention import Scorer, masked_softmax, valid_mask
from dltool_seq2seq.spec import Spec

KINDS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

State = dict[str, Tensor]


class Recurrent(nn.Module):
    """Encoder-decoder of recurrent layers; see the module's text."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        width, kind = spec.width, KINDS[spec.name]
        directions = 2 if spec.bidirectional else 1
        self.source = nn.Embedding(spec.source_vocabulary, width)
        self.target = self.source if spec.shared else nn.Embedding(spec.target_vocabulary, width)
        self.dropout = nn.Dropout(spec.dropout)
        self.encoder = kind(
            width,
            width,
            spec.encoder_layers,
            batch_first=True,
            bidirectional=spec.bidirectional,
            dropout=spec.dropout if spec.encoder_layers > 1 else 0.0,
        )
        self.parts = ("hidden", "cell") if spec.name == "lstm" else ("hidden",)
        self.bridges = nn.ModuleList(
            nn.Linear(directions * width, width) if spec.bidirectional else nn.Identity()
            for _ in self.parts
        )
        has_attention = spec.attention != "none"
        self.decoder = kind(
            width if has_attention else 2 * width,
            width,
            spec.decoder_layers,
            batch_first=True,
            dropout=spec.dropout if spec.decoder_layers > 1 else 0.0,
        )
        self.scorer = None
        if has_attention:
            self.keys = nn.Linear(directions * width, width, bias=False)
            self.scorer = Scorer(spec.attention, width, width, width)
            self.combine = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, spec.target_vocabulary)
        if spec.tied:
            nn.init.normal_(self.target.weight, std=width**-0.5)
            self.output.weight = self.target.weight

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Return outputs (B, S, E or 2E) and the state (B, layers, E) after each row's last token.

        The sequences are packed: no layer sees padding, in either direction.
        """
        embedded = self.dropout(self.source(source))
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, last = self.encoder(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        found = last if isinstance(last, tuple) else (last,)
        state = {
            name: self._bridged(part, bridge)
            for name, part, bridge in zip(self.parts, found, self.bridges, strict=True)
        }
        return outputs, state

    def _bridged(self, last: Tensor, bridge: nn.Module) -> Tensor:
        """Bring (layers · directions, B, E) to (B, decoder layers, E); both directions go in."""
        spec = self.spec
        directions = 2 if spec.bidirectional else 1
        layers = last.view(spec.encoder_layers, directions, -1, spec.width)
        joined = layers.permute(2, 0, 1, 3).flatten(2)  # (B, layers, directions · E)
        bridged: Tensor = bridge(joined)
        if spec.bidirectional:
            bridged = torch.tanh(bridged)
        if spec.decoder_layers <= spec.encoder_layers:
            return bridged[:, -spec.decoder_layers :]
        missing = spec.decoder_layers - spec.encoder_layers
        return torch.cat([bridged, bridged[:, -1:].expand(-1, missing, -1)], 1)

    def start(self, source: Tensor, lengths: Tensor) -> State:
        """Encode, and return what the decoder needs at every step; every tensor is batch first."""
        outputs, state = self.encode(source, lengths)
        # the context without attention is fixed here: it must not follow the running state
        if self.scorer is None:
            return {**state, "context": state["hidden"][:, -1]}
        memory = self.keys(outputs)
        mask = valid_mask(lengths, source.shape[1])
        return {**state, "memory": memory, "keys": self.scorer.prepare(memory), "mask": mask}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens (B, T) after those read before; return logits (B, T, V) and the new state."""
        states, state = self._run(tokens, state)
        if self.scorer is not None:
            context = self._weights(states, state) @ state["memory"]  # (B, T, E)
            states = torch.tanh(self.combine(torch.cat([context, states], -1)))
        return self.output(self.dropout(states)), state

    def _run(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        inputs = self.dropout(self.target(tokens))  # (B, T, E)
        if self.scorer is None:
            context = state["context"][:, None].expand(-1, tokens.shape[1], -1)
            inputs = torch.cat([inputs, context], -1)
        first = [state[name].transpose(0, 1).contiguous() for name in self.parts]
        states, last = self.decoder(inputs, tuple(first) if len(first) > 1 else first[0])
        found = last if isinstance(last, tuple) else (last,)
        kept = {name: part.transpose(0, 1) for name, part in zip(self.parts, found, strict=True)}
        return states, {**state, **kept}

    def _weights(self, states: Tensor, state: State) -> Tensor:
        assert self.scorer is not None
        scores = self.scorer(states, state["keys"])  # (B, T, S)
        return masked_softmax(scores, state["mask"][:, None])

    def forward(self, source: Tensor, lengths: Tensor, decoder_input: Tensor) -> Tensor:
        """Return logits (B, T, V) under teacher forcing: place t sees the target before t."""
        logits, _ = self.step(decoder_input, self.start(source, lengths))
        return logits

    @torch.no_grad()
    def attention_weights(self, source: Tensor, lengths: Tensor, decoder_input: Tensor) -> Tensor:
        """Return the weights (B, 1, 1, T, S) with which the decoder looks at the source.

        Raises:
            ValueError: the model has no attention.
        """
        if self.scorer is None:
            raise ValueError("this model has no attention")
        state = self.start(source, lengths)
        states, state = self._run(decoder_input, state)
        return self._weights(states, state)[:, None, None]
