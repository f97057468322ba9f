"""Texts to token numbers, one after the other without padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dltool import files
from dltool.errors import CheckpointError
from dltool_bert_finetune import library


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


CHUNK = 1000
IGNORED = -100  # the label of a token that is not learnt from
# what a library wrote down of how it once called the tokeniser; it would cut and pad for others
LEFT_OVER = _words(
    "is_local local_files_only max_length stride truncation_strategy pad_to_multiple_of backend "
    "pad_token_type_id trust_remote_code"
)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Numbers = npt.NDArray[Any]


@dataclass(frozen=True)
class Tokens:
    """Token numbers of N texts, one after the other.

    Attributes:
        ids: (all tokens,) int32.
        segments: (all tokens,) uint8, 1 in the second text of a pair; empty where none is needed.
        ends: (N,) int64, where each text ends.
        cut: how many texts were longer than the limit.
    """

    ids: Numbers
    segments: Numbers
    ends: Numbers
    cut: int

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> Numbers:
        """Tokens of each text (N,)."""
        return np.diff(self.ends, prepend=0)

    def batch(self, index: Sequence[int], pad: int) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` and maybe `token_type_ids`, each (B, longest)."""
        spans = [(int(self.ends[i - 1]) if i else 0, int(self.ends[i])) for i in index]
        width = max(stop - start for start, stop in spans)
        ids = np.full((len(spans), width), pad, dtype=np.int64)
        mask = np.zeros((len(spans), width), dtype=np.int64)
        segments = np.zeros((len(spans), width), dtype=np.int64)
        for row, (start, stop) in enumerate(spans):
            ids[row, : stop - start] = self.ids[start:stop]
            mask[row, : stop - start] = 1
            if len(self.segments):
                segments[row, : stop - start] = self.segments[start:stop]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if len(self.segments):
            batch["token_type_ids"] = torch.from_numpy(segments)
        return batch

    def spread(self, values: Tensor, index: Sequence[int], fill: int) -> Tensor:
        """Return values of all tokens (all tokens, …) as (B, longest, …), with `fill` behind."""
        ends = self.ends[list(index)]
        starts = ends - self.lengths[list(index)]
        rows = [values[start:stop] for start, stop in zip(starts, ends, strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


@dataclass(frozen=True)
class Tokeniser:
    """A tokeniser with the length that its model is used at.

    Attributes:
        library: the tokeniser of `transformers`.
        pad: the number of the padding token.
        max_length: tokens of a text, the special ones included; what is longer is cut.
        segments: whether the model tells the first text of a pair from the second.
    """

    library: Any
    pad: int
    max_length: int
    segments: bool

    @property
    def backend(self) -> Any:
        """The tokeniser of `tokenizers` that does the work, without padding."""
        backend = self.library.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.max_length)
        return backend

    @property
    def whole(self) -> Any:
        """The same without a limit."""
        backend = self.library.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return backend

    def windowed(self, stride: int, *, only_second: bool = False) -> Any:
        """Return the same, giving long texts as windows that share `stride` tokens."""
        backend = self.library.backend_tokenizer
        backend.no_padding()
        strategy = "only_second" if only_second else "longest_first"
        backend.enable_truncation(self.max_length, stride=stride, strategy=strategy)
        return backend

    def encode(self, texts: Sequence[str], seconds: Sequence[str] = ()) -> Tokens:
        """Return the tokens of texts, or of pairs of texts."""
        backend = self.backend
        ids, segments, ends, cut = [], [], [], 0
        place = 0
        for start in range(0, len(texts), CHUNK):
            chunk: list[Any] = list(texts[start : start + CHUNK])
            if seconds:
                chunk = list(zip(chunk, seconds[start : start + CHUNK], strict=True))
            for encoded in backend.encode_batch(chunk):
                ids.append(np.array(encoded.ids, dtype=np.int32))
                if self.segments:
                    segments.append(np.array(encoded.type_ids, dtype=np.uint8))
                place += len(encoded.ids)
                ends.append(place)
                cut += bool(encoded.overflowing)
        return Tokens(
            np.concatenate(ids) if ids else np.zeros(0, np.int32),
            np.concatenate(segments) if segments else np.zeros(0, np.uint8),
            np.array(ends, dtype=np.int64),
            cut,
        )

    def pieces(self, text: str, second: str = "") -> tuple[list[str], list[int], list[int]]:
        """Return the tokens of a text or pair as words, their numbers and their segments."""
        encoded = self.backend.encode(text, second) if second else self.backend.encode(text)
        return list(encoded.tokens), list(encoded.ids), list(encoded.type_ids)

    def files(self) -> dict[str, bytes]:
        """Return the files that a model folder holds of the tokeniser, by name."""
        backend = self.whole
        kept = {
            name: value
            for name, value in self.library.init_kwargs.items()
            if name not in LEFT_OVER and isinstance(value, str | int | float | bool)
        }
        special = {
            name: str(value)
            for name, value in self.library.special_tokens_map.items()
            if isinstance(value, str) or name.endswith("_token")
        }
        name = type(self.library).__name__
        settings = {**kept, **special, "tokenizer_class": name, "model_max_length": self.max_length}
        settings = {key: value for key, value in settings.items() if key != "name_or_path"}
        return {
            "tokenizer.json": (backend.to_str(pretty=True) + "\n").encode(),
            "tokenizer_config.json": files.json_bytes(settings),
        }


def wrap(loaded: Any, model_settings: Any, max_length: int) -> Tokeniser:
    """Make a tokeniser for a model, once the two fit together.

    Raises:
        CheckpointError: E513, they do not.
    """
    if not getattr(loaded, "is_fast", False):
        raise CheckpointError(
            "E513",
            f"the tokeniser {type(loaded).__name__} has no tokenizer.json",
            cure="use a model folder that holds one",
        )
    if loaded.pad_token_id is None:
        raise CheckpointError(
            "E513", "the tokeniser has no padding token", cure="use a text encoder such as BERT"
        )
    entries, rows = len(loaded), int(getattr(model_settings, "vocab_size", 0))
    if entries > rows or entries < 0.9 * rows:
        raise CheckpointError(
            "E513",
            "tokeniser and model do not belong together",
            received=f"{entries:,} word pieces, {rows:,} rows of the model's embedding",
            expected="the tokeniser that the model was trained with",
            cure="copy both from one place",
        )
    segments = (
        int(getattr(model_settings, "type_vocab_size", 0) or 0) > 1
        and "token_type_ids" in loaded.model_input_names
    )
    longest = longest_input(model_settings)
    return Tokeniser(loaded, loaded.pad_token_id, min(max_length, longest), segments)


def longest_input(model_settings: Any) -> int:
    """Return how many tokens a model takes."""
    limit = int(getattr(model_settings, "max_position_embeddings", 0) or 0)
    if not limit or limit < 4:
        return 1 << 20  # positions are relative
    # these number their positions from behind the padding token on
    offset = 2 if "roberta" in str(getattr(model_settings, "model_type", "")) else 0
    return limit - offset


def train_wordpiece(texts: Iterable[str], size: int) -> Any:
    """Learn a lower-case WordPiece vocabulary (Schuster and Nakajima, 2012); the same every time.

    The library numbers the letters in the order of a hash map, which changes from process to
    process; here they are given their numbers beforehand.
    """
    library.load("tokenizers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    texts = list(texts)
    normalizer = normalizers.BertNormalizer()
    letters = sorted(set("".join(normalizer.normalize_str(text) for text in texts)) - {" "})
    alphabet = [*letters, *(f"##{letter}" for letter in letters)]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizer
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=max(size, len(SPECIALS) + len(alphabet)),
        min_frequency=2,
        special_tokens=[*SPECIALS, *alphabet],
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return _bert_tokeniser(learner.get_vocab())


def _bert_tokeniser(vocabulary: Mapping[str, int]) -> Any:
    transformers = library.load("transformers")
    return transformers.BertTokenizerFast(vocab=dict(vocabulary), do_lower_case=True)
