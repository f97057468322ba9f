"""The tensor files: every type and layout, read back by safetensors' own reader."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dltool import checkpoint, files, headers, tensors

NAMES = sorted(tensors.NAMES)


def equal_bits(left, right):
    same_kind = left.dtype == right.dtype and left.shape == right.shape
    raw = [value.contiguous().reshape(-1).view(torch.uint8) for value in (left, right)]
    return same_kind and torch.equal(*raw)


def made(dtype):
    raw = torch.arange(1, 97, dtype=torch.uint8)
    if dtype is torch.bool:
        return raw.reshape(8, 12) % 3 == 0
    return raw.view(dtype).reshape(2, -1)


@pytest.mark.parametrize("name", NAMES)
def test_every_type_is_read_by_safetensors_bit_for_bit(tmp_path, name):
    value = made(getattr(torch, name))
    stored = {"a": value, "empty": value[:0], "zero": value.reshape(-1)[0]}
    entry = tensors.write(tmp_path / "f", stored)
    found = load_file(tmp_path / "f")
    assert all(equal_bits(found[key], stored[key]) for key in stored)
    assert entry == {
        "bytes": (tmp_path / "f").stat().st_size,
        "sha256": files.sha256(tmp_path / "f"),
    }
    shapes = {item.name: (item.dtype, item.shape) for item in headers.read(tmp_path / "f")}
    assert shapes["a"] == (tensors.NAMES[name], tuple(value.shape))


LAYOUTS = {
    "transposed": lambda: torch.arange(12.0).reshape(3, 4).T,
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "every second": lambda: torch.arange(20.0)[::2],
    "expanded": lambda: torch.ones(1, 3).expand(4, 3),
    "part of a larger one": lambda: torch.arange(1000.0)[10:20],
    "conjugate": lambda: torch.randn(5, dtype=torch.complex64).conj(),
    "negative view": lambda: torch.randn(5, dtype=torch.complex64).conj().imag,
    "needs a gradient": lambda: torch.ones(3, requires_grad=True),
    "larger than a piece": lambda: torch.arange(3 << 20, dtype=torch.float32),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_written_in_row_order(tmp_path, layout):
    value = LAYOUTS[layout]()
    tensors.write(tmp_path / "f", {"a": value, "b": torch.ones(1)})
    found = load_file(tmp_path / "f")["a"]
    assert equal_bits(found, value.detach().resolve_conj().resolve_neg())
    assert (tmp_path / "f").stat().st_size < value.numel() * value.element_size() + 300


def test_the_header_is_laid_out_as_safetensors_lays_it_out(tmp_path):
    stored = {
        "z": torch.ones(3, dtype=torch.float64),
        "b": torch.ones(3, dtype=torch.uint8),
        "a": torch.ones(5),
        "schön": torch.ones(2),
    }
    save_file(stored, tmp_path / "theirs", {"format": "pt"})
    tensors.write(tmp_path / "ours", stored)
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("ours", "theirs"))
    sizes = [struct.unpack("<Q", data[:8])[0] for data in (ours, theirs)]
    assert sizes[0] % 8 == 0
    documents = [
        json.loads(data[8 : 8 + size]) for data, size in zip((ours, theirs), sizes, strict=True)
    ]
    assert documents[0] == documents[1]
    assert ours[8 + sizes[0] :] == theirs[8 + sizes[1] :]
    with safe_open(tmp_path / "ours", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_a_type_without_a_name_is_refused(tmp_path):
    with pytest.raises(TypeError, match="complex128"):
        tensors.write(tmp_path / "f", {"a": torch.ones(1, dtype=torch.complex128)})


def test_no_second_copy_of_the_model_is_made(tmp_path, monkeypatch):
    value = torch.ones(1 << 20)
    given = []
    monkeypatch.setattr(files, "write_hashed", lambda path, pieces: given.extend(pieces))
    tensors.write(tmp_path / "f", {"a": value})
    value.fill_(2.0)
    assert bytes(given[1][:4]) == struct.pack("<f", 2.0)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e5m2"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_found_in_every_type(dtype, bad):
    values = torch.ones(7).to(getattr(torch, dtype))
    assert tensors.non_finite({"a": values}) == []
    values[3] = bad
    assert tensors.non_finite({"good": torch.ones(2), "a": values}) == ["a"]


def test_large_numbers_and_empty_tensors_are_finite():
    largest = torch.finfo(torch.float32).max
    stored = {
        "both": torch.tensor([largest, -largest]),
        "half": torch.full((1000,), 65504, dtype=torch.float16),
        "double": torch.tensor([1.7e308, -1.7e308], dtype=torch.float64),
        "empty": torch.ones(0),
        "whole": torch.arange(3),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    assert tensors.non_finite(stored) == []


def test_names_that_meet_after_flattening_stay_apart(tmp_path):
    tree = {1: torch.ones(1), "1": torch.ones(2), "a.b": torch.ones(3), "a": {"b": torch.ones(4)}}
    checkpoint.save(tmp_path / "c", {"w": torch.ones(1)}, {"p": tree}, {})
    found = checkpoint.load(tmp_path / "c").parts["p"]
    assert [len(found[key]) for key in (1, "1", "a.b")] == [1, 2, 3]
    assert len(found["a"]["b"]) == 4
