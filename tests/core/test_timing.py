"""The stopwatch and the comparison, driven by a clock and a device that the test moves itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch

from dltool import timing
from dltool.timing import Stopwatch, Timing, compare, ratio


class Machine:
    """A clock, and a device that works only when it is waited for, as a GPU seems to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pending = 0.0

    def clock(self) -> float:
        return self.now

    def synchronize(self, device: object) -> None:
        self.now += self.pending
        self.pending = 0.0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake = Machine()
    monkeypatch.setattr(timing, "synchronize", fake.synchronize)
    return fake


def test_laps_add_up_and_the_time_between_them_does_not_count(machine: Machine) -> None:
    watch = Stopwatch(clock=machine.clock)
    for seconds, items in ((2.0, 64), (3.0, 96)):
        with watch.lap(items=items):
            machine.now += seconds
        machine.now += 1000.0
    assert (watch.seconds, watch.items) == (5.0, 160)
    assert watch.items_per_second == 32.0


def test_a_lap_is_charged_for_its_own_device_work_and_for_no_other(machine: Machine) -> None:
    watch = Stopwatch(clock=machine.clock)
    machine.pending = 50.0  # given to the device before the lap
    with watch.lap(items=1):
        machine.pending += 4.0
    assert watch.seconds == 4.0
    assert machine.pending == 0.0


def test_a_lap_that_fails_counts_its_time_but_not_its_items(machine: Machine) -> None:
    watch = Stopwatch(clock=machine.clock)

    def stumble() -> None:
        with watch.lap(items=8):
            machine.now += 9.0
            raise KeyError

    with pytest.raises(KeyError):
        stumble()
    with watch.lap(items=2):
        machine.now += 1.0
    assert (watch.seconds, watch.items) == (10.0, 2)


def test_elapsed_looks_into_the_running_lap(machine: Machine) -> None:
    watch = Stopwatch(clock=machine.clock)
    with watch.lap():
        machine.now += 3.0
        assert (watch.elapsed, watch.seconds) == (3.0, 0.0)
        assert watch.state()["seconds"] == 3.0
    assert watch.elapsed == 3.0


def test_a_lap_inside_a_lap_is_refused(machine: Machine) -> None:
    watch = Stopwatch(clock=machine.clock)
    with pytest.raises(RuntimeError, match="running already"), watch.lap(), watch.lap():
        pass


def test_a_restored_watch_goes_on_where_the_saved_one_stood(machine: Machine) -> None:
    first, second = Stopwatch(clock=machine.clock), Stopwatch(clock=machine.clock)
    with first.lap(items=10):
        machine.now += 5.0
    second.restore(first.state())
    with second.lap(items=20):
        machine.now += 1.0
    assert second.state() == {"seconds": 6.0, "items": 30}
    assert second.items_per_second == 5.0


def test_the_rate_before_the_first_lap_is_zero() -> None:
    assert Stopwatch().items_per_second == 0.0


def worker(machine: Machine, calls: list[str], name: str, seconds: float) -> Callable[[], object]:
    def work() -> None:
        calls.append(name)
        machine.now += seconds

    return work


def test_rounds_are_interleaved_and_alternate_their_order(machine: Machine) -> None:
    calls: list[str] = []
    functions = {name: worker(machine, calls, name, 1.0) for name in "abc"}
    result = compare(functions, repeats=3, warmup=1, clock=machine.clock)
    assert "".join(calls) == "cba" + "abc" + "cba" + "abc"
    assert {name: len(found.seconds) for name, found in result.items()} == dict.fromkeys("abc", 3)


def test_warm_up_is_not_counted_and_device_work_is(machine: Machine) -> None:
    times = iter([99.0, 98.0, 3.0, 1.0, 2.0])

    def work() -> None:
        machine.pending = next(times)

    result = compare({"work": work}, repeats=3, warmup=2, clock=machine.clock)
    assert result["work"].seconds == (3.0, 1.0, 2.0)


def test_drift_of_the_machine_does_not_move_the_ratio(machine: Machine) -> None:
    slowness = [1.0]

    def work(seconds: float) -> Callable[[], object]:
        def run() -> None:
            machine.now += seconds * slowness[0]
            slowness[0] *= 1.5

        return run

    result = compare({"a": work(2.0), "b": work(1.0)}, repeats=8, warmup=0, clock=machine.clock)
    # by turns b runs one step of drift later or earlier than a: 2 / 1.5 and 2 * 1.5
    assert ratio(result["a"], result["b"]) == pytest.approx((2 / 1.5 + 2 * 1.5) / 2)


def test_the_result_is_released_after_the_clock_stopped(machine: Machine) -> None:
    class Heavy:
        def __del__(self) -> None:
            machine.now += 70.0

    def work() -> Heavy:
        machine.now += 1.0
        return Heavy()

    result = compare({"work": work}, repeats=2, warmup=0, clock=machine.clock)
    assert result["work"].seconds == (1.0, 1.0)


def test_figures_of_a_timing_equal_those_of_the_textbook() -> None:
    found = Timing((5.0, 1.0, 4.0, 2.0, 3.0))
    assert (found.min, found.median, found.max) == (1.0, 3.0, 5.0)
    assert found.iqr == 2.0  # quartiles of 1 2 3 4 5 are 2 and 4
    assert found.as_dict()["median"] == statistics.median([1, 2, 3, 4, 5])
    assert Timing((1.0,)).iqr == 0.0


def test_ratio_pairs_the_rounds() -> None:
    assert ratio(Timing((2.0, 30.0, 6.0)), Timing((1.0, 10.0, 3.0))) == 2.0
    with pytest.raises(ValueError, match="numbers of rounds"):
        ratio(Timing((1.0, 2.0)), Timing((1.0,)))


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"warmup": -1}])
def test_compare_refuses_settings_that_measure_nothing(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="repeats"):
        compare({"work": lambda: None}, **settings)
    with pytest.raises(ValueError, match="a function"):
        compare({})


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", []), ("cuda:1", ["cuda:1"]), ("mps", ["mps"])]
)
def test_synchronize_waits_for_the_device_that_is_named(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: list[str]
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    timing.synchronize(device)
    assert waited == expected
