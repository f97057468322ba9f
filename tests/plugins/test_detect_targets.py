"""What `detect` reaches on real pictures, and what ships with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from dltool_detect import ap, feed
from dltool_detect import data as data_sets
from dltool_detect.models import build
from PIL import Image, ImageDraw

from dltool.console import Console

SHIPPED_BYTES = 5_000_000


def fruit(color: tuple[int, int, int]) -> torch.Tensor:
    """Return a bright ball of a colour on white, shaded as a ball is."""
    image = Image.new("RGB", (240, 200), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for step in range(60):
        shade = tuple(min(255, int(value * (0.55 + 0.5 * step / 60))) for value in color)
        half = 70 - step
        middle = (120 - step // 4, 100 - step // 4)
        box = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
        pen.ellipse(box, fill=(shade[0], shade[1], shade[2]))
    return torch.tensor(list(image.tobytes()), dtype=torch.uint8).view(200, 240, 3).permute(2, 0, 1)


def test_the_shipped_detector_is_small_and_says_what_it_is() -> None:
    folder = files("dltool_detect") / "shipped"
    assert len((folder / "model.safetensors").read_bytes()) <= SHIPPED_BYTES
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert description["classes"] == ["apple", "banana", "orange"]
    assert description["results"]["ap50"] >= 0.6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "dltool detect train --data" in card


def test_the_shipped_detector_finds_an_orange_ball() -> None:
    detector = build.shipped()
    (found,) = detector.detect([fruit((250, 140, 20))], min_score=0.2)
    assert len(found) > 0
    assert detector.classes[int(found.labels[0])] == "orange"
    left, top, right, bottom = found.boxes[0].tolist()
    assert abs(left - 50) < 25
    assert abs(top - 30) < 25
    assert abs(right - 190) < 25
    assert abs(bottom - 170) < 25


def test_the_shipped_detector_finds_nothing_on_an_empty_picture() -> None:
    empty = torch.full((3, 120, 160), 255, dtype=torch.uint8)
    (found,) = build.shipped().detect([empty], min_score=0.5)
    assert len(found) == 0


@pytest.mark.slow
def test_the_shipped_detector_reaches_its_figures() -> None:
    path = Path(os.environ["DLTOOL_SHARED_DATA"]) / "fruit-voc.zip"
    test = data_sets.load(str(path)).test
    assert test is not None
    detector = build.shipped()
    shown = feed.pictures(test, detector.spec.image_size, "test", Console("test"))
    report = ap.evaluate(test, feed.found_on(detector, shown))
    assert report.ap50 is not None
    folder = files("dltool_detect") / "shipped"
    told = json.loads((folder / "model.json").read_text(encoding="utf-8"))["results"]
    assert report.ap50 >= 0.6
    assert report.ap50 == pytest.approx(told["ap50"], abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["fruit", "bccd"])
def test_training_from_scratch_reaches_its_goal(name: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "detect_recipes.py"
    done = subprocess.run(
        [
            *(sys.executable, str(script), "--only", name),
            *("--data-root", os.environ["DLTOOL_SHARED_DATA"]),
        ],
        check=True,
        capture_output=True,
    )
    result = json.loads(done.stdout)[name]
    assert result["split"] == "test"
    assert result["ap50"] >= result["goal"]
