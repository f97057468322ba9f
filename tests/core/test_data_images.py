"""Image folders and zips: layouts, what is left out, and loading with broken files among them."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dltool.data.images import load, probe, scan
from dltool.errors import DataError


def png(value=0, size=(6, 4), mode="L"):
    stream = io.BytesIO()
    Image.new(mode, size, value).save(stream, "PNG")
    return stream.getvalue()


def make(root, names):
    """Write files below a folder; a name that ends in a slash is an empty folder."""
    for number, name in enumerate(names):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return root


def make_zip(path, names):
    with zipfile.ZipFile(path, "w") as file:
        for number, name in enumerate(names):
            file.writestr(name, b"" if name.endswith("/") else png(number))
    return path


@pytest.fixture(params=["folder", "zip"])
def tree_of(request, tmp_path):
    """Scan the same names once as a folder and once as a zip."""

    def scanned(*names):
        if request.param == "zip":
            return scan(make_zip(tmp_path / "data.zip", names))
        return scan(make(tmp_path / "data", names))

    return scanned


def names(items):
    return [(item.name, item.label) for item in items]


def refused(path, code, word):
    with pytest.raises(DataError, match=word) as caught:
        scan(path)
    assert caught.value.code == code
    assert "\n" not in caught.value.one_line()
    return caught.value


def test_one_subfolder_a_class(tree_of):
    tree = tree_of("dog/2.png", "cat/b.JPG", "cat/a.webp", "dog/10.jpeg", "cat/deep/er/c.tif")
    assert tree.classes == ("cat", "dog")
    assert list(tree.splits) == ["all"]
    assert names(tree.splits["all"]) == [
        ("cat/a.webp", 0),
        ("cat/b.JPG", 0),
        ("cat/deep/er/c.tif", 0),
        ("dog/10.jpeg", 1),
        ("dog/2.png", 1),
    ]
    assert tree.ignored == []


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_splits_of_the_user(tree_of, val):
    tree = tree_of(
        "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png", f"{val}/b/5.png"
    )
    assert tree.classes == ("a", "b")
    assert names(tree.splits["train"]) == [("train/a/1.png", 0), ("train/b/2.png", 1)]
    assert names(tree.splits["test"]) == [("test/a/3.png", 0), ("test/b/4.png", 1)]
    assert names(tree.splits["val"]) == [(f"{val}/b/5.png", 1)]


def test_train_alone_is_one_pool(tree_of):
    tree = tree_of("train/a/1.png", "train/b/2.png")
    assert names(tree.splits["all"]) == [("train/a/1.png", 0), ("train/b/2.png", 1)]


def test_a_class_may_be_called_train(tree_of):
    tree = tree_of("bus/1.png", "train/2.png", "test/3.png")
    assert tree.classes == ("bus", "test", "train")
    assert list(tree.splits) == ["all"]


def test_what_is_no_image_is_listed(tree_of):
    tree = tree_of(
        "a/1.png", "b/2.png", "a/notes.txt", "readme.md", "loose.png", "empty/", "only/x.csv",
        "a/.hidden.png", ".git/x/1.png", ".git/x/2.png", "__MACOSX/a/._1.png", "a/Thumbs.db",
    )  # fmt: skip
    assert tree.classes == ("a", "b")
    assert names(tree.splits["all"]) == [("a/1.png", 0), ("b/2.png", 1)]
    assert set(tree.ignored) >= {
        ".git", "__MACOSX", "a/.hidden.png", "a/Thumbs.db", "a/notes.txt", "readme.md",
        "only/x.csv", "empty/ (no images)", "loose.png (in no class folder)",
    }  # fmt: skip


def test_what_lies_beside_splits_is_listed(tree_of):
    tree = tree_of(
        "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/4.png", "more/c/5.png", "test/c/"
    )
    assert tree.classes == ("a", "b")
    assert tree.ignored == [
        "more/c/5.png (in no class folder)",
        "test/4.png (in no class folder)",
        "test/c/ (no images)",
    ]


def test_a_zip_may_wrap_everything_in_one_folder(tmp_path):
    wrapped = ["w/train/a/1.png", "w/train/b/2.png", "w/test/a/3.png", "w/read.me", "w/"]
    tree = scan(make_zip(tmp_path / "data.zip", wrapped))
    assert tree.classes == ("a", "b")
    assert names(tree.splits["test"]) == [("w/test/a/3.png", 0)]
    tree = scan(make_zip(tmp_path / "flat.zip", ["w/a/1.png", "w/b/2.png"]))
    assert tree.classes == ("a", "b")


def test_backslashes_in_a_zip_are_slashes(tmp_path):
    tree = scan(make_zip(tmp_path / "data.zip", ["a\\1.png", "b\\2.png"]))
    assert names(tree.splits["all"]) == [("a/1.png", 0), ("b/2.png", 1)]
    assert load(tree.splits["all"], size=(4, 6), mode="L").broken == []


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path / "store", ["cats/1.png"])
    root = make(tmp_path / "data", ["dog/2.png"])
    try:
        os.symlink(tmp_path / "store" / "cats", root / "cat")
        os.symlink(root, root / "dog" / "up")
    except OSError:
        pytest.skip("this system makes no links")
    assert names(scan(root).splits["all"]) == [("cat/1.png", 0), ("dog/2.png", 1)]


def test_names_of_other_systems(tmp_path):
    """Write é once as one character and once as two: a Mac's zip and a Linux folder."""
    tree = scan(make_zip(tmp_path / "a.zip", ["caf\u00e9/1.png", "cafe\u0301/2.png", "b/3.png"]))
    assert tree.classes == ("b", "caf\u00e9")
    assert len(load(tree.splits["all"], size=(4, 6), mode="L").names) == 3


def test_a_path_that_is_missing(tmp_path):
    refused(tmp_path / "no", "E501", "there is no")


def test_a_file_that_is_neither(tmp_path):
    path = tmp_path / "data.zip"
    path.write_text("hello\n", encoding="utf-8")
    refused(path, "E502", "neither a folder nor a zip: it is text")
    whole = make_zip(tmp_path / "whole.zip", ["a/1.png", "b/2.png"]).read_bytes()
    path.write_bytes(whole[:-30])
    refused(path, "E502", "neither a folder nor a zip: it is a zip archive")


def test_a_hostile_zip(tmp_path):
    path = make_zip(tmp_path / "data.zip", ["a/1.png", "b/2.png", "../c/3.png"])
    refused(path, "E505", r"\.\./c/3.png")


@pytest.mark.parametrize("files", [[], ["a/", "b/"], ["a/notes.txt", "b/c.csv"]])
def test_no_images(tmp_path, files):
    (tmp_path / "data").mkdir()
    error = refused(make(tmp_path / "data", files), "E503", "holds no images")
    assert "one subfolder a class" in error.expected


def test_images_without_class_folders(tmp_path):
    error = refused(make(tmp_path / "data", ["1.png", "2.png"]), "E503", "no class folders")
    assert "one subfolder a class" in error.expected


def test_one_class_only(tmp_path):
    refused(make(tmp_path / "a", ["cat/1.png", "cat/2.png"]), "E503", "one class only: cat")
    refused(make(tmp_path / "b", ["train/a/1.png", "test/a/2.png"]), "E503", "one class only: a")


def test_one_class_is_enough_where_the_caller_says_so(tmp_path):
    tree = scan(make(tmp_path, ["cat/1.png", "cat/2.png"]), allow_one_class=True)
    assert tree.classes == ("cat",)


def test_a_class_that_train_does_not_have(tmp_path):
    root = make(tmp_path, ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png"])
    refused(root, "E506", "test has classes that train has not: c")


@pytest.mark.parametrize("workers", [1, 3])
def test_loading_keeps_the_order(tree_of, workers):
    tree = tree_of(*(f"{name}/{number:03}.png" for name in "ab" for number in range(100)))
    loaded = load(tree.splits["all"], size=(4, 6), mode="RGB", workers=workers)
    assert loaded.images.shape == (200, 3, 4, 6)
    assert loaded.images.dtype == torch.uint8
    assert loaded.images[:, 1, 2, 3].tolist() == list(range(200))
    assert loaded.labels.dtype == torch.int64
    assert loaded.labels.tolist() == [0] * 100 + [1] * 100
    assert loaded.names == [item.name for item in tree.splits["all"]]
    assert loaded.broken == []


def spoiled(root):
    make(root, [f"a/{n}.png" for n in range(4)] + [f"b/{n}.png" for n in range(4)])
    (root / "a" / "1.png").write_bytes(b"")
    (root / "b" / "0.jpg").write_text("not a picture", encoding="utf-8")
    noise = np.random.default_rng(0).integers(0, 256, (30, 30), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    (root / "b" / "2.png").write_bytes(stream.getvalue()[:-200])
    return scan(root).splits["all"]


def test_broken_images_are_left_out_and_listed(tmp_path):
    items = spoiled(tmp_path)
    loaded = load(items, size=(4, 6), mode="L")
    assert [name for name, _ in loaded.broken] == ["a/1.png", "b/0.jpg", "b/2.png"]
    assert [reason.split(":")[0] for _, reason in loaded.broken] == [
        "is not an image", "is not an image", "is damaged or cut off",
    ]  # fmt: skip
    assert loaded.names == ["a/0.png", "a/2.png", "a/3.png", "b/0.png", "b/1.png", "b/3.png"]
    assert loaded.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert loaded.images[:, 0, 0, 0].tolist() == [0, 2, 3, 4, 5, 7]


def test_the_first_broken_image_can_stop(tmp_path):
    with pytest.raises(DataError, match=r"a/1\.png is not an image") as caught:
        load(spoiled(tmp_path), size=(4, 6), mode="L", on_broken="raise")
    assert caught.value.code == "E502"


def test_a_member_damaged_inside_its_zip(tmp_path):
    path = make_zip(tmp_path / "data.zip", ["a/1.png", "b/2.png"])
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(data)
    loaded = load(scan(path).splits["all"], size=(4, 6), mode="L")
    assert loaded.names == ["b/2.png"]
    assert "CRC" in loaded.broken[0][1]


def test_a_file_that_went_away(tmp_path):
    items = scan(make(tmp_path, ["a/1.png", "b/2.png"])).splits["all"]
    (tmp_path / "a" / "1.png").unlink()
    loaded = load(items, size=(4, 6), mode="L")
    assert loaded.broken == [("a/1.png", "cannot be read: No such file or directory")]


def test_nothing_left(tmp_path):
    with pytest.raises(DataError) as caught:
        load([], size=(4, 4), mode="L")
    assert caught.value.code == "E503"
    make(tmp_path, ["a/1.png", "b/2.png"])
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"no")
    items = scan(tmp_path).splits["all"]
    for look in (lambda: load(items, size=(4, 4), mode="L"), lambda: probe(items)):
        with pytest.raises(DataError, match="it is text") as caught:
            look()
        assert caught.value.code == "E502"


def sized(root, *sizes, mode="L"):
    for number, size in enumerate(sizes):
        path = root / "ab"[number % 2] / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(size=size, mode=mode))
    return scan(root).splits["all"]


def test_a_probe_of_equal_images(tmp_path):
    found = probe(sized(tmp_path, *[(6, 4)] * 9))
    assert (found.size, found.same_size, found.grey) == ((4, 6), True, True)
    assert found.modes == {"L": 9}


def test_a_probe_of_mixed_images(tmp_path):
    items = sized(tmp_path, (6, 4), (6, 4), (6, 4), (5, 9))
    assert (probe(items).size, probe(items).same_size) == ((4, 6), False)
    (tmp_path / "c").mkdir()
    items = sized(tmp_path / "c", (10, 1), (20, 5), (30, 2), (40, 4), (50, 3), mode="RGB")
    found = probe(items)
    assert (found.size, found.grey) == ((3, 30), False)


def test_a_probe_looks_at_a_sample_of_all(tmp_path):
    items = sized(tmp_path, *[(6, 4)] * 10)
    items[0].path.write_bytes(b"broken")
    found = probe(items, sample=5)
    assert found.modes == {"L": 4}
    assert probe(items, sample=5) == found
