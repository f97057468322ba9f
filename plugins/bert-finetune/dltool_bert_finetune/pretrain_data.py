"""Documents to masked pairs of segments, as BERT is pre-trained on them.

Devlin et al., 2018, section 3.1 and appendix A.2. Sentences, pairs and masks of an epoch depend on
(seed, epoch, position) alone: each epoch draws new masks and new pairs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dltool.console import Console
from dltool.data import texts
from dltool.device import derive_seed, generator
from dltool.errors import DataError
from dltool_bert_finetune.batches import cut_points, rounded
from dltool_bert_finetune.pretrain_config import LEE, PretrainConfig

IGNORED = -100  # a label that no loss counts
SENTENCE_END = re.compile(r"([.!?][\"')\]]*)\s+")

Document = list[list[int]]  # token numbers by sentence


@dataclass(frozen=True)
class Special:
    """Numbers of the tokens that stand for no text, and how many there are in all."""

    pad: int
    first: int
    separator: int
    mask: int
    reserved: frozenset[int]
    size: int


@dataclass(frozen=True)
class Chunk:
    """Sentences `start` to `stop` of a document, which fit into one input."""

    document: int
    start: int
    stop: int
    length: int


def read_documents(config: PretrainConfig, console: Console) -> list[str]:
    """Return the different documents of the files, in their order.

    Raises:
        DataError: as `dltool.data.texts.lines`; E503, there are too few.
    """
    if config.data == LEE:
        found = list(_lee())
        console.note("lee: 300 news texts of the Lee corpus, which ships with gensim")
    else:
        sources = texts.files([name.strip() for name in config.data.split(",") if name.strip()])
        found = [text for source in sources for text in _documents(source, config)]
    unique = list(dict.fromkeys(text for text in found if text.strip()))
    if len(unique) < len(found):
        console.note(f"{len(found) - len(unique):,} empty or repeated documents are left out")
    if config.max_documents:
        unique = unique[: config.max_documents]
    if len(unique) < 10:
        raise DataError(
            "E503",
            f"{len(unique)} documents are too few",
            expected="at least 10: one a line, or separated by empty lines with --documents blank",
        )
    return unique


def _lee() -> Iterator[str]:
    import gensim

    path = Path(gensim.__file__).parent / "test" / "test_data" / "lee_background.cor"
    return texts.lines(path)


def _documents(source: str, config: PretrainConfig) -> Iterator[str]:
    lines = texts.lines(source, encoding=config.encoding)
    if config.documents == "line":
        yield from lines
        return
    gathered: list[str] = []
    for line in lines:
        if line.strip():
            gathered.append(line)
            continue
        yield "\n".join(gathered)
        gathered = []
    yield "\n".join(gathered)


def sentences(document: str) -> list[str]:
    """Return the sentences of a document; a line ends one too."""
    parts = SENTENCE_END.sub(r"\1\n", document).split("\n")
    return [part.strip() for part in parts if part.strip()]


def split(documents: Sequence[str], config: PretrainConfig) -> dict[str, list[str]]:
    """Return the documents of train, val and test; no document is in two of them."""
    order = torch.randperm(len(documents), generator=generator(config.seed, "split")).tolist()
    val = max(1, round(len(documents) * config.val_fraction))
    test = max(1, round(len(documents) * config.test_fraction))
    places = {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}
    return {name: [documents[i] for i in sorted(index)] for name, index in places.items()}


def fingerprint(parts: dict[str, list[str]]) -> str:
    """Hash what the run learns from and is tested on."""
    digest = hashlib.sha256()
    for name, documents in parts.items():
        digest.update(f"{name} {len(documents)}".encode())
        for text in documents:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def encode(documents: Sequence[str], backend: Any) -> list[Document]:
    """Return the tokens of each sentence of each document, without special ones."""
    backend.no_padding()
    backend.no_truncation()
    found = []
    for document in documents:
        encoded = backend.encode_batch(sentences(document), add_special_tokens=False)
        found.append([list(each.ids) for each in encoded if each.ids])
    return found


def chunks(documents: Sequence[Document], room: int, *, paired: bool) -> list[Chunk]:
    """Cut documents into runs of sentences of about `room` tokens; pairs need two sentences."""
    found = []
    for number, document in enumerate(documents):
        start = length = 0
        for place, sentence in enumerate(document):
            if length and length + len(sentence) > room and place - start >= 1 + paired:
                found.append(Chunk(number, start, place, min(length, room)))
                start, length = place, 0
            length += len(sentence)
        if len(document) - start >= 1 + paired:
            found.append(Chunk(number, start, len(document), min(length, room)))
    return found


@dataclass
class MaskedPairs:
    """Batches of masked pairs; see the file's first lines.

    Attributes:
        starts: for each token number, whether it begins a word (V,); for whole-word masks.
        fixed: the same pairs and masks in every epoch, for measuring.
    """

    documents: Sequence[Document]
    special: Special
    config: PretrainConfig
    paired: bool
    starts: Tensor
    device: torch.device
    fixed: bool = False
    _chunks: list[Chunk] = field(init=False)
    _points: list[int] = field(init=False)
    _replacements: Tensor = field(init=False)

    def __post_init__(self) -> None:
        room = self.config.max_length - (3 if self.paired else 2)
        self._chunks = chunks(self.documents, room, paired=self.paired)
        others = len({chunk.document for chunk in self._chunks})
        if not self._chunks or (self.paired and others < 2):
            raise DataError(
                "E503",
                "there are too few sentences to make pairs of",
                expected="several documents of two sentences or more",
                cure="give more text, or add --no-next-sentence",
            )
        lengths = np.array([chunk.length for chunk in self._chunks])
        self._lengths = rounded(lengths)
        self._points = cut_points(np.sort(self._lengths), self.config.batch_size, 0)
        words = [i for i in range(self.special.size) if i not in self.special.reserved]
        self._replacements = torch.tensor(words)

    def __len__(self) -> int:
        return len(self._points) - 1

    def batches(self, epoch: int, start: int = 0) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of an epoch from number `start` on."""
        epoch = 0 if self.fixed else epoch
        stream = generator(self.config.seed, "order", epoch)
        order = torch.randperm(len(self._chunks), generator=stream).numpy()
        order = order[np.argsort(self._lengths[order], kind="stable")]
        groups = [order[begin:end].tolist() for begin, end in pairwise(self._points)]
        for place in torch.randperm(len(groups), generator=stream).tolist()[start:]:
            yield self._batch([self.example(number, epoch) for number in groups[place]])

    def example(self, number: int, epoch: int) -> dict[str, list[int]]:
        """Return one masked input: ids, segments, labels, and whether the second part follows."""
        chunk = self._chunks[number]
        stream = torch.Generator().manual_seed(
            derive_seed(self.config.seed, "pair", epoch, number, self.fixed)
        )
        first, second, follows = self._segments(chunk, stream)
        ids = [self.special.first, *first, self.special.separator]
        segments = [0] * len(ids)
        if self.paired:
            ids += [*second, self.special.separator]
            segments += [1] * (len(second) + 1)
        labels = self._mask(ids, stream)
        return {"ids": ids, "segments": segments, "labels": labels, "follows": [int(follows)]}

    def _segments(self, chunk: Chunk, stream: torch.Generator) -> tuple[list[int], list[int], bool]:
        own = self.documents[chunk.document][chunk.start : chunk.stop]
        room = self.config.max_length - 3
        if not self.paired:
            return [token for sentence in own for token in sentence][: room + 1], [], True
        cut = 1 + _draw(stream, len(own) - 1)
        first = [token for sentence in own[:cut] for token in sentence]
        follows = bool(_draw(stream, 2))
        rest = [token for sentence in own[cut:] for token in sentence]
        second = rest if follows else self._from_another(chunk, max(len(rest), 1), stream)
        return *_fitted(first, second, room), follows

    def _from_another(self, chunk: Chunk, length: int, stream: torch.Generator) -> list[int]:
        """Return about `length` tokens of another document, from the start of a sentence on."""
        while True:
            other = self._chunks[_draw(stream, len(self._chunks))]
            if other.document != chunk.document:
                break
        document = self.documents[other.document]
        found: list[int] = []
        for sentence in document[_draw(stream, len(document)) :]:
            found += sentence
            if len(found) >= length:
                break
        return found[:length]

    def _mask(self, ids: list[int], stream: torch.Generator) -> list[int]:
        """Hide 15 % of the tokens in place; return labels that are `IGNORED` elsewhere.

        Of those 80 % become [MASK], 10 % another word, and 10 % stay: the model cannot know which
        of the tokens it sees are right.
        """
        places = [i for i, token in enumerate(ids) if token not in self.special.reserved]
        groups = [[place] for place in places]
        if self.config.whole_word:
            groups = []
            for place in places:
                begins = bool(self.starts[ids[place]]) or not groups
                if begins or groups[-1][-1] != place - 1:
                    groups.append([place])
                else:
                    groups[-1].append(place)
        wanted = max(1, round(self.config.mask_fraction * len(places)))
        labels, hidden = [IGNORED] * len(ids), 0
        for group in torch.randperm(len(groups), generator=stream).tolist():
            if hidden >= wanted:
                break
            for place in groups[group]:
                labels[place] = ids[place]
                ids[place] = self._instead(ids[place], stream)
                hidden += 1
        return labels

    def _instead(self, token: int, stream: torch.Generator) -> int:
        fate = _draw(stream, 10)
        if fate < 8:
            return self.special.mask
        if fate == 8:
            return int(self._replacements[_draw(stream, len(self._replacements))])
        return token

    def _batch(self, examples: list[dict[str, list[int]]]) -> dict[str, Tensor]:
        width = max(len(each["ids"]) for each in examples)

        def padded(name: str, value: int) -> Tensor:
            rows = [each[name] + [value] * (width - len(each[name])) for each in examples]
            return torch.tensor(rows)

        mask = [[1] * len(each["ids"]) + [0] * (width - len(each["ids"])) for each in examples]
        batch = {
            "input_ids": padded("ids", self.special.pad),
            "token_type_ids": padded("segments", 0),
            "attention_mask": torch.tensor(mask),
            "labels": padded("labels", IGNORED),
            "follows": torch.tensor([each["follows"][0] for each in examples]),
        }
        return {name: part.to(self.device) for name, part in batch.items()}


def _draw(stream: torch.Generator, limit: int) -> int:
    return int(torch.randint(limit, (), generator=stream))


def _fitted(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Cut the longer of two segments until both fit."""
    first, second = first[:room], second[:room]
    too_many = len(first) + len(second) - room
    while too_many > 0:
        longer = first if len(first) > len(second) else second
        by = min(too_many, max(1, abs(len(first) - len(second))))
        del longer[len(longer) - by :]
        too_many -= by
    return first, second
