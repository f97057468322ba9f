"""Foreign weights: found, renamed, checked; what needs code is refused."""

import collections
import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dltool import checkpoint, convert
from dltool.errors import CheckpointError, ConfigError, DltoolError


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def prefixed(state, prefix):
    return collections.OrderedDict((prefix + name, value) for name, value in state.items())


def stored(path, content, *, legacy=False):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("wrap", "key", "stripped"),
    [
        (lambda state: state, "", []),
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict", []),
        (lambda state: {"model": prefixed(state, "module.")}, "model", ["module."]),
        (
            lambda state: {"net": prefixed(state, "module._orig_mod.")},
            "net",
            ["module.", "_orig_mod."],
        ),
        (
            lambda state: {
                "pytorch-lightning_version": "2.5",
                "state_dict": prefixed(state, "model."),
                "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
            },
            "state_dict",
            ["model."],
        ),
        (lambda state: {"model": {"state_dict": state}}, "model.state_dict", []),
    ],
)
def test_weights_are_found_wherever_trainers_put_them(tmp_path, wrap, key, stripped, legacy):
    state = network().state_dict()
    mapped = convert.load_foreign(stored(tmp_path / "w.pth", wrap(state), legacy=legacy))
    assert mapped.key == key
    assert mapped.stripped == stripped
    assert mapped.tensors.keys() == state.keys()
    assert all(torch.equal(mapped.tensors[name], value) for name, value in state.items())


def test_other_weights_in_the_file_are_named_and_can_be_chosen(tmp_path):
    state = network().state_dict()
    averaged = {name: value * 0 for name, value in state.items()}
    path = stored(tmp_path / "w.pt", {"model": state, "ema": averaged})
    assert convert.load_foreign(path).other_keys == ["ema"]
    chosen = convert.load_foreign(path, key="ema").tensors
    assert all(not value.any() for value in chosen.values())
    with pytest.raises(CheckpointError, match=r"no weights under 'emma'.*model, ema"):
        convert.load_foreign(path, key="emma")


def test_what_is_no_tensor_is_left_out_and_named(tmp_path):
    path = stored(tmp_path / "w.pt", {"weight": torch.ones(2), "version": 3, "note": "text"})
    assert convert.load_foreign(path).left_out == ["version", "note"]


def test_names_are_replaced_as_asked(tmp_path):
    path = stored(tmp_path / "w.pt", {"backbone.fc.gamma": torch.ones(1), "fc.beta": torch.ones(1)})
    mapped = convert.load_foreign(
        path, strip_prefix="backbone.", rename=[("gamma", "weight"), ("^fc", "head")]
    )
    assert mapped.names == {"head.weight": "backbone.fc.gamma", "head.beta": "fc.beta"}
    for options in ({"strip_prefix": "x."}, {"rename": [("^gamma", "y")]}):
        with pytest.raises(ConfigError, match="no name"):
            convert.load_foreign(path, **options)
    with pytest.raises(ConfigError, match="would both become"):
        convert.load_foreign(path, rename=[("backbone.fc.gamma", "a"), ("fc.beta", "a")])


def test_a_prefix_that_the_target_has_stays(tmp_path):
    path = stored(tmp_path / "w.pt", {"module.model.a": torch.ones(2)})
    mapped = convert.load_foreign(path, target={"model.a": (2,)})
    assert list(mapped.tensors) == ["model.a"]
    assert list(convert.load_foreign(path).tensors) == ["a"]


def test_the_fit_lists_every_difference():
    have = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    fit = convert.compare(have, {"a": (2,), "b": (4,), "d": (1,)})
    assert (fit.missing, fit.extra, fit.shapes) == (["d"], ["c"], ["b (3,) for (4,)"])
    assert not fit.is_exact
    assert convert.compare(have, {"a": (2,), "b": (3,), "c": (1,)}).is_exact


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("content", "name"),
    [(Evil(), "system"), ({"state_dict": {"a": Evil()}}, "system"), (nn.Linear(1, 1), "Linear")],
)
def test_a_pickle_that_needs_code_is_refused_by_name(tmp_path, monkeypatch, content, name, legacy):
    monkeypatch.chdir(tmp_path)
    path = stored(tmp_path / "w.pt", content, legacy=legacy)
    with pytest.raises(CheckpointError, match=f"needs code.*{name}") as caught:
        convert.load_foreign(path)
    assert caught.value.exit_code == 5
    assert not (tmp_path / "evil").exists()


def test_a_torchscript_program_is_named(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"")
        archive.writestr("w/code/__torch__.py", b"")
    with pytest.raises(CheckpointError, match="TorchScript"):
        convert.load_foreign(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS"),
        (b"<html>not found</html>", "HTML"),
        (b"\x80\x02nonsense", "damaged"),
        (b"PK\x03\x04nonsense", "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, content, words):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        convert.load_foreign(tmp_path / "w.pt")


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data/0", bytes(64 << 20))
    with pytest.raises(CheckpointError, match="a bomb"):
        convert.load_foreign(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(3)])
def test_a_file_without_weights_says_what_it_holds(tmp_path, content):
    with pytest.raises(CheckpointError, match=r"no state dict|no weights"):
        convert.load_foreign(stored(tmp_path / "w.pt", content))


def test_what_is_written_is_read_by_safetensors_and_by_us(tmp_path):
    state = network().state_dict()
    path = stored(tmp_path / "w.pt", state)
    mapped = convert.load_foreign(path)
    convert.write(mapped, path, tmp_path / "new" / "w.safetensors")
    theirs = load_file(tmp_path / "new" / "w.safetensors")
    assert all(torch.equal(theirs[name], value) for name, value in state.items())
    convert.write(mapped, path, tmp_path / "folder")
    ours = checkpoint.load(tmp_path / "folder")
    assert ours.model.keys() == state.keys()
    assert ours.state["source"] == "w.pt"
    with pytest.raises(DltoolError, match="exists already"):
        convert.write(mapped, path, tmp_path / "folder")
    again = convert.load_foreign(tmp_path / "new" / "w.safetensors")
    assert again.names == {name: name for name in state}


def command_data(folder):
    state = network().state_dict()
    torch.save({"state_dict": prefixed(state, "module."), "epoch": 4}, folder / "w.th")
    save_file(state, folder / "target.safetensors")
    bad = {**state, "0.weight": torch.ones(5, 3)}
    save_file(bad, folder / "other.safetensors")


def test_convert_as_a_command(dltool, work):
    command_data(work)
    done = dltool(
        "checkpoint", "convert", "w.th", "out", "--like", "target.safetensors", "--report"
    )
    assert "module.0.weight" in done.out
    assert "fit target.safetensors" in done.out
    assert dltool("checkpoint", "verify", "out").out.startswith("ok")
    done = dltool("checkpoint", "convert", "w.th", "x", "--like", "other.safetensors", code=5)
    assert "1 of another shape: 0.weight (4, 3) for (5, 3)" in done.err
    assert not (work / "x").exists()
    report = dltool("checkpoint", "convert", "w.th", "w.safetensors", "--json").json()
    assert report["data"]["stripped"] == ["module."]
    assert {"name": "0.bias", "from": "module.0.bias", "shape": [4]} in report["data"]["mapping"]
    dltool("checkpoint", "convert", "w.th", "w.safetensors", code=1)
    dltool("checkpoint", "convert", "w.th", "y", "--rename", "a", code=2)
