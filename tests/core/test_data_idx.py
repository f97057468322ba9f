"""The idx reader against bytes made by hand."""

import gzip
import struct
import tracemalloc

import pytest
import torch

from dltool.data.idx import read_idx
from dltool.errors import DataError

PIXELS = bytes(range(24))
GOOD = b"\0\0\x08\x03" + struct.pack(">3I", 2, 3, 4) + PIXELS


def written(tmp_path, content, name="file-idx3-ubyte"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def damage(path, word, code="E502"):
    with pytest.raises(DataError, match=word) as caught:
        read_idx(path)
    assert caught.value.code == code
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.one_line()


@pytest.mark.parametrize("name", ["a", "a.gz"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_bytes_become_a_tensor_whatever_the_name(tmp_path, name, pack):
    read = read_idx(written(tmp_path, pack(GOOD), name))
    assert read.dtype == torch.uint8
    assert read.tolist() == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        [[12, 13, 14, 15], [16, 17, 18, 19], [20, 21, 22, 23]],
    ]


def test_labels_have_one_dimension(tmp_path):
    content = b"\0\0\x08\x01" + struct.pack(">I", 3) + b"\x07\x02\xff"
    assert read_idx(written(tmp_path, content)).tolist() == [7, 2, 255]


def test_many_items_in_several_pieces(tmp_path):
    size = (1 << 20) * 2 + 5
    body = bytes(index % 251 for index in range(size))
    content = b"\0\0\x08\x01" + struct.pack(">I", size) + body
    for packed in (content, gzip.compress(content, 1, mtime=0)):
        assert read_idx(written(tmp_path, packed)).numpy().tobytes() == body


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", r"empty \(0 bytes\)"),
        (bytes(1000), "nothing but zero bytes"),
        (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS pointer"),
        (b"label,pixel0,pixel1\n1,2,3\n", "text"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x80", "no idx file"),
        (b"\0\0\x0d\x01" + struct.pack(">If", 1, 1.0), "holds float32, expected uint8"),
        (b"\0\0\x77\x01" + struct.pack(">I", 1), "unknown type 0x77"),
        (b"\0\0\x08\x00", "0 dimensions"),
        (b"\0\0\x08\x09" + bytes(100), "9 dimensions"),
        (GOOD[:9], "cut off within its header"),
        (GOOD[:20], "cut off: 20 bytes in place of 40"),
        (GOOD + b"x", "too long: 41 bytes in place of 40"),
        (b"\0\0\x08\x01" + struct.pack(">I", 0), "0 bytes"),
        (b"\0\0\x08\x04" + struct.pack(">4I", *[0xFFFFFFFF] * 4), "its header states"),
    ],
)
def test_damage_is_named(tmp_path, content, word):
    damage(written(tmp_path, content), word)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gzip.compress(GOOD, mtime=0)[:-12], "cut off"),
        (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "CRC"),
        (gzip.compress(GOOD, mtime=0) + b"tail", "damaged"),
        (gzip.compress(GOOD[:30], mtime=0), "cut off after 14 of 24 bytes"),
        (gzip.compress(GOOD + b"x", mtime=0), "goes on after the 24 bytes"),
        (gzip.compress(b"<html>no</html>", mtime=0), "an HTML page"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\x1f\x8b" + bytes(40), "damaged"),
        (b"\x05\x06\x07\xfe", "neither gzip nor idx"),
    ],
)
def test_damage_inside_gzip_is_named(tmp_path, content, word):
    damage(written(tmp_path, content, "file.gz"), word)


def test_every_cut_is_found(tmp_path):
    for whole in (GOOD, gzip.compress(GOOD, mtime=0)):
        for length in range(len(whole)):
            damage(written(tmp_path, whole[:length]), "cannot be read")


def test_a_bomb_takes_no_memory(tmp_path):
    head = b"\0\0\x08\x01" + struct.pack(">I", 1000)
    bomb = written(tmp_path, gzip.compress(head + bytes(64 << 20), mtime=0))
    promise = written(
        tmp_path, gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 4 << 28), mtime=0), "promise"
    )
    tracemalloc.start()
    damage(bomb, "goes on after the 1,000 bytes")
    damage(promise, "more than it can hold")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_path_that_is_no_file(tmp_path):
    damage(tmp_path / "nothing", "does not exist", "E501")
    damage(tmp_path, "is a folder", "E501")
