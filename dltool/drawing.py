"""What every picture shares: known settings, colours, clean text and an atomic PNG file.

Nothing here touches pyplot, whose global figures a library must not leave behind.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dltool.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart with every common colour-vision deficiency
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, PALE = "#222222", "#777777", "#E8E8E8"
DPI = 150
# tried in this order for writing systems that matplotlib's own font lacks
WIDER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Arial Unicode MS",
    "Segoe UI",
)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with known settings, whatever style file the user has, and leave none behind."""
    import matplotlib
    from matplotlib import style
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    settings: Any = {
        "font.family": ["DejaVu Sans", *(name for name in WIDER_FONTS if name in installed)],
        "font.size": 11,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.titlesize": 12,
        # class names may hold a dollar sign
        "text.parse_math": False,
    }
    with style.context("default"), warnings.catch_warnings():
        matplotlib.rcParams.update(settings)
        # a character that no installed font has is drawn as a box
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        yield


def log_scale(axes: Axes) -> None:
    """Scale the values of a panel logarithmically, with plain numbers at the ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def whole_ticks(axes: Axes) -> None:
    """Put the ticks of a panel's epochs or steps at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))


def check_name(path: Path) -> None:
    """Raise ConfigError E202 unless the name ends in .png."""
    if path.suffix.lower() != ".png":
        raise ConfigError(
            "E202", "pictures are written as PNG", received=str(path), expected="a name in .png"
        )


def save(
    figure: Figure, path: Path, *, cut: bool = False, title: str = "", description: str = ""
) -> None:
    """Write a figure as PNG, atomically; `cut` fits the edges to what is drawn.

    Title and description, one sentence, go into the file's text fields of these names, where a
    page of pictures finds its captions.
    """
    from dltool.files import write_bytes_atomic

    content = io.BytesIO()
    figure.savefig(
        content,
        format="png",
        metadata={
            "Software": None,
            "Title": clean(title) or None,
            "Description": clean(description) or None,
        },
        bbox_inches="tight" if cut else None,
        pad_inches=0.12,
    )
    write_bytes_atomic(path, content.getvalue())


def clean(text: str) -> str:
    """Keep what can be drawn: line breaks and control characters become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a long name: names often differ only at their ends."""
    if len(text) <= length:
        return text
    head = length // 2
    tail = length - 1 - head
    return text[:head] + "…" + (text[-tail:] if tail > 0 else "")


def heading(title: str, inches: float) -> str:
    """Fold a heading into at most about three lines of `inches`."""
    letters = int(inches * 8)
    return textwrap.fill(shorten(clean(title), 3 * letters), letters)


def array(values: Any) -> npt.NDArray[Any]:
    """Return a tensor of any device, or anything array-like, as an array."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
