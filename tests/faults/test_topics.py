"""Every topic that trains, stopped at random steps and resumed, ends with the same bits."""

import random
import signal
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")

ALWAYS = ["--device", "cpu", "--save-every", "0", "--guards", "off"]
TRAININGS = {
    "detect": ["--data", "shapes", "--epochs", "2"],
    "linreg": ["--data", "diabetes", "--solver", "nn", "--epochs", "4", "--batch-size", "64"],
    "mlp-xor": ["--task", "circles", "--epochs", "6"],
    "seq2seq": ["--epochs", "2", "--samples", "1000", "--width", "32", "--layers", "1"],
    "word2vec": ["--engine", "torch", "--epochs", "2", "--dim", "16"],
}


def job(work, words, **fault):
    return {"words": words, "cwd": str(work), "fault": fault}


@pytest.mark.parametrize("topic", sorted(TRAININGS))
def test_resume_at_random_steps_of_each_topic_is_exact(
    commands, same_end, work, scale, tally, topic
):
    count = scale(0, 6)
    if not count:
        pytest.skip("the topic's own tests stop it once; make faults does it often")
    draws = random.Random(topic)
    train = [topic, "train", *TRAININGS[topic], *ALWAYS]
    # every step is a visit: with a count out of reach the first run tells how many there are
    jobs = [job(work, [*train, "--out", "whole"], place="step", count=10**9)]
    (whole,) = commands(jobs)
    assert whole["code"] == 0, whole["text"]
    jobs = []
    for number in range(count):
        signals = [signal.SIGTERM] if number % 2 else [signal.SIGKILL]
        step = draws.randrange(1, whole["visits"] + 1)
        planted = {"place": "step", "count": step, "signals": signals}
        jobs.append(job(work, [*train, "--out", f"r{number}"], **planted))
        jobs.append(job(work, [topic, "train", "--resume", f"r{number}"]))
    results = commands(jobs)
    for number, (stopped, resumed) in enumerate(zip(results[::2], results[1::2], strict=True)):
        assert stopped["code"] == (143 if number % 2 else -9), stopped["text"]
        assert resumed["code"] == 0, resumed["text"]
        assert same_end(work / "whole", work / f"r{number}")
    tally(f"{topic}: resume at random steps, bit for bit", count, different=0)
