"""Batches: order, exact continuation, augmentation against plain loops, worker processes."""

import io
import multiprocessing
import os
import signal
from collections import Counter

import pytest
import torch
from PIL import Image

from dltool.data.augment import augment
from dltool.data.images import scan
from dltool.data.resident import Resident, Streamed
from dltool.errors import ConfigError, DataError

WAYS = [(), ("flip",), ("crop",), ("flip", "crop"), ("crop", "flip")]


def random_images(*shape, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)


def resident(count=23, batch_size=5, seed=7, shuffle=True, **options):
    images = random_images(count, 3, 8, 10)
    return Resident(images, torch.arange(count), batch_size, seed, shuffle, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 images whose first pixel is their place."""
    root = tmp_path_factory.mktemp("data")
    for number in range(23):
        path = root / ("a" if number < 12 else "b") / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.new("L", (10, 8), number)
        image.putpixel((9, 7), 255 - number)
        image.save(path)
    return root


def streamed(folder, batch_size=5, seed=7, shuffle=True, workers=0, **options):
    items = scan(folder).splits["all"]
    return Streamed(items, batch_size, seed, shuffle, (8, 10), "L", workers=workers, **options)


@pytest.fixture(params=["resident", "streamed"])
def make(request, folder):
    """Make either kind with the same options; both hold 23 images."""
    if request.param == "resident":
        return resident
    return lambda **options: streamed(folder, **options)


def same(left, right):
    pairs = list(zip(left, right, strict=True))
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_later_start_gives_the_tail_bit_for_bit(make, ways, shuffle):
    data = make(augment=ways, shuffle=shuffle)
    whole = list(data.batches(3))
    for start in range(len(data) + 1):
        torch.manual_seed(start)
        assert same(data.batches(3, start), whole[start:])


def test_every_image_comes_once_an_epoch_in_another_order(make):
    data = make()
    orders = []
    for epoch in range(3):
        batches = list(data.batches(epoch))
        assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
        orders.append(torch.cat([images[:, 0, 0, 0] for images, _ in batches]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert len({tuple(order) for order in orders}) == 3
    other = torch.cat([images[:, 0, 0, 0] for images, _ in make(seed=8).batches(0)])
    assert other.tolist() != orders[0]


def test_images_keep_their_labels():
    data = resident()
    for images, labels in data.batches(0):
        assert torch.equal(images, data.images[labels])


def test_without_shuffling_the_order_is_that_of_the_data(make):
    data = make(shuffle=False)
    first, second = list(data.batches(0)), list(data.batches(1))
    assert same(first, second)
    if isinstance(data, Resident):
        assert torch.equal(torch.cat([labels for _, labels in first]), data.labels)
        assert torch.equal(torch.cat([images for images, _ in first]), data.images)
    else:
        assert torch.cat([images[:, 0, 0, 0] for images, _ in first]).tolist() == list(range(23))
        assert torch.cat([labels for _, labels in first]).tolist() == [0] * 12 + [1] * 11


def test_both_kinds_have_the_same_order_and_augmentation(folder):
    flow = streamed(folder, augment=("flip", "crop"))
    plain = next(streamed(folder, shuffle=False, batch_size=23).batches(0))
    held = Resident(*plain, 5, 7, True, ("flip", "crop"))
    assert same(flow.batches(4), held.batches(4))


def test_plain_batches_on_the_cpu_are_views():
    data = resident(shuffle=False)
    images, labels = list(data.batches(0))[1]
    assert images.data_ptr() == data.images[5:].data_ptr()
    assert labels.data_ptr() == data.labels[5:].data_ptr()


@pytest.mark.parametrize("ways", WAYS)
def test_augmentation_leaves_the_data_as_it_was(ways):
    data = resident(shuffle=False, augment=ways)
    before = data.images.clone()
    list(data.batches(0))
    assert torch.equal(data.images, before)


def test_the_global_stream_is_not_touched(make):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(make(augment=("flip", "crop")).batches(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("count", "batch_size", "drop_last", "batches", "samples"),
    [(23, 5, False, 5, 23), (23, 5, True, 4, 20), (20, 5, False, 4, 20), (3, 9, False, 1, 3)],
)
def test_the_number_of_batches(count, batch_size, drop_last, batches, samples):
    data = resident(count, batch_size, drop_last=drop_last)
    assert len(data) == batches == len(list(data.batches(0)))
    assert data.num_samples == samples == sum(len(labels) for _, labels in data.batches(0))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 24, "drop_last": True}])
def test_a_batch_size_that_gives_no_batch(make, options):
    with pytest.raises(ConfigError, match="batch size") as caught:
        make(**options)
    assert caught.value.code == "E202"


def test_no_images_and_missing_labels():
    with pytest.raises(DataError) as caught:
        resident(0)
    assert caught.value.code == "E503"
    with pytest.raises(DataError, match="3 images have 2 labels") as caught:
        Resident(random_images(3, 1, 4, 4), torch.arange(2), 1, 0, True)
    assert caught.value.code == "E506"


def test_an_unknown_augmentation_gets_a_suggestion(make):
    with pytest.raises(ConfigError, match="flop") as caught:
        make(augment=("flop",))
    assert caught.value.code == "E206"
    assert "flip" in caught.value.cure
    with pytest.raises(ConfigError):
        augment(random_images(1, 1, 4, 4), ["flop"], torch.Generator())


def test_every_batch_and_epoch_draws_anew():
    image = random_images(1, 1, 32, 32)
    data = Resident(image.expand(64, -1, -1, -1), torch.arange(64), 16, 0, False, ("crop",))
    batches = [images for epoch in (0, 1) for images, _ in data.batches(epoch)]
    distinct = {images.numpy().tobytes() for images in batches}
    assert len(distinct) == len(batches) == 8


def naive_flip(image):
    width = image.shape[2]
    mirrored = torch.empty_like(image)
    for x in range(width):
        mirrored[:, :, x] = image[:, :, width - 1 - x]
    return mirrored


def naive_shift(image, down, right):
    """Read every pixel from its shifted place, or from the nearest one inside."""
    height, width = image.shape[1:]
    moved = torch.empty_like(image)
    for y in range(height):
        for x in range(width):
            source_y = min(max(y + down, 0), height - 1)
            source_x = min(max(x + right, 0), width - 1)
            moved[:, y, x] = image[:, source_y, source_x]
    return moved


def test_flip_mirrors_about_half_of_the_images():
    images = random_images(400, 3, 4, 5)
    changed = augment(images, ["flip"], torch.Generator().manual_seed(0))
    flipped = 0
    for before, after in zip(images, changed, strict=True):
        mirrored = naive_flip(before)
        assert torch.equal(after, before) or torch.equal(after, mirrored)
        flipped += torch.equal(after, mirrored)
    assert 150 < flipped < 250


@pytest.mark.parametrize(
    ("height", "width", "most_down", "most_right"),
    [(8, 10, 1, 1), (16, 12, 2, 1), (15, 17, 1, 2), (32, 40, 4, 5)],
)
def test_crop_shifts_by_every_allowed_step(height, width, most_down, most_right):
    image = random_images(1, 3, height, width)[0]
    steps = {
        (down, right): naive_shift(image, down, right)
        for down in range(-most_down, most_down + 1)
        for right in range(-most_right, most_right + 1)
    }
    count = 25 * len(steps)
    batch = image.expand(count, -1, -1, -1)
    seen = Counter()
    for after in augment(batch, ["crop"], torch.Generator().manual_seed(0)):
        seen.update(step for step, moved in steps.items() if torch.equal(after, moved))
    assert seen.total() == count, "an image is no shift of the first"
    assert set(seen) == set(steps)
    assert max(seen.values()) < 60


def test_crop_treats_every_image_of_a_batch_by_itself():
    images = random_images(64, 1, 8, 8)
    changed = augment(images, ["crop"], torch.Generator().manual_seed(1))
    for before, after in zip(images, changed, strict=True):
        shifts = (naive_shift(before, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
        assert any(torch.equal(after, moved) for moved in shifts)


def test_workers_give_the_same_batches_and_end(folder):
    data = streamed(folder, workers=2, augment=("flip",))
    alone = list(streamed(folder, workers=0, augment=("flip",)).batches(1, 1))
    assert same(data.batches(1, 1), alone)
    assert multiprocessing.active_children() == []


def test_workers_end_when_the_epoch_is_left_early(folder):
    batches = streamed(folder, workers=2).batches(0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(os.name == "nt", reason="signals are sent to single processes on POSIX only")
def test_workers_leave_ctrl_c_to_their_parent(folder):
    data = streamed(folder, workers=1, batch_size=1)
    batches = data.batches(0)
    next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGINT)
    assert len(list(batches)) == 22


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_also_from_a_worker(tmp_path, workers):
    for name in ("a/1.png", "b/2.png"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(b"no picture")
    data = streamed(tmp_path, workers=workers, batch_size=1, shuffle=False)
    with pytest.raises(DataError, match=r"a/1.png is not an image: it is text") as caught:
        list(data.batches(0))
    assert caught.value.code == "E502"
    assert caught.value.cure


def test_workers_can_be_spawned(tmp_path, monkeypatch):
    """Read a zip, whose open file must not travel, as Windows and macOS do."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        for number in range(4):
            stream = io.BytesIO()
            Image.new("L", (10, 8), number).save(stream, "PNG")
            file.writestr(f"{'ab'[number % 2]}/{number}.png", stream.getvalue())
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        data = streamed(tmp_path / "data.zip", workers=1, batch_size=4, shuffle=False)
        images, labels = next(iter(data.batches(0)))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert images[:, 0, 0, 0].tolist() == [0, 2, 1, 3]
    assert labels.tolist() == [0, 0, 1, 1]
