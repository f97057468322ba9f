"""What was wrong with a data set's annotations: mended or left out, counted and listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# kind: what happened, and what was done about it
KINDS: Mapping[str, str] = {
    "no-size": "no size, or 0×0, in the annotation: the picture's own was taken",
    "wrong-size": "another size in the annotation than the picture has: the picture's was taken",
    "scaled": "boxes of another size of the picture: scaled to it",
    "turned": "boxes of the picture before it is turned upright: turned with it",
    "swapped": "corners in the wrong order: put right",
    "clipped": "box reaches beyond the picture: cut at its edge",
    "crowd-lost": "a crowd or difficult box cannot be said in this format: left out",
    "outside": "box outside the picture: left out",
    "degenerate": "box without width or height: left out",
    "not-a-number": "box without four finite numbers: left out",
    "no-box": "object without a box: left out",
    "unknown-class": "class that was not asked for or is not known: box left out",
    "bad-line": "line or entry not understood: left out",
    "bad-annotation": "annotation file that cannot be read: left out",
    "no-picture": "annotation without its picture: left out",
    "bad-picture": "picture that cannot be read: left out",
    "no-annotation": "picture without an annotation file: left out",
    "no-label-file": "picture without a label file: taken as one without objects",
    "empty": "annotation without objects: kept as a picture without objects",
    "unused-class": "class without a box: left out of the list of classes",
}
LEFT_OUT = frozenset(kind for kind, text in KINDS.items() if text.endswith("left out"))
SHOWN = 5


@dataclass
class Problems:
    """Count what was found, and where; `str` gives the counts with some places each."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Note one case; `kind` is a key of `KINDS`."""
        assert kind in KINDS
        self.found.setdefault(kind, []).append(where)

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind was met, in the order of `KINDS`."""
        return {kind: len(self.found[kind]) for kind in KINDS if kind in self.found}

    def lines(self, shown: int = SHOWN) -> list[str]:
        """Return one line a kind: its count, what was done, and the first `shown` places."""
        texts = []
        for kind, count in self.counts.items():
            places = ", ".join(self.found[kind][:shown])
            more = f" and {count - shown:,} more" if count > shown else ""
            texts.append(f"{count:,} × {KINDS[kind]} ({places}{more})")
        return texts

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def as_dict(self) -> dict[str, object]:
        """Return counts, meanings and every place for `--json`."""
        return {
            kind: {"count": count, "meaning": KINDS[kind], "where": self.found[kind]}
            for kind, count in self.counts.items()
        }
