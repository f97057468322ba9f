"""What `dltool cnn data` tells: counts, sizes, damage, copies, balance, augmented samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import runs
from dltool.console import Console, table
from dltool.data import images as image_files
from dltool.data import named
from dltool.data.resident import Resident
from dltool.guards import labels as label_guards
from dltool.picture_grid import image_grid
from dltool_cnn import survey as surveys
from dltool_cnn.config import TrainConfig
from dltool_cnn.data import choose_form, resized
from dltool_cnn.recipes import recipe
from dltool_cnn.survey import Survey

SHOWN = 5
MOST_CLASSES = 30
VARIANTS = 5  # augmented versions beside each original
COMPARED = 256  # images that tell how often an augmentation changes nothing


def describe_data(
    data: str,
    *,
    data_root: Path | None,
    augment: str | None,
    image_size: int,
    grid: Path | None,
    draws: bool,
    count: int,
    seed: int,
    console: Console,
) -> None:
    """Print what a data set holds and draw some of its images as training sees them.

    Raises:
        DataError: it is not there, or nothing in it can be read.
        ConfigError: an augmentation is not known.
    """
    usual = recipe({"data": data}).get("augment", TrainConfig.augment)
    config = TrainConfig(
        data=data,
        data_root=str(data_root or ""),
        augment=usual if augment is None else augment,
        image_size=image_size,
        seed=seed,
    )
    survey = surveys.look(data, data_root, console)
    result: dict[str, Any] = {
        "data": data,
        "source": survey.source,
        "images": len(survey.seen),
        "classes": list(survey.classes),
        "splits": surveys.counts(survey),
        "sizes": surveys.sizes(survey),
        "broken": survey.broken,
        "ignored": survey.ignored,
        "duplicates": surveys.copies(survey),
    }
    for split, seen in survey.splits.items():
        labels = torch.tensor([each.label for each in seen])
        for finding in label_guards.check_split(labels, len(survey.classes), split):
            console.warn(finding.message)
    _warn(result, console)
    if draws:
        place = grid or Path("runs", "cnn", f"{runs.short_name(data)}-augmented.png")
        result["augmented"] = draw_samples(config, survey, place, count, console)
    console.result(result, _text(result))


def _warn(result: Mapping[str, Any], console: Console) -> None:
    """Warn of damage, of copies and of copies with different classes."""
    broken, copies = result["broken"], result["duplicates"]
    if broken:
        shown = "; ".join(f"{row['file']} {row['reason']}" for row in broken[:SHOWN])
        console.warn(f"{len(broken)} images cannot be read: {shown}{_more(len(broken))}")
    for pair, number in copies["across"].items():
        if number:
            first, _, second = pair.partition("-")
            console.warn(f"{number} images of {second} are also in {first}, pixel for pixel")
    if copies["conflicting"]:
        groups = copies["listed"][: copies["conflicting"]]
        shown = "; ".join(_named(group) for group in groups[:SHOWN])
        console.warn(
            f"{copies['conflicting']} images are in several classes: {shown}"
            f"{_more(copies['conflicting'])}"
        )


def _more(count: int) -> str:
    return f"; and {count - SHOWN} more" if count > SHOWN else ""


def _named(group: list[Mapping[str, str]]) -> str:
    return " = ".join(f"{each['file']} ({each['class']})" for each in group[:SHOWN])


def draw_samples(
    config: TrainConfig, survey: Survey, path: Path, count: int, console: Console
) -> dict[str, Any]:
    """Draw training images with augmented versions beside them; return what was drawn.

    `unchanged` is the share of augmented images that equal their original in every pixel.
    """
    images, labels = _training_images(config, console)
    variants = VARIANTS if config.augmentations else 0
    parts = Resident(
        images,
        labels,
        batch_size=len(images),
        seed=config.seed,
        shuffle=False,
        augment=config.augmentations,
        num_classes=len(survey.classes),
    )
    # mixtures come as floats
    versions = [next(iter(parts.batches(k)))[0].to(torch.uint8) for k in range(variants)]
    chosen = torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()
    tiles: list[Tensor] = []
    titles: list[str] = []
    for index in chosen.tolist():
        tiles += [images[index], *(version[index] for version in versions)]
        titles += [survey.classes[labels[index]], *(f"epoch {k + 1}" for k in range(variants))]
    names = ", ".join(config.augmentations) or "none"
    image_grid(
        torch.stack(tiles),
        titles,
        path,
        columns=variants + 1 if variants else None,
        title=f"Augmented samples: {names}",
        description="Training images, each with how training sees it in some epochs.",
    )
    same = [(version == images).flatten(1).all(1).float().mean() for version in versions]
    return {
        "file": str(path),
        "names": list(config.augmentations),
        "unchanged": float(torch.stack(same).mean()) if same else None,
        "compared": variants * len(images),
    }


def _training_images(config: TrainConfig, console: Console) -> tuple[Tensor, Tensor]:
    """Return evenly spaced training images (N, C, H, W) uint8 at training size, and labels."""
    if config.data in named.NAMED:
        root = Path(config.data_root) if config.data_root else None
        loaded = named.load_named(config.data, root, console)
        count = min(COMPARED, len(loaded.train_labels))
        chosen = torch.linspace(0, len(loaded.train_labels) - 1, count).round().long()
        return resized(loaded.train_images[chosen], config.image_size), loaded.train_labels[chosen]
    splits = image_files.scan(Path(config.data), allow_one_class=True).splits
    form = choose_form([item for items in splits.values() for item in items], config.image_size)
    items = next(splits[name] for name in ("train", "all", "val", "test") if name in splits)
    step = max(1, len(items) // COMPARED)
    read = image_files.load(items[::step], size=(form.height, form.width), mode=form.mode)
    return read.images, read.labels


def _text(result: Mapping[str, Any]) -> str:
    splits, classes = result["splits"], result["classes"]
    lines = [f"{result['data']}: {result['images']:,} images, {len(classes)} classes"]
    header = ("split", "images", "broken", "largest class", "imbalance")
    rows = [
        [
            split,
            facts["images"],
            facts["broken"],
            f"{facts['majority_share']:.1%}",
            "a class is empty" if facts["imbalance"] is None else f"{facts['imbalance']:.2f}",
        ]
        for split, facts in splits.items()
    ]
    lines += [table(rows, header), ""]
    by_class = [[name, *(facts["by_class"][name] for facts in splits.values())] for name in classes]
    lines += [table(by_class[:MOST_CLASSES], ("class", *splits))]
    if len(classes) > MOST_CLASSES:
        lines.append(f"and {len(classes) - MOST_CLASSES} more classes; --json has all")
    return "\n".join([*lines, "", *_size_lines(result), *_copy_lines(result)])


def _size_lines(result: Mapping[str, Any]) -> list[str]:
    found = result["sizes"]
    most = ", ".join(
        f"{row['height']}×{row['width']} {row['mode']} ({row['images']:,})"
        for row in found["commonest"][:SHOWN]
    )
    more = f" and {found['different'] - SHOWN} others" if found["different"] > SHOWN else ""
    return [f"sizes       {most}{more}"]


def _copy_lines(result: Mapping[str, Any]) -> list[str]:
    copies = result["duplicates"]
    within = ", ".join(f"{number:,} in {split}" for split, number in copies["within"].items())
    lines = [f"copies      {within}"]
    if copies["across"]:
        across = ", ".join(f"{pair} {number:,}" for pair, number in copies["across"].items())
        lines.append(f"in two      {across}")
    lines += [f"            {_named(group)}" for group in copies["listed"][:SHOWN]]
    drawn = result.get("augmented")
    if drawn:
        names = ", ".join(drawn["names"]) or "none"
        share = "" if drawn["unchanged"] is None else f"; {drawn['unchanged']:.1%} stay unchanged"
        lines += [f"augmented   {names}{share}", f"picture     {drawn['file']}"]
    return lines
