"""kill -9 while checkpoints are saved: nothing unreadable, nothing lost, nothing left behind."""

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


def clean(found):
    return not (found["unreadable"] or found["orphans"] or found["lost"])


def test_kill_at_random_moments_of_saving(child, tmp_path, scale, tally):
    found = child("saver.py", "random", tmp_path / "c", scale(100, 500), 0)
    assert clean(found), found
    # otherwise the kills did not meet a save
    assert found["left_by_kills"] > found["kills"] // 10
    tally(
        "kill -9 at random moments of saving",
        found["kills"],
        unreadable=0,
        orphans_after_next_start=0,
        half_written_found=found["left_by_kills"],
    )


def test_kill_before_every_system_call_of_saving(child, tmp_path, scale, tally):
    found = child("saver.py", "boundaries", tmp_path / "c", scale(2, 4))
    assert clean(found), found
    assert found["kills"] > 60
    tally("kill -9 at every boundary of saving", found["kills"], unreadable=0, orphans=0)
