"""Several ranks against one: the same losses, the same bits everywhere, and a common end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dltool import ranks
from dltool.errors import ConfigError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its ranks")

WORK = Path(__file__).with_name("rank_work.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(WORK), str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "found.json").read_text())


def distance(these, those):
    """Return the largest relative difference of two lists of losses."""
    return max(abs(a - b) / abs(a) for a, b in zip(these, those, strict=True))


@pytest.mark.parametrize(
    ("name", "count"),
    [("plain", "2"), ("norm", "3"), ("weighted", "2"), ("accumulate", "2")],
)
def test_ranks_train_what_one_process_trains(found, name, count):
    one, several = found[name]["1"][0], found[name][count]
    assert len(one["losses"]) >= 30
    for rank in several:
        assert distance(one["losses"], rank["losses"]) < 1e-5
        assert rank["weights"] == several[0]["weights"]
        assert rank["samples"] == one["samples"]
    closest = zip(one["weights"], several[0]["weights"], strict=True)
    apart = max(abs(a - b) for these, those in closest for a, b in zip(these, those, strict=True))
    assert apart < 1e-5
    for mine, theirs in zip(one["records"], several[0]["records"], strict=True):
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-5)
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)


def test_only_the_first_rank_goes_on_with_the_result(found):
    assert ["end" in rank for rank in found["norm"]["3"]] == [False, True, True]


def test_nan_of_one_rank_stops_all_before_the_update(found):
    first, second = found["nan stops"]
    assert first["end"][:2] == ["E701", 7]
    assert second["end"] == "stopped"
    assert len(first["losses"]) == len(second["losses"]) == 8
    assert first["weights"] == second["weights"]


def test_nan_of_one_rank_is_skipped_by_all(found):
    for rank in found["nan skips"]:
        assert (rank["skipped"], rank["samples"]) == (1, 5 * 43 - 7)
        assert rank["weights"] == found["nan skips"][0]["weights"]


def test_nan_of_one_rank_rolls_all_back(found):
    for rank in found["nan rolls back"]:
        assert rank["rollbacks"] == [{"at": 8, "to": 6}]
        assert rank["weights"] == found["nan rolls back"][0]["weights"]


def test_memory_that_runs_out_on_one_rank_divides_the_batches_of_all(found):
    plain = found["plain"]["1"][0]["weights"]
    for rank in found["memory"]:
        assert (rank["pieces"], rank["samples"]) == (2, 5 * 43)
        for these, those in zip(plain, rank["weights"], strict=True):
            assert these == pytest.approx(those, abs=1e-5)


def test_the_others_tell_why_a_rank_has_failed(found):
    first, second = found["error"]
    assert first["end"] == ["E100", 1, "rank 1: OSError: a cable was pulled"]
    assert "a cable was pulled" in second["failed"]


def test_signal_to_one_rank_stops_all_and_the_run_resumes_bit_for_bit(found):
    first, second = found["signal"]
    assert first["end"][:2] == ["E143", 143]
    assert second["end"] == "stopped"
    assert 0 < len(first["losses"]) < len(found["unbroken"][0]["losses"])
    assert [rank["weights"] for rank in found["resumed"]] == [
        rank["weights"] for rank in found["unbroken"]
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_run_goes_on_with_another_number_of_ranks(found, count):
    plain = found["plain"]["1"][0]
    resumed = found[f"resumed by {count}"]
    assert len(resumed) == count
    for rank in resumed:
        assert distance(plain["losses"][-len(rank["losses"]) :], rank["losses"]) < 1e-5
        assert rank["weights"] == resumed[0]["weights"]
    facts = found[f"run of {count}"]
    assert (facts["ranks"], facts["grade"]) == (count, "statistical")


def test_process_that_nobody_counted_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert ranks.world() == ranks.World(0, 1, 0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks.world() == ranks.World(1, 4, 1, 4)
    assert not ranks.speaks()


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("-1", "2"), ("one", "2")])
def test_contradicting_numbers_are_refused(monkeypatch, rank, count):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(ConfigError) as caught:
        ranks.world()
    assert caught.value.code == "E202"
