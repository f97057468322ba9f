"""Average precision against pycocotools on the same files, and against numbers made by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from dltool_detect import ap, data, matching
from dltool_detect.data import DetectionSet, Item
from dltool_detect.detections import Detections, nothing
from dltool_detect.results import read_results
from dltool_detect.worst import mistakes
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dltool.console import Console
from dltool.errors import DataError

CLASSES = ("cat", "dog", "owl")


def item(boxes, labels, *, ignore=None, name="a.png", side=400):
    marks = torch.tensor(ignore or [False] * len(labels), dtype=torch.bool)
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Item(name, side, side, corners, torch.tensor(labels, dtype=torch.int64), marks)


def found(boxes, scores, labels):
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    return Detections(corners, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64))


def made_up_files(root, images=30, seed=0):
    """Write a COCO file with crowds, gaps in its ids and masks' areas, and results beside it."""
    stream = np.random.default_rng(seed)
    ids = {"cat": 3, "dog": 17, "owl": 90}
    document = {
        "images": [],
        "annotations": [],
        "categories": [{"id": key, "name": name} for name, key in ids.items()],
    }
    results = []
    (root / "images").mkdir()
    for number in range(images):
        image_id, name = 1000 - 7 * number, f"{number:03}.png"
        Image.new("L", (400, 400)).save(root / "images" / name)
        document["images"].append({"id": image_id, "file_name": name, "width": 400, "height": 400})
        for _ in range(stream.integers(0, 6)):
            x, y = stream.uniform(0, 250, 2)
            w, h = stream.uniform(8, 140, 2)
            key = int(stream.choice(list(ids.values())))
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": key,
                    "bbox": [round(float(v), 2) for v in (x, y, w, h)],
                    "area": round(float(w * h * stream.uniform(0.3, 1.0)), 2),
                    "iscrowd": int(stream.random() < 0.1),
                }
            )
            for _ in range(stream.integers(0, 3)):
                shift = stream.normal(0, 6, 4)
                box = np.array([x, y, w, h]) + shift
                box[2:] = np.maximum(box[2:], 1)
                wrong = stream.random() < 0.15
                results.append(
                    {
                        "image_id": image_id,
                        "category_id": int(stream.choice(list(ids.values()))) if wrong else key,
                        "bbox": [float(v) for v in box],
                        "score": float(stream.random()),
                    }
                )
    (root / "truth.json").write_text(json.dumps(document), encoding="utf-8")
    (root / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return root


def of_pycocotools(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluated = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated


@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_pycocotools_on_the_same_files(tmp_path, seed):
    root = made_up_files(tmp_path, seed=seed)
    expected = of_pycocotools(root / "truth.json", root / "results.json")
    truth = data.read(str(root / "truth.json")).together()
    detections = read_results(
        root / "results.json", truth, root / "truth.json", Console("detect evaluate")
    )
    report = ap.evaluate(truth, detections)
    for name, value in zip(ap.STATS, expected.stats, strict=True):
        assert getattr(report, name) == pytest.approx(value, abs=1e-6), name
    table = expected.eval["precision"][:, :, :, 0, 2]  # (IoU, recall, class)
    for index, row in enumerate(report.per_class):
        assert row.ap == pytest.approx(table[:, :, index].mean(), abs=1e-6)
        assert row.ap50 == pytest.approx(table[0, :, index].mean(), abs=1e-6)
        assert row.precision == pytest.approx(table[0, :, index], abs=1e-6)


def test_ap_of_three_detections_by_hand():
    """Right, wrong, right for two boxes: precision 1 up to recall 1/2, then 2/3."""
    one, other, nowhere = [0, 0, 50, 50], [100, 100, 200, 200], [300, 300, 350, 350]
    truth = DetectionSet(CLASSES, (item([one, other], [0, 0]),))
    report = ap.evaluate(truth, [found([one, nowhere, other], [0.9, 0.8, 0.7], [0, 0, 0])])
    by_hand = (51 * 1 + 50 * 2 / 3) / 101
    assert report.ap50 == pytest.approx(by_hand)
    assert report.ap == pytest.approx(by_hand)
    assert report.ar1 == pytest.approx(0.5)
    assert report.ar100 == pytest.approx(1.0)
    assert (report.images, report.boxes) == (1, 2)
    assert (report.best_score, report.best_f1) == pytest.approx((0.7, 2 * 2 / (3 + 2)))
    assert [row.ap for row in report.per_class][1:] == [None, None]


def test_a_box_at_iou_060_counts_below_that_threshold_only():
    truth = DetectionSet(CLASSES, (item([[0, 0, 100, 100]], [1]),))
    report = ap.evaluate(truth, [found([[0, 0, 100, 62]], [0.9], [1])])
    assert (report.ap50, report.ap75) == pytest.approx((1.0, 0.0))
    assert report.ap == pytest.approx(0.3)  # 0.50, 0.55 and 0.60 of ten thresholds


def test_a_difficult_box_is_no_miss_and_no_error():
    boxes = [[0, 0, 50, 50], [100, 100, 200, 200]]
    truth = DetectionSet(CLASSES, (item(boxes, [0, 0], ignore=[False, True]),))
    for detections in (found(boxes, [0.8, 0.9], [0, 0]), found(boxes[:1], [0.8], [0])):
        report = ap.evaluate(truth, [detections])
        assert (report.ap, report.boxes) == pytest.approx((1.0, 1))
    assert matching.confusion(truth, [nothing()], min_score=0.5).sum() == 1


def test_no_detection_is_zero_and_no_box_is_no_number():
    truth = DetectionSet(CLASSES, (item([[0, 0, 50, 50]], [0]),))
    assert ap.evaluate(truth, [nothing()]).ap50 == 0.0
    empty = DetectionSet(CLASSES, (item([], []),))
    report = ap.evaluate(empty, [found([[0, 0, 5, 5]], [0.9], [0])], interval=True)
    assert (report.ap50, report.ap50_interval, report.best_score) == (None, None, None)
    assert "–" in report.text()


def test_detections_must_fit_the_pictures_and_the_classes():
    truth = DetectionSet(CLASSES, (item([[0, 0, 50, 50]], [0]),))
    with pytest.raises(DataError, match="do not fit"):
        ap.evaluate(truth, [])
    with pytest.raises(DataError, match="no class"):
        ap.evaluate(truth, [found([[0, 0, 5, 5]], [0.9], [3])])
    with pytest.raises(DataError, match="no picture"):
        ap.evaluate(DetectionSet(CLASSES, ()), [])


def test_bootstrap_agrees_with_the_figure_and_is_repeatable(tmp_path):
    root = made_up_files(tmp_path)
    truth = data.read(str(root / "truth.json")).together()
    detections = read_results(
        root / "results.json", truth, root / "truth.json", Console("detect evaluate")
    )
    first, again = (ap.evaluate(truth, detections, interval=True) for _ in range(2))
    assert first == again
    assert first.ap50 is not None
    assert first.ap50_interval is not None
    low, high = first.ap50_interval
    assert low < first.ap50 < high
    assert high - low < 0.4


def test_best_cut_is_the_best_of_all_cuts(tmp_path):
    root = made_up_files(tmp_path)
    truth = data.read(str(root / "truth.json")).together()
    detections = read_results(
        root / "results.json", truth, root / "truth.json", Console("detect evaluate")
    )
    report = ap.evaluate(truth, detections)
    boxes, best = report.boxes, (0.0, 0.0)
    evaluated = ap.coco_eval(ap.truth_document(truth), ap.result_rows(detections))
    rows = [one for one in evaluated.evalImgs if one and one["aRng"] == [0, 1e10]]
    for cut in np.unique(np.concatenate([one["dtScores"] for one in rows])):
        hits = made = 0
        for one in rows:
            counts = (np.array(one["dtScores"]) >= cut) & ~np.array(one["dtIgnore"][0], bool)
            made += int(counts.sum())
            hits += int((np.array(one["dtMatches"][0])[counts] > 0).sum())
        best = max(best, (2 * hits / (made + boxes), float(cut)))
    assert (report.best_f1, report.best_score) == pytest.approx(best)


def test_confusion_has_misses_ghosts_and_wrong_names():
    boxes = [[0, 0, 50, 50], [100, 100, 200, 200], [300, 0, 350, 50]]
    truth = DetectionSet(CLASSES, (item(boxes, [0, 1, 2]),))
    detections = found(
        [boxes[0], boxes[1], [0, 300, 50, 350], boxes[2]], [0.9, 0.8, 0.7, 0.1], [0, 2, 1, 2]
    )
    matrix = matching.confusion(truth, [detections], min_score=0.5)
    expected = torch.zeros(4, 4, dtype=torch.int64)
    expected[0, 0] = 1  # the cat
    expected[1, 2] = 1  # a dog called owl
    expected[2, 3] = 1  # an owl below the score
    expected[3, 1] = 1  # a ghost of a dog
    assert torch.equal(matrix, expected)
    (row,) = mistakes(truth, [detections], min_score=0.5, iou=0.5)
    assert (row.right, row.misnamed, row.missed, row.made_up) == (1, 1, 1, 1)


def test_one_detection_pairs_with_one_box():
    truth = item([[0, 0, 50, 50], [0, 0, 52, 50]], [0, 0])
    twice = found([[0, 0, 51, 50], [0, 0, 50, 50]], [0.5, 0.9], [0, 0])
    mine, theirs = matching.pair(truth.boxes, twice, 0.5)
    assert (mine, theirs) == ([1, 0], [1, 0])
    assert matching.pair(truth.boxes, nothing(), 0.5) == ([-1, -1], [])


def test_results_of_dltool_name_their_own_images_and_categories(tmp_path):
    root = made_up_files(tmp_path, images=4)
    truth = data.read(str(root / "truth.json")).together()
    printed = {
        "data": {
            "images": [{"id": 1, "file_name": f"somewhere/{truth.items[2].name}"}],
            "categories": [{"id": 44, "name": "owl"}],
            "results": [
                {"image_id": 1, "category_id": 44, "bbox": [1, 2, 3, 4], "score": 0.5},
                {"image_id": 9, "category_id": 44, "bbox": [1, 2, 3, 4], "score": 0.5},
                {"image_id": 1, "category_id": 44, "bbox": [1, 2, 3], "score": 0.5},
                {"image_id": [], "category_id": 44, "bbox": [1, 2, 3, 4], "score": 0.5},
                "row",
            ],
        }
    }
    path = tmp_path / "printed.json"
    path.write_text(json.dumps(printed), encoding="utf-8")
    console = Console("detect evaluate")
    detections = read_results(path, truth, root, console)
    assert [len(one) for one in detections] == [0, 0, 1, 0]
    assert detections[2].boxes.tolist() == [[1, 2, 4, 6]]
    assert truth.classes[int(detections[2].labels[0])] == "owl"
    assert "4 of 5 rows" in console.warnings[0]
    path.write_text('{"results": [{"image_id": 5}]}', encoding="utf-8")
    with pytest.raises(DataError, match="no row"):
        read_results(path, truth, root, console)
    path.write_text('"text"', encoding="utf-8")
    with pytest.raises(DataError, match="no detections"):
        read_results(path, truth, root, console)
