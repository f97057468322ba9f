"""Build the model of a spec; the loss that all of them are trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool_seq2seq.config import TrainConfig
from dltool_seq2seq.data import Batch, PairData
from dltool_seq2seq.rnn import Recurrent
from dltool_seq2seq.spec import Spec
from dltool_seq2seq.transformer import Transformer
from dltool_seq2seq.vocab import BOS, PAD

Model = Transformer | Recurrent


def spec_of(config: TrainConfig, source_vocabulary: int, target_vocabulary: int) -> Spec:
    """Return the shape of the config's model."""
    is_transformer = config.model == "transformer"
    return Spec(
        name=config.model,
        source_vocabulary=source_vocabulary,
        target_vocabulary=target_vocabulary,
        width=config.width,
        encoder_layers=config.layers,
        decoder_layers=config.decoder_layers or config.layers,
        max_length=config.max_length,
        dropout=config.dropout,
        heads=config.heads,
        feedforward=config.feedforward or 4 * config.width,
        norm=config.norm,
        positions=config.positions,
        attention="none" if is_transformer else config.attention,
        bidirectional=config.bidirectional and not is_transformer,
        shared=config.share_vocab,
        tied=config.tied,
    )


def build(spec: Spec) -> Model:
    """Make a model with fresh weights."""
    return Transformer(spec) if spec.name == "transformer" else Recurrent(spec)


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable weights; tied ones count once."""
    return sum(part.numel() for part in model.parameters() if part.requires_grad)


def token_losses(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy (B, T) in nats, 0 at padding.

    Args:
        logits: (B, T, V).
        target: (B, T).
        smoothing: share of the target spread over all tokens (Szegedy et al., 2016).
    """
    losses = F.cross_entropy(
        logits.flatten(0, 1),
        target.flatten(),
        ignore_index=PAD,
        reduction="none",
        label_smoothing=smoothing,
    )
    return losses.view(target.shape)


def loss_of(model: Model, batch: Batch, smoothing: float, sampled: float = 0.0) -> Tensor:
    """Return the mean loss a target token of a batch under teacher forcing.

    Args:
        sampled: share of decoder inputs that are the model's own answers.
    """
    decoder_input = batch.decoder_input
    if sampled:
        decoder_input = mixed(model, batch, sampled)
    logits = model(batch.source, batch.lengths, decoder_input)
    return (token_losses(logits, batch.target, smoothing).sum(1) * batch.weight).mean()


@torch.no_grad()
def mixed(model: Model, batch: Batch, share: float) -> Tensor:
    """Return decoder inputs (B, T) a share of which the model itself has answered.

    Scheduled sampling (Bengio et al., 2015) in two parallel passes (Mihaylova and Martins, 2019):
    the first one answers under teacher forcing, the second one learns from what it said.
    """
    answers = model(batch.source, batch.lengths, batch.decoder_input).argmax(-1)
    own = torch.cat([torch.full_like(answers[:, :1], BOS), answers[:, :-1]], 1)
    replaced = torch.rand(own.shape, device=own.device) < share
    return torch.where(replaced, own, batch.decoder_input)


def spec_for(config: TrainConfig, data: PairData) -> Spec:
    """Return the spec of a run on this data."""
    return spec_of(config, len(data.source), len(data.target))
