"""Checkpoints: what goes in comes out, and damage is always found and named."""

import json
import math

import pytest
import torch
from torch import nn

from dltool import checkpoint
from dltool.errors import CheckpointError, Diverged


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight


def saved(folder, **state):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    checkpoint.save(folder, model, {"optimizer": {"lr": 0.1}}, state)
    return model


def trained_optimizer(kind):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = kind(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(4, 3)).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return optimizer


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.dtype == right.dtype
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


OPTIMIZERS = ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "LBFGS", "NAdam", "Rprop", "ASGD"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_comes_back_exactly(tmp_path, name):
    def kind(parameters):
        return getattr(torch.optim, name)(parameters, lr=0.01)

    optimizer = trained_optimizer(kind)
    state = optimizer.state_dict()
    checkpoint.save(tmp_path / "c", nn.Linear(1, 1), {"optimizer": state}, {})
    assert same(checkpoint.load(tmp_path / "c").parts["optimizer"], state)


def test_model_state_and_plain_values_come_back(tmp_path):
    model = saved(tmp_path / "c", epoch=3, value=0.1)
    found = checkpoint.load(tmp_path / "c")
    assert same(found.model, dict(model.state_dict()))
    assert found.state == {"epoch": 3, "value": 0.1}


def test_tied_weights_are_stored_once_and_come_back_under_both_names(tmp_path):
    model = Tied()
    checkpoint.save(tmp_path / "c", model, {}, {})
    assert (tmp_path / "c" / "model.safetensors").stat().st_size < 2 * 64 + 200
    tensors = checkpoint.load(tmp_path / "c").model
    assert torch.equal(tensors["second.weight"], model.first.weight)


def test_compiled_and_wrapped_names_are_plain(tmp_path):
    model = nn.Linear(2, 2)
    compiled = torch.compile(model)
    checkpoint.save(tmp_path / "c", compiled, {}, {})
    assert set(checkpoint.load(tmp_path / "c").model) == {"weight", "bias"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinite_numbers_in_state_survive(value):
    tensors = {}
    tree = {"a": [value, (1, None)], 2: True}
    text = json.loads(json.dumps(checkpoint.flatten(tree, tensors), allow_nan=False))
    assert same(checkpoint.unflatten(text, tensors), tree)


def test_non_finite_weight_is_never_written(tmp_path):
    model = nn.Linear(2, 2)
    saved_before = tmp_path / "c"
    checkpoint.save(saved_before, model, {}, {})
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    with pytest.raises(Diverged) as caught:
        checkpoint.save(saved_before, model, {}, {})
    assert "weight" in caught.value.message
    assert checkpoint.load(saved_before).model["weight"].isfinite().all()


def test_large_finite_weights_are_not_called_infinite():
    checkpoint.refuse_non_finite({"w": torch.full((10,), 3e38)})
    checkpoint.refuse_non_finite({"w": torch.full((10,), 1.7e308, dtype=torch.float64)})


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_every_flipped_byte_is_found_and_the_file_named(tmp_path, name):
    saved(tmp_path / "c")
    path = tmp_path / "c" / name
    content = path.read_bytes()
    for offset in range(0, len(content), max(1, len(content) // 25)):
        damaged = bytearray(content)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(tmp_path / "c")
        assert name in caught.value.message
        assert caught.value.exit_code == 5
    path.write_bytes(content)
    checkpoint.verify(tmp_path / "c")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS"),
        (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        (b"\0" * 20, "cut off"),
    ],
)
def test_damage_is_named_as_what_it_is(tmp_path, content, words):
    saved(tmp_path / "c")
    (tmp_path / "c" / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(tmp_path / "c")


def test_file_swapped_from_another_checkpoint_is_found(tmp_path):
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").replace(tmp_path / "b" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checkpoint.verify(tmp_path / "b")
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.verify(tmp_path / "a")


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"format": 1, "files": {}}', "\xff"])
def test_damaged_manifest_is_an_error_of_ours(tmp_path, text):
    saved(tmp_path / "c")
    (tmp_path / "c" / "MANIFEST.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="MANIFEST"):
        checkpoint.load(tmp_path / "c")


def test_newer_format_says_so(tmp_path):
    saved(tmp_path / "c")
    path = tmp_path / "c" / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="has changed"):  # a flipped bit is no new version
        checkpoint.load(tmp_path / "c")
    text = path.read_bytes().replace(manifest["self"].encode(), checkpoint.NO_DIGEST.encode())
    path.write_bytes(checkpoint.signed(text))
    with pytest.raises(CheckpointError, match="newer"):
        checkpoint.load(tmp_path / "c")
    path.write_text('{"format": 99, "signature": "of another kind", "files": {}}')
    with pytest.raises(CheckpointError, match="newer"):
        checkpoint.load(tmp_path / "c")


def test_manifest_cannot_point_outside_its_folder(tmp_path):
    saved(tmp_path / "c")
    path = tmp_path / "c" / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    text = path.read_text().replace('"state.json"', '"../state.json"')
    text = text.replace(manifest["self"], checkpoint.NO_DIGEST)
    path.write_bytes(checkpoint.signed(text.encode()))
    (tmp_path / "c" / "state.json").rename(tmp_path / "state.json")
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.verify(tmp_path / "c")


def test_newest_falls_back_to_the_one_before_and_says_so(tmp_path):
    saved(tmp_path / "step-00000001", n=1)
    saved(tmp_path / "step-00000002", n=2)
    (tmp_path / "step-00000002" / "state.json").write_text("{")
    found, notes = checkpoint.newest(tmp_path)
    assert found.state == {"n": 1}
    assert len(notes) == 1
    assert "step-00000002" in notes[0]


def test_newest_without_any_usable_one_lists_why(tmp_path):
    saved(tmp_path / "step-00000001")
    (tmp_path / "step-00000001" / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="step-00000001"):
        checkpoint.newest(tmp_path)


def test_weights_of_another_shape_are_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"weight is \(2, 3\), expected \(5, 3\)"):
        checkpoint.load_weights(nn.Linear(3, 5), nn.Linear(3, 2).state_dict(), tmp_path)
    with pytest.raises(CheckpointError, match="left over"):
        checkpoint.load_weights(nn.Linear(3, 2, bias=False), nn.Linear(3, 2).state_dict(), tmp_path)


def test_failed_save_leaves_the_old_checkpoint_and_no_debris(tmp_path, monkeypatch):
    saved(tmp_path / "c", n=1)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dltool.files.write_synced", full)
    with pytest.raises(Exception, match="no space left"):
        saved(tmp_path / "c", n=2)
    assert checkpoint.load(tmp_path / "c").state == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_model_folder_stands_alone(tmp_path):
    model = nn.Linear(3, 2)
    checkpoint.save_model(tmp_path / "m", model, {"topic": "t", "classes": ["a", "b"]})
    tensors, description = checkpoint.load_model(tmp_path / "m")
    assert same(tensors, dict(model.state_dict()))
    assert description["classes"] == ["a", "b"]
