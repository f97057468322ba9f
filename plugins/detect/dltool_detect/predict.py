"""Find objects on pictures and videos: draw them, cut them out, list them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dltool import device as devices
from dltool.console import Console
from dltool.errors import DataError
from dltool.files import write_bytes_atomic
from dltool_detect.chosen import Chosen, category_ids, choose, chosen_labels
from dltool_detect.detections import Detections
from dltool_detect.draw import boxes_on, encoded
from dltool_detect.outputs import Places, plan, write_crops
from dltool_detect.pictures import Picture, batches
from dltool_detect.sources import Failed, Source, gather
from dltool_detect.video import FrameWriter, opencv

WRITERS = 2
MOST_BOXES = 300
NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Wishes:
    """What is to be found and written.

    Args:
        min_score: of a box that is kept, 0 to 1; None: what suits the model.
        max_boxes: on a picture, the surest.
        labels: of the classes that are wanted; empty: all.
        save: write the annotated picture.
        crop: write what each box holds.
        every: of a video, one of so many frames.
        batch_size: pictures of one size that the model sees at once.
    """

    min_score: float | None
    max_boxes: int
    labels: tuple[int, ...]
    save: bool
    crop: bool
    every: int
    batch_size: int


@dataclass(frozen=True)
class Looked:
    """A picture that was looked at: what is on it, what was written, its width and height."""

    picture: Picture
    found: Detections
    written: Path | None
    crops: list[str]
    crop_folder: Path | None
    size: tuple[int, int]


def detect_inputs(
    inputs: Sequence[str],
    *,
    model: str,
    weights: Path | None,
    classes: str,
    out: Path | None,
    wishes: Wishes,
    device: str,
    threads: int,
    console: Console,
) -> None:
    """Detect on every input and print what was found.

    Raises:
        DataError: E501 or E502, none of the inputs could be used.
        MissingExtra: there is a video and no OpenCV.
    """
    sources, failed = gather(inputs)
    for failure in failed:
        console.warn(failure.text())
    if not sources:
        raise _nothing_read(failed, "E501")
    if any(source.is_video for source in sources):
        opencv()
    places = plan(sources, out, pictures=wishes.save, crops=wishes.crop)
    choice = devices.choose(device)
    if threads:
        torch.set_num_threads(threads)
    chosen = choose(model, weights, choice.device, console)
    labels = tuple(chosen_labels(classes, chosen.classes))
    min_score = chosen.usual_score if wishes.min_score is None else wishes.min_score
    wanted = replace(wishes, labels=labels, min_score=min_score)
    looked, more = look_at_all(sources, places, chosen, wanted, console)
    if not looked:
        raise _nothing_read([*failed, *more], "E502")
    data = as_json(looked, [*failed, *more], chosen)
    told = {**data, "device": str(choice.device), "min_score": min_score}
    console.result(told, _text(looked, sources, chosen.classes))
    if not any(len(item.found) for item in looked):
        console.note(
            f"nothing with a score of {min_score:g} or more; try --min-score {min_score / 2:g}"
        )


def _nothing_read(failed: Sequence[Failed], code: str) -> DataError:
    first = failed[0].text() if failed else "no input"
    count = f"none of {len(failed)} inputs can be used; the first: " if len(failed) > 1 else ""
    return DataError(code, f"{count}{first}", cure="give pictures, or folders of them")


def look_at_all(
    sources: Sequence[Source],
    places: Sequence[Places],
    chosen: Chosen,
    wishes: Wishes,
    console: Console,
) -> tuple[list[Looked], list[Failed]]:
    """Run decoding, the model and writing beside one another; results keep the inputs' order."""
    looked: list[Looked] = []
    failed: list[Failed] = []
    hand = _Hand(sources, places, chosen.classes, wishes)
    has_bar = len(sources) > 1 or any(source.is_video for source in sources)
    total = None if any(source.is_video for source in sources) else len(sources)
    progress = console.progress(total, "detecting", "img") if has_bar else nullcontext()
    with hand, progress as bar:
        for batch in batches(sources, wishes.batch_size, every=wishes.every):
            if isinstance(batch, Failed):
                console.warn(batch.text())
                failed.append(batch)
            else:
                looked += hand.take(batch, _found(batch, chosen, wishes))
            if bar is not None:
                bar.advance(1 if isinstance(batch, Failed) else len(batch))
        looked += hand.rest()
    return looked, failed


def _found(batch: Sequence[Picture], chosen: Chosen, wishes: Wishes) -> list[Detections]:
    with torch.inference_mode():
        found = chosen.detector.detect(
            [picture.image for picture in batch],
            min_score=wishes.min_score or 0.0,
            max_boxes=max(MOST_BOXES, wishes.max_boxes) if wishes.labels else wishes.max_boxes,
        )
    return [_wanted(item, wishes) for item in found]


def _wanted(found: Detections, wishes: Wishes) -> Detections:
    """Keep the classes and the number of boxes that were asked for."""
    if wishes.labels:
        kept = torch.isin(found.labels, torch.tensor(wishes.labels))
        found = Detections(found.boxes[kept], found.scores[kept], found.labels[kept])
    most = wishes.max_boxes
    return Detections(found.boxes[:most], found.scores[:most], found.labels[:most])


class _Hand:
    """Draw and write in threads, a bounded number of pictures behind the model."""

    def __init__(
        self,
        sources: Sequence[Source],
        places: Sequence[Places],
        classes: tuple[str, ...],
        wishes: Wishes,
    ) -> None:
        self.sources, self.places = sources, places
        self.classes, self.wishes = classes, wishes
        self.pool, self.line = ThreadPoolExecutor(WRITERS), ThreadPoolExecutor(1)
        self.videos: dict[int, FrameWriter] = {}
        self.waiting: deque[Future[Looked]] = deque()

    def __enter__(self) -> _Hand:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self.pool, self.line):
            pool.shutdown(cancel_futures=True)

    def take(self, batch: Sequence[Picture], found: Sequence[Detections]) -> Iterator[Looked]:
        """Accept a batch; yield what is finished once too much is waiting."""
        for picture, detections in zip(batch, found, strict=True):
            # the frames of a video must come in order
            pool = self.pool if picture.frame is None else self.line
            self.waiting.append(pool.submit(self._write, picture, detections))
        while len(self.waiting) > 4 * self.wishes.batch_size:
            yield self._next()

    def rest(self) -> Iterator[Looked]:
        """Yield what is left, and finish the videos."""
        while self.waiting:
            yield self._next()
        for writer in self.videos.values():
            writer.close()

    def _next(self) -> Looked:
        done = self.waiting.popleft().result()
        # the pixels are no longer needed; a folder of thousands must not stay in memory
        return replace(done, picture=replace(done.picture, pixels=NO_PIXELS))

    def _write(self, picture: Picture, found: Detections) -> Looked:
        place = self.places[picture.source]
        if place.picture is not None:
            drawn = boxes_on(picture.pixels, found, self.classes)
            if picture.frame is None:
                write_bytes_atomic(place.picture, encoded(drawn, place.picture.suffix))
            else:
                self._write_frame(picture, place.picture, drawn)
        crops = []
        if place.crops is not None:
            prefix = "" if picture.frame is None else f"{picture.frame:06}-"
            crops = write_crops(picture.pixels, found, self.classes, place.crops, prefix)
        size = (picture.pixels.shape[1], picture.pixels.shape[0])
        return Looked(picture, found, place.picture, crops, place.crops, size)

    def _write_frame(self, picture: Picture, path: Path, drawn: Any) -> None:
        writer = self.videos.get(picture.source)
        if writer is None:
            writer = self.videos[picture.source] = FrameWriter(path, picture.rate)
        writer.write(np.asarray(drawn))


def as_json(looked: Sequence[Looked], failed: Sequence[Failed], chosen: Chosen) -> dict[str, Any]:
    """Return results in COCO's form, with the images and categories that their ids name."""
    ids = category_ids(chosen)
    images, results = [], []
    for image_id, item in enumerate(looked, 1):
        width, height = item.size
        frame = {} if item.picture.frame is None else {"frame": item.picture.frame}
        images.append(
            {
                "id": image_id,
                "file_name": item.picture.name,
                **frame,
                "width": width,
                "height": height,
                "annotated": None if item.written is None else str(item.written),
                "crops": item.crops,
            }
        )
        found = item.found
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        for (x1, y1, x2, y2), score, label in rows:
            results.append(
                {
                    "image_id": image_id,
                    "category_id": ids[label],
                    "category": chosen.classes[label],
                    "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                    "score": round(score, 6),
                }
            )
    return {
        "model": chosen.as_dict(),
        "images": images,
        "categories": [
            {"id": key, "name": name} for key, name in zip(ids, chosen.classes, strict=True)
        ],
        "results": results,
        "failed": [{"file": item.name, "reason": item.reason} for item in failed],
    }


def _text(looked: Sequence[Looked], sources: Sequence[Source], classes: tuple[str, ...]) -> str:
    lines = []
    by_source: dict[int, list[Looked]] = {}
    for item in looked:
        by_source.setdefault(item.picture.source, []).append(item)
    for index, items in by_source.items():
        is_video = sources[index].is_video
        what = _frames_text(items, classes) if is_video else _picture_text(items[0].found, classes)
        written = items[0].written
        lines.append(f"{sources[index].name}: {what}" + (f" -> {written}" if written else ""))
        crops = sum(len(item.crops) for item in items)
        if crops:
            lines[-1] += f", {crops} crops in {items[0].crop_folder}"
    return "\n".join(lines)


def _picture_text(found: Detections, classes: tuple[str, ...]) -> str:
    scores: dict[int, list[str]] = {}
    for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
        scores.setdefault(label, []).append(f"{score:.2f}")
    words = []
    for label, values in scores.items():
        more = ", …" if len(values) > 5 else ""
        words.append(f"{len(values)} {classes[label]} ({', '.join(values[:5])}{more})")
    return ", ".join(words) or "nothing"


def _frames_text(items: Sequence[Looked], classes: tuple[str, ...]) -> str:
    frames = Counter(label for item in items for label in set(item.found.labels.tolist()))
    words = [f"{classes[label]} in {count}" for label, count in frames.most_common()]
    return f"{len(items)} frames: {', '.join(words) or 'nothing'}"
