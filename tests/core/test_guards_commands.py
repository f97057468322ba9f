"""`explain`, `guards` and `check` as commands."""

import json
import tomllib
from importlib import resources

import pytest
from typer.testing import CliRunner

from dltool.commands import explain as explain_command
from dltool.commands import guards as guards_command
from dltool.errors import CAUSES
from dltool.guards.catalogue import STAGES, guards
from dltool.guards.planted import tour

run = CliRunner().invoke


def test_every_code_is_explained():
    listed = json.loads(run(explain_command.app, ["--json"]).stdout)["data"]
    assert set(listed["errors"]) == set(CAUSES)
    assert len(listed["guards"]) == len(guards()) >= 46
    for code in ("G-P09", "g-p09", "E503", "E143"):
        found = run(explain_command.app, [code])
        assert found.exit_code == 0
        assert code.upper() in found.output
    data = json.loads(run(explain_command.app, ["E503", "--json"]).stdout)["data"]
    assert data["exit_code"] == 5
    assert "detect train" in run(explain_command.app, ["G-B04"]).output
    refused = run(explain_command.app, ["G-P9"])
    assert "did you mean G-P" in str(refused.exception)


def test_the_catalogue_is_whole():
    text = resources.files("dltool.guards").joinpath("catalogue.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(text)) == set(guards())
    for guard in guards().values():
        assert guard.stage in STAGES
        assert guard.severity in ("fail", "warn")
        assert all((guard.title, guard.limit, guard.cause, guard.cure))


def test_every_planted_mistake_names_a_guard_of_the_catalogue():
    planted = tour.all_planted()
    assert len(planted) >= 60
    for each in planted.values():
        assert {each.mistake.code, *each.mistake.also} <= set(guards())


def test_the_tour_shows_what_a_mistake_does(capsys):
    shown = run(guards_command.app, ["demo", "negated", "--json"])
    assert shown.exit_code == 0, shown.output
    data = json.loads(shown.stdout)["data"]
    assert data["found"]
    assert data["score_healthy"] > 0.9
    assert data["score_planted"] < 0.3
    assert data["findings"][0]["code"] == "G-P04"
    text = run(guards_command.app, ["demo", "negated"]).output
    assert "found nothing" in text
    assert "FAIL G-P04" in text


def test_the_tour_lists_its_stops_and_knows_no_others():
    listed = json.loads(run(guards_command.app, ["demo", "--json"]).stdout)["data"]["demos"]
    assert len(listed) == len(tour.all_planted())
    refused = run(guards_command.app, ["demo", "no-maks"])
    assert "did you mean no-mask" in str(refused.exception)
    assert run(guards_command.app, ["list"]).output.count("G-") >= 46


def test_a_topic_is_checked_without_training(dltool, work):
    shown = dltool("check", "mlp-xor", "--json")
    assert json.loads(shown.out)["data"]["worst"] == "clean"
    assert not (work / "runs").exists()
    refused = dltool("check", "nothing-of-this-name", code=2)
    assert "no topic" in refused.err


@pytest.mark.parametrize(
    ("words", "code"), [(["check", "log"], 2), (["check", "log", "none.csv"], 5)]
)
def test_a_log_has_to_be_there(dltool, words, code):
    assert dltool(*words, code=code).err.startswith("error E")
