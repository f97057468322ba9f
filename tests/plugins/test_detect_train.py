"""Training a detector: pictures that move with their boxes, exact resume, and refused mistakes."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dltool_detect import ap, beginning, feed, preflight, shapes
from dltool_detect import transforms as tf
from dltool_detect.config import TrainConfig
from dltool_detect.data import DetectionSet, Item, Splits
from dltool_detect.detections import Detections
from dltool_detect.models import build
from dltool_detect.problems import Problems
from dltool_detect.train import batches
from dltool_detect.transforms import Augmented, Batch, Sample
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.ops import box_iou

from dltool import checkpoint, cli
from dltool.console import Console
from dltool.errors import CheckpointError, ConfigError, DltoolError

QUICK = ("--image-size", "64", "--batch-size", "32", "--epochs", "2", "--threads", "1")
ALL = "flip,vflip,rotate,scale,color,mosaic"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with the caches of a new user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    before = signal.getsignal(signal.SIGTERM)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, before)


Call = Callable[..., Any]


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process; return what it printed after checking the exit code."""

    def call(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        got = cli.run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


# ---- boxes move with the pixels ------------------------------------------------------------------


def marked(side: int = 64, seed: int = 0) -> Sample:
    """Return a grey picture with three bright rectangles, one a colour, and their boxes."""
    stream = torch.Generator().manual_seed(seed)
    image = torch.full((3, side, side), 40, dtype=torch.uint8)
    boxes = []
    for channel in range(3):
        left = channel * side // 3 + 1
        wide, tall = torch.randint(side // 8, side // 3 - 2, (2,), generator=stream).tolist()
        top = int(torch.randint(0, side - tall, (1,), generator=stream))
        image[channel, top : top + tall, left : left + wide] = 250
        boxes.append([left, top, left + wide, top + tall])
    return Sample(image, torch.tensor(boxes).float(), torch.tensor([0, 1, 2]))


def misfit(sample: Sample) -> float:
    """Return how far, in pixels, any box is from the bright pixels of its colour."""
    worst = 0.0
    for box, label in zip(sample.boxes, sample.labels.tolist(), strict=True):
        others = [channel for channel in range(3) if channel != label]
        bright = sample.image[label].int() - sample.image[others].amax(0).int() > 105
        rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
        assert len(rows) > 0, "a box without its object"
        seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
        worst = max(worst, float((seen - box).abs().max()))
    return worst


@pytest.mark.parametrize("change", [tf.flip, tf.vflip, tf.transpose])
def test_mirroring_moves_the_boxes_exactly(change: Callable[[Sample], Sample]) -> None:
    sample = marked()
    assert misfit(sample) == 0
    changed = change(sample)
    assert misfit(changed) == 0
    back = change(changed)
    assert torch.equal(back.image, sample.image)
    assert torch.equal(back.boxes, sample.boxes)
    forgotten = Sample(changed.image, sample.boxes, sample.labels)
    assert forgotten.boxes.tolist() != changed.boxes.tolist(), "the test would not see a mistake"


@pytest.mark.parametrize("seed", range(12))
def test_scaling_moves_the_boxes(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    changed = tf.scale(marked(seed=seed), stream)
    assert changed.image.shape == (3, 64, 64)
    shown = Sample(changed.image, changed.boxes, changed.labels)
    if float(changed.image.float().std()) > 0 and _is_dark_ground(changed.image):
        assert misfit(shown) <= 2.0


def _is_dark_ground(image: Tensor) -> bool:
    """A bright made-up ground hides the rectangles."""
    return int(image[:, :2, :2].max()) < 100 and int(image[:, -2:, -2:].max()) < 100


def test_a_cut_cuts_the_objects_and_drops_what_is_hardly_left() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 30, 50, 50], [14, 0, 24, 10]])
    sample = Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), boxes, torch.tensor([0, 1, 2]))
    cut = tf.cut(sample, (0, 10, 32, 32), (64, 64))  # columns 10 to 42, rows 0 to 32, twice as big
    assert cut.labels.tolist() == [0, 2]
    assert cut.boxes.tolist() == [[0, 0, 20, 40], [8, 0, 28, 20]]


@pytest.mark.parametrize("seed", range(6))
def test_a_mosaic_shows_each_object_where_its_box_says(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    whole = tf.mosaic([marked(seed=seed + k) for k in range(4)], stream)
    assert whole.image.shape == (3, 64, 64)
    assert len(whole.boxes) > 3
    for box, label in zip(whole.boxes, whole.labels.tolist(), strict=True):
        left, top, right, bottom = (round(value) for value in box.tolist())
        inside = whole.image[label, top:bottom, left:right].float()
        assert float(inside.mean()) > 130, "no object of this colour under the box"


def test_resizing_keeps_boxes_on_their_objects() -> None:
    wide = marked(96)
    sample = Sample(wide.image[:, :48], wide.boxes.clamp(max=48), wide.labels)
    kept = sample.boxes[:, 3] - sample.boxes[:, 1] > 4
    small = tf.resized(Sample(sample.image, sample.boxes[kept], sample.labels[kept]), 64)
    assert small.image.shape == (3, 64, 64)
    assert misfit(small) <= 1.0


def test_color_keeps_white_light_and_changes_the_picture() -> None:
    stream = torch.Generator().manual_seed(1)
    image = marked().image
    changed = tf.color(image, stream)
    assert changed.shape == image.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, image)
    grey = torch.full((3, 4, 4), 120, dtype=torch.uint8)
    for seed in range(5):
        shown = tf.color(grey, torch.Generator().manual_seed(seed)).int()
        assert int((shown - shown.float().mean()).abs().max()) <= 1, "grey must stay grey"


def test_every_sample_depends_on_seed_epoch_and_position_alone() -> None:
    source = Augmented([marked(seed=k) for k in range(10)], 4, 0, tuple(ALL.split(",")), 10)
    first = list(source.batches(3))
    again = list(source.batches(3, start=1))
    assert len(source) == len(first) == 2
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[0], strict=True))
    other = list(source.batches(4))
    assert not torch.equal(first[0].images, other[0].images)
    reseeded = dataclasses.replace(source, seed=1)
    assert not torch.equal(next(reseeded.batches(3)).images, first[0].images)


def test_nearly_every_augmented_picture_is_changed() -> None:
    samples = [marked(seed=k) for k in range(8)]
    names = tuple(TrainConfig().augmentations)
    source = Augmented(samples, 8, 0, names, 100)
    shown = [source.sample(place, epoch, place) for epoch in range(12) for place in range(8)]
    same = [any(torch.equal(s.image, known.image) for known in samples) for s in shown]
    assert sum(same) == 0
    assert all(bool((s.boxes[:, 2:] > s.boxes[:, :2]).all()) for s in shown)
    assert all(float(s.boxes.max()) <= 64 and float(s.boxes.min()) >= 0 for s in shown if len(s[1]))


def test_the_last_epochs_have_no_mosaic() -> None:
    samples = [marked(seed=k) for k in range(4)]
    source = Augmented(samples, 4, 0, ("mosaic",), 100, mosaic_share=1.0)
    assert len(source.sample(0, 10, 0).labels) > 3 or not torch.equal(
        source.sample(0, 10, 0).image, samples[0].image
    )
    assert torch.equal(source.sample(0, 99, 0).image, samples[0].image)


def test_evaluation_pictures_are_not_augmented() -> None:
    content = shapes.sets()["val"]
    shown = feed.pictures(content, 96, "val", Console("test"))
    assert torch.equal(shown.image(3), content.read(3))
    assert torch.equal(shown[3].boxes, content.items[3].boxes)


def test_rows_without_an_object_say_so() -> None:
    empty = Sample(
        torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0).long()
    )
    batch = tf.collate([marked(8 * 8), Sample(empty.image.new_zeros(3, 64, 64), *empty[1:])])
    assert batch.labels.tolist() == [[0, 1, 2], [-1, -1, -1]]
    assert tf.collate([empty]).labels.tolist() == [[-1]]


# ---- learning ------------------------------------------------------------------------------------


def overfit(name: str, steps: int, copies: int) -> tuple[Item, Detections]:
    """Train on one picture alone and return what is found on it."""
    torch.manual_seed(0)
    whole = shapes.sets()["train"]
    place = next(k for k, item in enumerate(whole.items) if len(item.boxes) == 3)
    content = whole.take([place])
    shown = feed.pictures(content, 96, "train", Console("test"))
    detector = build.build(
        name, content.classes, image_size=96, generator=torch.Generator().manual_seed(0)
    )
    batch = tf.collate([shown[0]] * copies)
    optimizer = torch.optim.AdamW(detector.parameters())
    detector.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.zero_grad()
        detector(*batch).backward()
        optimizer.step()
    return content.items[0], feed.found_on(detector, shown)[0]


@pytest.mark.parametrize(
    ("name", "steps", "copies"), [("ssd-tiny", 60, 2), ("rcnn", 80, 1), ("fast-rcnn", 60, 1)]
)
def test_one_picture_is_learned_by_heart(name: str, steps: int, copies: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    truth, found = overfit(name, steps, copies)
    torch.set_num_threads(threads)
    for box, label in zip(truth.boxes, truth.labels.tolist(), strict=True):
        overlap = box_iou(box[None], found.boxes)[0]
        right = (overlap > 0.5) & (found.labels == label)
        assert float(found.scores[right].sum()) > 0.5
    # nothing is surer than the objects: no label off by one, no box at another scale
    assert all(
        float(box_iou(truth.boxes[truth.labels == label], box[None]).max()) > 0.5
        for box, label in zip(found.boxes[:2], found.labels[:2].tolist(), strict=True)
    )


def test_the_baseline_that_sees_nothing_is_the_middle_box_of_each_class() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30]])
    items = tuple(
        Item(f"{k}.png", 100, 50, boxes, torch.tensor([1]), torch.tensor([False])) for k in range(3)
    )
    content = DetectionSet(("a", "b"), items)
    found = feed.usual_boxes(content, content)
    assert found[0].labels.tolist() == [1]
    torch.testing.assert_close(found[0].boxes, boxes)
    assert ap.evaluate(content, found).ap50 == pytest.approx(1.0)


# ---- the command ---------------------------------------------------------------------------------


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_training_stopped_again_and_again_ends_with_the_same_bits(run: Call, here: Path) -> None:
    quick = (*QUICK, "--augment", ALL)
    whole = run("detect", "train", "--out", "whole", "--json", *quick)
    result = json.loads(whole.out)["data"]
    assert result["split"] == "test"
    assert result["test"]["images"] == 32
    assert len(result["test"]["ap50_interval"]) == 2
    assert set(result) >= {"ap50", "ap", "baseline_ap50", "val_ap", "best_epoch"}
    for name in ("train-batch.png", "curves.png", "ap.png"):
        assert size_of(here / "whole" / name)[0] > 100
    run("detect", "train", "--out", "part", "--max-time", "0.001s", *quick)
    stops = 1
    while json.loads((here / "part" / "run.json").read_text())["status"] != "finished":
        limit = "0.001s" if stops < 3 else "1h"
        run("detect", "train", "--resume", "part", "--max-time", limit)
        stops += 1
    assert stops == 4
    one, other = weights(here / "whole"), weights(here / "part")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    loaded = build.load_run(here / "part")
    assert loaded.classes == shapes.CLASSES
    again = run("detect", "train", "--resume", "part")
    assert "nothing was trained" in again.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--model", "ssdtiny"), 2, "ssd-tiny"),
        (("--augment", "colour"), 2, "color"),
        (("--image-size", "20"), 2, "64 to 2048"),
        (("--model", "ssdlite", "--image-size", "256"), 2, "320"),
        (("--model", "fcos", "--backbone", "latest"), 2, "--backbone"),
        (("--weights", "coco"), 2, "COCO"),
        (("--val-split", "2"), 2, "--val-split"),
        (("--lr", "nan"), 2, "--lr"),
        (("--ema", "1"), 2, "--ema"),
        (("--data", "nowhere.zip"), 5, "nowhere.zip"),
        (("--weights", "nowhere.pth"), 5, "nowhere.pth"),
        (("--backbone", "nowhere"), 5, "nowhere"),
        (("--resume", "nowhere"), 5, "nowhere"),
    ],
)
def test_wrong_options_are_one_line_with_a_cure(
    run: Call, options: tuple[str, ...], code: int, said: str
) -> None:
    shown = run("detect", "train", *options, "--json", code=code)
    error = json.loads(shown.out)["error"]
    assert said in error["message"] + error["cure"] + error["expected"]
    assert error["cure"]


def test_published_weights_need_the_network_and_say_so(run: Call) -> None:
    shown = run("detect", "train", "--model", "ssdlite", "--weights", "coco", "--json", code=5)
    assert json.loads(shown.out)["error"]["code"] == "E504"


# ---- beginnings ----------------------------------------------------------------------------------


def test_training_goes_on_from_a_run_of_other_classes(here: Path) -> None:
    old = build.build(
        "ssd-tiny", ("a", "b"), image_size=64, generator=torch.Generator().manual_seed(5)
    )
    checkpoint.save_model(here / "old" / "model", old, build.describe(old))
    config = TrainConfig(weights=str(here / "old"), image_size=64)
    made = beginning.detector(config, ("x", "y", "z"), Console("test"))
    before, after = old.state_dict(), made.state_dict()
    differ = [
        name
        for name in after
        if after[name].shape != before[name].shape or not torch.equal(after[name], before[name])
    ]
    assert sorted(differ) == sorted(
        f"core.network.heads.{level}.scores.1.{kind}"
        for level in range(3)
        for kind in ("bias", "weight")
    )


def test_weights_of_another_model_are_refused(here: Path) -> None:
    torch.save({"w": torch.zeros(2)}, here / "other.pth")
    config = TrainConfig(weights=str(here / "other.pth"), image_size=64)
    with pytest.raises(CheckpointError, match="another model"):
        beginning.detector(config, ("x",), Console("test"))


# ---- guards --------------------------------------------------------------------------------------


def made_up(boxes: Tensor, labels: Tensor, classes: tuple[str, ...] = ("a", "b")) -> Splits:
    item = Item("x.png", 96, 96, boxes, labels, torch.zeros(len(labels), dtype=torch.bool))
    part = DetectionSet(classes, (item,))
    return Splits(part, part, None, Problems())


def codes(findings: list[Any]) -> dict[str, str]:
    return {found.code: found.severity for found in findings}


def test_a_class_without_boxes_is_named() -> None:
    boxes = torch.tensor([[0.0, 0, 40, 40]])
    found = preflight.check_data(made_up(boxes, torch.tensor([0])), 96)
    assert codes(found) == {"G-B01": "warn"}
    assert "b (1 of 2" in found[0].message


def test_objects_that_vanish_at_the_training_size_are_named() -> None:
    boxes = torch.tensor([[0.0, 0, 6, 6], [10, 10, 90, 90]])
    found = preflight.check_data(made_up(boxes, torch.tensor([0, 1])), 64)
    assert codes(found) == {"G-B02": "warn"}
    assert "--image-size 128" in found[0].cure
    assert preflight.check_data(made_up(boxes, torch.tensor([0, 1])), 192) == []


def test_pictures_in_two_splits_are_refused() -> None:
    sets = shapes.sets()
    leaky = Splits(sets["train"], sets["train"].take([0, 1]), None, Problems())
    assert codes(preflight.check_data(leaky, 96)) == {"G-D04": "fail"}
    fine = Splits(sets["train"], sets["val"], sets["test"], Problems())
    assert preflight.check_data(fine, 96) == []


def checked(batch: Batch) -> dict[str, str]:
    detector = build.build(
        "ssd-tiny", ("a", "b", "c"), image_size=64, generator=torch.Generator().manual_seed(0)
    )
    optimizer = torch.optim.AdamW(detector.parameters())
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    found = preflight.check_batch(detector, optimizer, batch)
    after = detector.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "not put back"
    assert all(weight.grad is None for weight in detector.parameters())
    return codes(found)


def test_boxes_that_are_shares_of_the_picture_are_refused() -> None:
    batch = tf.collate([marked(64, k) for k in range(16)])
    assert checked(batch) == {}
    assert checked(batch._replace(boxes=batch.boxes / 64)) == {"G-B04": "fail"}


def test_boxes_of_another_geometry_are_refused() -> None:
    batch = tf.collate([marked(64, k) for k in range(16)])
    assert checked(batch._replace(boxes=batch.boxes * 3)) == {"G-B04": "fail"}
    assert "G-B04" in checked(batch._replace(boxes=batch.boxes[..., [2, 1, 0, 3]]))


def test_a_batch_too_small_for_batch_normalisation_is_named() -> None:
    assert checked(tf.collate([marked(64)] * 2)) == {"G-B07": "warn"}


def test_settings_are_checked_when_they_are_made() -> None:
    assert TrainConfig(model="ssdlite").side == 320
    assert TrainConfig(augment="none").augmentations == ()
    assert TrainConfig(classes=" a, b").class_names == ("a", "b")
    with pytest.raises(ConfigError):
        TrainConfig(mosaic=1.5)


def test_batches_follow_the_settings() -> None:
    config = TrainConfig(image_size=64, batch_size=10, augment="flip")
    shown = feed.pictures(shapes.sets()["val"], config.side, "val", Console("test"))
    source = batches(config, shown, torch.device("cpu"))
    assert len(source) == 3
    assert next(source.batches(0)).images.shape == (10, 3, 64, 64)


# ---- the stages ----------------------------------------------------------------------------------


def test_anchors_are_shown_with_their_offsets(run: Call, here: Path) -> None:
    shown = run("detect", "anchors", "--json", "--grid", "4x6")
    result = json.loads(shown.out)["data"]
    assert result["anchors"] == 4 * 6 * 4
    assert result["positive"] + result["background"] == result["anchors"]
    assert result["positive"] >= len(result["objects"]) == 3
    assert all(line["decoding_error"] <= 1e-4 for line in result["objects"])
    assert size_of(here / result["plot"])[0] > 300


def test_suppression_is_shown_with_who_suppressed_whom(run: Call, here: Path) -> None:
    rows = [
        {"bbox": [0, 0, 10, 10], "score": 0.9, "category_id": 1},
        {"bbox": [1, 0, 10, 10], "score": 0.8, "category_id": 1},
        {"bbox": [1, 0, 10, 10], "score": 0.7, "category_id": 2},
    ]
    (here / "found.json").write_text(json.dumps(rows))
    result = json.loads(run("detect", "nms", "found.json", "--json").out)["data"]
    assert result["kept"] == [0, 2]
    assert result["boxes"][1]["suppressed_by"] == 0
    assert result["same_as_torchvision"] is True
    result = json.loads(run("detect", "nms", "found.json", "--all-classes", "--json").out)["data"]
    assert result["kept"] == [0]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("anchors", "nowhere.png"), 5),
        (("anchors", "--box", "1,2,3"), 2),
        (("anchors", "--box", "5,5,1,1"), 2),
        (("anchors", "--scales", "0"), 2),
        (("anchors", "--scales", "1e300"), 2),
        (("anchors", "--ratios", "nan"), 2),
        (("anchors", "--box", "0,0,5000,10"), 2),
        (("anchors", "--grid", "4"), 2),
        (("anchors", "--plot", "x.jpg"), 2),
        (("nms", "nowhere.json"), 5),
        (("nms", "--iou", "2"), 2),
        (("proposals", "--mode", "slow"), 2),
    ],
)
def test_wrong_arguments_of_the_stages(run: Call, arguments: tuple[str, ...], code: int) -> None:
    shown = run("detect", *arguments, "--json", code=code)
    assert json.loads(shown.out)["error"]["cure"]


BROKEN = (
    *("", "[]", "{}", "[1]", "nonsense", '[{"bbox": [1], "score": 1}]'),
    '[{"bbox": [0, 0, -5, 10], "score": 1}]',
    '[{"bbox": [0, 0, Infinity, 10], "score": 1}]',
    '[{"image_id": 1, "bbox": [0, 0, 5, 5], "score": 1}, '
    '{"image_id": 2, "bbox": [0, 0, 5, 5], "score": 1}]',
)


@pytest.mark.parametrize("text", BROKEN)
def test_files_that_hold_no_detections_are_refused(run: Call, here: Path, text: str) -> None:
    (here / "x.json").write_text(text)
    assert "error" in json.loads(run("detect", "nms", "x.json", "--json", code=5).out)


def test_proposals_without_opencv_name_the_extra(
    run: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    shown = run("detect", "proposals", "--json", code=3)
    assert "dltool[detect]" in json.loads(shown.out)["error"]["cure"]


class _Search:
    """Stands for OpenCV's selective search: fixed regions as x, y, width, height."""

    def setBaseImage(self, image: Any) -> None:
        self.shape = image.shape

    def switchToSelectiveSearchFast(self) -> None:
        self.mode = "fast"

    def process(self) -> list[list[int]]:
        return [[0, 0, 40, 40], [1, 0, 40, 40], [0, 0, 90, 3], [50, 50, 2, 2], [50, 40, 40, 50]]


def test_proposals_are_thinned_out_step_by_step() -> None:
    from dltool_detect.proposals import Limits, recall, searched, thinned

    search = _Search()
    regions = searched(search, torch.zeros(3, 1000, 1000, dtype=torch.uint8), "fast")
    assert search.shape == (500, 500, 3)
    assert regions[0].tolist() == [0, 0, 80, 80], "brought back to the picture's own pixels"
    steps = thinned(regions / 2, (500, 500), Limits(300, 0.01, 4.0, 0.7))
    assert [len(boxes) for _, boxes in steps] == [5, 3, 3, 2, 2]
    objects = torch.tensor([[0.0, 0, 42, 42], [200, 200, 300, 300]])
    assert recall(steps[-1][1], objects) == 0.5
    assert recall(steps[-1][1], torch.zeros(0, 4)) is None


# ---- what ships ----------------------------------------------------------------------------------


def test_errors_of_this_topic_are_the_houses() -> None:
    with pytest.raises(DltoolError):
        TrainConfig(schedule="slow")
