"""Guards on data, loops, results and logs: planted mistakes, healthy twins, real dirt."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from dltool import guards
from dltool.commands.check import app
from dltool.errors import DataError
from dltool.guards import curves, feeding, logs, splits
from dltool.guards.audit import audit, beats
from dltool.guards.findings import Clean, Finding, NotJudged
from dltool.guards.planted import worlds
from dltool.guards.planted.data_mistakes import DATA, LOOPS

ALL = (*DATA, *LOOPS)


@pytest.mark.parametrize("planted", ALL, ids=lambda planted: planted.mistake.name)
def test_planted_mistake_is_named_and_its_twin_is_not(planted):
    mistake = planted.mistake
    report = planted.look(mistake.plant(0))
    assert report.codes[0] in (mistake.code, *mistake.also), report.text()
    assert planted.look(mistake.healthy(0)).findings == ()


def test_a_watched_training_ends_with_the_same_bits():
    ends = []
    for watched in (False, True):
        world = worlds.texts(0)
        watch = guards.Watch(world.model, world.optimizer, every=5) if watched else None
        worlds.fit(world, 20, watch.loss if watch else None)
        ends.append([*world.model.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(one, two) for one, two in zip(*ends, strict=True))


def test_text_leaks_are_found_in_other_letters_and_points():
    train = ["A good film, really!", "bad", "so so"] * 40
    held = ["a GOOD film really"] + [f"text {number}" for number in range(199)]
    found = splits.leak(splits.digests(train), splits.digests(held), "test")
    assert found == Clean("G-D04", 1)
    found = splits.leak(splits.digests(train), splits.digests(held[:20]), "test")
    assert isinstance(found, Finding)
    assert "1 of 20 items" in found.message
    assert found.measured == 0.05


def test_a_hash_alone_makes_no_near_duplicate():
    stream = torch.Generator().manual_seed(0)
    train = torch.rand(200, 1, 28, 28, generator=stream)
    held = torch.rand(100, 1, 28, 28, generator=stream)
    assert isinstance(splits.near(train, held, "test"), Clean)
    held[:10] = train[:10] * 0.99 + 0.005
    found = splits.near(train, held, "test")
    assert isinstance(found, Finding)
    assert found.measured == pytest.approx(0.1)


def test_labels_that_only_a_curved_probe_sees_are_left_in_peace():
    stream = torch.Generator().manual_seed(0)
    x = torch.rand(1000, 2, generator=stream) * 2 - 1
    xor = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()
    assert "G-D07" not in guards.check_data((x, xor)).codes


def test_groups_and_targets_across_splits():
    assert isinstance(splits.groups({"train": ["a", "b"], "test": ["c"]}), Clean)
    assert splits.groups({"train": ["a", "b"], "test": ["b"]}).code == "G-D12"
    held = [f"the answer is number {number % 5}" for number in range(40)]
    assert splits.shared_targets(held, held, "test").severity == "warn"


def test_loaders_are_compared_with_themselves():
    data = torch.utils.data.TensorDataset(torch.arange(100.0), torch.arange(100))
    still = torch.utils.data.DataLoader(data, batch_size=10)
    moving = torch.utils.data.DataLoader(data, batch_size=10, shuffle=True)
    assert feeding.loader(still, is_training=True).code == "G-D09"
    assert isinstance(feeding.loader(moving, is_training=True), Clean)
    assert feeding.loader(moving, is_training=False).code == "G-D11"
    assert isinstance(feeding.loader(still, is_training=False), Clean)


def test_stored_items_that_decay_are_found():
    stored = torch.rand(20, 3)

    def feed():
        for row in stored:
            yield row.mul_(0.9)

    assert feeding.unchanged(stored, feed()).code == "G-D11"
    assert isinstance(feeding.unchanged(stored, iter(stored.clone())), Clean)


def test_curves_are_judged_by_their_ends():
    falling = [2.3 * 0.99**step + 0.1 for step in range(300)]
    assert isinstance(curves.diverged(falling), Clean)
    assert curves.diverged(falling + [1.0] * 60).code == "G-M08"
    spike = [*falling, 9.0, *falling[-20:]]
    assert isinstance(curves.diverged(spike), Clean)
    assert curves.plateau([2.31] * 300, 2.3026, 10).code == "G-M05"
    assert "softmax" in curves.plateau([1.465] * 300, 2.3026, 10).message
    assert isinstance(curves.plateau(falling, 2.3026, 10), Clean)
    assert curves.finite([1.0, float("nan")]).code == "G-M01"


def test_results_are_held_against_guessing_and_counts():
    assert isinstance(beats(0.60, 0.5, 1000, "a"), Clean)
    assert beats(0.52, 0.5, 1000, "a").severity == "fail"
    assert isinstance(beats(1.0, 0.5, 4, "a"), NotJudged)
    score = {"value": 0.9, "n": 350, "baseline": 0.1}
    found = audit({"test_accuracy": score}, {"counts": {"test": 360}}, [])
    assert [each.code for each in found if isinstance(each, Finding)] == ["G-A02"]
    matrix = {"accuracy": {**score, "n": 50}, "confusion": [[25, 0], [25, 0]]}
    codes = [each.message for each in audit(matrix, {}, []) if isinstance(each, Finding)]
    assert any("never hit" in text for text in codes)
    assert any("confusion matrix 0.5000" in text for text in codes)


def test_collapsed_predictions_are_told_at_the_second_evaluation():
    model = nn.Linear(2, 2)
    watch = guards.Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    labels = torch.arange(100) % 2
    watch.evaluated(torch.zeros(100, dtype=torch.int64), labels)
    assert watch.report().codes == ()
    watch.evaluated(torch.zeros(100, dtype=torch.int64), labels)
    assert watch.report().codes == ("G-M06",)


def test_foreign_logs_are_read(tmp_path):
    losses = [2.0 - 0.01 * step for step in range(100)]
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    trainer = tmp_path / "trainer_state.json"
    trainer.write_text(json.dumps({"log_history": rows}))
    lines = tmp_path / "metrics.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)))
    table = tmp_path / "log.csv"
    table.write_text("step,loss\n" + "\n".join(f"{r['step']},{r['loss']}" for r in rows))
    for path in (trainer, lines, table):
        assert logs.series(logs.read(path), logs.TRAIN) == pytest.approx(losses)
    (tmp_path / "odd.json").write_text("{")
    with pytest.raises(DataError, match="no log"):
        logs.read(tmp_path / "odd.json")
    (tmp_path / "empty.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="holds no loss"):
        logs.read(tmp_path / "empty.csv")


def test_a_rate_of_0_and_a_rising_loss_are_seen_in_a_log():
    still = [{"loss": 2.3 + 0.01 * (step % 3), "learning_rate": 0.0} for step in range(60)]
    assert "G-P18" in [each.code for each in logs.judge(still) if isinstance(each, Finding)]
    flat = [{"loss": 2.3 + 0.01 * (step % 3)} for step in range(60)]
    assert "G-M05" in [each.code for each in logs.judge(flat) if isinstance(each, Finding)]


FUNCTION = """
import torch
from torch import nn
def wrong():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    batch = (torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3)
    return {"model": model, "batch": batch, "loss": nn.CrossEntropyLoss()}
def odd():
    return {"modle": 1}
def right(path):
    model, batch, loss, = nn.Linear(4, 3), wrong()["batch"], nn.CrossEntropyLoss()
    return model, batch, loss, torch.optim.SGD(model.parameters(), lr=0.1)
"""


def test_a_strangers_function_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger_of_guards.py").write_text(FUNCTION)
    run = CliRunner().invoke
    bad = run(app, ["stranger_of_guards:wrong"])
    assert type(bad.exception).__name__ == "CheckFailed"
    assert "G-P01" in bad.output
    good = run(app, ["stranger_of_guards:right", "--data", "x", "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["data"]["worst"] == "clean"
    for name in ("odd", "missing"):
        refused = run(app, [f"stranger_of_guards:{name}"])
        assert type(refused.exception).__name__ == "ConfigError"
    off = run(app, ["stranger_of_guards:wrong", "--without", "G-P01: a test"])
    assert off.exit_code == 0
