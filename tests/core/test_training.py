"""The loop's mechanics against a hand-written loop, and resume bit for bit."""

import math
import os
import signal

import pytest
import torch
from torch import nn

from dltool import checkpoint, optim, runs, training
from dltool.console import Console
from dltool.device import generator
from dltool.errors import Diverged, DltoolError, Interrupted

CPU = torch.device("cpu")
EPOCHS = 3


class Points:
    """Eleven batches an epoch, shuffled by (seed, epoch)."""

    def __init__(self, count=41, size=4):
        stream = generator(7, "points")
        self.x = torch.randn(count, 5, generator=stream)
        self.y = (self.x.sum(1) > 0).long()
        self.size = size
        self.raise_at = None

    def __len__(self):
        return math.ceil(len(self.x) / self.size)

    def batches(self, epoch, start=0):
        order = torch.randperm(len(self.x), generator=generator(7, epoch, "order"))
        for index in order.split(self.size)[start:]:
            if self.raise_at and (epoch, start) == self.raise_at:
                os.kill(os.getpid(), signal.SIGINT)
            start += 1
            yield self.x[index], self.y[index]


def make_model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2))


def make_run(folder):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"format": 1, "topic": "t", "status": "running"}')
    return runs.Run(folder, "t")


def train(folder, *, points=None, resume=False, after_batch=None, **settings):
    """Train the small model; return it. `after_batch(epoch, batch)` may raise or send signals."""
    points = points or Points()
    run = runs.Run(folder, "t") if resume else make_run(folder)
    model = make_model()
    torch.manual_seed(11)
    optimizer = torch.optim.AdamW(optim.parameter_groups(model, 0.1), lr=0.01)
    accumulate = settings.get("accumulate", 1)
    total = EPOCHS * math.ceil(len(points) / accumulate)
    scheduler = optim.schedule(optimizer, "one-cycle", total)
    options = training.Settings(device=CPU, monitor="val_loss", **settings)
    with training.session(
        run, model, optimizer, options, scheduler=scheduler, console=Console("t"), resume=resume
    ) as session:
        for epoch in session.epochs(EPOCHS):
            for x, y in session.batches(points):
                loss = nn.functional.cross_entropy(model(x), y)
                session.step(loss, count=len(y))
                if after_batch:
                    after_batch(epoch, session.batch)
            model.eval()
            with torch.no_grad():
                value = float(nn.functional.cross_entropy(model(points.x), points.y))
            if after_batch:
                after_batch(epoch, "evaluation")
            session.report({"val_loss": value})
        last = {name: value.clone() for name, value in model.state_dict().items()}
        session.best.load_into(model)
    run.finish({})
    return last, dict(model.state_dict()), run.records()


def by_hand(accumulate=1):
    points, model = Points(), make_model()
    torch.manual_seed(11)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    total = EPOCHS * math.ceil(len(points) / accumulate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, total_steps=total, pct_start=0.3, cycle_momentum=False
    )
    for epoch in range(EPOCHS):
        model.train()
        batches = list(points.batches(epoch))
        for start in range(0, len(batches), accumulate):
            group = batches[start : start + accumulate]
            optimizer.zero_grad()
            for x, y in group:
                (nn.functional.cross_entropy(model(x), y) / len(group)).backward()
            optimizer.step()
            if scheduler.last_epoch < total - 1:
                scheduler.step()
    return dict(model.state_dict())


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def without_time(records):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_session_trains_like_a_loop_written_by_hand(tmp_path, accumulate):
    last, _, _ = train(tmp_path / "run", accumulate=accumulate)
    for name, value in by_hand(accumulate).items():
        torch.testing.assert_close(last[name], value, rtol=1e-5, atol=1e-7)


def test_same_seed_gives_the_same_bits(tmp_path):
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert equal(first[0], second[0])
    assert without_time(first[2]) == without_time(second[2])


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", [(0, 1), (1, 5), (1, 11), (1, "evaluation"), (2, 11)])
def test_stopped_and_resumed_ends_bit_for_bit_where_the_unbroken_run_ends(
    tmp_path, place, signal_number
):
    unbroken = train(tmp_path / "unbroken")

    def stop(epoch, batch):
        if (epoch, batch) == place:
            os.kill(os.getpid(), signal_number)

    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "run", after_batch=stop)
    assert caught.value.exit_code == 128 + signal_number
    assert "--resume" in caught.value.cure
    assert runs.read_json(tmp_path / "run")["status"] == "interrupted"
    torch.manual_seed(999)  # the resumed process begins with other streams
    resumed = train(tmp_path / "run", resume=True)
    assert equal(resumed[0], unbroken[0])
    assert equal(resumed[1], unbroken[1])
    assert without_time(resumed[2]) == without_time(unbroken[2])


def test_killed_run_resumes_from_the_last_checkpoint_with_the_same_end(tmp_path):
    unbroken = train(tmp_path / "unbroken")

    class Killed(BaseException):
        pass

    def kill(epoch, batch):
        if (epoch, batch) == (1, 7):
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "run", after_batch=kill, save_every=0.0)
    kept = checkpoint.steps(tmp_path / "run" / "checkpoints")
    assert len(kept) == 2
    resumed = train(tmp_path / "run", resume=True)
    assert equal(resumed[0], unbroken[0])
    assert without_time(resumed[2]) == without_time(unbroken[2])


def test_accumulated_gradients_are_not_lost_by_a_stop(tmp_path):
    unbroken = train(tmp_path / "unbroken", accumulate=4)

    def stop(epoch, batch):
        if (epoch, batch) == (1, 6):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", accumulate=4, after_batch=stop)
    resumed = train(tmp_path / "run", resume=True, accumulate=4)
    assert equal(resumed[0], unbroken[0])


def test_damaged_newest_checkpoint_costs_some_steps_and_nothing_else(tmp_path, capsys):
    unbroken = train(tmp_path / "unbroken")

    def stop(epoch, batch):
        if (epoch, batch) == (2, 3):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(tmp_path / "run", after_batch=stop, save_every=0.0)
    newest = checkpoint.steps(tmp_path / "run" / "checkpoints")[0]
    (newest / "optimizer.safetensors").write_bytes(b"")
    resumed = train(tmp_path / "run", resume=True)
    assert "passed over" in capsys.readouterr().err
    assert equal(resumed[0], unbroken[0])


def test_best_epoch_is_kept_and_loaded(tmp_path):
    _, best, records = train(tmp_path / "run")
    values = [record["val_loss"] for record in records]
    marked = [record["best"] for record in records]
    assert max(i for i, best_so_far in enumerate(marked) if best_so_far) == values.index(
        min(values)
    )
    stored = checkpoint.load(tmp_path / "run" / "checkpoints" / "best")
    assert stored.state["value"] == min(values)
    assert equal(stored.model, best)


def test_nan_loss_stops_with_exit_7_and_keeps_the_last_good_checkpoint(tmp_path):
    points = Points()
    points.x[17] = math.nan
    with pytest.raises(Diverged) as caught:
        train(tmp_path / "run", points=points, save_every=0.0)
    assert caught.value.exit_code == 7
    for path in checkpoint.steps(tmp_path / "run" / "checkpoints"):
        assert all(value.isfinite().all() for value in checkpoint.load(path).model.values())
    assert runs.read_json(tmp_path / "run")["status"] == "diverged"


def test_full_disk_keeps_training_and_ends_non_zero(tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise OSError(28, "No space left on device")

    real = checkpoint.files.write_synced

    def fill(epoch, batch):
        if (epoch, batch) == (1, 2):
            monkeypatch.setattr("dltool.files.write_synced", full)

    with pytest.raises(DltoolError) as caught:
        train(tmp_path / "run", after_batch=fill, save_every=0.0)
    monkeypatch.setattr("dltool.files.write_synced", real)
    assert caught.value.exit_code == 1
    assert "training goes on" in capsys.readouterr().err
    assert len(runs.read_records(tmp_path / "run")) == EPOCHS
    found, _ = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found.state["step"] >= 12


def test_forgotten_step_or_report_is_a_programming_error(tmp_path):
    run = make_run(tmp_path / "run")
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = training.Settings(device=CPU)

    def loop():
        with training.session(run, model, optimizer, settings, console=Console("t")) as session:
            for _ in session.epochs(1):
                for _batch in session.batches(Points()):
                    pass

    with pytest.raises(RuntimeError, match=r"Session\.step"):
        loop()


@pytest.mark.parametrize("total", [4, 10, 97])
def test_one_cycle_equals_torchs(total):
    parameter = nn.Parameter(torch.zeros(1))
    ours = torch.optim.SGD([parameter], lr=0.5)
    theirs = torch.optim.SGD([parameter], lr=0.5)
    schedule = optim.schedule(ours, "one-cycle", total)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        theirs, 0.5, total_steps=total, pct_start=0.3, cycle_momentum=False
    )
    for _ in range(total - 1):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-6)
        ours.step()
        theirs.step()
        schedule.step()
        reference.step()


def test_cosine_equals_torchs_and_decay_leaves_biases_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    decayed, plain = optim.parameter_groups(model, 0.2)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 1, 3, 3)]
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0
    for step in range(11):
        expected = (1 + math.cos(math.pi * step / 10)) / 2
        assert optim.rate_factor("cosine", step, 10) == pytest.approx(expected)
