"""The pictures of a run, small enough to travel inside of a page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dltool.history.folders import PastRun

FOLDER = "pictures"
OWN = frozenset({"curves.png"})  # the page draws these itself
BUDGET = 1_300_000  # bytes of all pictures; as text in a page they are a third more
MOST_BYTES = 400_000
MOST_PIXELS = 40_000_000
SIDES = (1600, 1200, 900, 640)
FAULTS = (OSError, ValueError, SyntaxError, Warning, MemoryError)


@dataclass(frozen=True)
class Picture:
    """One picture as the page holds it.

    Attributes:
        title, text: what the file says of itself, or its name.
        source: a data: address.
        width, height: in pixels, as it is shown.
    """

    title: str
    text: str
    source: str
    width: int
    height: int


def files_of(run: PastRun) -> list[Path]:
    """Return the run's PNG files: those in `pictures/`, then those beside `run.json`."""
    found = []
    for folder in (run.folder / FOLDER, run.folder):
        if folder.is_dir() and not folder.is_symlink():
            found += sorted(path for path in folder.glob("*.png") if path.name not in OWN)
    return [path for path in found if path.is_file() and not path.is_symlink()]


def pictures(paths: Sequence[Path], share: int) -> tuple[list[Picture], list[str]]:
    """Return the pictures, each within `share` bytes, and one line for each that is left out."""
    shown, problems = [], []
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                shown.append(_embedded(path, share))
        except FAULTS as error:
            problems.append(f"{path} is left out: {error}")
    return shown, problems


def share_of(count: int) -> int:
    """Return how many bytes each of so many pictures may take."""
    return min(MOST_BYTES, BUDGET // max(count, 1))


def _embedded(path: Path, share: int) -> Picture:
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        image.load()
        title = _word(image, "Title") or path.stem.replace("-", " ").replace("_", " ")
        text = _word(image, "Description")
        width, height, size = image.width, image.height, path.stat().st_size
        kind, content = (
            ("png", path.read_bytes()) if size <= share else ("webp", _reduced(image, share))
        )
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(title, text, source, width, height)


def _word(image: object, name: str) -> str:
    words = getattr(image, "text", {}).get(name, "")
    return " ".join(str(words).split())[:300]


def _reduced(image: object, share: int) -> bytes:
    """Return the picture as WebP, as large as the share allows."""
    from PIL import Image

    assert isinstance(image, Image.Image)
    plain = image.convert(
        "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
    )
    for side in SIDES:
        smaller = plain.copy()
        smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        smaller.save(content, "WEBP", quality=85)
        if content.tell() <= share:
            return content.getvalue()
    raise ValueError(f"it does not fit into {share:,} bytes")
