"""Seeds for one purpose of a run, derived from the run's own seed; without torch."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: object) -> int:
    """Return a 63-bit seed that depends on the run's seed and on what it is for, and nothing else.

    The same parts give the same number in every process and version (BLAKE2b of their text).
    """
    text = "/".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
