"""Whatever a training is made of, stopped and resumed it ends on the same bits."""

import os
import signal

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from dltool import checkpoint, runs, training
from dltool.console import Console
from dltool.device import generator
from dltool.ema import Average
from dltool.errors import ConfigError, Interrupted
from dltool.signals import Watch
from dltool.stopping import Patience

CPU = torch.device("cpu")
EPOCHS = 3
BATCHES = 5


class Words:
    """Five batches of six token pairs an epoch, shuffled by (seed, epoch)."""

    def __len__(self):
        return BATCHES

    def batches(self, epoch, start=0):
        for index in range(start, BATCHES):
            stream = generator(5, epoch, index)
            x = torch.randint(0, 9, (6, 2), generator=stream)
            yield x, (x.sum(1) > 8).long()


class Tied(nn.Module):
    """An embedding whose weight is also the head's, with batch norm and dropout between."""

    def __init__(self, sparse=False):
        super().__init__()
        self.embed = nn.Embedding(9, 8, sparse=sparse)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.drop(self.norm(self.embed(x).mean(1))))


class Lookup(nn.Module):
    """Sparse gradients only."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 9, sparse=True)

    def forward(self, x):
        return self.embed(x).mean(1)


class Matrices(nn.Module):
    """Two-dimensional parameters only, which is all that Muon takes."""

    def __init__(self):
        super().__init__()
        self.into = nn.Parameter(torch.randn(9, 8))
        self.out = nn.Parameter(torch.randn(8, 9))

    def forward(self, x):
        return self.into[x].mean(1) @ self.out


def go(
    folder,
    *,
    model=Tied,
    optimizer=None,
    scheduler=None,
    stop_at=None,
    wrap=None,
    epochs=EPOCHS,
    **settings,
):
    """Train, or go on when the folder exists; return what the run ends with."""
    resume = folder.exists()
    if not resume:
        folder.mkdir()
        (folder / "run.json").write_text('{"format": 1, "topic": "t", "status": "running"}')
    torch.manual_seed(1)
    module = model()
    wrapped = wrap(module) if wrap else module
    opt = optimizer(module) if optimizer else torch.optim.Adam(module.parameters(), lr=0.02)
    plan = scheduler(opt) if scheduler else None
    torch.manual_seed(2 if not resume else 77)
    options = training.Settings(device=CPU, monitor="val_loss", **settings)
    run, console = runs.Run(folder, "t"), Console("t")
    with training.session(
        run, wrapped, opt, options, scheduler=plan, console=console, resume=resume
    ) as session:
        for epoch in session.epochs(epochs):
            for x, y in session.batches(Words()):
                with session.attempt():
                    loss = nn.functional.cross_entropy(wrapped(x), y)
                    session.step(loss, count=len(y))
                if (epoch, session.batch) == stop_at:
                    os.kill(os.getpid(), signal.SIGINT)
            module.eval()
            with session.averaged(), torch.no_grad():
                x, y = next(Words().batches(99))
                value = float(nn.functional.cross_entropy(module(x), y))
            session.report({"val_loss": value})
        last = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        session.best.load_into(module)
    saved = checkpoint.newest(folder / "checkpoints")[0]
    tensors = {}
    skeleton = checkpoint.flatten(saved.parts, tensors)
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in run.records()]
    best = dict(module.state_dict())
    return {"last": last, "best": best, "parts": tensors, "plain": skeleton, "records": records}


def assert_same(one, two):
    assert one["records"] == two["records"]
    assert one["plain"] == two["plain"]
    for part in ("last", "best", "parts"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), (part, name)


def assert_resumes_exactly(tmp_path, stop_at=(1, 2), **how):
    straight = go(tmp_path / "straight", **how)
    with pytest.raises(Interrupted):
        go(tmp_path / "stopped", stop_at=stop_at, **how)
    assert_same(straight, go(tmp_path / "stopped", **how))
    return straight


OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS")
)
SETTINGS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.02, "amsgrad": True},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "Adadelta": {"lr": 1.0},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_resumes_bit_for_bit(tmp_path, name):
    kind = getattr(torch.optim, name)
    model = {"SparseAdam": Lookup, "Muon": Matrices}.get(name, Tied)
    given = SETTINGS.get(name, {"lr": 0.02})
    assert_resumes_exactly(
        tmp_path, model=model, optimizer=lambda module: kind(module.parameters(), **given)
    )


def test_lbfgs_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="LBFGS"):
        go(tmp_path / "run", optimizer=lambda module: torch.optim.LBFGS(module.parameters()))


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [3, 9], 0.3),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 10),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 15, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 15),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.05, 3, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=16),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.95),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1, 4), lr_scheduler.CosineAnnealingLR(o, 11)], [4]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch_resumes_bit_for_bit(tmp_path, name):
    assert_resumes_exactly(tmp_path, scheduler=SCHEDULERS[name])


def test_a_scheduler_may_move_by_epoch(tmp_path):
    end = assert_resumes_exactly(
        tmp_path, scheduler=lambda o: lr_scheduler.StepLR(o, 1, 0.5), schedule_by_epoch=True
    )
    assert [record["lr"] for record in end["records"]] == pytest.approx([0.02, 0.01, 0.005])


@pytest.mark.parametrize(
    "settings",
    [{"ema": 0.9}, {"accumulate": 2, "ema": 0.5}, {"clip": 0.1}, {"patience": 1}],
    ids=str,
)
def test_averages_accumulation_clipping_and_early_stopping_resume_bit_for_bit(tmp_path, settings):
    assert_resumes_exactly(tmp_path, **settings)


def test_bf16_resumes_bit_for_bit(tmp_path):
    assert_resumes_exactly(tmp_path, precision="bf16")


def test_compiled_model_is_saved_under_its_own_names(tmp_path):
    plain = go(tmp_path / "plain")
    end = assert_resumes_exactly(
        tmp_path, wrap=lambda module: torch.compile(module, backend="eager")
    )
    assert end["last"].keys() == plain["last"].keys()
    saved = checkpoint.newest(tmp_path / "stopped" / "checkpoints")[0]
    assert not [name for name in saved.model if "_orig_mod" in name]


def test_distributed_model_of_one_process_is_saved_under_its_own_names(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
    )
    try:
        assert_resumes_exactly(tmp_path, wrap=nn.parallel.DistributedDataParallel, ema=0.9)
    finally:
        torch.distributed.destroy_process_group()
    saved = checkpoint.newest(tmp_path / "stopped" / "checkpoints")[0]
    assert set(saved.model) == set(Tied().state_dict())


def test_tied_weights_stay_tied_and_lie_on_the_disk_once(tmp_path):
    end = go(tmp_path / "run", ema=0.9)
    saved = checkpoint.newest(tmp_path / "run" / "checkpoints")[0]
    assert torch.equal(saved.model["embed.weight"], saved.model["head.weight"])
    assert "ema.average.head.weight" in end["parts"] or ".ema.average.embed.weight" in end["parts"]
    assert sum("weight" in name and "ema" in name for name in end["parts"]) == 2  # and the norm's


def test_average_follows_its_formula_and_leaves_the_weights_alone():
    module = nn.BatchNorm1d(2)
    average, expected = Average(module, 0.9), module.weight.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            module.weight.add_(0.1)
        average.update()
        if step == 3:
            assert torch.all(average.tensors()["weight"] > 1.15)  # 1 - 0.9**3 of 0.2 is far less
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    torch.testing.assert_close(average.tensors()["weight"], expected)
    own = module.weight.detach().clone()
    with average.swapped(Watch()):
        torch.testing.assert_close(module.weight.detach(), expected)
    assert torch.equal(module.weight, own)
    assert average.tensors()["num_batches_tracked"] == module.num_batches_tracked


def test_best_weights_are_the_averaged_ones(tmp_path):
    with_average = go(tmp_path / "average", ema=0.9)
    without = go(tmp_path / "plain")
    assert all(torch.equal(with_average["last"][k], without["last"][k]) for k in without["last"])
    assert not torch.equal(with_average["best"]["embed.weight"], without["best"]["embed.weight"])


@pytest.mark.parametrize("decay", [1.0, -0.1, 2])
def test_average_refuses_a_decay_out_of_range(decay):
    with pytest.raises(ConfigError, match="--ema"):
        Average(nn.Linear(1, 1), decay)


def test_patience_counts_epochs_without_a_strictly_better_value():
    patience = Patience("val_accuracy", 3)
    over = []
    for value in (0.5, 0.6, 0.6, float("nan"), 0.7, 0.7, 0.1, 0.2):
        patience.offer(value)
        over.append(patience.is_over)
    assert over == [False] * 7 + [True]
    assert not Patience("val_loss", 0, best=0.1, waited=99).is_over
    lower = Patience("val_loss", 1)
    lower.offer(0.5)
    lower.offer(0.4)
    assert not lower.is_over


def test_patience_ends_the_run_also_a_resumed_one(tmp_path):
    end = assert_resumes_exactly(
        tmp_path,
        stop_at=(2, 2),  # after one epoch without a better one
        epochs=8,
        patience=2,
        optimizer=lambda module: torch.optim.SGD(module.parameters(), lr=0.1, maximize=True),
    )
    assert [record["best"] for record in end["records"]] == [True, False, False]
