"""Measure a trained classifier: accuracy with its interval, calibration, classes, confusions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dltool import device as devices
from dltool import metrics, runs
from dltool import team as teams
from dltool.console import Console
from dltool.data import images as image_files
from dltool.data import named
from dltool.data.resident import Resident
from dltool.errors import CheckFailed, ConfigError, DataError
from dltool_cnn import pictures as drawings
from dltool_cnn.config import TrainConfig
from dltool_cnn.data import EVALUATION_BATCH, Batches, Form, load, read_images
from dltool_cnn.mistakes import Answers
from dltool_cnn.predict import LoadedModel, load_classifier
from dltool_cnn.tta import mirrored_too

SPLITS = ("test", "val", "train")


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Batches, num_classes: int, answers: Answers | None = None
) -> tuple[Tensor, float]:
    """Return the confusion matrix (C, C), rows true, and the mean cross-entropy.

    Several ranks measure a part each and add up the counts; with `answers`, which takes what the
    model said of every image, each of them measures all. The model is in evaluation mode meanwhile
    and goes back to the mode it was in.
    """
    was_training = model.training
    model.eval()
    team = teams.current() if answers is None else teams.Team()
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    loss = torch.zeros((), dtype=torch.float64)
    for images, labels in team.divided(batches.batches(0)):
        logits = model(images)  # (B, C)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        matrix += metrics.confusion(logits.argmax(1), labels, num_classes).cpu()
        if answers is not None:
            answers.add(images, logits, labels)
    model.train(was_training)
    matrix, loss = team.summed(matrix), team.summed(loss)
    return matrix, float(loss) / max(int(matrix.sum()), 1)


def evaluate_run(
    folder: Path,
    *,
    data: str | None,
    data_root: Path | None,
    split: str,
    min_accuracy: float | None,
    plot: Path | None,
    pictures: bool,
    tta: str,
    device: str,
    console: Console,
) -> None:
    """Evaluate a run or model folder and print the result; `pictures` draws all that explains it.

    Raises:
        CheckFailed: the accuracy is below `min_accuracy`.
    """
    if split not in SPLITS:
        raise ConfigError("E206", f"--split {split!r} is not known", expected=", ".join(SPLITS))
    choice = devices.choose(device)
    loaded = load_classifier(folder, choice.device)
    model = mirrored_too(loaded.model, tta)
    batches, source = stored_batches(folder, loaded, data, data_root, split, choice.device, console)
    answers = Answers()
    matrix, loss = evaluate(model, batches, len(loaded.classes), answers)
    score = metrics.accuracy_score(matrix)
    report = metrics.class_report(matrix, loaded.classes)
    picture = drawings.draw_confusions(folder, split, matrix, loaded.classes, plot)
    calibration = answers.calibration()
    result = {
        "run": str(folder),
        "data": source,
        "split": split,
        "tta": tta,
        "accuracy": score.as_dict(),
        "loss": loss,
        "calibration": calibration,
        "classes": report,
        "confusion": matrix.tolist(),
        "worst": [each.as_dict(loaded.classes) for each in answers.worst],
        "plot": str(picture),
    }
    by_class = metrics.text_report(matrix, loaded.classes)
    text = (
        f"accuracy {score.text()}\ncalibration error {calibration['error']:.4f}\n\n{by_class}\n\n"
        f"confusion matrix: {picture}"
    )
    if pictures:
        drawn = _pictures(folder, loaded, split, answers)
        result["pictures"] = drawn
        text += "".join(f"\n{kind}: {path}" for kind, path in drawn.items())
    console.result(result, text)
    if min_accuracy is not None and score.value < min_accuracy:
        raise CheckFailed("E601", f"accuracy {score.value:.4f} is below {min_accuracy}")


def _pictures(folder: Path, loaded: LoadedModel, split: str, answers: Answers) -> dict[str, str]:
    """Draw what explains the figures; a run's curves are among it."""
    size = (loaded.form.height, loaded.form.width)
    drawn = drawings.draw_answers(folder, split, answers, loaded.classes, loaded.model, size)
    records = runs.read_records(folder)
    if records:
        best = next((row["epoch"] for row in reversed(records) if row.get("best")), None)
        drawn |= drawings.draw_training(folder, records, f"cnn: {folder.name}", best)
    return drawn


def stored_batches(
    folder: Path,
    loaded: LoadedModel,
    data: str | None,
    data_root: Path | None,
    split: str,
    device: torch.device,
    console: Console,
) -> tuple[Batches, str]:
    """Return a split of the run's own data, or of other data, and the data's name.

    Raises:
        ConfigError: E205, a model folder names no data.
        DataError: the data is gone, or does not fit the model.
    """
    if data is not None and data not in named.NAMED:
        return _path_batches(loaded, data, split, device, console), data
    config = _config(folder, loaded, data, data_root)
    # the run's own images are enlarged by its network; others are brought to the same size here
    found = load(config, device, console, enlarge=data is None)
    if (found.form, tuple(found.classes)) != (loaded.form, loaded.classes):
        raise DataError(
            "E506",
            f"{config.data} does not fit the model: its images are {found.form} with "
            f"{len(found.classes)} classes, the model takes {loaded.form} with "
            f"{len(loaded.classes)}",
            cure="give data of the same classes",
        )
    return {"train": found.train, "val": found.val, "test": found.test}[split], config.data


def _config(
    folder: Path, loaded: LoadedModel, data: str | None, data_root: Path | None
) -> TrainConfig:
    """Return the run's own data settings, so that its test split is the one it never saw."""
    if (folder / "config.json").exists():
        config, _ = runs.read_config(folder, TrainConfig)
    elif data is None:
        raise ConfigError("E205", f"{folder} is no run and names no data", cure="add --data")
    else:
        config = TrainConfig(data=data, image_size=loaded.form.height)
    changes: dict[str, Any] = {"augment": "none"}
    if data is not None:
        changes |= {"data": data, "image_size": loaded.form.height}
    if data_root is not None:
        changes["data_root"] = str(data_root)
    return dataclasses.replace(config, **changes)


def _path_batches(
    loaded: LoadedModel, data: str, split: str, device: torch.device, console: Console
) -> Batches:
    """Read a folder or zip with the model's own preprocessing; classes are matched by name."""
    tree = image_files.scan(Path(data), allow_one_class=True)
    part = split if split in tree.splits else ("val" if "val" in tree.splits else "all")
    if part not in tree.splits:
        raise DataError(
            "E503", f"{data} has no {split} part", expected=f"one of {', '.join(tree.splits)}"
        )
    unknown = sorted(set(tree.classes) - set(loaded.classes))
    if unknown:
        raise DataError(
            "E506",
            f"{data} has classes that the model does not know: {', '.join(unknown[:5])}",
            expected=f"{', '.join(loaded.classes[:20])}",
            cure="rename the folders to the model's classes",
        )
    form: Form = loaded.form
    read = read_images(tree.splits[part], form, console, part)
    to_model = torch.tensor([loaded.classes.index(name) for name in tree.classes])
    labels = to_model[read.labels]
    return Resident(
        read.images.to(device),
        labels.to(device),
        batch_size=EVALUATION_BATCH,
        seed=0,
        shuffle=False,
    )
