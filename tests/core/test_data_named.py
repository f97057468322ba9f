"""Named data sets: where they are looked for, what is read, and what does not fit."""

import gzip
import hashlib
import io
import struct
import tarfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dltool.data import cifar, named
from dltool.data.download import Source
from dltool.data.named import NAMED, fetch_named, load_named, where
from dltool.errors import ConfigError, DataError

FILES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


def idx(values):
    values = np.asarray(values, np.uint8)
    head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return head + values.tobytes()


def images_of(count, seed=0, side=28):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), np.uint8)


def make(folder, *, packed=False, train_labels=(0, 9, 5), test_labels=(3, 4), side=28):
    contents = {
        "train-images-idx3-ubyte": idx(images_of(3, 1, side)),
        "train-labels-idx1-ubyte": idx(train_labels),
        "t10k-images-idx3-ubyte": idx(images_of(2, 2, side)),
        "t10k-labels-idx1-ubyte": idx(test_labels),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache and no network."""
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    return tmp_path / "home"


def test_digits_need_nothing(home):
    digits = load_named("digits")
    theirs = load_digits()
    assert digits.train_images.shape == (1797, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    # 0 to 16 became 0 to 255, so dividing by 255/16 and rounding gives them back
    back = (digits.train_images[:, 0].double() * 16 / 255).round().numpy()
    assert np.array_equal(back, theirs.images)
    assert int(digits.train_images.max()) == 255
    assert digits.train_labels.tolist() == theirs.target.tolist()
    assert digits.test_images is digits.test_labels is None
    assert digits.classes == tuple("0123456789")
    assert not home.exists()
    assert (where("digits") / "digits.csv.gz").is_file()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["{}/raw", "."])
def test_torchvisions_layout_or_right_there(tmp_path, name, packed, place):
    root = tmp_path / "data"
    folder = make(root / place.format(FILES[name]), packed=packed)
    splits = load_named(name, root)
    assert splits.train_images.shape == (3, 1, 28, 28)
    assert np.array_equal(splits.train_images[:, 0].numpy(), images_of(3, 1))
    assert np.array_equal(splits.test_images[:, 0].numpy(), images_of(2, 2))
    assert splits.train_labels.dtype == torch.int64
    assert splits.train_labels.tolist() == [0, 9, 5]
    assert splits.test_labels.tolist() == [3, 4]
    assert splits.classes == NAMED[name].classes
    assert splits.where == str(folder)
    assert where(name, root) == folder


def test_the_folder_of_the_set_itself_is_a_root(tmp_path):
    folder = make(tmp_path / "MNIST" / "raw")
    for root in (tmp_path, tmp_path / "MNIST", folder):
        assert where("mnist", root) == folder


def test_one_set_is_not_taken_for_the_other(tmp_path):
    """Their files have the same names, so the folder must tell them apart."""
    folder = make(tmp_path / "MNIST" / "raw")
    for root in (tmp_path, tmp_path / "MNIST", folder):
        assert where("fashion-mnist", root) is None
        with pytest.raises(DataError, match="does not hold fashion-mnist"):
            load_named("fashion-mnist", root)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_given_root_is_never_filled_by_a_download(tmp_path, monkeypatch, name):
    monkeypatch.delenv("DLTOOL_OFFLINE")
    monkeypatch.setattr(named, "fetch", lambda *_: pytest.fail("asked the network"))
    with pytest.raises(DataError, match=f"does not hold {name}") as caught:
        load_named(name, tmp_path)
    assert caught.value.code == "E501"
    looked_for = "cifar-10-batches-bin" if name == "cifar10" else "train-images-idx3-ubyte"
    assert looked_for in caught.value.expected
    assert str(tmp_path) in caught.value.expected
    with pytest.raises(DataError, match="no folder") as caught:
        load_named(name, tmp_path / "nothing")
    assert caught.value.code == "E501"


def test_one_file_missing_is_all_missing(tmp_path):
    (make(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    assert where("mnist", tmp_path) is None


def test_the_cache_is_read_without_a_download(home):
    folder = make(home / "data" / "mnist", packed=True)
    assert load_named("mnist").where == str(folder)
    assert fetch_named("mnist") == folder


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_offline_says_what_to_put_where(home, name):
    assert where(name) is None
    with pytest.raises(DataError, match="DLTOOL_OFFLINE") as caught:
        load_named(name)
    assert caught.value.code == "E504"
    assert str(home / "data" / name) in caught.value.cure


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"train_labels": (0, 10, 1)}, "E506", "labels go up to 10"),
        ({"test_labels": (1, 2, 3)}, "E506", "2 images have 3 labels"),
        ({"side": 27}, "E502", r"does not fit mnist: images \(3, 27, 27\)"),
    ],
)
def test_what_does_not_fit(tmp_path, change, code, word):
    make(tmp_path, **change)
    with pytest.raises(DataError, match=word) as caught:
        load_named("mnist", tmp_path)
    assert caught.value.code == code
    assert str(tmp_path) in caught.value.message


def test_images_in_place_of_labels(tmp_path):
    folder = make(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(images_of(3)))
    with pytest.raises(DataError, match="does not fit mnist"):
        load_named("mnist", tmp_path)


def test_an_unknown_name_gets_a_suggestion():
    for call in (load_named, fetch_named, where):
        with pytest.raises(ConfigError, match="mnits") as caught:
            call("mnits")
        assert caught.value.code == "E206"
        assert "mnist" in caught.value.cure


def cifar_archive(path):
    """Pack a small CIFAR-10, and return its pixels."""
    records = np.random.default_rng(0).integers(0, 10, (6, 4, 3073), np.uint8)
    with tarfile.open(path, "w:gz") as file:
        for number, name in enumerate([*cifar.TRAIN_FILES, *cifar.TEST_FILES]):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = records[number].nbytes
            file.addfile(member, io.BytesIO(records[number].tobytes()))
    return records


def test_cifar_is_fetched_unpacked_and_read(home, tmp_path, monkeypatch, capsys):
    records = cifar_archive(tmp_path / "small.tar.gz")
    content = (tmp_path / "small.tar.gz").read_bytes()
    monkeypatch.setattr(cifar, "RECORDS", 4)
    asked = []

    def fetched(source, target, console):
        asked.append((source, target))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    monkeypatch.setattr(named, "fetch", fetched)
    splits = load_named("cifar10")
    assert splits.train_images.shape == (20, 3, 32, 32)
    assert np.array_equal(splits.test_images.reshape(4, -1).numpy(), records[5, :, 1:])
    assert splits.test_labels.tolist() == records[5, :, 0].tolist()
    assert asked == [
        (NAMED["cifar10"].files["cifar-10-binary.tar.gz"],
         home / "data" / "cifar10" / "cifar-10-binary.tar.gz")
    ]  # fmt: skip
    assert not asked[0][1].exists(), "the archive is not needed any more"
    load_named("cifar10")
    assert len(asked) == 1
    (fetch_named("cifar10") / "data_batch_1.bin").unlink()
    assert load_named("cifar10").where == str(where("cifar10"))
    assert len(asked) == 2


def test_every_set_is_described_and_its_files_can_be_known():
    assert set(NAMED) == {"digits", "mnist", "fashion-mnist", "cifar10"}
    for name, data in NAMED.items():
        assert name == data.name
        assert data.summary
        assert data.licence
        assert len(set(data.classes)) == 10
        for file, source in data.files.items():
            assert isinstance(source, Source)
            assert source.size > 0
            assert len(source.checksum) == len("sha256:") + hashlib.sha256().digest_size * 2
            assert all(url.startswith("https://") and url.endswith(file) for url in source.urls)


@pytest.mark.parametrize(
    ("name", "theirs"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_files_and_classes_are_those_of_torchvision(name, theirs):
    from torchvision import datasets

    known = dict(getattr(datasets, theirs).resources)
    assert set(NAMED[name].files) == set(known)
    if name == "fashion-mnist":
        assert list(NAMED[name].classes) == datasets.FashionMNIST.classes


def test_the_classes_of_cifar_are_written_once():
    assert NAMED["cifar10"].classes == cifar.CLASSES
