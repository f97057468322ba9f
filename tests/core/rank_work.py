"""What test_ranks.py looks at: trainings in one and in two processes, forked from this one.

Importing torch takes longer than all of them; so they share one import.
"""

import json
import math
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import nn

from dltool import resuming, training
from dltool import team as teams
from dltool.console import Console
from dltool.device import generator
from dltool.errors import DltoolError, Stopped

EPOCHS = 5


class Points:
    """Batches of 7 of 43 points, the last one with a single point; shuffled by (seed, epoch)."""

    def __init__(self, count=43, size=7):
        stream = generator(7, "points")
        self.x = torch.randn(count, 6, generator=stream)
        self.y = (self.x[:, 0] * self.x[:, 1] > 0).long()
        self.size = size

    def __len__(self):
        return math.ceil(len(self.x) / self.size)

    def batches(self, epoch, start=0):
        order = torch.randperm(len(self.x), generator=generator(7, epoch, "order"))
        for index in order.split(self.size)[start:]:
            yield self.x[index], self.y[index]


class Net(nn.Module):
    """A small network, with or without batch normalisation and dropout."""

    def __init__(self, *, norm, dropout):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(6, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(16, 2)

    def forward(self, x):
        return self.second(self.dropout(torch.tanh(self.norm(self.first(x)))))


class Config:
    """The settings that a run writes down; it has none of its own here."""


def train(
    folder,
    *,
    resume=False,
    each_step=None,
    norm=False,
    dropout=0.0,
    size=43,
    weighted=False,
    **settings,
):
    """Train; return losses by step, the epochs' records and the weights as one list."""
    import dataclasses

    config = dataclasses.make_dataclass("Config", [])()
    points = Points(size)
    weights = torch.tensor([1.0, 3.0]) if weighted else None
    net = Net(norm=norm, dropout=dropout)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    options = training.Settings(device=torch.device("cpu"), monitor="val_loss", **settings)
    console = Console("t")
    console.silent = True
    where = {"out": None if resume else folder, "resume": folder if resume else None}
    found = {"losses": []}
    try:
        with (
            resuming.opened("t", "t", config, {}, "bitwise", console=console, **where) as run,
            training.session(
                run, net, optimizer, options, console=console, resume=resume
            ) as session,
        ):
            for _ in session.epochs(EPOCHS):
                for x, y in session.batches(points):
                    with session.attempt():
                        loss = nn.functional.cross_entropy(net(x), y, weight=weights)
                        if each_step:
                            loss = each_step(session, loss, len(x))
                        weight = None if weights is None else weights[y].sum()
                        session.step(loss, count=len(y), weight=weight)
                    found["losses"].append(float(session.team.total(session.loss).value))
                net.eval()
                with torch.no_grad():
                    value = float(nn.functional.cross_entropy(net(points.x), points.y))
                session.report({"val_loss": value})
            found["team"] = [session.team.rank, session.team.count]
            found["pieces"] = session.pieces
            found["samples"] = session.samples
            found["skipped"] = session.nan.skipped
            found["rollbacks"] = session.nan.rollbacks
            keep(found, net)
            found["records"] = run.records() if session.team.is_first else []
    except Stopped:
        found["end"] = "stopped"
    except DltoolError as error:
        found["end"] = [error.code, error.exit_code, error.message]
    keep(found, net)
    return found


def keep(found, net):
    """Remember the weights and statistics, bit for bit."""
    state = net.state_dict()
    found["weights"] = [value.flatten().tolist() for value in state.values()]


def in_ranks(count, work, *arguments, meanwhile=None, **settings):
    """Run `work` in `count` forked processes, as ranks; return what they returned.

    `meanwhile` is called with their process ids.
    """
    port = free_port()
    children = []
    for rank in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            if count > 1:
                os.environ.update(
                    RANK=str(rank),
                    WORLD_SIZE=str(count),
                    LOCAL_RANK=str(rank),
                    LOCAL_WORLD_SIZE=str(count),
                    MASTER_ADDR="127.0.0.1",
                    MASTER_PORT=str(port),
                )
            try:
                found = work(*arguments, **settings)
            except BaseException:
                found = {"failed": traceback.format_exc()}
            with os.fdopen(writer, "w") as stream:
                json.dump(found, stream)
            os._exit(0)
        os.close(writer)
        children.append((child, reader))
    found = []
    if meanwhile:
        meanwhile([child for child, _ in children])
    for child, reader in children:
        with os.fdopen(reader) as stream:
            text = stream.read()
        os.waitpid(child, 0)
        found.append(json.loads(text) if text else {"failed": "no answer"})
    return found


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def on_rank(number):
    return teams.current().rank == number


def nan_at(step):
    """Return what makes the loss of rank 1 NaN before a step, once."""

    def change(session, loss, count):
        if on_rank(1) and session.global_step == step and not session.nan.rollbacks:
            return loss * float("nan")
        return loss

    return change


def memory_out_at(step):
    """Return what lets memory run out on rank 1 before a step, for parts of two and more."""

    def change(session, loss, count):
        if on_rank(1) and session.global_step == step and count > 2:
            raise torch.OutOfMemoryError("planted")
        return loss

    return change


def signal_at(step):
    """Return what sends SIGTERM to rank 1 alone before a step."""

    def change(session, loss, count):
        if on_rank(1) and session.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    return change


def error_at(step):
    """Return what makes rank 1 fail in a way that it cannot agree on with the others."""

    def change(session, loss, count):
        if on_rank(1) and session.global_step == step:
            raise OSError("a cable was pulled")
        return loss

    return change


def slowly(session, loss, count):
    """Leave time to be killed in."""
    time.sleep(0.02)
    return loss


SCENARIOS = {
    "plain": ({}, (1, 2)),
    "norm": ({"norm": True, "size": 41}, (1, 3)),
    "weighted": ({"weighted": True}, (1, 2)),
    "accumulate": ({"accumulate": 2, "clip": 0.5, "ema": 0.9}, (1, 2)),
}
SAVED_EVERY = 3


def everything(root):
    """Run all scenarios and return what they gave, by name."""
    found = {}
    for name, (settings, counts) in SCENARIOS.items():
        found[name] = {
            count: in_ranks(count, train, root / f"{name}-{count}", **settings) for count in counts
        }
    found["nan stops"] = in_ranks(2, train, root / "stop", each_step=nan_at(8))
    found["nan skips"] = in_ranks(2, train, root / "skip", each_step=nan_at(8), on_nan="skip")
    found["nan rolls back"] = in_ranks(
        2, train, root / "roll", each_step=nan_at(8), on_nan="rollback", save_every="3steps"
    )
    found["memory"] = in_ranks(2, train, root / "memory", each_step=memory_out_at(8))
    found["error"] = in_ranks(2, train, root / "error", each_step=error_at(8))
    dropout = {"norm": True, "size": 41, "dropout": 0.2}
    found["unbroken"] = in_ranks(2, train, root / "unbroken", **dropout)
    found["signal"] = in_ranks(2, train, root / "signal", each_step=signal_at(8), **dropout)
    found["resumed"] = in_ranks(2, train, root / "signal", resume=True, **dropout)
    for count in (1, 3):
        folder = root / f"fewer-{count}"
        in_ranks(2, train, folder, each_step=signal_at(8))
        found[f"resumed by {count}"] = in_ranks(count, train, folder, resume=True)
        found[f"run of {count}"] = json.loads((folder / "run.json").read_text())
    return found


def digits(folder, *words):
    """Train cnn on the digits by its command; return the loss of each of the first 50 steps."""
    from dltool import cli

    losses, plain = [], training.Session.step

    def step(self, loss, count, weight=None):
        if len(losses) < 50:
            losses.append(float(self.team.summed(loss.detach() * self.team.part.share)))
        plain(self, loss, count, weight)

    training.Session.step = step
    words = ["cnn", "train", "--device", "cpu", "--threads", "1", "--out", str(folder), *words]
    code = cli.run(words)
    facts = json.loads((folder / "run.json").read_text()) if on_rank(0) else {}
    return {"losses": losses, "code": code, "result": facts.get("result")}


def killed(root, times):
    """Kill one of two ranks at a random moment, so many times, and go on with each run."""
    settings = {"each_step": slowly, "save_every": f"{SAVED_EVERY}steps", "dropout": 0.2}
    unbroken = in_ranks(2, train, root / "whole", **settings)[0]
    found = [_killed_once(root / str(number), number, settings) for number in range(times)]
    return {"unbroken": unbroken, "interval": SAVED_EVERY, "killed": found}


def _killed_once(folder, number, settings):
    drawn = random.Random(number)
    at = []

    def kill(children):
        while not (folder / "run.json").exists():
            time.sleep(0.005)
        time.sleep(drawn.uniform(0.05, 0.9))
        at.append(time.monotonic())
        os.kill(children[number % 2], signal.SIGKILL)

    ended = in_ranks(2, train, folder, meanwhile=kill, **settings)
    seconds = time.monotonic() - at[0]
    left = ended[1 - number % 2]  # the rank that was not killed
    resumed = in_ranks(2, train, folder, resume=True, **settings)[0]
    if resumed.get("end", [""])[0] == "E511":  # killed before the first checkpoint: begin anew
        resumed = in_ranks(2, train, folder / "anew", **settings)[0]
    steps = EPOCHS * len(Points())
    saved = steps - len(resumed["losses"])
    return {
        "seconds": seconds,
        "end": left.get("end"),
        "lost": len(left["losses"]) - saved,
        "weights": resumed["weights"],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    train(root / "warm-up")  # what torch loads at a first step, once for all that are forked
    if sys.argv[2:] == ["digits"]:
        found = {n: in_ranks(n, digits, root / f"digits-{n}", "--model", "mlp") for n in (1, 2)}
    else:
        found = killed(root, int(sys.argv[2])) if sys.argv[2:] else everything(root)
    (root / "found.json").write_text(json.dumps(found))
