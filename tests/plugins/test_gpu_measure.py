"""`dltool gpu test` and `gpu bench`: what they measure, and what makes them say no."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dltool_gpu import agreement, bench, ceilings, cli, kernels, roofline, together, trial
from dltool_gpu.ceilings import Ceiling
from dltool_gpu.kernels import Sizes
from typer.testing import CliRunner

from dltool import timing
from dltool.console import Console
from dltool.errors import CheckFailed, ConfigError, DataError

CPU = torch.device("cpu")
SMALL = trial.Plan(images=640, batch_size=32, epochs=10)
TINY = Sizes(64, 1 << 16, 1, 4, 8, 1, 2, 32, 8)


# gpu test


@pytest.fixture(scope="module")
def outcome() -> trial.Outcome:
    return trial.run(CPU, SMALL)


def test_the_network_has_the_parameters_of_the_first_lesson() -> None:
    assert sum(parameter.numel() for parameter in trial.network().parameters()) == 814_090


def test_the_network_learns_and_its_losses_are_those_of_exact_arithmetic(
    outcome: trial.Outcome,
) -> None:
    rows = agreement.compared([outcome], trial.reference(SMALL))
    assert agreement.faults(rows) == []
    assert len(outcome.losses) == SMALL.steps * SMALL.epochs == 200
    assert outcome.images_per_second == pytest.approx(200 * 32 / outcome.seconds)
    assert rows[0]["early_difference"] < 2e-6


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda one: [*one.losses[:3], one.losses[3] * 1.001, *one.losses[4:]], "exact arithmetic"),
        (lambda one: [*one.losses[:-1], float("nan")], "no longer finite"),
        (lambda one: [*one.losses[:100], *(2 * loss for loss in one.losses[100:])], "last quarter"),
    ],
)
def test_a_device_that_computes_otherwise_fails(
    outcome: trial.Outcome, wrong: Any, word: str
) -> None:
    other = replace(outcome, device="cuda:0", losses=wrong(outcome))
    found = agreement.faults(agreement.compared([other, outcome], trial.reference(SMALL)))
    assert len(found) == 1
    assert found[0].startswith("cuda:0: ")
    assert word in found[0]


def test_a_device_that_does_not_learn_fails(outcome: trial.Outcome) -> None:
    lazy = replace(outcome, accuracy=0.1)
    (found,) = agreement.faults(agreement.compared([lazy], trial.reference(SMALL)))
    assert "did not learn, 10.0%" in found


def test_several_devices_are_explained_by_what_was_measured() -> None:
    slower = together.explained(2, 55.98 / 67.51, {"one": 12.0, "all": 14.4, "share": 7.0}, 128)
    assert "2 devices are 1.21× slower than one" in slower
    assert "exchanging 3.3 MB of gradients and waiting 7.40 ms" in slower
    assert "--batch-size" in slower
    faster = together.explained(2, 1.9, {"one": 12.0, "all": 6.3, "share": 6.0}, 128)
    assert faster.startswith("2 devices are 1.90× as fast as one")
    assert "--batch-size" not in faster


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(outcome: trial.Outcome) -> None:
    both = together.measure([CPU, CPU], SMALL, outcome)
    assert together.faults(both) == []
    assert both.devices == 2
    assert both.early_difference < 2e-6
    wrong = replace(both, early_difference=1e-3)
    assert "2 devices together" in together.faults(wrong)[0]


def test_the_command_passes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["test", "--device", "cpu", "--epochs", "1", "--batch-size", "640"]
    result = CliRunner().invoke(cli.app, [*words, "--json"])
    data = json.loads(result.stdout)["data"]
    assert (data["passed"], data["faults"], data["together"]) == (True, [], None)
    assert data["devices"][0]["images_per_second"] > 0
    monkeypatch.setattr(trial, "reference", lambda plan: [9.0] * 3)
    result = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, CheckFailed)
    assert result.exception.exit_code == 6
    assert result.stdout.endswith("FAILED\n")


# gpu bench


def test_rates_are_work_by_time_and_the_roof_is_the_smaller_one() -> None:
    ceiling = Ceiling({"fp32": 1e12}, 1e11, "measured here")
    taken = timing.Timing((0.02, 0.01, 0.03))
    product = kernels.matmul(CPU, 512, "fp32")
    result = bench.judged(product, taken, 4, ceiling)
    assert result.rate == pytest.approx(2 * 512**3 / 0.02)
    assert result.intensity == pytest.approx(2 * 512**3 / (3 * 4 * 512**2))
    assert result.ceiling == 1e12
    assert result.share == pytest.approx(result.rate / 1e12)
    sums = bench.judged(kernels.add(CPU, 1 << 16), taken, 4, ceiling)
    assert sums.intensity == pytest.approx(1 / 12)
    assert sums.ceiling == pytest.approx(1e11 / 12)
    launch = bench.judged(kernels.launch(CPU), taken, 4, ceiling)
    assert (launch.unit, launch.rate, launch.ceiling) == ("calls/s", pytest.approx(50), None)


@pytest.mark.parametrize(
    ("build", "flops"),
    [
        (lambda: kernels.matmul(CPU, 48, "fp32"), 2 * 48**3),
        (lambda: kernels.conv(CPU, TINY, "fp32"), 2 * 9 * 4 * 4 * 8 * 8),
        (lambda: kernels.attention(CPU, TINY, "fp32"), 4 * 2 * 32 * 32 * 8),
    ],
)
def test_operations_are_counted_as_torch_counts_them(build: Any, flops: int) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    case = build()
    assert case.flops == flops
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        case.run()
    assert counter.get_total_flops() == flops


@pytest.mark.parametrize(
    ("name", "bf16", "bandwidth"),
    [
        ("NVIDIA H200", 989e12, 4.8e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 1.555e12),
        ("NVIDIA L40S", 362e12, 864e9),
        ("NVIDIA L4", 121e12, 300e9),
        ("NVIDIA GeForce GTX 730M", None, None),
        ("NVIDIA A1000", None, None),
    ],
)
def test_published_ceilings_are_found_by_the_whole_name(
    name: str, bf16: float | None, bandwidth: float | None
) -> None:
    found = ceilings.published(name)
    assert (found.flops["bf16"], found.bandwidth) == (bf16, bandwidth) if found else bf16 is None


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(ceilings, "SWEEP", {"cpu": (64,)})
    monkeypatch.setattr(ceilings, "STREAM_BYTES", {"cpu": 1 << 16})
    monkeypatch.setattr(bench, "ROUND_SECONDS", {"cpu": 1e-4})
    groups = ["matmul", "add", "copy", "transfer", "conv", "attention", "launch", "all-reduce"]
    return bench.run(CPU, groups, TINY, 3, Console("gpu bench"))


def test_every_group_is_measured_or_named_as_left_out(
    results: dict[str, Any], tmp_path: Path
) -> None:
    names = [case["name"] for case in results["cases"]]
    assert names == [
        "matmul fp32",
        "matmul bf16",
        "add fp32",
        "copy",
        "conv 3×3 fp32",
        "attention fp32",
        "launch",
    ]
    assert [note.split(":")[0] for note in results["notes"]] == ["transfer", "all-reduce"]
    for case in results["cases"]:
        assert case["rate"] > 0
        assert case["best"] <= case["seconds"]
        if case["group"] in ("matmul", "copy"):
            assert 0 < case["share"] <= 1
    assert "left out: all-reduce: needs two GPUs" in bench.report(results)
    roofline.draw(results, tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def slowed(results: dict[str, Any], **factors: float) -> dict[str, Any]:
    cases = []
    for case in results["cases"]:
        factor = factors.get(case["group"], 1.0)
        times = {name: case[name] * factor for name in ("seconds", "best")}
        cases.append({**case, **times, "rate": case["rate"] / factor})
    return {**results, "cases": cases}


def test_a_stated_regression_ends_with_six(results: dict[str, Any], tmp_path: Path) -> None:
    same = bench.compared(results, results, 0.1)
    assert bench.regression(same) is None
    assert same["mean_ratio"] == pytest.approx(1)
    # twice the time and even the best round above the old median
    slow = slowed(results, copy=2.0)
    slow["cases"] = [
        {**case, "best": case["seconds"]} if case["group"] == "copy" else case
        for case in slow["cases"]
    ]
    failure = bench.regression(bench.compared(slow, results, 0.1))
    assert failure is not None
    assert failure.exit_code == 6
    assert "copy at 50%" in failure.message
    assert "matmul" not in failure.message
    # a faster one is none
    assert bench.regression(bench.compared(slowed(results, copy=0.5), results, 0.1)) is None


def test_results_of_another_device_or_no_results_are_refused(
    results: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        bench.refuse_other_hardware(CPU, {**results, "name": "NVIDIA H200"})
    assert refused.value.code == "E205"
    for text in ("{}", "[]", "no json", '{"format": 1, "cases": [{"name": 1}]}'):
        (tmp_path / "results.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError) as damaged:
            bench.read_results(tmp_path)
        assert damaged.value.code == "E502"
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert bench.read_results(tmp_path) == json.loads(json.dumps(results))


def test_the_clock_of_a_call_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(bench, "ROUND_SECONDS", {"cpu": 2e-3})
    taken, many = bench.timed(lambda: calls.append(torch.ones(64, 64) @ torch.ones(64, 64)), CPU, 4)
    assert len(taken.seconds) == 4
    # pilot: 2 to warm up and 3; then one round to warm up and four
    assert len(calls) == 5 + 5 * many
    assert taken.median * many == pytest.approx(2e-3, rel=20)


@pytest.mark.parametrize("words", [["--only", "matmu"], ["--only", ""], ["--compare", "gone"]])
def test_wrong_input_of_bench_leaves_no_folder(here: Path, words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["bench", *words])
    assert isinstance(result.exception, ConfigError | DataError)
    assert list(here.iterdir()) == []


@pytest.mark.gpu
def test_a_gpu_is_measured_in_every_format() -> None:
    device = torch.device("cuda")
    sizes = replace(kernels.SIZES["cuda"], matmul=2048, vector=1 << 24, images=4, length=256)
    groups = ["matmul", "add", "copy", "transfer", "conv", "attention", "launch"]
    results = bench.run(device, groups, sizes, 3, Console("gpu bench"))
    formats = [case["dtype"] for case in results["cases"] if case["group"] == "matmul"]
    assert formats == kernels.formats(device)
    assert len([case for case in results["cases"] if case["group"] == "transfer"]) == 4


@pytest.mark.gpu
def test_every_gpu_learns_what_the_cpu_learns() -> None:
    outcomes = [trial.run(torch.device(name), SMALL) for name in ("cuda", "cpu")]
    rows = agreement.compared(outcomes, trial.reference(SMALL))
    assert agreement.faults(rows) == []
