import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from dltool import calibration, metrics
from dltool.errors import ConfigError, DataError, Diverged, DltoolError


def random_labels(seed: int, n: int = 300, num_classes: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(num_classes, (n,), generator=generator)
    noise = torch.randint(num_classes, (n,), generator=generator)
    keep = torch.rand(n, generator=generator) < 0.6
    return torch.where(keep, target, noise), target


def random_logits(seed: int, n: int = 400, num_classes: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(num_classes, (n,), generator=generator)
    logits = torch.randn(n, num_classes, generator=generator)
    return logits + 1.5 * torch.nn.functional.one_hot(target, num_classes), target


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # printed values; the last two from Newcombe, Statistics in Medicine 17 (1998), table I
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_agrees_with_published_values(successes, n, low, high):
    assert metrics.wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_wilson_agrees_with_scipy(confidence):
    from scipy.stats import binomtest

    for successes, n in [(0, 3), (1, 7), (9917, 10_000), (7, 7)]:
        expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
        ours = metrics.wilson(successes, n, confidence)
        assert ours == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_ends_are_exact_and_no_sample_means_no_knowledge():
    assert metrics.wilson(0, 17)[0] == 0.0
    assert metrics.wilson(17, 17)[1] == 1.0
    assert metrics.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (0, -1), (1, 5, 0.0), (1, 5, 1.0)])
def test_wilson_refuses_impossible_counts(arguments):
    with pytest.raises(ConfigError) as caught:
        metrics.wilson(*arguments)
    assert caught.value.code == "E202"


def test_mean_interval_agrees_with_scipy():
    from scipy import stats

    values = [0.9912, 0.9907, 0.9921, 0.9899, 0.9917]
    mean, low, high = metrics.mean_interval(values)
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert (low, high) == pytest.approx(expected, abs=1e-12)


def test_mean_interval_of_one_value_is_undefined_and_of_none_an_error():
    assert metrics.mean_interval([0.5]) == (0.5, None, None)
    with pytest.raises(DataError, match="no value"):
        metrics.mean_interval([])
    with pytest.raises(ConfigError, match="out of range"):
        metrics.mean_interval([1.0, math.nan])


def test_score_text_is_one_line_with_size_interval_and_baseline():
    score = metrics.Score.from_counts(9917, 10_000, 0.1135)
    assert score.text() == (
        "0.9917 (95 % interval 0.9897–0.9933, n = 10,000; majority baseline 0.1135)"
    )
    assert metrics.Score.from_counts(5, 10).text() == "0.5000 (95 % interval 0.2366–0.7634, n = 10)"


def test_score_as_dict_is_json_with_every_number():
    content = json.loads(json.dumps(metrics.Score.from_counts(1, 4, 0.5).as_dict()))
    assert content["value"] == 0.25
    assert (content["n"], content["baseline"], content["confidence"]) == (4, 0.5, 0.95)
    assert content["low"] < 0.25 < content["high"]


def test_confusion_agrees_with_scikit_learn():
    from sklearn.metrics import confusion_matrix

    predicted, target = random_labels(1)
    ours = metrics.confusion(predicted, target, 7)
    assert ours.dtype == torch.int64
    assert ours.numpy().tolist() == confusion_matrix(target, predicted, labels=range(7)).tolist()


def test_confusion_rows_are_the_truth():
    matrix = metrics.confusion(torch.tensor([1, 1]), torch.tensor([0, 0]), 2)
    assert matrix.tolist() == [[0, 2], [0, 0]]


def test_confusion_of_small_integer_types_does_not_overflow():
    predicted = torch.tensor([99, 3], dtype=torch.uint8)
    target = torch.tensor([98, 99], dtype=torch.int8)
    matrix = metrics.confusion(predicted, target, 100)
    assert matrix.nonzero().tolist() == [[98, 99], [99, 3]]


def test_confusion_of_nothing_is_zero():
    empty = torch.zeros(0, dtype=torch.int64)
    assert metrics.confusion(empty, empty, 3).tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(
    ("predicted", "target"),
    [
        (torch.tensor([0, 3]), torch.tensor([0, 1])),
        (torch.tensor([0, 1]), torch.tensor([0, -1])),
        (torch.tensor([0, 1]), torch.tensor([0, 1, 1])),
        (torch.tensor([[0], [1]]), torch.tensor([0, 1])),
        (torch.tensor([[0], [1]]), torch.tensor([[0], [1]])),
        (torch.tensor([0.0, 1.0]), torch.tensor([0, 1])),
    ],
    ids=["above", "below", "length", "broadcast", "column", "float"],
)
def test_confusion_refuses_labels_that_do_not_fit(predicted, target):
    with pytest.raises(DataError) as caught:
        metrics.confusion(predicted, target, 3)
    assert caught.value.code == "E506"
    assert caught.value.received is not None


def test_accuracy_agrees_with_torchmetrics_and_names_the_majority():
    from torchmetrics.functional.classification import multiclass_accuracy

    predicted, target = random_labels(2)
    score = metrics.accuracy_score(metrics.confusion(predicted, target, 5))
    expected = multiclass_accuracy(predicted, target, 5, average="micro")
    assert score.value == pytest.approx(float(expected), abs=1e-6)
    assert score.n == 300
    assert score.baseline == max(target.tolist().count(c) for c in range(5)) / 300
    assert (score.low, score.high) == metrics.wilson(round(score.value * 300), 300)


def test_accuracy_of_nothing_is_an_error():
    with pytest.raises(DataError, match="no sample"):
        metrics.accuracy_score(torch.zeros(3, 3, dtype=torch.int64))


def test_accuracy_of_unequal_batches_is_not_the_mean_of_batch_means():
    # two batches, 2 of 2 and 1 of 4 right: the mean of batch means would be 0.625
    batches = [([0, 1], [0, 1]), ([0, 0, 0, 0], [0, 1, 1, 1])]
    parts = [metrics.confusion(torch.tensor(p), torch.tensor(t), 2) for p, t in batches]
    assert metrics.accuracy_score(sum(parts[1:], parts[0])).value == 0.5


def test_class_report_agrees_with_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    predicted, target = random_labels(3)
    report = metrics.class_report(metrics.confusion(predicted, target, 5), list("abcde"))
    expected = precision_recall_fscore_support(target, predicted, labels=range(5))
    for key, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[key] for row in report] == pytest.approx(column.tolist(), abs=1e-12)
    macro = precision_recall_fscore_support(target, predicted, labels=range(5), average="macro")
    average = metrics.macro_average(report)
    ours = (average["precision"], average["recall"], average["f1"])
    assert ours == pytest.approx(macro[:3], abs=1e-12)


def test_undefined_quantities_are_none_and_left_out_of_the_average():
    from sklearn.metrics import precision_recall_fscore_support

    # class 1 is never predicted, class 2 has no sample, class 3 has neither
    target, predicted = [0, 0, 1, 0], [0, 0, 0, 2]
    matrix = metrics.confusion(torch.tensor(predicted), torch.tensor(target), 4)
    report = metrics.class_report(matrix, list("abcd"))
    assert [row["precision"] for row in report] == [pytest.approx(2 / 3), None, 0.0, None]
    assert [row["recall"] for row in report] == [pytest.approx(2 / 3), 0.0, None, None]
    assert [row["f1"] for row in report] == [pytest.approx(2 / 3), 0.0, 0.0, None]
    assert report[2]["recall_low"] is report[2]["recall_high"] is None
    average = metrics.macro_average(report)
    assert average["defined"] == {"precision": 2, "recall": 2, "f1": 3}
    expected = precision_recall_fscore_support(
        target, predicted, labels=range(4), average="macro", zero_division=np.nan
    )
    ours = (average["precision"], average["recall"], average["f1"])
    assert ours == pytest.approx(expected[:3], abs=1e-12)
    assert "NaN" not in json.dumps([*report, average])


def test_recall_interval_is_that_of_the_class():
    matrix = torch.tensor([[5, 5], [0, 90]])
    row = metrics.class_report(matrix, ["a", "b"])[0]
    assert (row["recall_low"], row["recall_high"]) == pytest.approx((0.2366, 0.7634), abs=6e-5)


def test_class_report_refuses_other_names():
    with pytest.raises(DataError) as caught:
        metrics.class_report(torch.zeros(3, 3, dtype=torch.int64), ["a", "b"])
    assert caught.value.code == "E506"


def test_four_predictions_with_two_right_score_one_half_everywhere():
    matrix = metrics.confusion(torch.tensor([0, 2, 1, 3]), torch.tensor([0, 1, 2, 3]), 4)
    average = metrics.macro_average(metrics.class_report(matrix, list("0123")))
    assert metrics.accuracy_score(matrix).value == 0.5
    assert average["precision"] == average["recall"] == average["f1"] == 0.5


def test_text_report_lists_every_class_and_the_average():
    matrix = torch.tensor([[5, 5, 0], [0, 90, 0], [0, 0, 0]])
    lines = metrics.text_report(matrix, ["cat", "dog", "emu"]).splitlines()
    assert lines[0].split() == ["class", "precision", "recall", "recall", "95%", "f1", "support"]
    assert lines[1].split() == ["cat", "1.0000", "0.5000", "0.2366–0.7634", "0.6667", "10"]
    assert lines[3].split() == ["emu", "–", "–", "–", "0"]
    assert lines[4].split() == ["macro", "average", "0.9737", "0.7500", "0.8198", "100"]
    assert lines[5] == "precision: mean of the 2 classes that have one"


@pytest.mark.parametrize("k", [1, 2, 5])
def test_topk_agrees_with_scikit_learn(k):
    from sklearn.metrics import top_k_accuracy_score

    logits, target = random_logits(4)
    score = metrics.topk_accuracy(logits, target, k)
    expected = top_k_accuracy_score(target, logits.numpy(), k=k, labels=range(6))
    assert score.value == pytest.approx(expected, abs=1e-12)
    counts = sorted(torch.bincount(target).tolist(), reverse=True)
    assert score.baseline == sum(counts[:k]) / 400


def test_topk_gives_a_constant_model_no_credit_for_ties():
    target = torch.arange(10)
    assert metrics.topk_accuracy(torch.zeros(10, 10), target, 1).value == 0.1
    assert metrics.topk_accuracy(torch.zeros(10, 10), target, 3).value == 0.3
    rounded = random_logits(5)[0].round()
    score = metrics.topk_accuracy(rounded, rounded.argmax(1), 1)
    assert score.value == 1.0


def test_topk_refuses_bad_input():
    logits, target = random_logits(6)
    for k in (0, 7):
        with pytest.raises(ConfigError, match="k is out of range"):
            metrics.topk_accuracy(logits, target, k)
    for bad in (math.nan, math.inf):
        with pytest.raises(Diverged):
            metrics.topk_accuracy(torch.full_like(logits, bad), target, 1)
    with pytest.raises(DataError):
        metrics.topk_accuracy(logits, target[:, None], 1)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_agrees_with_torchmetrics(bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, target = random_logits(7, n=2000)
    probabilities = (2 * logits).softmax(1)
    expected = multiclass_calibration_error(probabilities, target, 6, n_bins=bins, norm="l1")
    ours = calibration.expected_calibration_error(probabilities, target, bins)
    assert ours == pytest.approx(float(expected), abs=1e-6)
    assert ours > 0.01


def test_calibration_error_of_a_coin_is_known():
    # always 0.8 sure of class 0, right in 6 of 10: the gap is 0.2 whatever the bins
    probabilities = torch.tensor([[0.8, 0.2]]).repeat(10, 1)
    target = torch.tensor([0] * 6 + [1] * 4)
    assert calibration.expected_calibration_error(probabilities, target) == pytest.approx(
        0.2, abs=1e-7
    )
    certain = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert calibration.expected_calibration_error(certain, torch.zeros(4, dtype=torch.int64)) == 0.0


def test_calibration_bins_are_closed_above():
    # 0.5 lies in (0, 0.5] and is right, 0.75 in (0.5, 1] and is wrong: (0.5 + 0.75) / 2
    probabilities = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    target = torch.tensor([0, 1])
    assert calibration.expected_calibration_error(probabilities, target, bins=2) == 0.625
    found = calibration.reliability(probabilities, target, bins=2)
    assert [(each.count, each.confidence, each.accuracy) for each in found] == [
        (1, 0.5, 1.0),
        (1, 0.75, 0.0),
    ]
    empty = calibration.reliability(probabilities, target, bins=8)[0]
    assert (empty.count, empty.confidence, empty.accuracy) == (0, None, None)


def test_calibration_error_refuses_logits_and_no_bins():
    logits, target = random_logits(8)
    with pytest.raises(ConfigError, match="probabilities"):
        calibration.expected_calibration_error(logits, target)
    with pytest.raises(ConfigError, match="bins"):
        calibration.expected_calibration_error(logits.softmax(1), target, 0)
    half = logits.bfloat16().softmax(1)
    assert 0 < calibration.expected_calibration_error(half, target) < 1


def test_negative_log_likelihood_agrees_with_scikit_learn():
    from sklearn.metrics import log_loss

    logits, target = random_logits(9)
    expected = log_loss(target, logits.double().softmax(1).numpy(), labels=range(6))
    assert metrics.negative_log_likelihood(logits, target) == pytest.approx(expected, abs=1e-9)


def test_negative_log_likelihood_of_an_even_guess_and_of_huge_scores():
    target = torch.tensor([0, 1, 2])
    even = metrics.negative_log_likelihood(torch.zeros(3, 3), target)
    assert even == pytest.approx(math.log(3), abs=1e-12)
    huge = torch.eye(3) * 1e4
    assert metrics.negative_log_likelihood(huge, (target + 1) % 3) == pytest.approx(1e4)
    with pytest.raises(DataError, match="no sample"):
        metrics.negative_log_likelihood(torch.zeros(0, 3), target[:0])


def test_an_unfit_prediction_is_told_in_one_line():
    with pytest.raises(DltoolError) as caught:
        metrics.confusion(torch.tensor([7]), torch.tensor([0]), 3)
    line = caught.value.one_line()
    assert "\n" not in line
    for part in ("a prediction does not fit 3 classes", "received 7", "expected 0 to 2"):
        assert part in line


def test_importing_metrics_loads_no_optional_package():
    code = (
        "import sys, dltool.metrics; "
        "print({'sklearn', 'scipy', 'torchmetrics', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
