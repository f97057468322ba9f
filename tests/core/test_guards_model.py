"""Guards on a model and one batch: every planted mistake is named, its healthy twin is not."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dltool import guards
from dltool.guards.facts import Facts
from dltool.guards.findings import Clean, Finding, NotJudged
from dltool.guards.planted import worlds
from dltool.guards.planted.mistakes import MODEL
from dltool.guards.report import folded, report_of


def look(world, **others):
    return guards.check(
        world.model,
        world.batch(),
        loss=world.loss,
        optimizer=world.optimizer,
        facts=world.facts,
        build=world.build,
        **others,
    )


@pytest.mark.parametrize("mistake", MODEL, ids=lambda mistake: mistake.name)
def test_planted_mistake_is_the_first_that_is_named(mistake):
    report = look(mistake.plant(0))
    assert report.codes[0] in (mistake.code, *mistake.also), report.text()


HEALTHY = {
    "pictures": worlds.pictures,
    "rows": worlds.rows,
    "tags": worlds.tags,
    "encoder": worlds.texts,
    "lstm": lambda seed: worlds.texts(seed, kind="lstm"),
    "stream": worlds.stream,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_world_gives_no_finding(name):
    report = look(HEALTHY[name](1), full=name == "pictures")
    assert report.findings == (), report.text()
    assert len(report.clean) >= 10


@pytest.mark.parametrize("name", ["pictures", "encoder"])
def test_a_training_with_a_check_ends_with_the_same_bits(name):
    """Weights, buffers, optimizer, gradients, modes and random streams, in mid-training."""
    ends = []
    for checked in (False, True):
        world = HEALTHY[name](0)
        random.seed(0)
        np.random.seed(0)
        worlds.fit(world, 3)
        world.model.layers_seen = [1, 2]
        world.model.eval()
        first = next(world.model.children())
        first.train()
        if checked:
            look(world, full=True)
        assert not world.model.training
        assert first.training
        assert world.model.layers_seen == [1, 2]
        gradients = [each.grad.clone() for each in world.model.parameters()]
        worlds.fit(world, 3)
        ends.append(
            [
                *gradients,
                *world.model.state_dict().values(),
                *[v for s in world.optimizer.state.values() for v in s.values()],
                torch.get_rng_state(),
                torch.tensor([random.random(), np.random.rand()]),
            ]
        )
    assert len(ends[0]) == len(ends[1])
    assert all(torch.equal(one, two) for one, two in zip(*ends, strict=True))


def test_lightning_style_modules_are_checked_by_their_step():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(12, 3)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            x, y = batch
            return {"loss": -F.cross_entropy(self(x), y)}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Module()
    stream = torch.Generator().manual_seed(0)
    batch = (torch.randn(32, 12, generator=stream), torch.arange(32) % 3)
    report = guards.check(
        module,
        batch,
        step=lambda batch: module.training_step(batch, 0)["loss"],
        optimizer=module.configure_optimizers(),
    )
    assert report.codes == ("G-P18",)
    assert {each.code for each in report.not_judged} >= {"G-P01", "G-P04"}
    assert "output and loss are not apart" in report.text()


def test_a_mapping_with_labels_and_a_named_answer_is_a_batch_too():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(20, 8, padding_idx=0)
            self.head = nn.Linear(8, 2)

        def forward(self, input_ids, attention_mask):
            x = self.words(input_ids)
            keep = attention_mask[..., None]
            mean = (x * keep).sum(1) / keep.sum(1)
            return {"logits": self.head(mean)}

    stream = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (16, 9), generator=stream)
    mask = (torch.arange(9)[None] < torch.randint(3, 9, (16, 1), generator=stream)).long()
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.arange(16) % 2}

    def loss(found, labels):
        return F.cross_entropy(found["logits"], labels)

    report = guards.check(Named(), batch, loss=loss)
    assert report.findings == ()
    assert "G-P11" in {each.code for each in report.clean}


def test_a_model_that_cannot_run_is_not_judged_and_says_why():
    report = guards.check(nn.Linear(3, 2), (torch.zeros(4, 5), torch.zeros(4).long()))
    assert report.worst == "clean"
    assert "mat1 and mat2" in {each.code: each.why for each in report.not_judged}["G-P01"]


def test_a_guard_that_is_left_out_does_not_count_but_is_shown():
    world = MODEL[0].plant(0)
    report = look(world, without=["G-P01"])
    assert report.worst == "clean"
    assert report.switched_off[0].code == "G-P01"
    assert "off  G-P01" in report.text()


def test_consequences_are_folded_into_their_cause():
    cause = Finding("G-P16", "fail", "dead", "mend")
    worse = Finding("G-P07", "fail", "not held", "hold")
    consequences = [Finding("G-P06", "warn", "zero", ""), Finding("G-P17", "fail", "stuck", "")]
    found = folded([*consequences, cause, worse])
    assert [each.code for each in found] == ["G-P07", "G-P16"]
    assert found[0].also == ("G-P17",)
    assert found[1].also == ("G-P06",)
    warned = Finding("G-P15", "warn", "affine", "")
    assert len(folded([warned, Finding("G-P17", "fail", "stuck", "")])) == 2


def test_a_report_keeps_the_three_outcomes_apart():
    verdicts = [
        Clean("G-P01"),
        NotJudged("G-P02", "why"),
        Clean("G-P02"),
        Finding("G-P03", "fail", "m", "c", measured=float("inf")),
        NotJudged("G-P04", "no target"),
    ]
    report = report_of(verdicts)
    assert report.worst == "fail"
    assert [each.code for each in report.clean] == ["G-P01", "G-P02"]
    assert [each.code for each in report.not_judged] == ["G-P04"]
    assert json.loads(json.dumps(report.findings[0].as_dict()))["measured"] is None
    with pytest.raises(guards.CheckFailed, match="G-P03"):
        report.raise_for_failure()


def test_facts_acquit():
    deep = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6))
    batch = torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    assert guards.check(deep, batch, loss=F.mse_loss).codes == ("G-P15",)
    assert guards.check(deep, batch, loss=F.mse_loss, facts=Facts(linear=True)).codes == ()
    with pytest.raises(guards.ConfigError, match="task"):
        Facts(task="clasify")


def test_the_model_is_the_same_object_with_the_same_tensors():
    world = worlds.pictures()
    before = [(id(each), each.data_ptr()) for each in world.model.parameters()]
    state = copy.deepcopy(world.model.state_dict())
    look(world)
    assert before == [(id(each), each.data_ptr()) for each in world.model.parameters()]
    now = world.model.state_dict()
    assert all(torch.equal(state[name], now[name]) for name in state)
    assert not world.optimizer.state
