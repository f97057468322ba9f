"""The `mlp-xor` topic: its networks against hand-made weights, its commands against bad input."""

import json
import math
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from dltool_mlp_xor import data as point_data
from dltool_mlp_xor import snapshots
from dltool_mlp_xor.config import ACTIVATIONS, INITS, TASKS
from dltool_mlp_xor.data import Batches, Split
from dltool_mlp_xor.evaluate import evaluate
from dltool_mlp_xor.health import check_end, check_start, dead_units
from dltool_mlp_xor.line import best_line
from dltool_mlp_xor.model import Spec, TwoLogits, build, count_parameters, loss_of, values_of
from PIL import Image
from safetensors.torch import load_file

from dltool import cli, runs
from dltool.errors import DataError

CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR = torch.tensor([0, 1, 1, 0])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with the caches of a new user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield tmp_path
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


@pytest.fixture
def run(here, capsys):
    """Run a command of the topic in this process; check its exit code."""

    def call(*arguments, code=0):
        capsys.readouterr()
        got = cli.run(["mlp-xor", *map(str, arguments)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


def data_of(shown):
    return json.loads(shown.out)["data"]


def tensors(folder):
    return load_file(folder / "model" / "model.safetensors")


def same_model(left, right):
    a, b = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def network(hidden, activation="relu", init="auto", loss="cross-entropy", seed=0, points=None):
    stream = torch.Generator().manual_seed(seed)
    return build(Spec(hidden, activation, loss), init, stream, points)


def by_hand():
    """Goodfellow, Bengio and Courville, Deep Learning (2016), section 6.1: XOR with 2-2-1."""
    model = network((2,))
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
        model.layers[0].bias.copy_(torch.tensor([0.0, -1.0]))
        model.layers[1].weight.copy_(torch.tensor([[1.0, -2.0]]))
        model.layers[1].bias.copy_(torch.tensor([-0.5]))
    return model


# ---- the network ------------------------------------------------------------------------------


def test_hand_made_weights_give_the_truth_table():
    model = by_hand()
    assert torch.equal(model(CORNERS), torch.tensor([-0.5, 0.5, 0.5, -0.5]))
    measured = evaluate(model, Split(CORNERS, XOR), 0.15)
    assert measured.confusion.tolist() == [[2, 0], [0, 2]]
    assert measured.within == 0  # tanh(1/4) = 0.24 is far from 1
    with torch.no_grad():
        model.layers[1].weight *= 12
        model.layers[1].bias *= 12
    assert evaluate(model, Split(CORNERS, XOR), 0.15).within == 4


def test_forward_is_the_formula_worked_out_in_numpy():
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(1)) * 3 + 1
    model = network((9, 5), "sigmoid", points=points)
    x = (points.double().numpy() - points.double().numpy().mean(0)) / points.numpy().std(0)
    for number, layer in enumerate(model.layers):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        x = 1 / (1 + np.exp(-x)) if number < 2 else x
    np.testing.assert_allclose(model(points).detach().numpy(), x[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("hidden", "count"), [((9,), 37), ((9, 5), 83), ((), 3)])
def test_parameter_counts_of_the_source_documents(hidden, count):
    assert count_parameters(network(hidden)) == count


def test_losses_are_the_textbook_formulas_and_refuse_to_broadcast():
    z, y = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1, 1, 0])
    p = 1 / (1 + np.exp(-z.numpy()))
    expected = -np.mean([np.log(p[0]), np.log(p[1]), np.log(1 - p[2])])
    assert loss_of("cross-entropy", z, y).item() == pytest.approx(expected, rel=1e-6)
    assert loss_of("mse", z, y).item() == pytest.approx((1 + 4 + 2.25) / 3)
    np.testing.assert_allclose(values_of("cross-entropy", z).numpy(), 2 * p - 1, rtol=1e-6)
    for kind in ("mse", "cross-entropy"):
        with pytest.raises(ValueError, match="differ"):
            loss_of(kind, z[:, None], y)


def test_two_logits_have_the_same_loss_as_one():
    model = network((4,), "tanh")
    two = torch.nn.functional.cross_entropy(TwoLogits(model)(CORNERS), XOR)
    assert two.item() == pytest.approx(loss_of("cross-entropy", model(CORNERS), XOR).item())


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        ("xavier", math.sqrt(2 / 600)),
        ("kaiming", math.sqrt(2 / 400)),
        ("normal", 1.0),
        ("small", 0.01),
        ("constant", 0.0),
    ],
)
def test_initial_weights_have_the_published_variance(init, deviation):
    weight = network((400, 200), init=init).layers[1].weight
    assert weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert init in INITS


def test_auto_init_follows_the_activation():
    for activation in ACTIVATIONS:
        kind = "kaiming" if activation in ("relu", "gelu") else "xavier"
        auto, named = network((8,), activation), network((8,), activation, kind)
        assert torch.equal(auto.layers[0].weight, named.layers[0].weight)


# ---- the points -------------------------------------------------------------------------------


def nearest(points, curve):
    points, curve = (torch.as_tensor(values).double() for values in (points, curve))
    return torch.cdist(points, curve).min(1).values


@pytest.mark.parametrize("task", ["moons", "circles"])
def test_shapes_are_those_of_scikit_learn(task):
    from sklearn import datasets

    if task == "moons":
        theirs, labels = datasets.make_moons(4000, noise=None)
    else:
        theirs, labels = datasets.make_circles(4000, noise=None, factor=0.5)
    ours, own_labels = point_data.make(task, 500, 0.0, 3, "train")
    for label in (0, 1):
        assert nearest(ours[own_labels == label], theirs[labels == label]).max() < 0.01
        assert nearest(theirs[labels == label], ours[own_labels == label]).max() < 0.15


def test_sign_points_are_normal_and_labelled_by_their_signs():
    points, labels = point_data.make("sign", 50_000, 0.0, 0, "train")
    assert torch.equal(labels.bool(), (points[:, 0] > 0) == (points[:, 1] > 0))
    assert points.mean().abs() < 0.02
    assert points.std().item() == pytest.approx(1, abs=0.01)


def test_noise_moves_points_and_leaves_labels():
    for task in TASKS:
        clear, labels = point_data.make(task, 2000, 0.0, 5, "test")
        moved, same = point_data.make(task, 2000, 0.3, 5, "test")
        assert torch.equal(labels, same)
        assert (moved - clear).std().item() == pytest.approx(0.3, rel=0.1)
        assert labels.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_splits_and_seeds_give_other_points():
    draws = [point_data.make("sign", 100, 0, seed, name)[0] for seed in (0, 1) for name in "ab"]
    for number, one in enumerate(draws):
        assert all(not torch.equal(one, other) for other in draws[number + 1 :])
    assert torch.equal(draws[0], point_data.make("sign", 100, 0, 0, "a")[0])


def test_batches_depend_on_seed_epoch_and_position_only():
    points, labels = point_data.make("moons", 23, 0.1, 0, "train")
    source = Batches(points, labels, batch_size=5, seed=1, passes=3)
    whole = list(source.batches(2))
    assert len(whole) == len(source) == 15
    for start in (1, 5, 7, 14):
        for (x, y), (x2, y2) in zip(whole[start:], source.batches(2, start), strict=True):
            assert torch.equal(x, x2)
            assert torch.equal(y, y2)
    first, second = (torch.cat([x for x, _ in whole[i : i + 5]]) for i in (0, 5))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(0).values, points.sort(0).values)
    rows = {tuple(x): int(y) for x, y in zip(points.tolist(), labels, strict=True)}
    assert all(rows[tuple(p)] == int(c) for x, y in whole for p, c in zip(x.tolist(), y, strict=1))


# ---- what no straight line can do -------------------------------------------------------------


def test_best_line_by_trying_every_pair_of_points():
    assert best_line(Split(CORNERS, XOR)) == 0.75
    assert best_line(Split(CORNERS, CORNERS[:, 0].long())) == 1.0
    points, labels = point_data.make("moons", 40, 0.2, 7, "train")
    best = 0.0
    for i in range(40):
        for j in range(i):
            normal = (points[i] - points[j]).flip(0) * torch.tensor([1.0, -1.0])
            for shift in (-1e-4, 1e-4):  # a line along two points, to either side of them
                right = ((points - points[i]) @ normal > shift) == labels.bool()
                best = max(best, right.float().mean().item(), 1 - right.float().mean().item())
    assert best_line(Split(points, labels)) == pytest.approx(best, abs=0.026)  # one point


def test_linear_run_says_what_a_line_can_reach(run, here):
    result = data_of(run("train", "--hidden", "none", "--out", "a", "--json"))
    assert result["best_line"] == 0.75
    assert result["accuracy"]["value"] <= 0.75
    assert result["parameters"] == 3
    assert "one straight line" in run("train", "--hidden", "none", "--out", "b").out
    assert "no hidden units" not in run("plot", "a").err
    assert not (here / "a" / "hidden.png").exists()


# ---- guards -----------------------------------------------------------------------------------


def test_dead_units_are_counted_and_said():
    model = network((4,))
    split = Split(CORNERS, XOR)
    with torch.no_grad():
        model.layers[0].weight.copy_(torch.tensor([[1.0, 1], [1, 1], [-1, -1], [-1, -1]]))
        model.layers[0].bias.copy_(torch.tensor([1.0, 1, 0, 0]))
    assert dead_units(model, split) == [2]
    assert "G-X01" in [found.code for found in check_start(model, split)]
    with torch.no_grad():
        model.layers[0].bias[2] = 0.5  # now the third unit answers (0, 0)
    assert dead_units(model, split) == [1]
    assert "G-X01" not in [found.code for found in check_start(model, split)]
    assert dead_units(network((4,), "tanh"), split) == []


def test_start_guard_names_constant_and_saturating_weights():
    split = Split(10 * (CORNERS - 0.5), XOR)
    codes = {
        init: [found.code for found in check_start(network((9,), "tanh", init), split)]
        for init in ("auto", "normal", "constant")
    }
    assert codes == {"auto": [], "normal": ["G-X02"], "constant": ["G-X02", "G-X03"]} or codes == {
        "auto": [],
        "normal": ["G-X02"],
        "constant": ["G-X03"],
    }


def test_end_guard_names_constant_and_line_like_networks():
    split = Split(CORNERS, XOR)
    assert check_end(by_hand(), split) == []
    constant = by_hand()
    with torch.no_grad():
        constant.layers[1].weight.zero_()
    assert [found.code for found in check_end(constant, split)] == ["G-X04"]
    half = by_hand()
    with torch.no_grad():
        half.layers[1].weight.copy_(torch.tensor([[1.0, 0.0]]))  # x + y > 1/2: logical or
    assert [found.code for found in check_end(half, split)] == ["G-X05"]
    assert check_end(network((), "tanh"), split) == []


def test_dying_narrow_relu_net_is_told(run, here):
    shown = run("train", "--task", "circles", "--activation", "relu", "--hidden", "2,2,2",
                "--seed", "2", "--out", "a", "--json")  # fmt: skip
    result = json.loads(shown.out)
    codes = [found["code"] for found in result["data"]["findings"]]
    assert "G-X01" in codes
    assert max(result["data"]["dead_units"]) == 2
    assert any("dead" in warning for warning in result["warnings"])
    assert len(result["warnings"]) == len(set(result["warnings"]))
    quiet = run("train", "--task", "circles", "--activation", "relu", "--hidden", "2,2,2",
                "--seed", "2", "--out", "b", "--guards", "off", "--json")  # fmt: skip
    assert json.loads(quiet.out)["warnings"] == []
    assert same_model(here / "a", here / "b")


# ---- training ---------------------------------------------------------------------------------


def test_default_command_learns_the_table(dltool, work):
    result = dltool("mlp-xor", "train", "--json").json()["data"]
    assert result["accuracy"]["value"] == 1.0
    assert result["accuracy"]["n"] == 4
    assert result["accuracy"]["baseline"] == 0.5
    assert result["best_line"] is None
    assert result["measured_on"] == "the training points"
    folder = work / result["run"]
    for name in ("config.json", "metrics.jsonl", "curves.png", "boundary.png", "run.json"):
        assert (folder / name).stat().st_size > 0
    assert not (folder / "snapshots").exists()
    assert (work / "runs" / "mlp-xor" / "latest").exists()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("task", "goal"), [("circles", 0.98), ("moons", 0.96)])
def test_every_activation_learns(run, here, task, goal, activation):
    result = data_of(run("train", "--task", task, "--activation", activation, "--json"))
    assert result["accuracy"]["value"] >= goal
    assert result["accuracy"]["low"] < result["accuracy"]["value"] < result["accuracy"]["high"]


def test_sign_problem_beats_the_source_at_a_fraction_of_its_steps(run, here):
    result = data_of(run("train", "--task", "sign", "--epochs", "20", "--out", "a", "--json"))
    assert result["network"] == "2-9-5-1"
    assert result["steps"] == 2000
    assert result["tolerance_accuracy"]["tolerance"] == 0.15
    assert result["tolerance_accuracy"]["value"] > 0.98  # the source: 0.9492 after 200,000
    assert result["accuracy"]["value"] > 0.998
    # the figure again, from the weights, on points drawn here
    weights = {name: value.double().numpy() for name, value in tensors(here / "a").items()}
    stream = np.random.default_rng(1)
    x = stream.standard_normal((50_000, 2))
    y = np.sign(x[:, 0] * x[:, 1])
    z = (x - weights["mean"]) / weights["std"]
    for number in range(3):
        z = z @ weights[f"layers.{number}.weight"].T + weights[f"layers.{number}.bias"]
        z = 1 / (1 + np.exp(-z)) if number < 2 else z
    near = np.abs(np.tanh(z[:, 0] / 2) - y) < 0.15
    assert near.mean() == pytest.approx(result["tolerance_accuracy"]["value"], abs=0.005)
    wider = data_of(run("evaluate", "a", "--tolerance", "0.5", "--json"))
    assert wider["tolerance_accuracy"]["value"] > result["tolerance_accuracy"]["value"]
    assert wider["accuracy"]["value"] == result["accuracy"]["value"]


def test_source_recipe_can_be_spelled_out(run, here):
    result = data_of(
        run("train", "--task", "sign", "--points", "500", "--loss", "mse", "--optimizer", "sgd",
            "--lr", "0.1", "--schedule", "constant", "--init", "normal", "--batch-size", "500",
            "--epochs", "4", "--passes", "250", "--out", "a", "--json")
    )  # fmt: skip
    assert result["steps"] == 1000
    assert result["accuracy"]["value"] > 0.6
    row = data_of(run("predict", "a", "1,1", "--json"))["predictions"][0]
    assert row["probability"] is None


def test_guards_and_snapshots_change_no_bit_and_seeds_do(run, here):
    quick = ("train", "--task", "moons", "--epochs", "2")
    run(*quick, "--out", "a")
    run(*quick, "--out", "b", "--guards", "off")
    run(*quick, "--out", "c", "--guards", "strict", "--snapshots", "3")
    run(*quick, "--out", "d", "--seed", "1")
    assert same_model(here / "a", here / "b")
    assert same_model(here / "a", here / "c")
    assert not same_model(here / "a", here / "d")


def test_stopped_process_resumes_to_the_same_bits(environment, work, dltool):
    options = ["--task", "sign", "--points", "20000", "--epochs", "60", "--snapshots", "9",
               "--clip", "1", "--seed", "5"]  # fmt: skip
    dltool("mlp-xor", "train", *options, "--out", "whole")
    command = [sys.executable, "-m", "dltool", "mlp-xor", "train", *options]
    process = subprocess.Popen(
        [*command, "--out", "part", "--events"],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if json.loads(line)["event"] == "epoch":
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Cure: dltool mlp-xor train --resume part" in err
    assert len(runs.read_records(work / "part")) < 60
    dltool("mlp-xor", "train", "--resume", "part")
    assert same_model(work / "whole", work / "part")
    keys = ("epoch", "step", "train_loss", "val_loss", "val_tolerance_accuracy", "lr", "best")
    whole, part = ([[r[k] for k in keys] for r in runs.read_records(work / name)]
                   for name in ("whole", "part"))  # fmt: skip
    assert whole == part
    kept = {path.name: path.read_bytes() for path in (work / "whole" / "snapshots").iterdir()}
    assert kept == {p.name: p.read_bytes() for p in (work / "part" / "snapshots").iterdir()}
    assert len(kept) == 9


def test_resume_of_finished_and_changed_runs(run, here):
    run("train", "--out", "a")
    before = (here / "a" / "model" / "model.safetensors").stat().st_mtime_ns
    shown = run("train", "--resume", "a")
    assert "finished already" in shown.err
    assert "the four points: accuracy" in shown.out
    assert (here / "a" / "model" / "model.safetensors").stat().st_mtime_ns == before
    shutil.rmtree(here / "a" / "model")
    run("predict", "a", "0,1")  # an unfinished run gives its best so far
    runs.Run(here / "a", "mlp-xor").update(status="interrupted", result=None)
    shown = run("train", "--resume", "a", "--lr", "0.5", code=2)
    assert "learning_rate: 0.05 in the run, 0.5 given" in shown.err


def test_config_file_and_recipe_share_their_work(run, here):
    (here / "c.toml").write_text('task = "circles"\nepochs = 1\n')
    run("train", "--config", "c.toml", "--noise", "0.2", "--out", "a")
    config = json.loads((here / "a" / "config.json").read_text())
    assert config["task"] == {"value": "circles", "origin": "file c.toml"}
    assert config["noise"] == {"value": 0.2, "origin": "flag"}
    assert config["hidden"] == {"value": "8", "origin": "recipe"}
    (here / "c.toml").write_text('tsk = "circles"')
    assert "'task'" in run("train", "--config", "c.toml", code=2).err


def test_diverging_run_exits_7(run, here):
    shown = run("train", "--task", "moons", "--loss", "mse", "--optimizer", "sgd", "--lr", "90",
                "--activation", "relu", "--schedule", "constant", "--guards", "off",
                code=7)  # fmt: skip
    assert "E701" in shown.err


# ---- use --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on the table, with snapshots."""
    folder = tmp_path_factory.mktemp("trained") / "xor"
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    words = ["mlp-xor", "train", "--snapshots", "4", "--out", str(folder)]
    assert cli.run(words) == 0
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)
    return folder


def test_predict_takes_arguments_files_and_stdin(run, dltool, here, trained):
    (here / "p.csv").write_text("x,y\n0,0\n\n 1 , 0\r\n-0.5,1e-3\n")
    (here / "named.csv").write_text("\ufeff0,0,0\n1,1,1\n", encoding="utf-8")
    rows = data_of(run("predict", trained, "0,1", "-0.5,1e-3", "p.csv", "named.csv", "--json"))
    got = [(row["x"], row["y"], row["class"]) for row in rows["predictions"]]
    assert [row[:2] for row in got[:2]] == [(0, 1), (-0.5, pytest.approx(1e-3))]
    assert got[0][2] == "1"
    assert [row[2] for row in got[2:4]] == ["0", "1"]
    assert got[4] == got[1]
    assert [row.get("true") for row in rows["predictions"][5:]] == ["0", "1"]
    for row in rows["predictions"]:
        assert 0.5 <= row["probability"] <= 1
        sign = 1 if row["class"] == "1" else -1
        assert row["value"] == pytest.approx(sign * (2 * row["probability"] - 1), abs=1e-5)
    shown = dltool("mlp-xor", "predict", trained, "-", stdin=b"0,1\n1,1\n")
    lines = shown.out.splitlines()
    assert lines[0] == "x,y,class,probability,value"
    assert [line.split(",")[2] for line in lines[1:]] == ["1", "0"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no point"),
        (b"x,y\n", "no point"),
        (b"0,0\n1\n", "line 2"),
        (b"x,y\n0,0\n1,zero\n", "line 3: holds '1,zero'"),
        (b"0,0\n1,nan\n", "line 2"),
        (b"0,0\n1,1e39\n", "line 2"),
        (b"0;0\n", "no point"),
        (b"0,0\n1;1\n", "line 2"),
        (b"0,0,a,b\n", "line 1"),
        (b"0,0,a\n1,1\n", "line 2: has another number of columns"),
        (b"0,0\n\xff\xfe,1\n", "line 2: is not UTF-8"),
        (b'0,0\n"1,1\n', "line 2: is no CSV"),
        (b"0,0\n" + b"1" * 20_000 + b",1\n", "line 2: has 20,003 characters"),
    ],
)
def test_broken_points_file_names_the_line(run, here, trained, content, words):
    (here / "p.csv").write_bytes(content)
    shown = run("predict", trained, "p.csv", code=5)
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("error E50")
    assert words in line
    assert not shown.out


@pytest.mark.parametrize("text", ["gone.csv", "1", "1,2,3", "a,b", "1,inf", "-x,1", ""])
def test_what_is_no_point_is_refused(run, trained, text):
    assert "no point and no file" in run("predict", trained, text, code=5).err


def test_parse_points_by_hand():
    listed = point_data.parse_points(b"1,2,cat\n3,4,dog\n", "x")
    assert listed.points.tolist() == [[1, 2], [3, 4]]
    assert listed.names == ("cat", "dog")
    with pytest.raises(DataError, match="x, line 1"):
        point_data.parse_points(b"1,y\n", "x")


def test_evaluate_own_and_other_points(run, here, trained):
    own = data_of(run("evaluate", trained, "--json"))
    assert own["accuracy"]["value"] == 1.0
    assert "tolerance_accuracy" not in own
    (here / "p.csv").write_text("x,y,class\n0,0,0\n0,1,1\n1,1,1\n")
    other = data_of(run("evaluate", trained, "--data", "p.csv", "--json"))
    assert other["confusion"] == [[1, 0], [1, 1]]
    assert other["accuracy"]["baseline"] == pytest.approx(2 / 3)
    run("evaluate", trained, "--data", "p.csv", "--min-accuracy", "0.7", code=6)
    (here / "p.csv").write_text("0,0,zebra\n")
    assert "zebra" in run("evaluate", trained, "--data", "p.csv", code=5).err
    (here / "p.csv").write_text("0,0\n")
    assert "no classes" in run("evaluate", trained, "--data", "p.csv", code=5).err
    run("evaluate", trained, "--split", "tset", code=2)


def test_model_folder_is_enough(run, here, trained):
    shutil.copytree(trained / "model", here / "alone")
    assert data_of(run("predict", "alone", "1,0", "--json"))["predictions"][0]["class"] == "1"
    info = data_of(run("info", "alone", "--json"))
    assert info["network"] == "2-4-1"
    assert info["classes"] == ["0", "1"]
    assert info["results"]["accuracy"]["value"] == 1.0
    run("evaluate", "alone", code=5)
    run("plot", "alone", code=5)
    path = here / "alone" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "model.safetensors" in run("info", "alone", code=5).err


def test_model_of_another_topic_is_refused(run, here, trained):
    shutil.copytree(trained / "model", here / "alone")
    described = json.loads((here / "alone" / "model.json").read_text())
    (here / "run").mkdir()
    (here / "run" / "model.json").write_text(json.dumps({**described, "topic": "cnn"}))
    shutil.copytree(trained / "checkpoints", here / "run" / "checkpoints")
    assert "not of mlp-xor" in run("info", "run", code=5).err
    (here / "run" / "model.json").write_text(json.dumps({"topic": "mlp-xor"}))
    assert "describes no network" in run("info", "run", code=5).err


def test_plot_writes_pictures_and_a_small_moving_one(run, here, trained):
    written = data_of(run("plot", trained, "--out", "p", "--animate", "--json"))["pictures"]
    assert set(written) == {"boundary", "hidden", "animation"}
    with Image.open(here / "p" / "boundary.gif") as moving:
        assert moving.n_frames == 4
        moving.seek(0)
        first = np.asarray(moving.convert("RGB"))
        moving.seek(3)
        assert (first != np.asarray(moving.convert("RGB"))).mean() > 0.05
    assert (here / "p" / "boundary.gif").stat().st_size < 100_000
    run("train", "--hidden", "none", "--out", "line")
    both = data_of(run("plot", trained, "line", "--out", "q", "--json"))["pictures"]
    with Image.open(both["boundaries"]) as wide:
        assert wide.size[0] > 1.5 * wide.size[1]
    assert "--snapshots" in run("plot", "line", "--animate", code=5).err


def test_boundary_picture_shows_the_classes_where_they_are(run, here, trained):
    run("plot", trained, "--out", "p")
    with Image.open(here / "p" / "boundary.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    warm = pixels[..., 0] - pixels[..., 2]  # class 0 is orange, class 1 blue
    height, width = warm.shape
    lower_left = warm[int(height * 0.60), int(width * 0.25)]
    upper_left = warm[int(height * 0.20), int(width * 0.25)]
    assert lower_left > 40
    assert upper_left < -40


def test_snapshots_lie_closer_at_the_start():
    assert snapshots.moments(100, 0) == set()
    assert snapshots.moments(100, 1) == {100}
    chosen = sorted(snapshots.moments(100, 6))
    assert chosen == [0, 4, 16, 36, 64, 100]
    assert max(snapshots.moments(3, 50)) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--task", "spiral"], 2, "did you mean spirals"),
        (["train", "--task", "xor"], 2, "one of table, sign"),
        (["train", "--hidden", "a,b"], 2, "use --hidden 9,5"),
        (["train", "--hidden", "4,0"], 2, "--hidden"),
        (["train", "--hidden", ""], 2, "--hidden"),
        (["train", "--hidden", "9999999"], 2, "--hidden"),
        (["train", "--activation", "rleu"], 2, "did you mean relu"),
        (["train", "--init", "xaver"], 2, "did you mean xavier"),
        (["train", "--points", "100"], 2, "--noise 0.1"),
        (["train", "--points", "2"], 2, "--points"),
        (["train", "--noise", "-1"], 2, "--noise"),
        (["train", "--noise", "nan"], 2, "--noise"),
        (["train", "--lr", "nan"], 2, "--lr"),
        (["train", "--tolerance", "0"], 2, "--tolerance"),
        (["train", "--loss", "hinge"], 2, "cross-entropy"),
        (["train", "--snapshots", "9999"], 2, "--snapshots"),
        (["train", "--precision", "fp16", "--device", "cpu"], 3, "fp16"),
        (["train", "--resume", "nowhere"], 5, "nowhere"),
        (["predict", "nowhere", "0,1"], 5, "nowhere"),
        (["plot", "nowhere"], 5, "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_with_a_cure(run, here, arguments, code, words):
    shown = run(*arguments, code=code)
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("error E")
    assert words in line
    assert "Cure:" in line
    assert not shown.out
    assert not (here / "runs").exists()
