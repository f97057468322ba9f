"""The letter groups of fastText (Bojanowski et al., 2017): a word is the mean of its parts.

The hash and the groups are those of the original program, down to its signed bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

FNV_OFFSET, FNV_PRIME = 2166136261, 16777619
MASK = 0xFFFFFFFF


def fasttext_hash(data: bytes) -> int:
    """Return fastText's 32-bit FNV-1a hash, which takes bytes as signed."""
    value = FNV_OFFSET
    for byte in data:
        value ^= byte | 0xFFFFFF00 if byte >= 128 else byte
        value = value * FNV_PRIME & MASK
    return value


def groups(word: str, min_n: int, max_n: int) -> Sequence[str]:
    """Return the groups of `min_n` to `max_n` letters of `<word>`."""
    text = f"<{word}>"
    found = []
    for start in range(len(text)):
        for length in range(min_n, max_n + 1):
            end = start + length
            if end > len(text):
                break
            # a bracket alone says nothing
            if not (length == 1 and (start == 0 or end == len(text))):
                found.append(text[start:end])
    return found


def rows(word: str, min_n: int, max_n: int, bucket: int) -> list[int]:
    """Return the row of each of a word's letter groups in the matrix of `bucket` rows."""
    return [fasttext_hash(group.encode()) % bucket for group in groups(word, min_n, max_n)]
