"""Texts to token numbers and back: characters, words, or subwords.

Four entries are reserved in every vocabulary: padding, unknown, begin and end. Subwords are
byte-pair encoding on bytes (Sennrich et al., 2016), by the library `tokenizers`, so that no text
holds anything unknown.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dltool.errors import CheckpointError, MissingExtra

RESERVED = ("<pad>", "<unk>", "<bos>", "<eos>")
PAD, UNK, BOS, EOS = range(4)
# a word with its inner apostrophes and hyphens, or one sign
WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")
NO_SPACE_BEFORE = re.compile(r"\s+([.,!?;:%)\]}…»])")
NO_SPACE_AFTER = re.compile(r"([(\[{«])\s+")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one side, and how its texts are cut into them.

    Attributes:
        level: `char`, `word` or `subword`.
        lower: whether texts are brought to lower case.
        tokens: all tokens by number, the reserved ones first.
        subwords: the tokenizer's own JSON, for `subword`.
    """

    level: str
    lower: bool
    tokens: tuple[str, ...]
    subwords: str = ""
    _numbers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    _tokenizer: list[Any] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._numbers.update({token: number for number, token in enumerate(self.tokens)})

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the token numbers of a text, without begin and end; unknown ones are `UNK`."""
        if self.level == "subword":
            found = self._subword_tokenizer().encode(self.normalise(text)).ids
            return [number + len(RESERVED) for number in found]
        return [self._numbers.get(token, UNK) for token in self.cut(text)]

    def cut(self, text: str) -> list[str]:
        """Return the tokens of a text as text."""
        if self.level == "subword":
            return [self.tokens[number] for number in self.encode(text)]
        return _cut(self.normalise(text), self.level)

    def unknown(self, text: str) -> list[str]:
        """Return the tokens of a text that the vocabulary does not hold."""
        if self.level == "subword":
            return []
        return [token for token in self.cut(text) if token not in self._numbers]

    def normalise(self, text: str) -> str:
        """Return the text composed (NFC), and in lower case where the vocabulary is."""
        composed = unicodedata.normalize("NFC", text)
        return composed.lower() if self.lower else composed

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of token numbers up to the first end; words are joined as written."""
        kept = []
        for number in numbers:
            if number == EOS:
                break
            if number not in (PAD, BOS):
                kept.append(number)
        if self.level == "subword":
            inner = [number - len(RESERVED) for number in kept if number >= len(RESERVED)]
            return str(self._subword_tokenizer().decode(inner)).strip()
        words = [self.tokens[number] for number in kept]
        return "".join(words) if self.level == "char" else joined(words)

    def _subword_tokenizer(self) -> Any:
        if not self._tokenizer:
            self._tokenizer.append(_library().Tokenizer.from_str(self.subwords))
        return self._tokenizer[0]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `model.json`."""
        values: dict[str, Any] = {"level": self.level, "lower": self.lower}
        if self.level == "subword":
            return {**values, "subwords": json.loads(self.subwords)}
        return {**values, "tokens": list(self.tokens)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Vocabulary:
        """Build from the values of `as_dict`.

        Raises:
            CheckpointError: E513, the reserved tokens are not at its head, or a token occurs twice.
        """
        if values["level"] == "subword":
            return _of_subwords(json.dumps(values["subwords"]), values["lower"])
        tokens = tuple(map(str, values["tokens"]))
        if tokens[: len(RESERVED)] != RESERVED or len(set(tokens)) != len(tokens):
            raise CheckpointError(
                "E513",
                "the vocabulary lacks its reserved tokens, or names a token twice",
                received=" ".join(tokens[:6]),
                expected=f"{' '.join(RESERVED)} first, and every token once",
                cure="restore model.json",
            )
        return cls(values["level"], bool(values["lower"]), tokens)


def _cut(text: str, level: str) -> list[str]:
    return list(text) if level == "char" else WORD.findall(text)


def joined(words: Sequence[str]) -> str:
    """Join words with spaces, none before closing and after opening punctuation."""
    return NO_SPACE_AFTER.sub(r"\1", NO_SPACE_BEFORE.sub(r"\1", " ".join(words)))


def build(
    texts: Sequence[str], level: str, *, lower: bool, vocab_size: int, min_freq: int
) -> Vocabulary:
    """Make the vocabulary of training texts: the commonest tokens first, equals by their letters.

    Args:
        vocab_size: most entries, reserved ones included; 0: no limit (subwords: 8,000).
        min_freq: a rarer token is unknown.

    Raises:
        MissingExtra: subwords need the library `tokenizers`.
    """
    if level == "subword":
        return _train_subwords(texts, lower=lower, vocab_size=vocab_size or 8000, min_freq=min_freq)
    reader = Vocabulary(level, lower, RESERVED)
    counts = Counter(token for text in texts for token in reader.cut(text))
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    kept = [token for token in ranked if counts[token] >= min_freq]
    if vocab_size:
        kept = kept[: vocab_size - len(RESERVED)]
    return Vocabulary(level, lower, (*RESERVED, *kept))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("tokenizers", "seq2seq") from error
    return tokenizers


def _train_subwords(
    texts: Sequence[str], *, lower: bool, vocab_size: int, min_freq: int
) -> Vocabulary:
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size - len(RESERVED),
        min_frequency=max(min_freq, 2),
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    reader = Vocabulary("word", lower, RESERVED)
    tokenizer.train_from_iterator((reader.normalise(text) for text in texts), trainer)
    return _of_subwords(tokenizer.to_str(), lower)


def _of_subwords(text: str, lower: bool) -> Vocabulary:
    tokenizer = _library().Tokenizer.from_str(text)
    numbers = tokenizer.get_vocab()
    tokens = sorted(numbers, key=lambda token: numbers[token])
    return Vocabulary("subword", bool(lower), (*RESERVED, *tokens), text)
