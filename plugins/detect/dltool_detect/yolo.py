"""YOLO: one text file a picture, each line `class x y w h` in shares of the picture's sides."""

from __future__ import annotations

import math
import re

from dltool_detect.formats import Annotated, Box, Corners, Read, split_of
from dltool_detect.problems import Problems
from dltool_detect.tree import Tree, stem

NAME_FILES = ("classes.txt", "obj.names", ".names")
MAX_CLASS = 100_000


def read(tree: Tree, problems: Problems) -> Read:
    """Read the label file of each picture; one without is taken as a picture without objects.

    Polygons (`class x1 y1 x2 y2 …`) become the box around them. Class names come from `data.yaml`,
    `classes.txt` or `*.names`; without these they are the numbers.
    """
    names = _names(tree)
    images, numbers = [], set()
    for image in tree.images:
        source = _label_file(tree, image)
        if source is None:
            problems.add("no-label-file", image)
            images.append(Annotated(image, split_of(image), (), None, image, True))
            continue
        rows = _rows(tree.text(source), source, problems)
        numbers |= {number for number, _ in rows}
        if not rows:
            problems.add("empty", source)
        boxes = []
        for number, corners in rows:
            if names and number not in names:
                problems.add("unknown-class", f"{source} class {number}")
            else:
                boxes.append(Box(corners, names.get(number, str(number))))
        images.append(Annotated(image, split_of(image), tuple(boxes), None, source, True))
    known = names or {number: str(number) for number in numbers}
    used = {box.label for item in images for box in item.boxes}
    for label in known.values():
        if label not in used:
            problems.add("unused-class", label)
    ordered = (known[number] for number in sorted(known))
    return Read(images, tuple(dict.fromkeys(label for label in ordered if label in used)))


def _label_file(tree: Tree, image: str) -> str | None:
    base = image[: image.rindex(".")] + ".txt"
    before, found, after = f"/{base}".rpartition("/images/")
    places = [f"{before}/labels/{after}".lstrip("/")] if found else []
    return next((place for place in (*places, base) if place in tree.places), None)


def _rows(text: str, source: str, problems: Problems) -> list[tuple[int, Corners]]:
    rows = []
    for count, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{source}:{count}"
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            problems.add("bad-line", where)
            continue
        if not all(map(math.isfinite, values)):
            problems.add("not-a-number", where)
        elif not (values[0].is_integer() and 0 <= values[0] <= MAX_CLASS):
            problems.add("bad-line", where)
        elif len(values) == 5:
            _, x, y, width, height = values
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            rows.append((int(values[0]), corners))
        elif len(values) >= 7 and len(values) % 2:
            xs, ys = values[1::2], values[2::2]
            rows.append((int(values[0]), (min(xs), min(ys), max(xs), max(ys))))
        else:
            problems.add("bad-line", where)
    return rows


def _names(tree: Tree) -> dict[int, str]:
    for name in sorted(tree.ending(".yaml", ".yml")):
        found = parse_names(tree.text(name))
        if found:
            return found
    for name in sorted(tree.ending(*NAME_FILES), key=lambda name: stem(name) != "classes"):
        lines = [line.strip() for line in tree.text(name).splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        if lines:
            return {number: line or str(number) for number, line in enumerate(lines)}
    return {}


def parse_names(text: str) -> dict[int, str]:
    """Return the class names of a `data.yaml`; of YAML only the forms of its `names` are read.

    These are `names: [a, b]` (over several lines too), `- a` in lines, and `0: a` in lines.
    """
    begun = re.search(r"^names\s*:[ \t]*(.*)$", text, flags=re.M)
    if not begun:
        return {}
    rest = text[begun.start(1) :]
    if begun.group(1).lstrip().startswith(("[", "{")):
        inside = re.split(r"[\]}]", rest, maxsplit=1)[0].strip()[1:]
        words = [word.strip() for word in _between_commas(inside)]
        return _numbered([word for word in words if word])
    lines = []
    for line in rest.splitlines()[1:]:
        bare = re.sub(r"\s+#.*$", "", line).rstrip()
        if bare and not bare[0].isspace() and not bare.startswith("-"):
            break  # the next key
        if bare.strip() and not bare.lstrip().startswith("#"):
            lines.append(re.sub(r"^\s*-\s+", "", bare).strip())
    return _numbered(lines)


def _between_commas(text: str) -> list[str]:
    return re.findall(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""", text)


def _numbered(words: list[str]) -> dict[int, str]:
    found = {}
    for position, word in enumerate(words):
        keyed = re.match(r"^(\d{1,6})\s*:\s*(.*)$", word)
        number, label = (int(keyed[1]), keyed[2]) if keyed else (position, word)
        found[number] = label.strip().strip("\"'").strip() or str(number)
    return found
