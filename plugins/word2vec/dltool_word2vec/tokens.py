"""From a text to its words: the tokenisers, and joined phrases."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from dltool.errors import ConfigError, DataError, DltoolError

Tokenizer = Callable[[str], list[str]]

SHORTEST, LONGEST = 2, 15
LETTERS = re.compile(r"[^\W\d]+")
WORDS = re.compile(r"\w+(?:['’]\w+)*")
# unified ideographs with their extensions, and what stands among them in Chinese text
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
CHINESE = re.compile(rf"[{HAN}]|[^\W{HAN}]+")
JOINT = "_"


def simple(text: str) -> list[str]:
    """Return lower-case runs of letters, 2 to 15 long; the same as gensim's `simple_preprocess`."""
    found = LETTERS.findall(text.lower())
    return [word for word in found if SHORTEST <= len(word) <= LONGEST and word[0] != "_"]


def words(text: str) -> list[str]:
    """Return lower-case words and numbers of any length; `don't` is one word."""
    return WORDS.findall(text.lower())


def characters(text: str) -> list[str]:
    """Return every character that is no blank."""
    return [character for character in text if not character.isspace()]


def chinese(text: str) -> list[str]:
    """Return every Chinese character alone, and other words whole and in lower case."""
    return CHINESE.findall(text.lower())


def tokenizer(name: str, segmenter: str = "") -> Tokenizer:
    """Return the tokeniser of this name.

    Args:
        segmenter: `MODULE:FUNCTION`, for the name `segmenter`.

    Raises:
        ConfigError: the segmenter cannot be found.
    """
    if name == "segmenter":
        return _segmenter(segmenter)
    known: dict[str, Tokenizer] = {
        "simple": simple,
        "words": words,
        "whitespace": str.split,
        "characters": characters,
        "chinese": chinese,
    }
    return known[name]


def _segmenter(place: str) -> Tokenizer:
    module_name, _, name = place.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except ImportError as error:
        raise DltoolError(
            "E303", f"the segmenter {place!r} cannot be imported: {error}", cure="install it first"
        ) from error
    except (AttributeError, ValueError) as error:
        raise ConfigError(
            "E206",
            f"there is no segmenter {place!r}",
            expected="MODULE:FUNCTION, such as jieba:lcut",
            cure="check the names",
        ) from error

    def segment(text: str) -> list[str]:
        found = function(text)
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise DataError(
                "E502",
                f"the segmenter {place} returned a {type(found).__name__}",
                expected="a list of words",
                cure="name a function that takes a text and returns its words",
            )
        # a word with a blank inside would come apart in a file of words
        return [word for each in found for word in str(each).split()]

    return segment


def joiner(phrases: Sequence[Mapping[str, float]]) -> Callable[[list[str]], list[str]]:
    """Return what joins known pairs, pass by pass, from left to right: `new york` -> `new_york`.

    Args:
        phrases: for each pass the score of every pair, written `first second`.
    """
    if not phrases:
        return lambda tokens: tokens

    def join(tokens: list[str]) -> list[str]:
        for known in phrases:
            tokens = _joined(tokens, known)
        return tokens

    return join


def _joined(tokens: list[str], known: Mapping[str, float]) -> list[str]:
    result: list[str] = []
    was_joined = False
    for token in tokens:
        if result and not was_joined and f"{result[-1]} {token}" in known:
            result[-1] = f"{result[-1]}{JOINT}{token}"
            was_joined = True
        else:
            result.append(token)
            was_joined = False
    return result
