"""Optimizers by name: Muon against torch's own, and its rest against AdamW."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dltool import muon, optim
from dltool.errors import ConfigError


def trained(parameter, optimizer, steps=5):
    """Step along fixed gradients and return the parameter."""
    draws = torch.Generator().manual_seed(3)
    for _ in range(steps):
        parameter.grad = torch.randn(parameter.shape, generator=draws)
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
def test_muon_of_a_matrix_is_torch_s(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = muon.Muon([ours], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    torch.testing.assert_close(
        trained(ours, mine), trained(theirs, reference), atol=2e-3, rtol=1e-2
    )


def test_a_kernel_moves_as_the_matrix_of_its_rows_does():
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, 3, 3, generator=draws)
    kernel = nn.Parameter(start.to(memory_format=torch.channels_last))
    matrix = nn.Parameter(start.flatten(1).clone())
    gradient = torch.randn(6, 4, 3, 3, generator=draws)
    kernel.grad = gradient.to(memory_format=torch.channels_last)
    matrix.grad = gradient.flatten(1).clone()
    for parameter in (kernel, matrix):
        muon.Muon([parameter], lr=0.1).step()
    assert torch.equal(kernel.detach().flatten(1), matrix.detach())


def test_singular_values_of_an_update_are_near_one():
    matrix = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(muon.orthogonal(matrix).float())
    assert values.min() > 0.5
    assert values.max() < 1.4


@pytest.mark.parametrize("shape", [(5,), (1, 8), (2, 3, 4), (4, 1)])
def test_what_is_no_matrix_moves_as_by_adamw(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = muon.Muon([ours], lr=0.02, weight_decay=0.1)
    reference = torch.optim.AdamW([theirs], lr=0.02, weight_decay=0.1, betas=(0.9, 0.95))
    assert torch.equal(trained(ours, mine), trained(theirs, reference))


def test_muon_goes_on_from_its_state_bit_for_bit():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 3))
    inputs = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))

    def steps(network, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            network(inputs).square().mean().backward()
            optimizer.step()

    optimizer = optim.build("muon", optim.parameter_groups(model, 0.1), 0.01)
    steps(model, optimizer, 2)
    other = copy.deepcopy(model)
    later = optim.build("muon", optim.parameter_groups(other, 0.1), 0.01)
    later.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, 3)
    steps(other, later, 3)
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_sgd_has_nesterov_momentum_and_groups_keep_their_rates():
    groups = [
        {"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5},
        {"params": [nn.Parameter(torch.zeros(2))]},
    ]
    optimizer = optim.build("sgd", groups, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert all(g["nesterov"] and g["momentum"] == 0.9 for g in optimizer.param_groups)
    with pytest.raises(ConfigError, match="lion"):
        optim.build("lion", groups, 0.1)


def test_the_step_schedule_falls_to_a_tenth_twice():
    factors = [optim.rate_factor("step", step, 8) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_plateau_schedule_waits_for_two_epochs_that_are_not_better():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = optim.schedule(optimizer, "plateau", 100)
    assert isinstance(scheduler, ReduceLROnPlateau)
    rates = []
    for accuracy in (0.5, 0.6, 0.6, 0.6, 0.6):
        scheduler.step(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.3]
