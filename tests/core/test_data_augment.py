"""Batches changed at random, against torchvision's functions on one image at a time."""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from dltool.data.augment import AUGMENTATIONS, augment, mix, recolored, turned
from dltool.data.resident import Resident
from dltool.errors import ConfigError


def smooth_images(count=4, channels=3, side=32, seed=0):
    """Return images without hard edges, so that interpolations can be compared."""
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 5, 5, generator=draws) * 255
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("degrees", "factor"), [(13.0, 1.0), (0.0, 1.2), (-9.0, 0.9)])
def test_turning_is_torchvision_s_affine_map_away_from_the_border(degrees, factor):
    images = smooth_images()
    angle = torch.full((len(images),), math.radians(degrees))
    got = turned(images, angle, torch.full_like(angle, factor))
    expected = tv.affine(
        images,
        angle=-degrees,  # torchvision turns clockwise
        translate=[0, 0],
        scale=factor,
        shear=[0.0, 0.0],
        interpolation=tv.InterpolationMode.BILINEAR,
    )
    middle = (..., slice(8, 24), slice(8, 24))
    torch.testing.assert_close(got[middle], expected[middle], atol=0.6, rtol=0)


def test_turning_keeps_the_proportions_of_an_oblong_image():
    image = torch.zeros(1, 1, 21, 41)
    image[..., 10, 15:26] = 255  # a line of eleven pixels about the centre
    upright = turned(image, torch.tensor([math.pi / 2]), torch.ones(1))[0, 0]
    assert upright[5:16, 20].min() > 200
    assert upright.sum() == pytest.approx(image.sum().item(), rel=0.02)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_brightness_contrast_and_saturation_are_torchvision_s(place):
    images = smooth_images()
    factors = [torch.ones(len(images)) for _ in range(3)]
    factors[place] = torch.tensor([0.8, 0.9, 1.1, 1.2])
    got = recolored(images, *factors, torch.zeros(len(images)))
    change = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)[place]
    for image, factor, ours in zip(images, factors[place].tolist(), got, strict=True):
        expected = change(image / 255, factor) * 255
        # torchvision's grey has weights of three digits as well: (0.2989, 0.587, 0.114)
        torch.testing.assert_close(ours, expected, atol=0.2, rtol=0)


def test_a_turn_of_hue_keeps_brightness_and_leaves_grey_alone():
    images = smooth_images().clamp(100, 150)
    ones = torch.ones(len(images))
    weights = torch.tensor([0.299, 0.587, 0.114])
    turned_hue = recolored(images, ones, ones, ones, ones * 0.1)
    assert (turned_hue - images).abs().max() > 1
    torch.testing.assert_close(
        torch.einsum("c,bchw->bhw", weights, turned_hue),
        torch.einsum("c,bchw->bhw", weights, images),
        atol=0.05,
        rtol=0,
    )
    grey = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        recolored(grey, ones, ones, ones, ones * 0.1), grey, atol=0.1, rtol=0
    )
    back = recolored(turned_hue, ones, ones, ones, ones * -0.1)
    torch.testing.assert_close(back, images, atol=0.05, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name", [name for name in AUGMENTATIONS if name not in ("mixup", "cutmix")]
)
def test_every_way_keeps_shape_and_kind_and_the_images_it_was_given(name, channels):
    images = smooth_images(8, channels).to(torch.uint8)
    before = images.clone()
    changed = augment(images, [name], stream())
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)
    assert torch.equal(changed, augment(images, [name], stream()))


def test_cutout_covers_a_quarter_at_most_with_the_mean_colour():
    images = smooth_images(64, 3).to(torch.uint8)
    changed = augment(images, ["cutout"], stream())
    hidden = (changed != images).any(1)
    assert (hidden.flatten(1).sum(1) <= 16 * 16).all()
    assert hidden.float().mean() > 0.1
    mean = images.float().mean((2, 3)).round().to(torch.uint8)
    for image, inside, colour in zip(changed, hidden, mean, strict=True):
        assert (image[:, inside] == colour[:, None]).all()


def test_erasing_hits_one_image_in_two_and_a_third_at_most():
    images = torch.full((400, 1, 32, 32), 77, dtype=torch.uint8)
    changed = augment(images, ["erase"], stream())
    share = (changed != images).float().mean((1, 2, 3))
    assert 150 < int((share > 0).sum()) < 250
    assert share.max() < 0.36


def test_mixup_adds_images_and_labels_in_the_same_share():
    images = (torch.arange(6)[:, None, None, None] * 40).expand(6, 1, 4, 4).to(torch.uint8)
    mixed, targets = mix(images, torch.arange(6), ["flip", "mixup"], 6, stream(1))
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    # the colour of image k is 40 k: the mixture's colour is that of its labels
    expected = targets @ (torch.arange(6.0) * 40)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), expected)
    assert (targets > 0).sum() > 6


def test_cutmix_gives_labels_the_share_of_pixels():
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 2, 16, 16)
    mixed, targets = mix(images, torch.arange(6), ["cutmix"], 6, stream(2))
    assert mixed.dtype == torch.uint8
    for image, target in zip(mixed, targets, strict=True):
        counts = image[0].flatten().bincount(minlength=6) / 256
        torch.testing.assert_close(counts, target)


def test_both_mixes_take_turns_by_batch():
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=stream())
    kinds = {
        mix(images, torch.arange(8), ["mixup", "cutmix"], 8, stream(seed))[0].dtype
        for seed in range(8)
    }
    assert kinds == {torch.float32, torch.uint8}


def test_without_a_mix_nothing_is_touched():
    images, labels = torch.zeros(2, 1, 4, 4), torch.arange(2)
    same = mix(images, labels, ["flip"], 2, stream())
    assert same[0] is images
    assert same[1] is labels


def test_alternating_flip_shows_each_image_from_both_sides_in_two_epochs():
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=stream())
    data = Resident(images, torch.arange(40), 7, 3, True, ("alternating-flip",))
    epochs = []
    for epoch in range(4):
        seen = torch.empty(40, dtype=torch.bool)
        for batch, labels in data.batches(epoch):
            for image, label in zip(batch, labels.tolist(), strict=True):
                seen[label] = torch.equal(image, images[label].flip(2))
        epochs.append(seen)
    assert 8 < int(epochs[0].sum()) < 32
    assert torch.equal(epochs[1], ~epochs[0])
    assert torch.equal(epochs[2], epochs[0])
    assert torch.equal(epochs[3], ~epochs[0])


def test_balanced_batches_show_a_rare_class_as_often_as_the_others():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    data = Resident(torch.zeros(1000, 1, 2, 2), labels, 100, 0, True, is_balanced=True)
    counts = torch.cat([batch for _, batch in data.batches(0)]).bincount()
    assert counts.sum() == 1000
    assert (counts > 270).all()
    later = list(data.batches(1))[4:]
    again = list(data.batches(1, 4))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(later, again, strict=True))


def test_mixing_without_classes_is_refused():
    with pytest.raises(ConfigError, match="num_classes"):
        Resident(torch.zeros(4, 1, 2, 2), torch.arange(4), 2, 0, True, ("mixup",))
