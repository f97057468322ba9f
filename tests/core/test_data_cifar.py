"""CIFAR-10 in both its forms, made small by hand; hostile pickles run nothing."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from dltool.data import cifar
from dltool.data.cifar import read_cifar10
from dltool.errors import DataError

RECORDS = 6
NAMES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)


def batch(number):
    draws = np.random.default_rng(number)
    return draws.integers(0, 256, (RECORDS, 3072), np.uint8), draws.integers(0, 10, RECORDS)


def python2_pickle(images, labels):
    """Write the opcodes that Python 2 wrote: byte strings, protocol 2, numpy's old module."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    raw = images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85"
        + text(b"b")
        + b"\x87Rq\x03(K\x01"
        + b"M" + struct.pack("<H", images.shape[0]) + b"M" + struct.pack("<H", images.shape[1])
        + b"\x86cnumpy\ndtype\nq\x04" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw
        + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}q\x00(" + text(b"labels") + numbers + text(b"data") + array + b"u."


def make_binary(root):
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate([*NAMES, "test_batch"]):
        images, labels = batch(number)
        records = np.hstack([labels[:, None].astype(np.uint8), images])
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def make_pickled(root, dump):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate([*NAMES, "test_batch"]):
        (folder / name).write_bytes(dump(*batch(number)))
    return folder


def python3_dump(images, labels):
    return pickle.dumps({"data": images, "labels": labels.tolist(), "filenames": ["a"]}, 2)


def python3_bytes_dump(images, labels):
    return pickle.dumps({b"data": images, b"labels": labels.tolist()}, 4)


def assert_is_cifar(folder):
    train_images, train_labels, test_images, test_labels = read_cifar10(folder)
    parts = [batch(number) for number in range(6)]
    assert train_images.shape == (5 * RECORDS, 3, 32, 32)
    assert train_images.dtype == test_images.dtype == torch.uint8
    assert train_labels.tolist() == [int(label) for part in parts[:5] for label in part[1]]
    assert test_labels.tolist() == parts[5][1].tolist()
    for image, record in zip(test_images, parts[5][0], strict=True):
        # a record is 1024 red, 1024 green, 1024 blue values, rows first
        assert image[1, 2, 3] == record[1024 + 2 * 32 + 3]
        assert image.flatten().tolist() == record.tolist()
    assert train_images[-1].flatten().tolist() == parts[4][0][-1].tolist()


def test_binary(tmp_path):
    make_binary(tmp_path)
    assert_is_cifar(tmp_path)
    assert_is_cifar(tmp_path / "cifar-10-batches-bin")


@pytest.mark.parametrize("dump", [python2_pickle, python3_dump, python3_bytes_dump])
def test_pickled(tmp_path, dump):
    make_pickled(tmp_path, dump)
    assert_is_cifar(tmp_path)


def test_the_handmade_pickle_is_what_python_reads():
    """Hold `python2_pickle` to numpy's own loader."""
    images, labels = batch(0)
    read = pickle.loads(python2_pickle(images, labels), encoding="bytes")
    assert np.array_equal(read[b"data"], images)
    assert read[b"labels"] == labels.tolist()


def broken(folder, word, code="E502"):
    with pytest.raises(DataError, match=word) as caught:
        read_cifar10(folder)
    assert caught.value.code == code
    assert "\n" not in caught.value.one_line()


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Evil(os.system, "touch evil")),
        pickle.dumps({"data": Evil(open, "evil", "w"), "labels": []}),
        pickle.dumps(Evil(eval, "open('evil', 'w')")),
        b'cnumpy.testing._private.utils\nrunstring\n(S\'open("evil", "w")\'\n}tR.',
        b"c_codecs\ndecode\n(Vaa\nVhex\ntR.",
        b"c_codecs\nencode\n(Vaa\nVhex\ntR.",
    ],
)
def test_a_pickle_that_would_run_something(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    folder = make_pickled(tmp_path, python3_dump)
    (folder / "data_batch_3").write_bytes(content)
    broken(tmp_path, "data_batch_3 cannot be read: .* refused")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (bytes(10 * RECORDS * 3072), "too many"),
        (b"<html></html>", "an HTML page"),
        (pickle.dumps([1, 2]), "a dictionary"),
        (pickle.dumps({}), "array of pixels"),
        (pickle.dumps({"data": b"abc", "labels": []}), "array of pixels"),
        (python3_dump(np.zeros((RECORDS, 3072), np.uint16), np.zeros(RECORDS)), "of bytes"),
        (python3_dump(np.zeros((2, 3072), np.uint8), np.zeros(2)), "of bytes"),
        (python3_dump(np.zeros((RECORDS, 3072), np.uint8), np.zeros(2, int)), "6 labels"),
        (python3_dump(np.zeros((RECORDS, 3072), np.uint8), np.full(RECORDS, 999)), "no small"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo number"),
        (pickle.dumps({"data": np.array([object()])}), "refused"),
    ],
)
def test_a_pickle_that_is_not_cifar(tmp_path, content, word):
    folder = make_pickled(tmp_path, python3_dump)
    (folder / "test_batch").write_bytes(content)
    broken(tmp_path, word)


def test_every_cut_of_a_pickle_is_found(tmp_path):
    whole = python2_pickle(*batch(0))
    folder = make_pickled(tmp_path, python3_dump)
    for length in [*range(200), *range(200, len(whole), 997), len(whole) - 1]:
        (folder / "data_batch_1").write_bytes(whole[:length])
        broken(tmp_path, "data_batch_1 cannot be read")


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:3073]])
def test_a_binary_of_the_wrong_length(tmp_path, change):
    path = make_binary(tmp_path) / "data_batch_2.bin"
    path.write_bytes(change(path.read_bytes()))
    broken(tmp_path, r"data_batch_2.bin .* bytes, expected 18,438")


@pytest.mark.parametrize("kind", ["binary", "pickled"])
def test_a_label_out_of_range(tmp_path, kind):
    if kind == "binary":
        path = make_binary(tmp_path) / "test_batch.bin"
        path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    else:
        path = make_pickled(tmp_path, python3_dump) / "test_batch"
        path.write_bytes(python3_dump(batch(0)[0], np.full(RECORDS, 10)))
    broken(tmp_path, "the label 10", "E506")


def test_a_missing_file(tmp_path):
    (make_binary(tmp_path) / "data_batch_4.bin").unlink()
    broken(tmp_path, "does not hold CIFAR-10", "E501")


def test_the_stand_ins_know_the_byte_order_of_arrays(tmp_path):
    images, labels = batch(0)
    folder = make_pickled(tmp_path, python3_dump)
    (folder / "test_batch").write_bytes(python3_dump(np.asfortranarray(images), labels))
    assert np.array_equal(read_cifar10(tmp_path)[2].reshape(RECORDS, -1).numpy(), images)
