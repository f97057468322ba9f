"""`--dry-run`: what works is told with a forecast, what would not begin is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dltool import files, rehearsal, runs, training
from dltool.console import Console
from dltool.errors import DltoolError, Stopped


class Rows:
    """Three batches of eight rows."""

    def __len__(self):
        return 3

    def batches(self, epoch, start=0):
        for number in range(start, 3):
            yield torch.randn(8, 4, generator=torch.Generator().manual_seed(number))


@pytest.fixture
def console(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Console("t", json=True, dry_run=str(tmp_path / "runs" / "t"))


def rehearsed(console, tmp_path, **settings):
    run = runs.Run(tmp_path / "run", "t")
    run.folder.mkdir()
    files.write_json_atomic(run.folder / "run.json", {"id": "a", "status": "running"})
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    told = training.Settings(torch.device("cpu"), monitor="val_loss", **settings)
    steps = 0
    with training.session(run, model, optimizer, told, console=console) as session:
        for _ in session.epochs(5):
            for x in session.batches(Rows()):
                with session.attempt():
                    session.step(model(x).square().mean(), count=len(x))
                steps += 1
            session.report({"val_loss": 1.0})
    return steps


def told(capsys):
    import json

    return json.loads(capsys.readouterr().out)["data"]


def test_the_forecast_counts_steps_and_bytes_as_the_run_would_have_them(console, tmp_path, capsys):
    with pytest.raises(Stopped):
        rehearsed(console, tmp_path, accumulate=2, keep=3)
    found = told(capsys)
    assert found["steps"] == 5 * 2  # three batches are two groups of two
    assert found["epochs"] == 5
    assert found["parameters"] == 10
    assert found["loss"] > 0
    assert found["training_seconds"] == pytest.approx(
        10 * found["step_seconds"], rel=0.01, abs=1e-3
    )
    assert found["memory_bytes"] > 10e6
    weights, moments, counts = 10 * 4, 2 * 10 * 4, 2 * 4  # AdamW keeps a step for each tensor
    generators = found["disk_bytes"] - 4 * (weights + moments + counts) - 2 * weights
    assert 0 < generators < 4 * 30_000
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("accumulate", [1, 3, 4])
def test_it_ends_also_where_an_epoch_is_one_step_or_less(accumulate, console, tmp_path, capsys):
    with pytest.raises(Stopped):
        rehearsed(console, tmp_path, accumulate=accumulate)
    assert told(capsys)["steps"] == 5 * -(-3 // accumulate)


def test_what_the_disk_cannot_hold_is_refused(console, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "free_bytes", lambda place: 10)
    with pytest.raises(DltoolError, match="too little space") as caught:
        rehearsed(console, tmp_path)
    assert caught.value.code == "E101"


def test_without_a_dry_run_nothing_is_watched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rehearsed(Console("t"), tmp_path) == 15
    rehearsal.one_step(Console("t"), 1.0)


def test_every_training_can_be_rehearsed(dltool, work):
    shown = dltool("mlp-xor", "train", "--task", "circles", "--dry-run", "--json").json()["data"]
    assert shown["dry_run"] is True
    assert shown["steps"] > 0
    closed = dltool("linreg", "train", "--dry-run")
    assert "first step works on cpu" in closed.out
    assert "next: dltool linreg train\n" in closed.err
    (work / "taken").mkdir()
    (work / "taken" / "file").write_text("mine")
    dltool("mlp-xor", "train", "--dry-run", "--out", "taken", code=2)
    dltool("mlp-xor", "train", "--dry-run", "--resume", "latest", code=2)
    assert sorted(path.name for path in work.iterdir()) == ["taken"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["cnn", "train"],
        ["detect", "train", "--data", "shapes"],
        ["seq2seq", "train", "--samples", "2000"],
        ["word2vec", "train"],
        ["word2vec", "train", "--engine", "torch"],
        ["bert-finetune", "train"],
        ["bert-finetune", "pretrain"],
    ],
    ids=" ".join,
)
def test_the_trainings_of_all_topics_can_be_rehearsed(words, dltool, work):
    shown = dltool(*words, "--dry-run", "--json").json()["data"]
    assert shown["dry_run"] is True
    assert shown["training_seconds"] > 0
    assert list(work.iterdir()) == []
