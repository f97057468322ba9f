"""What goes wrong while training: NaN, memory, disk, time, signals, strangers in the folder."""

import json
import math
import os
import shutil
import signal
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dltool import checkpoint, files, keeping, memory, nonfinite, runs, training
from dltool.boundary import Boundary
from dltool.console import Console
from dltool.device import generator
from dltool.durations import Every, parse_duration, parse_every
from dltool.errors import ConfigError, Diverged, DltoolError, Interrupted, OutOfMemory, Stopped

CPU = torch.device("cpu")
EPOCHS = 3


class Points:
    """Six batches of eight points an epoch; `poison` gives the (epoch, batch)es that hold NaN."""

    def __init__(self, poison=()):
        self.poison, self.closed, self.seen = set(poison), 0, []

    def __len__(self):
        return 6

    def batches(self, epoch, start=0):
        try:
            for index in range(start, len(self)):
                x = torch.randn(8, 4, generator=generator(3, epoch, index))
                y = (x.sum(1) > 0).long()
                if (epoch, index) in self.poison:
                    x[3] = math.nan
                self.seen.append((epoch, index))
                yield x, y
        finally:
            self.closed += 1


def plain():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def normed():
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 2))


def go(folder, *, points=None, model=plain, hook=None, evaluating=None, lr=0.05, **settings):
    """Train in `folder`, or go on there; `hook(session, epoch)` runs inside each attempt."""
    resume = (folder / "run.json").exists()
    if not resume:
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text('{"format": 1, "topic": "t", "status": "running"}')
    points = points or Points()
    torch.manual_seed(1)
    module = model()
    torch.manual_seed(2)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9)
    run, console = runs.Run(folder, "t"), Console("t", json=True)
    options = training.Settings(device=CPU, monitor="val_loss", **settings)
    with training.session(
        run, module, optimizer, options, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(EPOCHS):
            for x, y in session.batches(points):
                with session.attempt():
                    logits = module(x)
                    if hook:
                        hook(session, epoch, x)
                    loss = nn.functional.cross_entropy(logits, y)
                    session.step(loss, count=len(y))
            if evaluating:
                evaluating(session, epoch)
            session.report({"val_loss": 1.0 / (epoch + 1)})
    return {name: value.clone() for name, value in module.state_dict().items()}, console


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def all_finite(folder):
    found = [*checkpoint.steps(folder / "checkpoints"), folder / "checkpoints" / "best"]
    loaded = [checkpoint.load(path) for path in found if path.exists()]
    return loaded and all(t.isfinite().all() for each in loaded for t in each.model.values())


# ---- not finite --------------------------------------------------------------------------------


def test_skip_leaves_the_step_out_and_touches_nothing(tmp_path):
    before, after = {}, {}

    def look(session, epoch, x):
        state = {k: v.clone() for k, v in session.model.state_dict().items()}
        if (epoch, session.batch) == (1, 2):
            before.update({k: v for k, v in state.items() if "running" not in k})
        if (epoch, session.batch) == (1, 3):
            after.update({k: v for k, v in state.items() if "running" not in k})

    end, _ = go(tmp_path / "run", points=Points({(1, 2)}), hook=look, on_nan="skip")
    assert equal(
        {k: v for k, v in before.items() if "num" not in k},
        {k: v for k, v in after.items() if "num" not in k},
    )
    assert all_finite(tmp_path / "run")
    records = runs.read_records(tmp_path / "run")
    assert records[-1]["skipped"] == 1
    assert records[-1]["step"] == EPOCHS * 6
    assert all(math.isfinite(record["train_loss"]) for record in records)
    assert all(value.isfinite().all() for value in end.values())


def test_skip_keeps_the_running_statistics_finite(tmp_path):
    end, _ = go(tmp_path / "run", points=Points({(0, 0), (1, 2)}), model=normed, on_nan="skip")
    assert all(value.isfinite().all() for value in end.values())
    assert end["1.num_batches_tracked"] == EPOCHS * 6 - 2


def test_skip_drops_a_whole_accumulated_step(tmp_path):
    go(tmp_path / "run", points=Points({(0, 3)}), on_nan="skip", accumulate=3)
    first = runs.read_records(tmp_path / "run")[0]
    assert first["skipped"] == 1
    assert first["step"] == 2


def test_skip_sees_a_gradient_that_is_not_finite(tmp_path):
    class Rooted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.calls = nn.Linear(4, 2), 0

        def forward(self, x):
            self.calls += 1
            # the loss is finite, the derivative of sqrt at 0 is not
            zero = (self.linear.weight.sum() * 0).sqrt() if self.calls == 4 else 0.0
            return self.linear(x) + zero

    end, _ = go(tmp_path / "run", model=Rooted, on_nan="skip")
    assert all(value.isfinite().all() for value in end.values())
    assert runs.read_records(tmp_path / "run")[0]["skipped"] == 1


def test_ten_bad_steps_in_a_row_stop_the_run(tmp_path):
    poison = {(epoch, batch) for epoch in range(EPOCHS) for batch in range(6)} - {(0, 0)}
    with pytest.raises(Diverged, match="10 steps in a row") as caught:
        go(tmp_path / "run", points=Points(poison), on_nan="skip", save_every="1steps")
    assert caught.value.exit_code == 7
    assert all_finite(tmp_path / "run")


def test_nine_bad_steps_in_a_row_do_not(tmp_path):
    poison = {(0, batch) for batch in range(3, 6)} | {(1, batch) for batch in range(6)}
    go(tmp_path / "run", points=Points(poison), on_nan="skip")
    assert runs.read_records(tmp_path / "run")[1]["train_loss"] is None


def test_rollback_goes_back_with_half_the_rate(tmp_path):
    points, used = Points({(1, 4)}), []

    def heal(session, epoch, x):
        used.append((epoch, session.batch, session.rate_scale))
        if (epoch, session.batch) == (1, 4):
            points.poison.clear()

    _, console = go(
        tmp_path / "run", points=points, hook=heal, on_nan="rollback", save_every="4steps"
    )
    assert used.count((1, 4, 1.0)) == 1
    assert (1, 2, 0.5) in used  # step 8 is the last checkpoint before step 11
    assert (1, 1, 0.5) not in used
    facts = runs.read_json(tmp_path / "run")
    assert facts["rollbacks"] == [{"at": 10, "to": 8}]
    records = runs.read_records(tmp_path / "run")
    assert [record["lr"] for record in records] == pytest.approx([0.05, 0.025, 0.025])
    assert any("went back to step 8" in text for text in console.warnings)


def test_rollback_into_an_earlier_epoch_repeats_that_epoch(tmp_path):
    points, epochs = Points({(1, 1)}), []

    def heal(session, epoch, x):
        epochs.append((epoch, session.batch))
        if (epoch, session.batch) == (1, 1):
            points.poison.clear()

    go(tmp_path / "run", points=points, hook=heal, on_nan="rollback", save_every="4steps")
    again = epochs.index((1, 1)) + 1
    assert epochs[again : again + 3] == [(0, 4), (0, 5), (1, 0)]
    assert [record["epoch"] for record in runs.read_records(tmp_path / "run")] == [1, 2, 3]


def test_rollback_before_the_first_checkpoint_goes_to_the_start(tmp_path):
    points = Points({(0, 1)})

    def heal(session, epoch, x):
        if session.batch == 1:
            points.poison.clear()

    go(tmp_path / "run", points=points, hook=heal, on_nan="rollback")
    assert runs.read_json(tmp_path / "run")["rollbacks"] == [{"at": 1, "to": 0}]


def test_fourth_rollback_is_refused(tmp_path):
    with pytest.raises(Diverged, match="after 3 rollbacks"):
        go(tmp_path / "run", points=Points({(1, 1)}), on_nan="rollback")
    assert len(runs.read_json(tmp_path / "run")["rollbacks"]) == nonfinite.MOST_ROLLBACKS
    assert all_finite(tmp_path / "run")


def test_rollbacks_rate_holds_after_a_resume(tmp_path):
    points = Points({(0, 4)})

    def stop(session, epoch, x):
        if (epoch, session.batch) == (0, 4):
            points.poison.clear()
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        go(tmp_path / "run", points=points, hook=stop, on_nan="rollback")
    seen = []
    go(tmp_path / "run", hook=lambda s, e, x: seen.append(s.rate_scale), on_nan="rollback")
    assert set(seen) == {0.5}


@pytest.mark.parametrize("policy", ["stop", "rollback"])
def test_weights_broken_at_the_end_of_an_epoch_never_become_the_best(tmp_path, policy):
    def spoil(session, epoch):
        with torch.no_grad():
            session.model[0].weight[0, 0] = math.inf

    with pytest.raises(Diverged):
        go(tmp_path / "run", evaluating=spoil, on_nan=policy, save_every=0.0)
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()
    assert not runs.read_records(tmp_path / "run")
    assert all_finite(tmp_path / "run")


def test_unknown_policy_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--on-nan"):
        go(tmp_path / "run", on_nan="ignore")


# ---- memory ------------------------------------------------------------------------------------

TORCHS = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
CPUS = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB")


def limited(most, error=TORCHS):
    """Fail for pieces of more samples than `most`, after the forward pass has changed buffers."""

    def hook(session, epoch, x):
        if len(x) > most:
            raise error

    return hook


@pytest.mark.parametrize("error", [TORCHS, CPUS, MemoryError()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_are_divided_until_they_fit_and_the_result_stays(tmp_path, error, accumulate):
    whole, _ = go(tmp_path / "whole", accumulate=accumulate)
    points, pieces = Points(), []

    def hook(session, epoch, x):
        limited(3, error)(session, epoch, x)
        pieces.append(len(x))

    divided, console = go(tmp_path / "run", points=points, hook=hook, accumulate=accumulate)
    for name, value in whole.items():
        torch.testing.assert_close(divided[name], value, rtol=1e-4, atol=1e-6)
    assert set(pieces) == {2}
    assert points.seen[:3] == [(0, 0), (0, 0), (0, 0)]
    assert runs.read_json(tmp_path / "run")["memory"] == {"pieces": 4, "since_step": 0}
    assert len([text for text in console.warnings if "memory ran out" in text]) == 2
    assert [r["step"] for r in runs.read_records(tmp_path / "run")] == [
        r["step"] for r in runs.read_records(tmp_path / "whole")
    ]


def test_memory_that_runs_out_late_costs_no_step_and_repeats_no_statistics(tmp_path):
    def hook(session, epoch, x):
        if session.global_step == 9 and session.pieces == 1:
            raise TORCHS

    end, _ = go(tmp_path / "run", model=normed, hook=hook)
    # nine whole batches, then two pieces each; the failed forward pass does not count
    assert end["1.num_batches_tracked"] == 9 + 2 * 9
    assert runs.read_json(tmp_path / "run")["memory"]["since_step"] == 9


def test_resumed_run_remembers_the_pieces(tmp_path):
    def hook(session, epoch, x):
        limited(4)(session, epoch, x)
        if epoch == 1 and not session.watch.pending:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        go(tmp_path / "run", hook=hook)
    seen = []
    go(tmp_path / "run", hook=lambda session, epoch, x: seen.append(len(x)))
    assert set(seen) == {4}


@pytest.mark.parametrize(("model", "words"), [(plain, "one sample does"), (normed, "2 samples do")])
def test_smallest_piece_that_does_not_fit_is_exit_8_with_the_work_saved(tmp_path, model, words):
    def hook(session, epoch, x):
        if session.global_step >= 7:
            raise TORCHS

    with pytest.raises(OutOfMemory, match=rf"{words} not fit.*20\.00 GiB") as caught:
        go(tmp_path / "run", model=model, hook=hook)
    assert caught.value.exit_code == 8
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[0].state["step"] == 7
    assert runs.read_json(tmp_path / "run")["status"] == "out of memory"


def test_memory_that_runs_out_in_the_update_is_exit_8_and_saves_nothing_half_updated(tmp_path):
    class Greedy(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data.add_(1.0)
            raise TORCHS

    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1, "topic": "t"}')
    module = plain()
    settings = training.Settings(device=CPU)

    def train():
        with training.session(
            runs.Run(folder, "t"),
            module,
            Greedy(module.parameters(), lr=0.1),
            settings,
            console=Console("t"),
        ) as session:
            for _ in session.epochs(1):
                for x, y in session.batches(Points()):
                    with session.attempt():
                        session.step(nn.functional.cross_entropy(module(x), y), count=8)

    with pytest.raises(OutOfMemory) as caught:
        train()
    assert caught.value.exit_code == 8
    assert not checkpoint.steps(folder / "checkpoints")


def test_memory_in_the_evaluation_is_exit_8_with_the_work_saved(tmp_path):
    def evaluating(session, epoch):
        if epoch == 1:
            raise TORCHS

    with pytest.raises(OutOfMemory):
        go(tmp_path / "run", evaluating=evaluating)
    state = checkpoint.newest(tmp_path / "run" / "checkpoints")[0].state
    assert (state["epoch"], state["batch"]) == (1, 6)


def test_torchs_own_error_of_the_cpu_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert memory.is_out_of_memory(caught.value)
    assert not memory.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_other_errors_are_not_taken_for_memory(tmp_path):
    def hook(session, epoch, x):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        go(tmp_path / "run", hook=hook)


def test_failed_graph_is_freed_before_the_next_attempt(tmp_path):
    """The loop's own variable must not keep the activations of the failed attempt alive."""
    freed = []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.token = Token()
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Token:
        def __del__(self):
            freed.append(True)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.checked = nn.Linear(4, 2), []

        def forward(self, x):
            self.checked.append(len(freed))
            return Noted.apply(self.linear(x))

    modules = []

    def build():
        modules.append(Model())
        return modules[0]

    def hook(session, epoch, x):
        if len(modules[0].checked) == 1:
            raise TORCHS

    go(tmp_path / "run", model=build, hook=hook)
    assert modules[0].checked[:2] == [0, 1]


@pytest.mark.parametrize(
    ("batch", "length"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(4), torch.zeros(4, 2)), 4),
        ([torch.zeros(3), ["a", "b", "c"]], 3),
        ({"x": torch.zeros(6, 1), "y": torch.zeros(6)}, 6),
    ],
    ids=["tensor", "tuple", "list", "dict"],
)
def test_pieces_keep_order_and_weigh_by_their_samples(batch, length):
    assert memory.batch_length(batch) == length
    parts = list(memory.pieces(batch, 2))
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert [part.is_last for part in parts] == [False, True]
    assert type(parts[0].content) is type(batch)
    assert sum(memory.batch_length(part.content) for part in parts) == length


def test_pieces_are_never_smaller_than_batch_normalisation_can_take():
    sizes = [len(piece.content) for piece in memory.pieces(torch.zeros(5), 4, smallest=2)]
    assert sizes == [2, 3]
    assert [len(piece.content) for piece in memory.pieces(torch.zeros(1), 4, smallest=2)] == [1]
    assert memory.smallest_piece(normed()) == 2
    assert memory.smallest_piece(plain()) == 1


@pytest.mark.parametrize(
    "batch", [(torch.zeros(3), torch.zeros(4)), (torch.zeros(3), torch.tensor(1.0)), 7, ()]
)
def test_batches_that_cannot_be_divided_are_named(batch):
    with pytest.raises(OutOfMemory, match="cannot be divided"):
        memory.batch_length(batch)


def test_boundary_brings_buffers_and_random_stream_back():
    module = normed()
    boundary = Boundary(module, CPU)
    boundary.mark("extra")
    stream, mean = torch.get_rng_state(), module[1].running_mean.clone()
    module(torch.randn(8, 4))
    assert not torch.equal(mean, module[1].running_mean)
    assert boundary.rewind() == ("extra",)
    assert torch.equal(mean, module[1].running_mean)
    assert torch.equal(stream, torch.get_rng_state())


# ---- keeping and disk --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [2, 4])
def test_the_last_checkpoints_are_kept(tmp_path, keep):
    go(tmp_path / "run", save_every="2steps", keep=keep)
    steps = [int(path.name[5:]) for path in checkpoint.steps(tmp_path / "run" / "checkpoints")]
    assert steps == [18, 16, 14, 12][:keep]


def test_checkpoints_of_strangers_are_neither_removed_nor_resumed(tmp_path):
    go(tmp_path / "other", save_every="2steps")
    root = tmp_path / "run" / "checkpoints"
    root.mkdir(parents=True)
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-00000018", root / "step-00000003")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-00000018", root / "step-00099999")
    (root / "step-00000002").mkdir()
    (root / "step-00000002" / "notes.txt").write_text("mine")

    def stop(session, epoch, x):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        go(tmp_path / "run", hook=stop, save_every="2steps")
    end, console = go(tmp_path / "run", save_every="2steps")
    assert any("another run wrote it" in text for text in console.warnings)
    whole, _ = go(tmp_path / "whole", save_every="2steps")
    assert equal(end, whole)
    names = {path.name for path in root.glob("step-*")}
    assert {"step-00000003", "step-00099999"} <= names
    aside = list(root.glob("step-00000002-set-aside-*"))
    assert [path.name for path in aside[0].iterdir()] == ["notes.txt"]


def test_nothing_is_removed_when_the_new_checkpoint_does_not_verify(tmp_path, monkeypatch):
    go(tmp_path / "run", save_every="2steps", keep=3)
    root = tmp_path / "run" / "checkpoints"
    before = set(root.glob("step-*"))
    newest = checkpoint.steps(root)[0]
    with (newest / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x55")
    with pytest.raises(DltoolError):
        keeping.prune(root, newest, 2, keeping.owner(newest))
    assert set(root.glob("step-*")) == before


def test_damaged_checkpoints_of_the_future_go_once_a_new_one_stands(tmp_path):
    def stop(session, epoch, x):
        if (epoch, session.batch) == (1, 3):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        go(tmp_path / "run", hook=stop, save_every="4steps", keep=3)
    newest = checkpoint.steps(tmp_path / "run" / "checkpoints")[0]
    (newest / "model.safetensors").write_bytes(b"")
    end, _ = go(tmp_path / "run", save_every="9steps", keep=3)
    whole, _ = go(tmp_path / "whole")
    assert equal(end, whole)
    for path in checkpoint.steps(tmp_path / "run" / "checkpoints"):
        checkpoint.verify(path)


def test_damaged_best_weights_do_not_forbid_to_go_on(tmp_path):
    def stop(session, epoch, x):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        go(tmp_path / "run", hook=stop)
    (tmp_path / "run" / "checkpoints" / "best" / "model.safetensors").write_bytes(b"x")
    _, console = go(tmp_path / "run")
    assert any("best weights so far are lost" in text for text in console.warnings)
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "best").state["epoch"] == EPOCHS


def test_too_little_disk_is_told_before_the_first_step(tmp_path, monkeypatch):
    points = Points()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DltoolError) as caught:
        go(tmp_path / "run", points=points)
    assert caught.value.code == "E101"
    assert "0.0 MB free" in caught.value.one_line()
    assert not points.seen


def test_disk_needs_three_checkpoints(tmp_path, monkeypatch):
    needed = []
    monkeypatch.setattr(files, "require_space", lambda folder, size, what: needed.append(size))
    go(tmp_path / "run")
    written = files.folder_bytes(checkpoint.steps(tmp_path / "run" / "checkpoints")[0])
    weights = sum(p.numel() * 4 for p in plain().parameters())
    assert needed[0] == 3 * 3 * weights
    assert written > 2 * weights  # weights and the momentum, beside the headers


# ---- time and signals --------------------------------------------------------------------------


def test_max_time_saves_and_stops_without_an_error(tmp_path, capsys):
    whole, _ = go(tmp_path / "whole")
    capsys.readouterr()
    for number in range(40):
        try:
            end, _ = go(tmp_path / "run", max_time="0.000001s")
            break
        except Stopped:
            shown = json.loads(capsys.readouterr().out)
            assert shown["status"] == "ok"
            assert shown["data"]["status"] == "stopped"
            assert shown["data"]["step"] == number + 1  # each command does at least one step
            assert "--resume" in shown["data"]["resume"]
            assert runs.read_json(tmp_path / "run")["status"] == "stopped"
    assert number == EPOCHS * 6 - 1 or number == EPOCHS * 6
    assert equal(end, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1")
def test_usr1_saves_and_goes_on(tmp_path, capsys):
    steps = []

    def ask(session, epoch, x):
        steps.append(checkpoint.steps(session.folder))
        if (epoch, session.batch) == (1, 2):
            os.kill(os.getpid(), signal.SIGUSR1)

    go(tmp_path / "run", hook=ask)
    assert not steps[8]
    assert [path.name for path in steps[9]] == ["step-00000009"]
    assert "saved at step 9" in capsys.readouterr().err


def test_save_every_steps(tmp_path):
    seen = []

    def look(session, epoch, x):
        seen.append([int(path.name[5:]) for path in checkpoint.steps(session.folder)][:1])

    go(tmp_path / "run", hook=look, save_every="5steps")
    assert seen[4] == []
    assert seen[5] == [5]
    assert seen[17] == [15]


def test_source_of_batches_is_closed_even_when_the_loop_keeps_it(tmp_path):
    points, held = Points(), []
    (tmp_path / "run.json").write_text('{"format": 1, "topic": "t"}')
    module, settings = plain(), training.Settings(device=CPU)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def loop():
        run = runs.Run(tmp_path, "t")
        with training.session(run, module, optimizer, settings, console=Console("t")) as session:
            held.append(session.batches(points))
            next(held[0])
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        loop()
    assert points.closed == 1


def test_workers_that_the_groups_signal_killed_do_not_hide_the_signal(tmp_path):
    """SIGTERM to a process group ends the workers first; the loader then raises in mid-step."""
    whole, _ = go(tmp_path / "whole", model=normed)

    def hook(session, epoch, x):
        if (epoch, session.batch) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated")

    with pytest.raises(Interrupted) as caught:
        go(tmp_path / "run", model=normed, hook=hook)
    assert caught.value.exit_code == 143
    end, _ = go(tmp_path / "run", model=normed)
    assert equal(end, whole)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("90m", 5400), ("2h", 7200), ("1.5h", 5400), ("", math.inf)]
)
def test_durations(text, seconds):
    assert parse_duration("--max-time", text) == seconds


@pytest.mark.parametrize("text", ["2", "h", "2 h", "2d", "-1s", "0s", "1e3s", "2h30m", "２h"])
def test_other_durations_are_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_duration("--max-time", text)
    assert caught.value.code == "E202"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("500steps", Every(steps=500)),
        ("1step", Every(steps=1)),
        ("10m", Every(seconds=600)),
        (60.0, Every(seconds=60)),
        ("0s", Every(seconds=0)),
        ("2.5", Every(seconds=2.5)),
    ],
)
def test_intervals(value, expected):
    assert parse_every("--save-every", value) == expected


@pytest.mark.parametrize("text", ["", "0steps", "steps", "-5steps", "10 m", "1.5steps"])
def test_other_intervals_are_refused(text):
    with pytest.raises(ConfigError, match="--save-every"):
        parse_every("--save-every", text)
