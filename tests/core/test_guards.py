"""Guards: each planted mistake is found, healthy runs are left in peace, nothing is changed."""

import pytest
import torch
from torch import nn

from dltool.console import Console
from dltool.errors import CheckFailed
from dltool.guards import labels as label_guards
from dltool.guards.classifier import check_classifier
from dltool.guards.findings import Finding, act

CLASSES = 4


def batch(count=16):
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=stream)
    return images, torch.arange(count) % CLASSES


class Net(nn.Module):
    """A healthy network with a switch for each mistake."""

    def __init__(self, mistake=""):
        super().__init__()
        torch.manual_seed(0)
        self.mistake = mistake
        self.first = nn.Linear(36, 32)
        self.norm = nn.BatchNorm1d(32)
        self.drop = nn.Dropout(0.2)
        self.unused = nn.Linear(3, 3) if mistake == "unused" else nn.Identity()
        self.last = nn.Linear(32, CLASSES)

    def forward(self, images):
        x = images.flatten(1).float() / 255
        x = self.drop(torch.relu(self.norm(self.first(x))))
        if self.mistake == "detach":
            x = x.detach()
        if self.mistake == "mixed":
            x = x.softmax(0) * len(x)
        x = self.last(x)
        if self.mistake == "exploding":
            x = x * 1000
        return x.softmax(1) if self.mistake == "softmax" else x


def check(mistake="", forget=False):
    model = Net(mistake)
    parameters = model.last.parameters() if forget else model.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    images, labels = batch()
    loss = nn.functional.cross_entropy
    return check_classifier(model, optimizer, loss, images, labels, CLASSES)


@pytest.mark.parametrize(
    ("mistake", "code"),
    [
        ("softmax", "G-P01"),
        ("detach", "G-P06"),
        ("unused", "G-P06"),
        ("mixed", "G-P09"),
        ("exploding", "G-P05"),
    ],
)
def test_planted_mistake_is_found(mistake, code):
    assert code in {finding.code for finding in check(mistake)}


def test_forgotten_parameters_are_found():
    (finding,) = check(forget=True)
    assert finding.code == "G-P07"
    assert "first.weight" in finding.message


def test_wrong_number_of_outputs_is_found():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 7))
    images, labels = batch()
    found = check_classifier(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        nn.functional.cross_entropy,
        images.float(),
        labels,
        CLASSES,
    )
    assert "G-P03" in {finding.code for finding in found}


def test_healthy_network_gives_no_finding():
    assert check() == []


def test_everything_is_put_back_bit_for_bit():
    model = Net("softmax")
    model.eval()
    model.norm.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    images, labels = batch()
    model.first.weight.grad = torch.ones_like(model.first.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream = torch.get_rng_state()
    check_classifier(model, optimizer, nn.functional.cross_entropy, images, labels, CLASSES)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())
    assert (model.training, model.norm.training) == (False, True)
    assert torch.equal(model.first.weight.grad, torch.ones_like(model.first.weight))
    assert model.last.weight.grad is None
    assert not optimizer.state


def test_splits_of_one_class_or_with_foreign_labels_are_found():
    one = label_guards.check_split(torch.zeros(500, dtype=torch.int64), 3, "test")
    assert (one[0].code, one[0].severity) == ("G-D08", "fail")
    assert label_guards.check_split(torch.tensor([0, 1, 3]), 3, "train")[0].code == "G-D01"
    missing = label_guards.check_split(torch.tensor([0, 1, 0, 1]), 3, "test")
    assert (missing[0].code, missing[0].severity) == ("G-D08", "warn")
    assert label_guards.check_split(torch.tensor([0, 1, 2] * 9), 3, "test") == []


@pytest.mark.parametrize(
    ("overlap", "severity"), [(0, None), (9, None), (10, "warn"), (50, "fail")]
)
def test_leaks_are_judged_by_their_share(overlap, severity):
    found = label_guards.check_leak(overlap, 1000, "test")
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_failures_stop_and_warnings_go_on(capsys):
    warning = Finding("G-X", "warn", "odd", "look")
    failure = Finding("G-Y", "fail", "wrong", "mend")
    act([warning], Console("t"))
    assert "G-X: odd. Cure: look" in capsys.readouterr().err
    with pytest.raises(CheckFailed, match="G-Y") as caught:
        act([warning, failure], Console("t"))
    assert caught.value.exit_code == 6
    with pytest.raises(CheckFailed, match="G-X"):
        act([warning], Console("t"), strict=True)
