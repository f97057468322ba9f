"""Detectors: what they learn from, what they answer, and the mistakes that nobody sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dltool_detect.detections import Detections
from dltool_detect.models import backbones, build, regions, ssd, zoo
from dltool_detect.models.build import Detector
from dltool_detect.models.fast_rcnn import FastRCNN
from dltool_detect.models.square import Square
from torch import Tensor, nn
from torchvision.ops import box_iou

from dltool import checkpoint
from dltool.errors import CheckpointError, ConfigError, DataError

CLASSES = ("apple", "banana", "orange")
OWN = ("ssd-tiny", "rcnn", "fast-rcnn")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=stream())
    boxes = torch.tensor([[[8.0, 8, 40, 40], [30, 30, 60, 50]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    return images, boxes, torch.tensor([[0, 2], [-1, -1]])


@pytest.mark.parametrize("name", OWN)
def test_a_detector_learns_and_answers_in_pixels_of_the_picture(name: str) -> None:
    detector = build.build(name, CLASSES, image_size=64, generator=stream())
    parts = detector.losses(*batch())
    assert set(parts) == {"class", "box"}
    torch.stack(list(parts.values())).sum().backward()
    asleep = [key for key, weight in detector.named_parameters() if weight.grad is None]
    assert asleep == []
    (found,) = detector.detect([torch.zeros(3, 30, 90, dtype=torch.uint8)], min_score=0.0)
    assert len(found) > 0
    assert float(found.boxes[:, 2].max()) <= 90
    assert float(found.boxes[:, 3].max()) <= 30
    assert set(found.labels.tolist()) <= {0, 1, 2}
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert detector.training


@pytest.mark.parametrize("name", OWN)
def test_a_batch_without_any_object_has_a_finite_loss_and_no_box_loss(name: str) -> None:
    detector = build.build(name, CLASSES, image_size=64, generator=stream())
    images, boxes, labels = batch()
    parts = detector.losses(images, boxes, torch.full_like(labels, -1))
    assert float(parts["box"].detach()) == 0
    assert bool(torch.isfinite(parts["class"].detach()))


def test_the_seed_makes_the_weights_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    one = build.build("ssd-tiny", CLASSES, image_size=64, generator=stream(3)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    other = build.build("ssd-tiny", CLASSES, image_size=64, generator=stream(3)).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---- ssd-tiny ------------------------------------------------------------------------------------


def test_every_object_has_an_anchor_and_every_anchor_lies_on_its_object() -> None:
    levels = ssd.level_anchors([(16, 16), (8, 8), (4, 4)], (128, 128), torch.device("cpu"))
    boxes = torch.tensor([[[2.0, 2, 8, 9], [20, 20, 60, 70], [0, 0, 128, 128], [21, 20, 60, 70]]])
    index = ssd.atss(levels, boxes, torch.ones(1, 4, dtype=torch.bool))[0]
    anchors = torch.cat(levels)
    assert set(index.tolist()) == {-1, 0, 1, 2, 3}
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    for number in (1, 2, 3):
        inside = middle[index == number]
        assert bool((inside > boxes[0, number, :2]).all() & (inside < boxes[0, number, 2:]).all())


def test_rows_without_an_object_get_no_anchor() -> None:
    levels = ssd.level_anchors([(8, 8)], (64, 64), torch.device("cpu"))
    boxes = torch.tensor([[[0.0, 0, 32, 32], [0, 0, 64, 64]]])
    index = ssd.atss(levels, boxes, torch.tensor([[True, False]]))
    assert set(index.flatten().tolist()) == {-1, 0}
    assert set(ssd.atss(levels, boxes, torch.tensor([[False, False]])).flatten().tolist()) == {-1}


def test_the_class_loss_is_zero_where_scores_are_the_overlap() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    boxes, labels = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[1]])
    index = torch.tensor([[0, -1]])
    right = torch.full((1, 2, 3), -30.0)
    right[0, 0, 1] = 30.0
    parts = ssd.losses_of(right, torch.zeros(1, 2, 4), anchors, boxes, labels, index)
    assert float(parts["class"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["box"]) == pytest.approx(0, abs=1e-6)
    off_by_one = right.roll(1, dims=2)
    wrong = ssd.losses_of(off_by_one, torch.zeros(1, 2, 4), anchors, boxes, labels, index)
    assert float(wrong["class"]) > 10


def test_quality_focal_loss_is_the_formula() -> None:
    logits = torch.randn(1, 2, 3, generator=stream())
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    boxes, labels = torch.tensor([[[0.0, 0, 10, 20]]]), torch.tensor([[2]])
    found = ssd.losses_of(
        logits, torch.zeros(1, 2, 4), anchors, boxes, labels, torch.tensor([[0, -1]])
    )
    wanted = torch.zeros(1, 2, 3)
    wanted[0, 0, 2] = 0.5  # a box of half the object's height
    s = logits.sigmoid()
    plain = -((wanted - s).abs() ** 2) * ((1 - wanted) * (1 - s).log() + wanted * s.log())
    torch.testing.assert_close(found["class"], plain.sum())


# ---- R-CNN and Fast R-CNN ------------------------------------------------------------------------


def test_windows_lie_inside_and_reach_every_border() -> None:
    windows = regions.windows(120, 200)
    assert windows.min() >= 0
    assert float(windows[:, 2].max()) == 200
    assert float(windows[:, 3].max()) == 120
    assert bool((windows[:, 2:] > windows[:, :2]).all())
    assert 200 < len(windows) < 3000


@pytest.mark.parametrize("seed", range(4))
def test_chosen_regions_are_distinct_and_their_classes_right(seed: int) -> None:
    torch.manual_seed(seed)
    objects = torch.tensor([[10.0, 10, 60, 60], [70, 20, 120, 90], [30, 80, 60, 110]])
    labels = torch.tensor([0, 2, 1])
    boxes, classes, targets = regions.chosen(regions.windows(128, 128), objects, labels)
    assert len(boxes) == len(torch.unique(boxes, dim=0))
    on_object = classes > 0
    count = int(on_object.sum())
    assert 0 < count <= 16
    assert int((~on_object).sum()) == min(3 * count, 64 - count)
    overlaps = box_iou(boxes, objects)
    # every negative is away from every object, not from the last one only
    assert float(overlaps[~on_object].max()) < regions.NEGATIVE
    best, owner = overlaps[on_object].max(1)
    assert float(best.min()) >= regions.POSITIVE
    assert torch.equal(classes[on_object], labels[owner] + 1), (
        "0 is background, not the first class"
    )
    assert torch.equal(targets[on_object], objects[owner])


def test_background_is_never_an_answer() -> None:
    windows = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    logits = torch.tensor([[9.0, 0, 0], [0, 0, 9]])  # background; the second class
    found = regions.found_on(
        logits, torch.zeros(2, 4), windows, (50, 50), min_score=0.5, max_boxes=9
    )
    assert found.labels.tolist() == [1]
    assert found.boxes.tolist() == [[20, 20, 40, 40]]


def test_the_answer_is_the_corrected_window_not_the_window() -> None:
    windows = torch.tensor([[0.0, 0, 10, 10]])
    offsets = torch.tensor([[10.0, 0, 0, 0]])  # one width to the right: 10 x 0.1
    found = regions.found_on(
        torch.tensor([[0.0, 9]]), offsets, windows, (50, 50), min_score=0.5, max_boxes=9
    )
    torch.testing.assert_close(found.boxes, torch.tensor([[10.0, 0, 20, 10]]))


def test_the_box_loss_counts_windows_on_objects_only() -> None:
    windows = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    targets = windows.clone()
    logits, offsets = torch.zeros(2, 3), torch.tensor([[0.0, 0, 0, 0], [99, 99, 99, 99]])
    parts = regions.losses_of(logits, offsets, windows, torch.tensor([1, 0]), targets)
    assert float(parts["box"]) == 0, "background has no box to learn"
    parts = regions.losses_of(logits, offsets, windows, torch.tensor([0, 1]), targets)
    assert float(parts["box"]) > 1


class _Bright(nn.Module):
    """A backbone whose map is the picture, at an eighth of its size."""

    widths = (3,)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(x, 8)]


def test_windows_are_pooled_at_the_measured_scale() -> None:
    network = FastRCNN(2, _Bright()).eval()
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, 32:48, 16:32] = 1
    seen: list[Tensor] = []
    network.hidden = nn.Sequential(_Keep(seen), *list(network.hidden)[:])
    network.looked_at(image, [torch.tensor([[16.0, 32, 32, 48]])])
    # RoIAlign reads half a place beyond the window's edge, hence not 1 everywhere
    assert float(seen[0][0, :, 2, 2].min()) == pytest.approx(1.0)
    assert float(seen[0].mean()) > 0.6
    assert regions.spatial_scale(torch.zeros(1, 3, 8, 8), image) == 1 / 8
    with pytest.raises(ValueError, match="scaled by"):
        regions.spatial_scale(torch.zeros(1, 3, 8, 4), image)


class _Keep(nn.Module):
    def __init__(self, seen: list[Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        return x


# ---- pictures of other sizes ---------------------------------------------------------------------


class _Known(nn.Module):
    """A network that answers the left upper quarter of whatever it sees."""

    def detect(self, images: Tensor, *, min_score: float, max_boxes: int) -> list[Detections]:
        side = float(images.shape[-1])
        box = torch.tensor([[0.0, 0, side / 2, side / 2]])
        return [Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64))] * len(images)


def test_boxes_come_back_in_pixels_of_each_picture() -> None:
    detector = Detector(build.Spec("ssd-tiny", 64), CLASSES, Square(_Known(), 64))
    pictures = [torch.zeros(3, 30, 100, dtype=torch.uint8), torch.zeros(3, 8, 6, dtype=torch.uint8)]
    found = detector.detect(pictures)
    assert found[0].boxes.tolist() == [[0, 0, 50, 15]]
    assert found[1].boxes.tolist() == [[0, 0, 3, 4]]
    assert detector.detect([]) == []


# ---- torchvision's -------------------------------------------------------------------------------


class _Recorder(nn.Module):
    """Stands for a detector of torchvision; answers number 1, its first class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.targets: list[dict[str, Tensor]] = []

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        assert all(float(image.max()) <= 1 for image in images), "torchvision wants 0 to 1"
        if targets is not None:
            self.targets = targets
            return {"loss": self.weight.sum()}
        box = torch.tensor([[0.0, 0, 8, 8]])
        return [
            {"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.int64)}
        ] * len(images)


def test_torchvision_counts_from_one_and_we_from_zero() -> None:
    model = _Recorder()
    wrapped = zoo.Zoo(model)
    wrapped.losses(*batch())
    assert model.targets[0]["labels"].tolist() == [1, 3]
    assert model.targets[1]["labels"].tolist() == []
    assert model.targets[1]["boxes"].shape == (0, 4)
    found = wrapped.detect([torch.zeros(3, 9, 9, dtype=torch.uint8)], min_score=0.3, max_boxes=7)
    assert found[0].labels.tolist() == [0]
    limits: Any = model
    assert (limits.score_thresh, limits.detections_per_img) == (0.3, 7)


def test_a_trained_torchvision_model_sees_the_square_of_its_training() -> None:
    wrapped = zoo.Zoo(_Recorder(), side=16)
    found = wrapped.detect([torch.zeros(3, 16, 64, dtype=torch.uint8)], min_score=0.3, max_boxes=7)
    assert found[0].boxes.tolist() == [[0, 0, 32, 8]]


def test_coco_has_80_classes_with_gaps_between_their_numbers() -> None:
    for name in zoo.ENTRIES:
        classes, places = zoo.classes_of(name)
        assert len(classes) == len(set(classes)) == 80
        assert dict(zip(classes, places, strict=True))["toothbrush"] == 90
        assert "N/A" not in classes
    one = {"boxes": torch.zeros(2, 4), "scores": torch.ones(2), "labels": torch.tensor([12, 13])}
    classes, places = zoo.classes_of("ssdlite")
    found = zoo.Zoo(nn.Identity(), places)._ours(one)
    assert [classes[label] for label in found.labels.tolist()] == ["stop sign"], "12 is a gap"


def test_published_weights_from_a_file_give_torchvisions_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = zoo.ENTRIES["ssdlite"].builder(weights=None, weights_backbone=None, num_classes=91)
    file = tmp_path / "ssdlite.pth"
    torch.save(theirs.state_dict(), file)
    detector = build.pretrained("ssdlite", file, True)
    picture = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=stream())
    with torch.no_grad():
        (wanted,) = theirs.eval()([picture / 255])
    found = detector.detect([picture], min_score=0.001, max_boxes=300)[0]
    numbers = dict(enumerate(zoo.classes_of("ssdlite")[1]))
    known = [k for k, label in enumerate(wanted["labels"].tolist()) if label in numbers.values()]
    assert len(found) > 0
    assert torch.equal(found.boxes, wanted["boxes"][known])
    assert [numbers[label] for label in found.labels.tolist()] == wanted["labels"][known].tolist()


def test_weights_that_are_not_here_are_an_error_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        build.pretrained("fcos", None, True)
    assert caught.value.code == "E504"
    assert "--weights" in caught.value.cure
    with pytest.raises(ConfigError):
        build.pretrained("ssd-tiny")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(3, 3)}, file)
    with pytest.raises(CheckpointError) as caught:
        build.pretrained("ssdlite", file, True)
    assert caught.value.code == "E513"


# ---- folders -------------------------------------------------------------------------------------


def test_a_saved_detector_answers_the_same(tmp_path: Path) -> None:
    detector = build.build("ssd-tiny", CLASSES, image_size=64, generator=stream()).eval()
    checkpoint.save_model(tmp_path / "model", detector, build.describe(detector))
    loaded = build.load_run(tmp_path)
    assert loaded.classes == CLASSES
    picture = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=stream())
    one, other = (each.detect([picture], min_score=0.0)[0] for each in (detector, loaded))
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_folders_that_hold_no_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        build.load_run(tmp_path)
    assert caught.value.code == "E511"
    checkpoint.save_model(tmp_path / "cnn", nn.Linear(1, 1), {"topic": "cnn"})
    with pytest.raises(CheckpointError, match="a model of cnn"):
        build.load_run(tmp_path / "cnn")
    checkpoint.save_model(tmp_path / "half", nn.Linear(1, 1), {"topic": "detect", "classes": []})
    with pytest.raises(CheckpointError, match="describes no detector"):
        build.load_run(tmp_path / "half")


def cnn_model(folder: Path, stem: int = 3, name: str = "resnet18") -> None:
    from torchvision.models import resnet18

    network = resnet18(num_classes=5)
    if stem == 3:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    holder = nn.Module()
    holder.network = network
    checkpoint.save_model(folder, holder, {"topic": "cnn", "architecture": {"name": name}})


@pytest.mark.parametrize(("stem", "kind"), [(7, "resnet18"), (3, "resnet18-small")])
def test_a_cnn_run_gives_a_backbone(tmp_path: Path, stem: int, kind: str) -> None:
    cnn_model(tmp_path / "model", stem)
    found, weights = backbones.read(tmp_path)
    assert found == kind
    detector = build.build("ssd-tiny", CLASSES, image_size=64, backbone=found, generator=stream())
    assert isinstance(detector.core, Square)
    body = detector.core.network.get_submodule("backbone")
    backbones.fill(body, weights, tmp_path)
    assert torch.equal(body.state_dict()["layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    sizes = [tuple(each.shape[-2:]) for each in body(torch.zeros(1, 3, 64, 64))]
    assert sizes == [(8, 8), (4, 4), (2, 2)]


def test_networks_that_are_no_backbone_are_refused(tmp_path: Path) -> None:
    cnn_model(tmp_path / "a", name="resnet20")
    with pytest.raises(CheckpointError, match="cannot be a backbone"):
        backbones.read(tmp_path / "a")
    checkpoint.save_model(tmp_path / "b", nn.Linear(1, 1), {"topic": "linreg"})
    with pytest.raises(CheckpointError, match="is one of linreg"):
        backbones.read(tmp_path / "b")


def test_models_with_a_fixed_size_refuse_another() -> None:
    with pytest.raises(ConfigError, match="320x320"):
        build.build("ssdlite", CLASSES, image_size=256)
    with pytest.raises(ConfigError, match="no detector is named"):
        build.build("yolo", CLASSES, image_size=256)


def test_descriptions_are_plain_json() -> None:
    detector = build.build("rcnn", CLASSES, image_size=64, generator=stream())
    assert json.loads(json.dumps(build.describe(detector)))["architecture"]["image_size"] == 64
