"""Small models with a switch for each mistake; without one they are right."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Picture(nn.Module):
    """Two convolutions and a linear layer: (B, 1, 8, 8) to logits (B, 10)."""

    def __init__(self, flaw: str = "", classes: int = 10) -> None:
        super().__init__()
        self.flaw = flaw
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * 16, classes)
        if flaw == "unused layer":
            self.extra = nn.Linear(8, 8)
        if flaw == "plain list":
            self.layers = [nn.Linear(32 * 16, 32 * 16)]
        if flaw == "plain attribute":
            self.mean = torch.zeros(32 * 16)
        if flaw == "dead units":
            nn.init.constant_(self.second.bias, -100.0)  # type: ignore[arg-type]
        if flaw == "constant init":
            nn.init.constant_(self.second.weight, 0.01)
            nn.init.constant_(self.second.bias, 0.0)  # type: ignore[arg-type]
            nn.init.constant_(self.head.weight, 0.01)
        if flaw == "unit weights":
            for each in self.parameters():
                if each.dim() > 1:
                    nn.init.normal_(each)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        flaw = self.flaw
        if flaw == "wrong slice":
            images = torch.cat([images[..., :4], torch.zeros_like(images[..., 4:])], -1)
        x = F.relu(self.norm(self.first(images)))  # (B, 16, 8, 8)
        if flaw == "detach":
            x = x.detach()
        x = F.max_pool2d(F.relu(self.second(x)), 2)  # (B, 32, 4, 4)
        if flaw == "dropout always":
            x = F.dropout(x, 0.3)
        x = x.reshape(-1, len(x)).T.reshape(len(x), -1) if flaw == "view" else x.flatten(1)
        if flaw == "plain list":
            x = F.relu(self.layers[0](x))
        if flaw == "plain attribute":
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            x = x - self.mean
        if flaw == "batch softmax":
            x = x.softmax(0) * len(x)
        x = self.head(x)
        ends = {
            "softmax": lambda z: z.softmax(1),
            "relu": F.relu,
            "tanh": torch.tanh,
            "sigmoid": torch.sigmoid,
        }
        logits: Tensor = ends[flaw](x) if flaw in ends else x
        return logits


class Stack(nn.Module):
    """Linear layers with one activation between them: (B, 64) to (B, 10)."""

    def __init__(self, depth: int, activation: nn.Module) -> None:
        super().__init__()
        widths = [64, *[32] * (depth - 1), 10]
        layers: list[nn.Module] = [nn.Flatten()]
        for one, two in itertools.pairwise(widths):
            layers += [nn.Linear(one, two), activation]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10)."""
        logits: Tensor = self.layers(images)
        return logits


class Encoder(nn.Module):
    """One transformer layer and a mean: tokens (B, T) and lengths (B,) to logits (B, 2)."""

    def __init__(self, vocabulary: int, flaw: str = "", width: int = 32) -> None:
        super().__init__()
        self.flaw = flaw
        self.words = nn.Embedding(vocabulary, width)
        if flaw != "no positions":
            self.places = nn.Parameter(torch.randn(64, width) * 0.1)
        self.layer = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.1, batch_first=flaw != "batch axis"
        )
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, sizes: Tensor) -> Tensor:
        """Return logits (B, 2); places behind a text's size are padding."""
        pads = torch.arange(tokens.shape[1], device=tokens.device)[None] >= sizes[:, None]
        x = self.words(tokens)  # (B, T, W)
        if self.flaw != "no positions":
            places = self.places[: tokens.shape[1]]
            x = x + (places.data if self.flaw == "data positions" else places)
        if self.flaw == "batch axis":
            x = self.layer(x)
        else:
            mask = None if self.flaw == "mask ignored" else pads
            x = self.layer(x, src_key_padding_mask=mask)
        if self.flaw in ("mean of pads", "mask ignored"):
            mean: Tensor = x.mean(1)
        else:
            mean = x.masked_fill(pads[..., None], 0.0).sum(1) / sizes[:, None]
        logits: Tensor = self.head(mean)
        return logits


class Recurrent(nn.Module):
    """An LSTM and its state after the last word: tokens (B, T) and lengths (B,) to (B, 2)."""

    def __init__(self, vocabulary: int, flaw: str = "", width: int = 32) -> None:
        super().__init__()
        self.flaw = flaw
        self.words = nn.Embedding(vocabulary, width)
        self.cell = nn.LSTM(width, width, batch_first=flaw != "batch first")
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, sizes: Tensor) -> Tensor:
        """Return logits (B, 2)."""
        states, _ = self.cell(self.words(tokens))  # (B, T, W)
        if self.flaw == "last pad":
            last = states[:, -1]
        else:
            place = (sizes - 1)[:, None, None].expand(-1, 1, states.shape[2])
            last = states.gather(1, place)[:, 0]
        logits: Tensor = self.head(last)
        return logits


class Gpt(nn.Module):
    """Two decoder layers: tokens (B, T) to logits (B, T, V)."""

    def __init__(self, vocabulary: int, longest: int, flaw: str = "", width: int = 32) -> None:
        super().__init__()
        self.flaw = flaw
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(longest, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=flaw != "batch axis")
            for _ in range(2)
        )
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, (B, T, V)."""
        size = tokens.shape[0] if self.flaw == "batch axis" else tokens.shape[1]
        x = self.words(tokens)
        x = x + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        mask = None
        sees_all = self.flaw == "no mask" or (self.flaw == "mask in training" and not self.training)
        if not sees_all:
            later = torch.ones(size, size, dtype=torch.bool, device=tokens.device)
            mask = later.triu(1)
            if self.flaw == "weak mask":  # 1e-6 where minus infinity was meant
                mask = mask.float() * -1e-6
        for layer in self.layers:
            x = layer(x, src_mask=mask)
        logits: Tensor = self.head(x)
        return logits
