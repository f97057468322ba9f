"""Pascal VOC: one XML file a picture (Everingham et al., IJCV 88, 2010)."""

from __future__ import annotations

import math
from xml.etree import ElementTree
from xml.parsers import expat

from dltool.errors import DataError
from dltool_detect.formats import POOL, Annotated, Box, Corners, Read, find_image, split_of
from dltool_detect.problems import Problems
from dltool_detect.tree import Tree, folder, stem

MAX_XML_BYTES = 64 << 20
SIZE = ("width", "height")
SIDES = ("xmin", "ymin", "xmax", "ymax")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "img")


def read(tree: Tree, problems: Problems) -> Read:
    """Read every XML file that belongs to a picture; the classes are sorted by name."""
    lists = _image_sets(tree)
    images = []
    seen: set[str] = set()
    for name in tree.ending(".xml"):
        try:
            root = parse(tree.read(name), name)
        except DataError as error:
            problems.add("bad-annotation", error.message)
            continue
        image = _image(tree, name, root)
        if image is None:
            problems.add("no-picture", name)
            continue
        if image in seen:
            problems.add("bad-annotation", f"{name}: {image} has another one already")
            continue
        seen.add(image)
        split = lists.get(stem(name), POOL) if lists else split_of(name)
        images.append(Annotated(image, split, _boxes(root, name, problems), _size(root), name))
    for image in tree.images:
        if image not in seen:
            problems.add("no-annotation", image)
    labels = {box.label for item in images for box in item.boxes}
    return Read(images, tuple(sorted(labels)))


def parse(data: bytes, name: str) -> ElementTree.Element:
    """Parse one annotation; entities are refused, as they can grow without bound or read files.

    Raises:
        DataError: E502, it is no XML, no annotation, too large, or declares entities.
    """
    if len(data) > MAX_XML_BYTES:
        raise DataError("E502", f"{name} has {len(data):,} bytes, which is no annotation")
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda tag, attributes: builder.start(tag, attributes)
    parser.EndElementHandler = lambda tag: builder.end(tag)
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> int:
        raise DataError("E502", f"{name} declares XML entities, which are refused")

    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(data, True)
        root = builder.close()
    except (expat.ExpatError, ValueError, LookupError, AssertionError) as error:
        raise DataError("E502", f"{name} is not XML: {error}") from error
    if root.tag != "annotation":
        raise DataError("E502", f"{name} is no VOC annotation: its root is <{root.tag[:40]}>")
    return root


def _image_sets(tree: Tree) -> dict[str, str]:
    """Return the split of each stem as ImageSets/Main tells it."""
    found: dict[str, str] = {}
    # a later list wins: trainval is cut again by train and val where these are there
    for split, role in (
        ("trainval", "train"),
        ("train", "train"),
        ("val", "val"),
        ("test", "test"),
    ):
        for name in tree.ending(f"/main/{split}.txt"):
            if "imagesets" in name.lower():
                lines = (line.split() for line in tree.text(name).splitlines())
                found.update((words[0], role) for words in lines if words)
    return found


def _image(tree: Tree, name: str, root: ElementTree.Element) -> str | None:
    here = folder(name)
    above = folder(here)
    places = [
        here,
        *(f"{base}/{sub}".lstrip("/") for base in (above, here) for sub in IMAGE_FOLDERS),
    ]
    said = (root.findtext("filename") or "").strip()
    own = find_image(tree, stem(name), places)
    return own or (find_image(tree, said, places) if said else None)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (round(float(root.findtext(f"size/{side}", ""))) for side in SIZE)
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _boxes(root: ElementTree.Element, name: str, problems: Problems) -> tuple[Box, ...]:
    boxes = []
    objects = root.findall("object")
    if not objects:
        problems.add("empty", name)
    for found in objects:
        label = " ".join((found.findtext("name") or "").split())
        frame = found.find("bndbox")
        if frame is None or not label:
            problems.add("no-box", name)
            continue
        corners = _corners(frame)
        if corners is None:
            problems.add("not-a-number", name)
            continue
        difficult = (found.findtext("difficult") or "0").strip() not in ("", "0")
        boxes.append(Box(corners, label, ignore=difficult))
    return tuple(boxes)


def _corners(frame: ElementTree.Element) -> Corners | None:
    try:
        x1, y1, x2, y2 = (float(frame.findtext(side, "")) for side in SIDES)
    except ValueError:
        return None
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None
