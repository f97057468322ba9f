"""Measure a detector, or a file of detections, on pictures whose boxes are known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dltool import device as devices
from dltool import runs
from dltool.console import Console, table
from dltool.errors import CheckFailed, CheckpointError, ConfigError, DataError
from dltool_detect import data as data_sets
from dltool_detect.ap import STATS, Report, evaluate, shown
from dltool_detect.chosen import Chosen, choose
from dltool_detect.config import TrainConfig
from dltool_detect.data import DetectionSet, Pools
from dltool_detect.detections import Detections
from dltool_detect.evaluate_pictures import draw_all
from dltool_detect.matching import confusion
from dltool_detect.problems import Problems
from dltool_detect.results import read_results
from dltool_detect.worst import Mistakes, mistakes

# precision-recall curves go on to where a detector is hardly sure any more
LOWEST_SCORE = 0.01
MATCH_IOU = 0.5
WORST = 12
READERS = 2
AHEAD = 16


@dataclass(frozen=True)
class Subject:
    """What is measured: a detector, or detections that someone wrote down."""

    name: str
    chosen: Chosen | None = None
    results: Path | None = None

    @property
    def folder(self) -> Path | None:
        """The run folder, which pictures go to, when it is one."""
        is_run = self.chosen is not None and self.chosen.kind == "run"
        return Path(self.name) if is_run else None


def evaluate_model(
    model: str,
    *,
    weights: Path | None,
    data: str | None,
    format: str,
    split: str,
    min_score: float | None,
    min_ap50: float | None,
    batch_size: int,
    out: Path | None,
    device: str,
    console: Console,
) -> None:
    """Evaluate, print the figures, and draw curves, confusions and the worst pictures.

    Raises:
        ConfigError: E205, there is no data to evaluate on.
        CheckFailed: AP50 is below `min_ap50`.
    """
    choice = devices.choose(device)
    subject = _subject(model, weights, choice.device, console)
    truth, part, source, problems = _truth(subject, data, format, split)
    for line in problems.lines():
        console.note(line)
    if subject.chosen is None:
        assert subject.results is not None
        found = read_results(subject.results, truth, Path(source), console)
    else:
        found, truth = detect_set(subject.chosen, truth, batch_size, console)
    report = evaluate(truth, found, interval=True)
    cut = min_score if min_score is not None else (report.best_score or 0.5)
    matrix, names = shown_confusion(truth, found, cut)
    worst = mistakes(truth, found, min_score=cut, iou=MATCH_IOU)
    folder = out or subject.folder
    pictures = (
        draw_all(folder, part, report, matrix, names, truth, found, worst[:WORST], cut)
        if folder is not None
        else {}
    )
    result = {
        "model": subject.name,
        "data": source,
        "split": part,
        "metrics": {**report.as_dict(), "baseline": 0.0},
        "confusion": {
            "min_score": cut,
            "iou": MATCH_IOU,
            "classes": names,
            "matrix": matrix.tolist(),
        },
        "worst": [row.as_dict() for row in worst[:WORST]],
        "problems": problems.as_dict(),
        "pictures": pictures,
    }
    console.result(result, _text(report, worst, pictures, cut))
    if folder is None:
        console.hint(f"dltool detect evaluate {model} ... --out FOLDER   (curves and pictures)")
    if min_ap50 is not None and (report.ap50 or 0.0) < min_ap50:
        raise CheckFailed(
            "E601",
            f"AP50 {shown(report.ap50)} is below {min_ap50}",
            cure="train longer or on more data, or ask for less",
        )


def _subject(model: str, weights: Path | None, device: torch.device, console: Console) -> Subject:
    path = Path(model)
    if path.suffix.lower() == ".json":
        if not path.is_file():
            raise CheckpointError("E501", f"there is no file {model}", cure="check the path")
        return Subject(model, results=path)
    chosen = choose(model, weights, device, console)
    return Subject(chosen.name, chosen)


def _truth(
    subject: Subject, data: str | None, format: str, split: str
) -> tuple[DetectionSet, str, str, Problems]:
    """Return the pictures to evaluate on, their split's name, where they are from, and faults."""
    classes = subject.chosen.classes if subject.chosen else ()
    if data is None:
        if subject.folder is None or not (subject.folder / "config.json").exists():
            raise ConfigError("E205", f"{subject.name} names no data", cure="add --data")
        config, _ = runs.read_config(subject.folder, TrainConfig)
        if not Path(config.data).exists() and config.data != data_sets.MADE_UP:
            raise DataError(
                "E501", f"the run's data {config.data} is not there", cure="add --data PATH"
            )
        pools, source = _of_run(config, classes), config.data
    else:
        pools, source = data_sets.read(data, format=format, classes=classes), data
    part, truth = pools.choose(split)
    if not truth.num_boxes:
        raise DataError("E503", f"{source} has no box in its {part} part")
    return truth, part, source, pools.problems


def _of_run(config: TrainConfig, classes: Sequence[str]) -> Pools:
    """Return the run's own splits, so that its test pictures are those it never saw."""
    splits = data_sets.load(
        config.data,
        format=config.format,
        classes=tuple(classes),
        val_split=config.val_split,
        seed=config.seed,
    )
    sets = {"train": splits.train, "val": splits.val}
    if splits.test is not None:
        sets["test"] = splits.test
    return Pools(sets, splits.problems, config.format, tuple(classes))


def detect_set(
    chosen: Chosen, truth: DetectionSet, batch_size: int, console: Console
) -> tuple[list[Detections], DetectionSet]:
    """Detect on every picture; those that cannot be decoded are left out and told.

    Returns:
        The detections, and the set of the pictures that they belong to.
    """
    found: list[Detections] = []
    kept: list[int] = []
    with console.progress(len(truth), "detecting", "img") as bar, torch.inference_mode():
        for indices, images in _image_batches(truth, batch_size, console):
            found += chosen.detector.detect(images, min_score=LOWEST_SCORE, max_boxes=100)
            kept += indices
            bar.advance(len(indices))
    if not kept:
        raise DataError("E502", "none of the pictures can be read")
    return found, truth if len(kept) == len(truth) else truth.take(kept)


def _image_batches(
    truth: DetectionSet, size: int, console: Console
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield pictures of one shape together, decoded ahead of the model."""
    indices: list[int] = []
    images: list[Tensor] = []
    for index, image in _decoded(truth, console):
        if images and (images[0].shape != image.shape or len(images) == size):
            yield indices, images
            indices, images = [], []
        indices.append(index)
        images.append(image)
    if images:
        yield indices, images


def _decoded(truth: DetectionSet, console: Console) -> Iterator[tuple[int, Tensor]]:
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[tuple[int, Future[Tensor]]] = deque()
        try:
            for index in range(len(truth) + AHEAD):
                if index < len(truth):
                    waiting.append((index, pool.submit(truth.read, index)))
                if index < AHEAD or not waiting:
                    continue
                place, future = waiting.popleft()
                try:
                    yield place, future.result()
                except DataError as error:
                    console.warn(f"left out: {error.message}")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def shown_confusion(
    truth: DetectionSet, found: Sequence[Detections], min_score: float
) -> tuple[Tensor, list[str]]:
    """Return the confusion matrix of the classes that occur, background last, and their names."""
    whole = confusion(truth, found, min_score=min_score, iou=MATCH_IOU)
    occurs = (whole.sum(0) + whole.sum(1)) > 0
    occurs[-1] = True
    names = [*truth.classes, "background"]
    kept = occurs.nonzero()[:, 0]
    return whole[kept][:, kept], [names[index] for index in kept.tolist()]


def _text(
    report: Report, worst: Sequence[Mistakes], pictures: dict[str, str], min_score: float
) -> str:
    rows = [
        [row.name, row.boxes, *map(shown, (row.ap, row.ap50, row.ap75, row.ar))]
        for row in report.per_class
        if row.boxes
    ]
    sizes = ", ".join(f"{name[3:]} {shown(getattr(report, name))}" for name in STATS[3:6])
    recalls = ", ".join(f"{name[2:]} boxes {shown(getattr(report, name))}" for name in STATS[6:9])
    lines = [
        report.text(),
        f"AP75 {shown(report.ap75)}; AP by size: {sizes}",
        f"average recall with at most {recalls}",
        f"best score to cut at: {shown(report.best_score)} (F1 {shown(report.best_f1)})",
        "",
        table(rows, ["class", "boxes", "AP", "AP50", "AP75", "AR"]),
    ]
    bad = [row for row in worst if row.count][:5]
    if bad:
        lines += ["", f"worst pictures at a score of {min_score:.3g}:"]
        lines += [f"  {row.text()}" for row in bad]
    if pictures:
        lines += ["", *(f"{name}: {path}" for name, path in pictures.items())]
    return "\n".join(lines)
