"""`dltool checkpoint` info, verify, diff and prune, as processes and on damaged folders."""

import json

import pytest
import torch
from torch import nn

from dltool import checkpoint, differences, files, runs


def save(folder, value=1.0, **state):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight[0, 0] = value
    checkpoint.save(folder, model, {"optimizer": {"lr": 0.1, "m": torch.ones(2)}}, state)


def make_run(folder, steps=(10, 20, 30, 40)):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"format": 1, "topic": "t"}')
    for step in steps:
        save(folder / "checkpoints" / f"step-{step:08d}", float(step), step=step)
    save(folder / "checkpoints" / "best", 7.0)
    return folder


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_info_shows_sizes_and_statistics(dltool, work):
    save(work / "c", value=100.0, step=3)
    done = dltool("checkpoint", "info", "c", "--json").json()
    (found,) = done["data"]["checkpoints"]
    assert found["values"] == 8
    assert found["files"].keys() == {path.name for path in (work / "c").iterdir()}
    assert found["bytes"] == sum(path.stat().st_size for path in (work / "c").iterdir())
    found = dltool("checkpoint", "info", "c", "--stats", "--json").json()
    (weight,) = [p for p in found["data"]["checkpoints"][0]["parameters"] if p["name"] == "weight"]
    assert weight["max"] == 100.0
    assert weight["bytes"] == 24
    assert weight["non_finite"] == 0
    assert "non_finite" in dltool("checkpoint", "info", "c", "--stats").out


def test_statistics_count_what_is_not_finite():
    values = torch.tensor([1.0, 3.0, torch.nan, torch.inf])
    found = differences.statistics(values)
    assert found == {"min": 1.0, "max": 3.0, "mean": 2.0, "std": 1.0, "non_finite": 2}
    assert differences.statistics(torch.tensor([], dtype=torch.int64))["min"] is None
    assert differences.statistics(torch.tensor([True, False]))["mean"] == 0.5


def test_diff_as_a_command(dltool, work):
    save(work / "a", value=1.0, step=1)
    save(work / "b", value=1.5, step=2)
    assert "equal" in dltool("checkpoint", "diff", "a", "a").out
    done = dltool("checkpoint", "diff", "a", "b", code=6)
    assert "weight: values, 1 of 6 differ, by 0.5 at most (0.333 relative)" in done.out
    assert "state.step: 1 and 2" in done.out
    found = dltool("checkpoint", "diff", "a", "b", "--json", code=6).json()["data"]
    assert found["equal"] is False
    assert found["tensors"][0]["max_absolute"] == 0.5
    assert found["values"] == [{"value": "state.step", "a": 1, "b": 2}]
    dltool("checkpoint", "diff", "a", "nothing", code=5)


def test_diff_of_tensors_names_every_kind():
    one = {
        "a": torch.ones(2),
        "b": torch.ones(2),
        "c": torch.ones(2),
        "n": torch.tensor([torch.nan]),
    }
    two = {"b": torch.ones(3), "c": torch.ones(2).double(), "n": one["n"], "d": torch.ones(1)}
    found = {item["tensor"]: item["kind"] for item in differences.diff_tensors(one, two)}
    assert found == {"a": "only in A", "b": "shape", "c": "dtype", "d": "only in B"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.int32, torch.bool])
def test_diff_measures_every_type(dtype):
    one, two = torch.tensor([0, 1, 1]).to(dtype), torch.tensor([0, 1, 0]).to(dtype)
    (found,) = differences.diff_tensors({"a": one}, {"a": two})
    assert (found["different"], found["max_absolute"]) == (1, 1.0)


def test_signed_zeros_and_nan_differ_in_bits_only():
    (found,) = differences.diff_tensors({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])})
    assert (found["kind"], found["different"], found["max_absolute"]) == ("values", 0, 0.0)
    (found,) = differences.diff_tensors(
        {"a": torch.tensor([0.0])}, {"a": torch.tensor([torch.nan])}
    )
    assert found["max_absolute"] is None


def test_prune_keeps_the_newest_and_the_best(dltool, work):
    run = make_run(work / "run")
    (run / "checkpoints" / "step-mine").mkdir()
    (run / "checkpoints" / "step-00000005").symlink_to("best")
    dltool("checkpoint", "prune", "run", "--keep", "2", code=2)
    dltool("checkpoint", "prune", "run", "--keep", "0", "--yes", code=2)
    assert len(names(run)) == 7
    done = dltool("checkpoint", "prune", "run", "--keep", "2", "--yes", "--json").json()
    assert done["data"]["removed"] == ["step-00000020", "step-00000010"]
    kept = ["best", "step-00000005", "step-00000030", "step-00000040", "step-mine"]
    assert names(run) == kept
    assert dltool("checkpoint", "prune", "run", "--keep", "2", "--yes").out.startswith("removed 0")
    dltool("checkpoint", "prune", "run/checkpoints", "--keep", "1", "--yes", code=5)


def test_prune_counts_only_what_verifies(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "checkpoints" / "step-00000040" / "model.safetensors").write_bytes(b"")
    old, notes = checkpoint.superfluous(run / "checkpoints", 1)
    assert [path.name for path in old] == ["step-00000020", "step-00000010"]
    assert "step-00000040" in notes[0]
    for path in checkpoint.steps(run / "checkpoints"):
        (path / "MANIFEST.json").unlink()
    assert checkpoint.superfluous(run / "checkpoints", 1)[0] == []


def test_prune_leaves_the_checkpoints_of_another_run(dltool, work):
    run = make_run(work / "run")
    (run / "run.json").write_text('{"format": 1, "topic": "t", "id": "mine"}')
    save(run / "checkpoints" / "step-00000015", 1.0, step=15, run="theirs")
    save(run / "checkpoints" / "step-00000016", 1.0, step=16, run="mine")
    done = dltool("checkpoint", "prune", "run", "--keep", "1", "--yes")
    assert "step-00000015 is left alone" in done.err
    assert names(run) == ["best", "step-00000015", "step-00000040"]


def test_prune_waits_for_nobody(dltool, work):
    run = make_run(work / "run")
    with runs.locked(run):
        dltool("checkpoint", "prune", "run", "--keep", "1", "--yes", code=2)
    assert len(names(run)) == 5


def test_discard_takes_the_name_away_first(tmp_path, monkeypatch):
    save(tmp_path / "c")
    monkeypatch.setattr("dltool.files.shutil.rmtree", lambda *_, **__: None)
    files.discard(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_verify_of_a_single_file_reads_its_header(dltool, work):
    save(work / "c")
    path = work / "c" / "model.safetensors"
    dltool("checkpoint", "verify", path)
    path.write_bytes(path.read_bytes()[:-1])
    dltool("checkpoint", "verify", path, code=6)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1e999', "[]", "\x00"])
def test_damaged_documents_are_errors_of_ours(dltool, work, text):
    save(work / "c")
    (work / "c" / "state.json").write_text(text)
    assert "state.json" in dltool("checkpoint", "info", "c", code=5).err
    assert json.loads(dltool("checkpoint", "info", "c", "--json", code=5).out)["error"]
