"""Tables, texts and box files with mutated bytes: an error of ours or a result, never else."""

import json
import os
import random

import pytest
from dltool_detect import data as boxes
from PIL import Image

from dltool.data import tables, texts
from dltool.errors import DltoolError

COUNT = 3000 if os.environ.get("DLTOOL_FAULTS") == "full" else 60
CSV = b'name,"size, cm",price\nann,1.5,3\n"b ""c""",,4\nd,-2e3,5\ne,7,\n'
TSV = b"de\ten\nhallo\thello\nja\tyes\n"
LINES = b'{"text": "a", "label": 1}\n{"text": "\\u00e9", "label": null}\n'
VOC = b"""<annotation><filename>a.png</filename><size><width>8</width><height>8</height></size>
<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax>
<ymax>6</ymax></bndbox></object></annotation>"""
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 4, 4]}],
    }
).encode()
YOLO = b"0 0.5 0.5 0.25 0.25\n0 0.1 0.1 0.3 0.1 0.3 0.3\n"
MARKS = [b'"', b",", b"\n", b"\t", b"{", b"[", b"<", b"&x;", b"nan", b"1e999", b"\xff", b"\0", b"-"]


def mutated(original, draws):
    data = bytearray(original)
    for _ in range(draws.randrange(1, 7)):
        at = draws.randrange(len(data) + 1)
        kind = draws.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = draws.randrange(256)
        elif kind == 1:
            del data[at : at + draws.randrange(1, 40)]
        elif kind == 2:
            data[at:at] = draws.choice(MARKS)
        else:
            data[at:at] = data[at : at + draws.randrange(1, 60)]
    return bytes(data)


def read_text(path):
    list(texts.rows(path, texts.columns(path)))


def read_boxes(path):
    found = boxes.read(str(path.parent.parent if path.parent.name == "labels" else path.parent))
    str(found)


CASES = {
    "CSV as a table": ("t.csv", CSV, tables.read),
    "CSV as texts": ("t.csv", CSV, read_text),
    "TSV as texts": ("t.tsv", TSV, read_text),
    "JSON Lines": ("t.jsonl", LINES, read_text),
    "VOC XML": ("a.xml", VOC, read_boxes),
    "COCO JSON": ("boxes.json", COCO, read_boxes),
    "YOLO text": ("labels/a.txt", YOLO, read_boxes),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_and_boxes(tmp_path, tally, name):
    file, original, read = CASES[name]
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    if read is read_boxes:
        folder = tmp_path / "images" if name == "YOLO text" else tmp_path
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / "a.png")
        if name == "YOLO text":
            (tmp_path / "classes.txt").write_text("cat\n")
    path.write_bytes(original)
    read(path)
    draws = random.Random(name)
    for _ in range(COUNT):
        path.write_bytes(mutated(original, draws))
        try:
            read(path)
        except DltoolError as error:
            error.one_line().encode()
    tally(f"fuzz: {name}", COUNT, crashes=0)
