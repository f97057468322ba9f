"""Stopped at random steps and resumed, every optimizer ends bit for bit where it would have."""

import random

import pytest
import torch
from torch import nn

from dltool import checkpoint, files, optim, runs, training
from dltool.console import Console
from dltool.device import generator

EPOCHS, BATCHES = 3, 7
SETTINGS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01},
    "Adagrad": {"lr": 0.05},
    "Adadelta": {},
    "Adamax": {"lr": 0.01},
    "NAdam": {"lr": 0.01},
    "RAdam": {"lr": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "Rprop": {"lr": 0.01},
    "ASGD": {"lr": 0.05, "t0": 5},
    "Adafactor": {"lr": 0.05},
    "Muon": {"lr": 0.05},
}


class Killed(BaseException):
    """The end of a process that cannot say goodbye."""


class Points:
    """Seven batches an epoch, shuffled by (seed, epoch), with noise by the same."""

    def __len__(self):
        return BATCHES

    def batches(self, epoch, start=0):
        order = torch.randperm(BATCHES, generator=generator(1, epoch))
        for index in order[start:].tolist():
            yield torch.randn(6, 5, generator=generator(1, epoch, index)), index


def train(folder, name, *, kill_at=0, resume=False):
    if not resume:
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"format": 1, "topic": "t", "status": "running"}')
    files.sweep_temporaries(folder)
    torch.manual_seed(99 if resume else 3)
    # Muon takes matrices only
    model = nn.Sequential(
        nn.Linear(5, 8, bias=False), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2, bias=False)
    )
    optimizer = getattr(torch.optim, name)(model.parameters(), **SETTINGS[name])
    scheduler = optim.schedule(optimizer, "one-cycle", EPOCHS * BATCHES)
    settings = training.Settings(
        device=torch.device("cpu"), monitor="val_loss", save_every=0.0, precision="bf16"
    )
    with training.session(
        runs.Run(folder, "t"),
        model,
        optimizer,
        settings,
        scheduler=scheduler,
        console=Console("t"),
        resume=resume,
    ) as session:
        for _ in session.epochs(EPOCHS):
            for points, index in session.batches(Points()):
                with session.autocast():
                    loss = (model(points) - index).square().mean()
                session.step(loss, count=6)
                if session.global_step == kill_at:
                    raise Killed
            session.report({"val_loss": float(loss)})
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_resume_at_random_steps_is_exact(tmp_path, scale, tally, name):
    if not hasattr(torch.optim, name):
        pytest.skip(f"this torch has no {name}")
    whole = train(tmp_path / "whole", name)
    draws = random.Random(name)
    steps = draws.sample(range(2, EPOCHS * BATCHES + 1), scale(2, 15))
    for step in steps:
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            train(folder, name, kill_at=step)
        resumed = train(folder, name, resume=True)
        assert all(resumed[key].equal(whole[key]) for key in whole), f"killed at step {step}"
    found, _ = checkpoint.newest(tmp_path / str(steps[0]) / "checkpoints")
    assert found.state["step"] == EPOCHS * BATCHES
    tally(f"resume at random steps with {name}, bit for bit", len(steps), different=0)
