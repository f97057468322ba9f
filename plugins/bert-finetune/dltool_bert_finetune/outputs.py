"""What a network answers to texts, in their order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dltool_bert_finetune import batches as text_batches
from dltool_bert_finetune import model
from dltool_bert_finetune.tokens import Tokeniser, Tokens

BATCH, MOST_TOKENS = 256, 8192


@torch.no_grad()
def of(network: nn.Module, tokeniser: Tokeniser, encoded: Tokens, *, by_token: bool) -> Tensor:
    """Return logits (N, outputs), or (all tokens, outputs), on the CPU, in the order of the texts.

    The network is in evaluation mode meanwhile and goes back to the mode it was in.
    """
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts: list[Tensor] = []
    order: list[int] = []
    for index, batch in text_batches.in_order(encoded, tokeniser.pad, BATCH, MOST_TOKENS, device):
        logits = model.forward(network, batch).float().cpu()
        if by_token:
            lengths = batch["attention_mask"].sum(1).tolist()
            parts += [row[:length] for row, length in zip(logits, lengths, strict=True)]
        else:
            parts.append(logits)
        order += index
    network.train(was_training)
    places = torch.tensor(order).argsort()
    if by_token:
        return torch.cat([parts[place] for place in places.tolist()])
    return torch.cat(parts)[places]
