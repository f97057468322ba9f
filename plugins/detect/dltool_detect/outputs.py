"""Where the results of each input go, and writing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dltool.errors import ConfigError
from dltool.files import write_bytes_atomic
from dltool_detect.detections import Detections
from dltool_detect.draw import Pixels, encoded
from dltool_detect.sources import CROPS, MARK, VIDEO_SUFFIXES, Source

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Places:
    """Where one input's annotated picture and its crops go; None: nowhere."""

    picture: Path | None
    crops: Path | None


def plan(
    sources: Iterable[Source], out: Path | None, *, pictures: bool, crops: bool
) -> list[Places]:
    """Choose the files for every input: beside it, or below `out`; no two get the same.

    `out` is the annotated picture itself where it ends in .jpg or .png (or a video's suffix) and
    there is one input. What comes through stdin has no place of its own and needs `out`.

    Raises:
        ConfigError: E205, `out` is one file and there are several inputs.
    """
    listed = list(sources)
    is_file = out is not None and out.suffix.lower() in (*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)
    if is_file and len(listed) != 1:
        raise ConfigError(
            "E205",
            f"--out {out} is one file, but there are {len(listed)} inputs",
            cure="name a folder with --out",
        )
    taken: set[Path] = set()
    places = []
    for source in listed:
        base = _base(source, out.parent if out is not None and is_file else out)
        picture = out if is_file else _free(base, MARK, _suffix(source), taken)
        folder = _free(base, CROPS, "", taken)
        has_place = base is not None
        places.append(
            Places(
                picture if pictures and has_place else None,
                folder if crops and has_place else None,
            )
        )
    return places


def _base(source: Source, out: Path | None) -> Path | None:
    if out is not None:
        return out / source.relative
    return source.path


def _suffix(source: Source) -> str:
    suffix = source.relative.suffix
    if source.is_video:
        return ".mp4"
    return suffix if suffix.lower() in PICTURE_SUFFIXES else ".png"


def _free(base: Path | None, mark: str, suffix: str, taken: set[Path]) -> Path | None:
    """Return `base` with a mark and a suffix, and a number where another input has that name."""
    if base is None:
        return None
    path, number = base.with_name(f"{base.stem}{mark}{suffix}"), 2
    while path in taken:
        path = base.with_name(f"{base.stem}-{number}{mark}{suffix}")
        number += 1
    taken.add(path)
    return path


def write_crops(
    pixels: Pixels, found: Detections, classes: tuple[str, ...], folder: Path, prefix: str = ""
) -> list[str]:
    """Write what each box holds as a JPEG of its own, by class; return the names."""
    from PIL import Image

    height, width = pixels.shape[:2]
    written = []
    for number, (box, label) in enumerate(
        zip(found.boxes.tolist(), found.labels.tolist(), strict=True), 1
    ):
        left, top = max(0, int(box[0])), max(0, int(box[1]))
        right, bottom = min(width, max(left + 1, round(box[2]))), min(height, round(box[3]))
        if right <= left or bottom <= top:
            continue
        kind = "".join(c if c.isalnum() or c in " -_" else "-" for c in classes[label]).strip()
        path = folder / (kind or str(label)) / f"{prefix}{number:03}.jpg"
        crop = Image.fromarray(pixels[top:bottom, left:right])
        write_bytes_atomic(path, encoded(crop, ".jpg"))
        written.append(str(path))
    return written
