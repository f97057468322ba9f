"""Texts to vectors, how near they are, and how a model reads a text."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dltool import checkpoint, files, ranges, runs
from dltool import device as devices
from dltool.console import Console, table
from dltool.errors import CheckpointError, ConfigError, DataError
from dltool_bert_finetune import batches, hub, inputs, library, model
from dltool_bert_finetune.folder import TOPIC
from dltool_bert_finetune.inputs import Wanted
from dltool_bert_finetune.tokens import Tokeniser

POOLINGS = ("mean", "cls")
SHOWN = 60


@dataclass(frozen=True)
class Settings:
    """How texts become vectors."""

    pooling: str
    normalise: bool
    max_length: int
    revision: str
    device: str

    def __post_init__(self) -> None:
        ranges.one_of("--pooling", self.pooling, POOLINGS)


def load_encoder(name: str, settings: Settings, console: Console) -> tuple[nn.Module, Tokeniser]:
    """Return an encoder in evaluation mode, without its head, and its tokeniser.

    Raises:
        CheckpointError: it cannot be used, or its weights are not all there.
    """
    source = hub.find(_place(name), settings.revision, console)
    if (source.folder / checkpoint.MANIFEST).exists():
        checkpoint.verify(source.folder)
    transformers = library.load("transformers")
    config = model.read_settings(source.folder, name)
    with model.explained(name):
        network, report = transformers.AutoModel.from_pretrained(
            source.folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model.check_report(report, name)
    tokeniser = model.read_tokeniser(source.folder, config, name, settings.max_length)
    device = devices.choose(settings.device).device
    return network.float().to(device).eval(), tokeniser


def _place(name: str) -> str:
    """Return the folder of a run that is named by `latest` or its name; other names as they are."""
    if Path(name).exists():
        return name
    try:
        return str(runs.locate(name, TOPIC))
    except CheckpointError:
        return name


@torch.no_grad()
def vectors(network: nn.Module, tokeniser: Tokeniser, texts: list[str], pooling: str) -> Tensor:
    """Return one vector a text (N, H), in order; padding does not count in the mean."""
    encoded = tokeniser.encode(texts)
    device = next(network.parameters()).device
    parts, order = [], []
    for index, batch in batches.in_order(encoded, tokeniser.pad, 256, 8192, device):
        hidden: Tensor = network(**batch).last_hidden_state  # (B, T, H)
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
        pooled = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
        parts.append(pooled.float().cpu())
        order += index
    return torch.cat(parts)[torch.tensor(order).argsort()]


def _checked(texts: list[str]) -> list[str]:
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError("E503", f"text {number} is empty", cure="leave empty texts out")
    return texts


def encode_texts(
    name: str, wanted: Wanted, settings: Settings, *, out: Path | None, console: Console
) -> None:
    """Print or write the vectors of texts."""
    if out is not None and out.suffix not in (".npy", ".jsonl"):
        raise ConfigError("E202", "--out ends in .npy or .jsonl", received=str(out))
    texts = _checked(inputs.read(wanted, paired=False)[0])
    network, tokeniser = load_encoder(name, settings, console)
    found = vectors(network, tokeniser, texts, settings.pooling)
    if settings.normalise:
        found = nn.functional.normalize(found, dim=1)
    result: dict[str, Any] = {
        "model": name,
        "pooling": settings.pooling,
        "texts": len(texts),
        "width": found.shape[1],
    }
    if out is not None:
        _write(out, texts, found)
        result["out"] = str(out)
        console.result(result, f"{len(texts):,} vectors of {found.shape[1]} numbers in {out}")
        return
    rows = found.tolist()
    result["vectors"] = rows
    lines = (f"{_short(text)}: {_numbers(row)}" for text, row in zip(texts, rows, strict=True))
    console.result(result, "\n".join(lines))
    console.note("--json or --out FILE gives all numbers")


def _numbers(row: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in row[:6]) + f" … ({len(row)})"


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN else plain[: SHOWN - 1] + "…"


def _write(out: Path, texts: list[str], found: Tensor) -> None:
    if out.suffix == ".npy":
        stream = io.BytesIO()
        np.save(stream, found.numpy())
        files.write_bytes_atomic(out, stream.getvalue())
        return
    rows = zip(texts, found.tolist(), strict=True)
    lines = (
        json.dumps({"text": text, "vector": row}, ensure_ascii=False) + "\n" for text, row in rows
    )
    files.write_bytes_atomic(out, "".join(lines).encode())


def compare_texts(name: str, texts: list[str], settings: Settings, *, console: Console) -> None:
    """Print the cosine of the first text's vector with those of the others, the nearest first."""
    if len(texts) < 2:
        raise ConfigError("E205", "similarity needs two texts", cure="give one more")
    network, tokeniser = load_encoder(name, settings, console)
    found = nn.functional.normalize(
        vectors(network, tokeniser, _checked(texts), settings.pooling), dim=1
    )
    cosines = (found[1:] @ found[0]).clamp(-1, 1).tolist()
    rows: list[dict[str, Any]] = [
        {"text": text, "cosine": round(value, 6)}
        for text, value in zip(texts[1:], cosines, strict=True)
    ]
    rows.sort(key=lambda row: -row["cosine"])
    text = "\n".join(f"{row['cosine']:7.4f}  {_short(row['text'])}" for row in rows)
    console.result({"model": name, "text": texts[0], "others": rows}, text)


def show_tokens(
    name: str, text: str, second: str, max_length: int, revision: str, console: Console
) -> None:
    """Print the word pieces of a text or a pair."""
    source = hub.find(_place(name), revision, console)
    settings = model.read_settings(source.folder, name)
    tokeniser = model.read_tokeniser(source.folder, settings, name, max_length)
    pieces, numbers, segments = tokeniser.pieces(text, second)
    result = {"model": name, "tokens": pieces, "ids": numbers, "segments": segments}
    rows = [list(row) for row in zip(pieces, numbers, segments, strict=True)]
    console.result(result, table(rows, ("token", "id", "segment")) + f"\n{len(rows)} tokens")
