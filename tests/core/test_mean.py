import json
import math

import pytest
import torch

from dltool import metrics
from dltool.errors import DataError


def test_mean_weighs_batches_by_their_size():
    losses = torch.rand(10, generator=torch.Generator().manual_seed(0))
    mean = metrics.Mean()
    for part in losses.split(4):
        mean.add(part.mean(), len(part))
    assert mean.value == pytest.approx(float(losses.double().mean()), abs=1e-7)
    batch_means = sum(float(part.mean()) for part in losses.split(4)) / 3
    assert abs(mean.value - batch_means) > 1e-3


def test_mean_keeps_small_parts_beside_a_large_sum():
    mean = metrics.Mean()
    mean.add(torch.tensor(2.0**24), 1)
    for _ in range(1000):
        mean.add(torch.tensor(1.0), 1)
    assert mean.total.item() == 2.0**24 + 1000


def test_mean_of_coarse_losses_is_weighted_in_float64():
    loss = torch.tensor(0.1, dtype=torch.bfloat16)
    mean = metrics.Mean()
    mean.add(loss, 1003)
    assert mean.total.item() == float(loss) * 1003


def test_mean_continues_bit_for_bit_after_restore():
    values = torch.rand(20, generator=torch.Generator().manual_seed(1))
    whole, first, second = metrics.Mean(), metrics.Mean(), metrics.Mean()
    for index, value in enumerate(values):
        whole.add(value, index)
        if index < 9:
            first.add(value, index)
    second.restore(json.loads(json.dumps(first.state())))
    for index in range(9, 20):
        second.add(values[index], index)
    assert second.value == whole.value
    assert second.count == whole.count == sum(range(20))


def test_mean_may_begin_in_inference_mode_and_holds_no_graph():
    with torch.inference_mode():
        mean = metrics.Mean()
        mean.add(torch.tensor(1.0), 1)
    mean.add(torch.tensor(3.0, requires_grad=True) * 1, 3)
    mean.add(0.5, 4)
    assert mean.total.requires_grad is False
    assert mean.value == (1 + 9 + 2) / 8


def test_mean_ignores_an_empty_batch_and_refuses_what_is_no_mean():
    mean = metrics.Mean()
    mean.add(torch.tensor(math.nan), 0)
    with pytest.raises(DataError, match="no sample"):
        _ = mean.value
    with pytest.raises(ValueError, match="one mean"):
        mean.add(torch.rand(3), 3)
    with pytest.raises(ValueError, match="one mean"):
        mean.add(1.0, -1)


def test_adding_to_a_mean_never_reads_the_value():
    # a meta tensor has a device but no value: whatever reads it fails
    mean = metrics.Mean()
    for _ in range(2):
        mean.add(torch.empty((), device="meta"), 4)
    assert mean.total.device.type == "meta"
    assert mean.total.dtype == torch.float64
    with pytest.raises((NotImplementedError, RuntimeError)):
        _ = mean.value


@pytest.mark.gpu
def test_adding_to_a_mean_does_not_wait_for_the_accelerator():
    values = torch.rand(5, device="cuda")
    mean = metrics.Mean()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for value in values:
            mean.add(value, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mean.value == pytest.approx(float(values.double().mean().cpu()), abs=1e-12)
