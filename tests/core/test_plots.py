import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dltool import plots
from dltool.drawing import clean, shorten
from dltool.errors import ConfigError, DataError, DltoolError

BLUE, RED = (0, 114, 178), (213, 94, 0)


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        assert 200 <= image.width <= 2600
        assert 200 <= image.height <= 2600
        return np.asarray(image.convert("RGB")).astype(int)


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == color).all(2).sum())


def records(epochs: int = 8) -> list[dict[str, float]]:
    return [
        {
            "epoch": e,
            "train_loss": 1 / e,
            "val_loss": 1 / e + 0.05,
            "val_accuracy": 1 - 0.5 / e,
            "lr": 0.1,
        }
        for e in range(1, epochs + 1)
    ]


def digits(n: int) -> torch.Tensor:
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images[:n])
    return (images * 255 / 16).to(torch.uint8)[:, None]


def draw(kind: str, path) -> None:
    if kind == "curves":
        plots.curves(records(), path, "a run")
    elif kind == "matrix":
        plots.confusion_matrix(np.eye(3, dtype=np.int64) * 9, list("abc"), path, "three")
    else:
        plots.image_grid(digits(5), list("01234"), path, wrong=[False] * 4 + [True])


@pytest.mark.parametrize("kind", ["curves", "matrix", "grid"])
def test_same_input_gives_same_bytes_without_date_or_version(kind, tmp_path):
    draw(kind, tmp_path / "a.png")
    draw(kind, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert set(image.info) <= {"dpi", "Title", "Description"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("kind", ["curves", "matrix", "grid"])
def test_a_name_that_is_no_png_is_refused_before_work(kind, tmp_path):
    with pytest.raises(ConfigError) as caught:
        draw(kind, tmp_path / "a.jpg")
    assert caught.value.code == "E202"
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(DltoolError) as caught:
        draw("matrix", tmp_path / "file" / "a.png")
    assert caught.value.code == "E101"


def test_drawing_leaves_no_trace_and_minds_no_user_style(tmp_path):
    """Run in a fresh interpreter: pyplot stays away, settings stay, a user's style is not used."""
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\n", encoding="utf-8")
    code = """
import sys
from pathlib import Path
from dltool import plots
assert not {"matplotlib", "torch", "PIL"} & set(sys.modules), "imported too early"
import matplotlib, numpy
def settings():  # asking for the backend would itself import pyplot
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
here = Path(sys.argv[1])
plots.curves([{"val_loss": 1.0, "val_accuracy": 0.5}], here / "c.png", "t")
plots.confusion_matrix(numpy.eye(2, dtype=int), ["a", "b"], here / "m.png", "t")
plots.image_grid([numpy.zeros((8, 8), "uint8")], ["x"], here / "g.png")
assert before == settings(), "settings changed"
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
print(matplotlib.rcParams["font.size"])
"""
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path)}
    environment.pop("DISPLAY", None)
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "30.0"
    plots.curves([{"val_loss": 1.0, "val_accuracy": 0.5}], tmp_path / "plain.png", "t")
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


# ---------------------------------------------------------------- curves


def test_curves_has_two_panels_and_one_where_there_is_no_accuracy(tmp_path):
    plots.curves(records(), tmp_path / "two.png", "both")
    plots.curves([{"train_loss": 2.0}, {"train_loss": 1.0}], tmp_path / "one.png", "loss")
    two, one = pixels(tmp_path / "two.png"), pixels(tmp_path / "one.png")
    assert two.shape[1] == 2 * one.shape[1]
    left, right = np.split(two, 2, axis=1)
    assert min(count(left, BLUE), count(left, RED), count(right, BLUE)) > 100
    assert count(right, RED) == 0


def test_the_best_epoch_is_the_first_highest_accuracy_or_as_told(tmp_path):
    run = [{"epoch": e, "val_accuracy": a} for e, a in [(1, 0.5), (2, 0.9), (3, 0.9), (4, 0.7)]]
    for name, best in [("auto", None), ("two", 2), ("three", 3)]:
        plots.curves(run, tmp_path / f"{name}.png", "t", best_epoch=best)
    content = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert content["auto"] == content["two"] != content["three"]


def test_without_an_accuracy_the_lowest_loss_is_best(tmp_path):
    run = [{"epoch": e, "val_loss": y} for e, y in [(1, 0.5), (2, 0.1), (3, math.nan), (4, 0.2)]]
    plots.curves(run, tmp_path / "auto.png", "t")
    plots.curves(run, tmp_path / "told.png", "t", best_epoch=2)
    assert (tmp_path / "auto.png").read_bytes() == (tmp_path / "told.png").read_bytes()


@pytest.mark.parametrize(
    "run",
    [
        records(1),
        records(300),
        [{"val_accuracy": 1.0}, {"val_accuracy": 1.0}],
        [{"epoch": 1, "train_loss": math.inf}, {"epoch": 2, "train_loss": 0.5}, {"epoch": 3}],
        [{"loss": 1e6}, {"loss": 1e-6}],
        [{"loss": -1.0}, {"loss": 0.0}],
    ],
    ids=["one", "many", "constant", "gaps", "wide", "negative"],
)
def test_curves_draws_any_history(run, tmp_path):
    plots.curves(run, tmp_path / "c.png", "a title with a $ and _ and \n two lines " * 9)
    assert len(np.unique(pixels(tmp_path / "c.png").reshape(-1, 3), axis=0)) > 10


def test_a_value_that_is_not_finite_is_a_gap(tmp_path):
    for name, value in [("inf", math.inf), ("nan", math.nan), ("none", None)]:
        run = records()
        run[3]["val_loss"] = value
        plots.curves(run, tmp_path / f"{name}.png", "t")
    content = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert content["inf"] == content["nan"] == content["none"]
    plots.curves(records(), tmp_path / "whole.png", "t")
    assert content["inf"] != (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize("run", [[], [{"epoch": 1, "lr": 0.1}], [{"val_loss": math.nan}]])
def test_curves_of_nothing_is_an_error(run, tmp_path):
    with pytest.raises(DataError) as caught:
        plots.curves(run, tmp_path / "c.png", "t")
    assert caught.value.code == "E503"


# ---------------------------------------------------------------- confusion matrix


def area(image: np.ndarray) -> tuple[int, int, int]:
    """Return left, top and side of the painted square, in pixels."""
    painted = image[:, :, 2] - image[:, :, 0] >= 8  # every shade of the palette, no letter
    columns = np.flatnonzero(painted.mean(0) > 0.5)
    rows = np.flatnonzero(painted[:, columns].mean(1) > 0.5)
    return int(columns[0]), int(rows[0]), int(rows[-1] + 1 - rows[0])


def cells(image: np.ndarray, size: int) -> np.ndarray:
    """Return the colour near the upper left corner of every cell: (size, size, 3)."""
    left, top, side = area(image)
    places = [int(side / size * (i + 0.12)) for i in range(size)]
    return image[np.ix_([top + p for p in places], [left + p for p in places])]


def test_a_share_is_darker_the_larger_it_is_and_runs_along_rows(tmp_path):
    matrix = np.array([[80, 15, 5], [100, 700, 200], [3, 1, 6]])
    plots.confusion_matrix(matrix, list("abc"), tmp_path / "m.png", "t")
    brightness = cells(pixels(tmp_path / "m.png"), 3).sum(2)
    shares = matrix / matrix.sum(1, keepdims=True)
    order = np.argsort(shares, axis=None)
    assert (np.diff(brightness.reshape(-1)[order]) < 1).all()
    assert brightness.reshape(-1)[order[0]] - brightness.reshape(-1)[order[-1]] > 200
    assert (brightness.argmin(1) == [0, 1, 2]).all()


def test_the_darkest_colour_is_the_whole_class_not_the_largest_share(tmp_path):
    plots.confusion_matrix(np.array([[3, 3], [3, 3]]), list("ab"), tmp_path / "half.png", "t")
    plots.confusion_matrix(np.array([[6, 0], [0, 6]]), list("ab"), tmp_path / "all.png", "t")
    half, whole = (cells(pixels(tmp_path / f"{name}.png"), 2) for name in ("half", "all"))
    assert half[0, 0].tolist() != whole[0, 0].tolist() == [8, 48, 107]


def test_a_class_without_a_sample_is_grey_not_white(tmp_path):
    matrix = np.array([[8, 1, 1], [0, 0, 0], [0, 0, 9]])
    plots.confusion_matrix(matrix, list("abc"), tmp_path / "m.png", "t")
    # 0xDDDDDD in a whole row of 3 cells, none elsewhere
    grey = (pixels(tmp_path / "m.png") == 0xDD).all(2)
    rows = np.flatnonzero(grey.sum(1) > 100)
    assert rows[-1] - rows[0] + 1 == len(rows) > 50
    wide = np.flatnonzero(grey[rows[0] + 5])
    assert len(wide) == pytest.approx(3 * len(rows), abs=6)


def test_counts_are_written_up_to_twenty_classes(tmp_path):
    def spread(size: int) -> float:
        matrix = np.eye(size, dtype=np.int64) * 58
        plots.confusion_matrix(matrix, [""] * size, tmp_path / "m.png", "")
        image = pixels(tmp_path / "m.png")
        left, top, side = area(image)
        first = image[top + 3 : top + side // size - 3, left + 3 : left + side // size - 3]
        return float(np.ptp(first.sum(2)))

    assert spread(20) > 500  # white letters on dark blue
    assert spread(21) == 0


@pytest.mark.parametrize("size", [1, 2, 10, 100, 130])
def test_a_tensor_of_any_number_of_classes_is_drawn(size, tmp_path):
    matrix = torch.eye(size, dtype=torch.int64) * 123_456
    names = [f"class {i} of $\\many{{$ 猫\n" for i in range(size)]
    plots.confusion_matrix(matrix, names, tmp_path / "m.png", "t")
    colors = cells(pixels(tmp_path / "m.png"), size)
    assert (colors.sum(2).argmin(1) == np.arange(size)).all()


def test_names_that_do_not_fit_the_matrix_are_refused(tmp_path):
    for matrix, names in [(np.eye(3), ["a", "b"]), (np.ones((2, 3)), ["a", "b"]), (np.eye(0), [])]:
        with pytest.raises(DataError) as caught:
            plots.confusion_matrix(matrix, names, tmp_path / "m.png", "t")
        assert caught.value.code == "E506"


# ---------------------------------------------------------------- image grid


def test_every_picture_is_there_pixel_for_pixel(tmp_path):
    image = digits(1)
    plots.image_grid(image, ["0"], tmp_path / "g.png")
    # one tile of 300 pixels: 8 pixels enlarged 36 times, after a gap of 10 and a margin
    drawn = pixels(tmp_path / "g.png")
    left, top = 10 + (300 - 288) // 2, 10 + 300 - 4 - 288
    shown = drawn[top : top + 288, left : left + 288, 0]
    assert (shown[18::36, 18::36] == image[0, 0].numpy()).all()
    assert (shown == image[0, 0].numpy().repeat(36, 0).repeat(36, 1)).all()


def test_wrong_pictures_differ_in_colour_frame_and_text(tmp_path):
    images = torch.full((2, 3, 16, 16), 90, dtype=torch.uint8)
    plots.image_grid(images, ["1", "1"], tmp_path / "right.png", columns=2)
    plots.image_grid(images, ["1", "1"], tmp_path / "g.png", columns=2, wrong=[False, True])
    right, both = pixels(tmp_path / "right.png"), pixels(tmp_path / "g.png")
    middle = right.shape[1] // 2
    assert (right[:, : middle - 5] == both[:, : middle - 5]).all()
    assert count(right, RED) == 0
    frame = count(both[:310, middle:], RED)
    assert frame >= 4 * 4 * 280
    # beneath: one sign "1" against the cross, a space and "1"
    assert count(both[312:, :middle], RED) == 0
    ink = [(image[312:, middle:] < 235).any(2).any(0).sum() for image in (right, both)]
    assert ink[1] > 2 * ink[0] > 0


def test_mixed_sizes_and_kinds_keep_their_shape(tmp_path):
    transparent = np.zeros((40, 40, 4), np.uint8)
    images = [
        np.full((30, 90), 10, np.uint8),
        np.full((900, 300, 1), 10, np.uint8),
        transparent,
        np.full((1, 500, 3), 10, np.uint8),
        np.full((5, 5, 2), 10, np.uint8),
        np.full((3000, 2000, 3), 10, np.uint8),
    ]
    plots.image_grid(images, list("abcdef"), tmp_path / "g.png", columns=6)
    drawn = pixels(tmp_path / "g.png")
    tile = (drawn.shape[1] - 10) // 6 - 10
    extents = []
    for index in (0, 1):
        left = 10 + index * (tile + 10)
        dark = (drawn[10 : 10 + tile, left : left + tile] < 60).all(2)
        extents.append((dark.any(0).sum(), dark.any(1).sum()))
    assert extents[0][0] == pytest.approx(3 * extents[0][1], abs=3)
    assert extents[1][1] == pytest.approx(3 * extents[1][0], abs=3)
    # nothing but white inside the transparent one
    left = 10 + 2 * (tile + 10)
    assert (drawn[40 : tile - 20, left + 30 : left + tile - 30] == 255).all()


def test_any_text_is_drawn_without_a_warning(tmp_path):
    titles = [
        "猫 0.93",
        "кошка",
        "قطة",
        "$\\x{_1$",
        "bad \udcff name",
        "",
        "a " * 500,
        "a\nb\nc\nd",
    ]
    plots.image_grid(digits(8), titles, tmp_path / "g.png", wrong=[True] * 8)
    pixels(tmp_path / "g.png")


def test_titles_stay_within_their_tile(tmp_path):
    images = [np.full((4, 4), 255, np.uint8)] * 3
    titles = ["", "a_title_that_is_much_too_long_for_one_small_tile_" * 3, ""]
    plots.image_grid(images, titles, tmp_path / "g.png", columns=3)
    drawn = pixels(tmp_path / "g.png")
    tile = (drawn.shape[1] - 10) // 3 - 10
    ink = np.flatnonzero((drawn[10 + tile + 2 :] < 128).any(2).any(0))
    assert 10 + tile <= ink[0] < ink[-1] <= 10 + tile + 10 + tile + 10


def test_more_than_a_hundred_pictures_are_cut_with_a_note(tmp_path):
    plots.image_grid(digits(100), ["x"] * 100, tmp_path / "all.png", columns=20)
    plots.image_grid(digits(101), ["x"] * 101, tmp_path / "cut.png", columns=20)
    whole, cut = pixels(tmp_path / "all.png"), pixels(tmp_path / "cut.png")
    assert 0 < cut.shape[0] - whole.shape[0] < 40  # a line of text, not another row
    assert (cut[: whole.shape[0] - 10] == whole[:-10]).all()
    assert (cut[whole.shape[0] :] < 200).any()


@pytest.mark.parametrize(
    ("images", "titles", "options", "code"),
    [
        ([], [], {}, "E503"),
        ([np.zeros((4, 4), np.uint8)], ["a", "b"], {}, "E506"),
        ([np.zeros((4, 4), np.uint8)], ["a"], {"wrong": [True, False]}, "E506"),
        ([np.zeros((4, 4), np.float32)], ["a"], {}, "E502"),
        ([np.zeros((4, 4, 5), np.uint8)], ["a"], {}, "E502"),
        ([np.zeros((0, 4, 3), np.uint8)], ["a"], {}, "E502"),
        ([np.zeros((4, 4), np.uint8)], ["a"], {"columns": 0}, "E202"),
    ],
    ids=["none", "titles", "flags", "float", "channels", "empty", "columns"],
)
def test_image_grid_refuses_what_it_cannot_draw(images, titles, options, code, tmp_path):
    with pytest.raises(DltoolError) as caught:
        plots.image_grid(images, titles, tmp_path / "g.png", **options)
    assert caught.value.code == code


# ---------------------------------------------------------------- text


def test_long_names_keep_both_ends():
    assert shorten("short", 5) == "short"
    assert shorten("golden retriever", 9) == "gold…ever"
    assert [len(shorten("x" * 50, n)) for n in range(1, 12)] == list(range(1, 12))


def test_clean_text_is_one_printable_line():
    assert clean("a\nb\tc\x07 \udcff d  e") == "a b c d e"


def test_the_file_is_complete_png(tmp_path):
    draw("grid", tmp_path / "g.png")
    with Image.open(io.BytesIO((tmp_path / "g.png").read_bytes())) as image:
        image.verify()
