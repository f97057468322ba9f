"""Box arithmetic against torchvision, closed forms and the numbers of the source documents."""

from __future__ import annotations

import math

import pytest
import torch
from dltool_detect import boxes as box_ops
from torch import Tensor
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder


def random_boxes(count: int, seed: int, side: float = 100.0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=stream) * side
    sides = side * (0.05 + torch.rand(count, 2, generator=stream) / 2)
    return torch.cat([corner, corner + sides], dim=1)


def test_iou_of_two_squares_is_a_seventh() -> None:
    one, other = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 5, 15, 15]])
    assert box_ops.iou(one, other).item() == pytest.approx(25 / 175)
    assert box_ops.paired_iou(one, other).item() == pytest.approx(25 / 175)


def test_iou_is_torchvisions_and_paired_iou_its_diagonal() -> None:
    one, other = random_boxes(40, 0), random_boxes(40, 1)
    assert torch.equal(box_ops.iou(one, other), ops.box_iou(one, other))
    torch.testing.assert_close(box_ops.paired_iou(one, other), ops.box_iou(one, other).diagonal())
    assert torch.equal(box_ops.area(one), ops.box_area(one))


def test_a_box_turned_inside_out_has_no_area_and_no_overlap() -> None:
    inside_out = torch.tensor([[10.0, 10, 0, 0]])
    assert box_ops.area(inside_out).item() == 0
    assert box_ops.paired_iou(inside_out, torch.tensor([[0.0, 0, 10, 10]])).item() == 0


def test_clipping_is_torchvisions() -> None:
    boxes = random_boxes(50, 2) - 20
    assert torch.equal(box_ops.clip(boxes, 60, 80), ops.clip_boxes_to_image(boxes, (60, 80)))


def test_centre_form_of_the_dog_and_the_cat() -> None:
    animals = torch.tensor([[60.0, 45, 378, 516], [400, 112, 655, 493]])
    wanted = torch.tensor([[219.0, 280.5, 318, 471], [527.5, 302.5, 255, 381]])
    assert torch.equal(box_ops.to_centres(animals), wanted)
    assert torch.equal(box_ops.to_corners(wanted), animals)


@pytest.mark.parametrize("side", [1.0, 100.0, 4000.0])
def test_decoding_inverts_encoding(side: float) -> None:
    boxes, anchors = random_boxes(500, 3, side), random_boxes(500, 4, side)
    back = box_ops.decode(box_ops.encode(boxes, anchors), anchors)
    assert float((back - boxes).abs().max()) <= 1e-5 * max(side, 1.0)
    double = box_ops.encode(boxes.double(), anchors.double())
    assert float((box_ops.decode(double, anchors.double()) - boxes).abs().max()) <= 1e-9 * side


def test_offsets_are_those_of_torchvisions_coder() -> None:
    boxes, anchors = random_boxes(200, 5), random_boxes(200, 6)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    offsets = coder.encode_single(boxes, anchors)
    torch.testing.assert_close(box_ops.encode(boxes, anchors), offsets, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        box_ops.decode(offsets, anchors), coder.decode_single(offsets, anchors).view(-1, 4)
    )


def test_a_huge_offset_gives_a_finite_box() -> None:
    box = box_ops.decode(torch.tensor([0.0, 0, 1e6, 1e6]), torch.tensor([0.0, 0, 16, 16]))
    assert bool(torch.isfinite(box).all())


def test_anchors_at_a_place_are_sizes_and_ratios_less_one() -> None:
    shapes = box_ops.anchor_shapes([20.0, 40.0], [1.0, 2.0, 0.5])
    assert len(shapes) == 2 + 3 - 1
    assert shapes[:2] == [(20.0, 20.0), (40.0, 40.0)]
    for width, height in shapes[2:]:
        assert width * height == pytest.approx(400)
    assert [round(width / height, 6) for width, height in shapes[2:]] == [2.0, 0.5]


def test_the_maps_of_tinyssd_have_5444_anchors() -> None:
    shapes = box_ops.anchor_shapes([0.2 * 256, 0.272 * 256], [1.0, 2.0, 0.5])
    count = sum(len(box_ops.anchors(n, n, (256, 256), shapes)) for n in (32, 16, 8, 4, 1))
    assert count == 5444


def test_anchor_centres_follow_the_measured_scale_row_by_row() -> None:
    anchors = box_ops.anchors(2, 4, (60, 200), [(10.0, 20.0), (8.0, 8.0)])
    centres = box_ops.to_centres(anchors)
    assert centres[0].tolist() == [25, 15, 10, 20]
    assert centres[1].tolist() == [25, 15, 8, 8]
    assert centres[2].tolist() == [75, 15, 10, 20]  # the next column, not the next row
    assert centres[-1].tolist() == [175, 45, 8, 8]


# the dog and the cat of the source documents, in shares of the picture
OBJECTS = torch.tensor([[0.1, 0.08, 0.52, 0.92], [0.55, 0.2, 0.9, 0.88]])
ANCHORS = torch.tensor(
    [
        [0, 0.1, 0.2, 0.3],
        [0.15, 0.2, 0.4, 0.4],
        [0.63, 0.05, 0.88, 0.98],
        [0.66, 0.45, 0.8, 0.8],
        [0.57, 0.3, 0.92, 0.9],
    ]
)


def test_assignment_of_the_known_example() -> None:
    found = box_ops.assign(ANCHORS, OBJECTS, high=0.5, low=0.5)
    assert found.index.tolist() == [-1, 0, 1, -1, 1]


def test_offsets_of_the_known_example() -> None:
    index = [1, 2, 4]
    owner = [0, 1, 1]
    offsets = box_ops.encode(OBJECTS[owner], ANCHORS[index])
    wanted = torch.tensor(
        [
            [1.40, 10.0, 2.59, 7.18],
            [-1.20, 0.269, 1.68, -1.57],
            [-0.571, -1.00, 0.0, 0.626],
        ]
    )
    torch.testing.assert_close(offsets, wanted, rtol=0.005, atol=0.005)


def test_every_object_gets_its_best_anchor_however_bad() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    objects = torch.tensor([[8.0, 8, 14, 14]])
    assert box_ops.assign(anchors, objects).index.tolist() == [0, -1]
    assert box_ops.assign(anchors, objects, every_object=False).index.tolist() == [-1, -1]


def test_two_objects_with_one_best_anchor_both_get_one() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 12, 12]])
    objects = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10.5, 10]])
    assert sorted(box_ops.assign(anchors, objects).index.tolist()) == [0, 1]


def test_anchors_between_the_thresholds_do_not_count() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22], [40, 40, 50, 50]])
    objects = torch.tensor([[0.0, 0, 10, 10]])
    found = box_ops.assign(anchors, objects, high=0.5, low=0.3)
    assert found.index.tolist() == [0, box_ops.IGNORED, box_ops.NOTHING]
    assert found.overlap[1].item() == pytest.approx(100 / 220)


def test_without_objects_all_is_background() -> None:
    found = box_ops.assign(ANCHORS, torch.zeros(0, 4))
    assert found.index.tolist() == [-1] * 5


def test_suppression_of_the_known_example() -> None:
    boxes = torch.tensor(
        [
            [0.1, 0.08, 0.52, 0.92],
            [0.08, 0.2, 0.56, 0.95],
            [0.15, 0.3, 0.62, 0.91],
            [0.55, 0.2, 0.9, 0.88],
        ]
    )
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.9]), torch.tensor([0, 0, 0, 1])
    assert sorted(box_ops.nms(boxes, scores, labels, threshold=0.5).tolist()) == [0, 3]
    assert box_ops.suppressors(boxes, scores, labels, threshold=0.5) == [0, 0, 0, 3]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_suppression_is_torchvisions_and_the_plain_loops(seed: int, threshold: float) -> None:
    boxes = random_boxes(80, seed) / torch.tensor([4.0, 4, 1, 1])
    stream = torch.Generator().manual_seed(seed)
    scores = torch.rand(80, generator=stream)
    labels = torch.randint(3, (80,), generator=stream)
    theirs = ops.batched_nms(boxes, scores, labels, threshold)
    assert torch.equal(box_ops.nms(boxes, scores, labels, threshold=threshold), theirs)
    plain = box_ops.suppressors(boxes, scores, labels, threshold=threshold)
    assert sorted(theirs.tolist()) == [k for k, owner in enumerate(plain) if owner == k]
    alone = ops.nms(boxes, scores, threshold)
    assert torch.equal(box_ops.nms(boxes, scores, threshold=threshold), alone)
    assert len(alone) < len(theirs), "classes make no difference: the example is too easy"


def test_suppression_of_nothing_is_nothing() -> None:
    nothing = torch.zeros(0, 4)
    assert box_ops.nms(nothing, torch.zeros(0)).tolist() == []


def test_the_limit_of_growth_is_torchvisions() -> None:
    assert math.isclose(BoxCoder((1.0, 1.0, 1.0, 1.0)).bbox_xform_clip, box_ops.LARGEST_LOG)


@pytest.mark.parametrize("shape", [(300, 437), (64, 64), (50, 900)])
def test_resizing_is_torchvisions(shape: tuple[int, int]) -> None:
    from dltool_detect.resize import resize_image
    from torchvision.transforms.v2 import functional

    stream = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=stream)
    expected = functional.resize(image, [96, 96], antialias=True)
    # processors without AVX2 let torchvision go through floats, which may round a value elsewhere
    difference = (resize_image(image, 96).int() - expected.int()).abs().max()
    assert int(difference) <= 1
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert int(difference) == 0
