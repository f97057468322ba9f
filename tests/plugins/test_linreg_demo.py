"""The demos of `linreg`, against worked figures and known answers."""

import json
import math
from itertools import pairwise

import pytest
import torch
from dltool_linreg.demo import capacity, descent, networks, optimizers, schedules

from dltool import cli


@pytest.fixture
def demo(tmp_path, monkeypatch, capsys):
    """Run a demo in this process; return its data after looking at its picture."""
    monkeypatch.chdir(tmp_path)

    def call(name, *options, code=0):
        capsys.readouterr()
        words = ["linreg", "demo", name, "--plot", "p.png", "--json", *map(str, options)]
        assert cli.run(words) == code
        shown = capsys.readouterr()
        if code:
            return shown
        assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
        return json.loads(shown.out)["data"]

    return call


def test_the_worked_descents_of_the_wave():
    """f = x cos(pi x): the end points that were worked out for the source's listing."""
    assert descent.descend(descent.wave, [2.0], 0.01, 15).points[-1][0] == pytest.approx(
        1.5239, abs=1e-4
    )
    found = descent.descend(descent.wave, [2.0], 0.1, 30)
    assert found.points[-1][0] == pytest.approx(1.0904, abs=1e-4)
    assert found.values[-1] == pytest.approx(-1.0467, abs=1e-4)
    assert found.verdict.startswith("converged")
    assert descent.descend(descent.wave, [0.0], 0.1, 30).points[-1][0] == pytest.approx(
        -0.27385, abs=1e-5
    )
    path = descent.descend(descent.wave, [0.0], 0.5, 5)
    expected = [0, -0.5, 0.2854, 0.3235, 0.4922, 1.2528]
    assert [point[0] for point in path.points] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("rate", "steps", "word"),
    [
        (0.01, 30, "not converged"),
        (0.1, 200, "converged"),
        (0.19, 20, "oscillates"),
        (0.21, 30, "diverges"),
        (5.0, 400, "diverges"),
    ],
)
def test_verdicts_in_the_valley_follow_its_curvature(rate, steps, word):
    """Along y the step multiplies by 1 - 10 rate: beyond 0.2 it grows."""
    found = descent.descend(descent.bowl, [2.0, 1.0], rate, steps)
    assert found.verdict.startswith(word)
    if steps < 100:
        assert found.points[-1][1] == pytest.approx((1 - 10 * rate) ** steps, rel=1e-9)


def test_descent_sweep_and_batches_draw(demo):
    found = demo("descent", "--lr", "0.1,0.5")
    assert [path["verdict"].split(":")[0].split(",")[0] for path in found["paths"]] == [
        "converged",
        "oscillates",
    ]
    assert "wave or bowl" in demo("descent", "--function", "hill", code=2).err
    assert "--lr" in demo("descent", "--lr", "fast", code=2).err
    found = demo("sweep")
    assert found["best"] == 2
    assert found["losses"][0] == pytest.approx(4 * 14 / 3)
    found = demo("batches", "--epochs", "3")
    steps = {row["batch"]: row["steps"] for row in found["sizes"]}
    assert steps == {"1": 768, "32": 24, "all": 3}
    wobble = {row["batch"]: row["wobble"] for row in found["sizes"]}
    assert wobble["1"] > wobble["32"] / 32


def test_plain_descent_of_the_optimizers_is_the_formula():
    x, y, least = optimizers.problem(0)
    weight = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(5):
        weight -= 0.01 * x.T @ (x @ weight - y) / len(y)
    expected = float((x @ weight - y).square().mean() / 2)
    assert optimizers.follow(optimizers.MAKERS["SGD"], x, y, 5)[-1] == pytest.approx(expected)
    for name, make in optimizers.MAKERS.items():
        losses = optimizers.follow(make, x, y, 20)
        assert len(losses) == 21
        assert least < losses[-1] < losses[0], name


def test_optimizers_draw_and_know_their_names(demo):
    found = demo("optimizers", "--names", "sgd,lbfgs", "--steps", "30")
    assert set(found["above"]) == {"SGD", "LBFGS"}
    assert found["above"]["LBFGS"][-1] < 1e-3 * found["above"]["SGD"][-1]
    assert "did you mean 'Adam'" in demo("optimizers", "--names", "adan", code=2).err


def test_schedules_follow_their_formulas(demo):
    rates = demo("schedules")["rates"]
    assert set(rates) == set(schedules.MAKERS)
    assert rates["Step"][29:31] == pytest.approx([1, 0.1])
    assert rates["MultiStep"][79:81] == pytest.approx([0.1, 0.01])
    assert rates["Exponential"][7] == pytest.approx(0.9**7)
    assert rates["Lambda"][3] == pytest.approx(0.65**3)
    assert rates["CosineAnnealing"][25] == pytest.approx(0.5)
    assert rates["CosineAnnealing"][10] == pytest.approx((1 + math.cos(math.pi / 5)) / 2)
    assert rates["Plateau"][41:43] == pytest.approx([1, 0.1])  # 30 falls, then 11 without one
    assert rates["Polynomial"][50] == pytest.approx(0.25)
    assert rates["OneCycle"] == pytest.approx(rates["dltool one-cycle"], rel=1e-6, abs=1e-9)


def test_polynomials_under_fit_fit_and_over_fit(demo):
    found = demo("polynomial")
    rows = {row["degree"]: row for row in found["degrees"]}
    assert found["best"] == 2
    trained = [row["train"] for row in found["degrees"]]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(trained))
    assert rows[1]["verdict"] == "under-fits"
    assert rows[12]["verdict"] == "over-fits"
    assert rows[12]["new"] > 10 * rows[2]["new"]
    ridged = demo("polynomial", "--ridge", "1", "--degrees", "12")
    assert ridged["degrees"][0]["new"] < 0.1 * rows[12]["new"]
    assert "--degrees" in demo("polynomial", "--degrees", "0-3", code=2).err


def test_exact_points_give_back_the_polynomial():
    x, _ = capacity._points(30, 0.0, 0, "train")
    fit = capacity.fit_powers(x, (x + 1) ** 2, 2, 0.0)
    raw = fit.solution.weight[0] / fit.scale
    assert raw.tolist() == pytest.approx([2, 1], abs=1e-9)


def test_weight_decay_gives_the_figures_of_the_source(demo):
    """Lambda 0: test 70 to 96, norm 12.8 to 14.1; lambda 3: test 0.065 to 0.15, norm 0.35-0.39."""
    free, held = demo("weight-decay", "--lambda", "0,3")["runs"]
    assert free["train"] < 1e-4
    assert 70 < free["test"] < 96
    assert 12.8 < free["norm"] < 14.1
    assert 0.065 < held["test"] < 0.15
    assert 0.35 < held["norm"] < 0.39


def test_dropout_narrows_the_gap(demo):
    without, with_it = demo("dropout", "--dropout", "0,0.5", "--steps", "300")["runs"]
    assert with_it["gap"] < without["gap"]
    assert "--dropout" in demo("dropout", "--dropout", "1", code=2).err


@pytest.mark.parametrize(
    ("activation", "lives"), [("relu", {"He"}), ("tanh", {"Xavier", "He"}), ("sigmoid", {"unit"})]
)
def test_signals_live_where_theory_says(demo, activation, lives):
    found = demo("initialisation", "--activation", activation, "--width", "128")["starts"]
    verdicts = {row["start"]: row["verdict"] for row in found}
    assert {name for name, verdict in verdicts.items() if verdict == "lives"} == lives
    if activation != "sigmoid":  # which is bounded, and flat enough to damp large weights
        assert verdicts["unit"] == "explodes"
    assert "vanish" in verdicts["small"]


def test_relu_keeps_its_size_with_he_by_the_formula():
    """Each layer multiplies the mean square by width * deviation² / 2."""
    found = networks.signals("relu", 0.05, 3, 400, 0)["forward"]
    factor = math.sqrt(400 * 0.05**2 / 2)
    assert found == pytest.approx([factor, factor**2, factor**3], rel=0.1)
