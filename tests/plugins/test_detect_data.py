"""The readers of boxes: what they understand, what they mend, and what they refuse."""

import io
import json
import zipfile

import pytest
import torch
from dltool_detect import data, voc, yolo
from dltool_detect.problems import KINDS
from PIL import Image

from dltool.errors import ConfigError, DataError

WIDTH, HEIGHT = 80, 60


def picture(path, size=(WIDTH, HEIGHT), *, mode="RGB", turn=None):
    """Write a picture whose upper left quarter is red; `turn` is an EXIF orientation."""
    image = Image.new("RGB", size, "white")
    image.paste("red", (0, 0, size[0] // 2, size[1] // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {}
    if turn:
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif
    image.convert(mode).save(path, **options)
    return path


def xml(*boxes, size=(WIDTH, HEIGHT), extra=""):
    """Return an annotation; a box is (name, x1, y1, x2, y2)."""
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in boxes
    )
    told = (
        "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    )
    return f"<annotation>{told}{objects}</annotation>"


def voc_set(root, *texts, names="abcdefgh", **options):
    """Write one picture and one annotation for each text."""
    for name, text in zip(names, texts, strict=False):
        picture(root / f"{name}.jpg", **options)
        (root / f"{name}.xml").write_text(text, encoding="utf-8")
    return root


def only(found):
    """Return the one picture of an undivided data set."""
    (item,) = found.pools["all"].items
    return item


CAT = ("cat", 10, 20, 40, 50)


# Pascal VOC


def test_voc_numbers_are_taken_as_they_stand(tmp_path):
    found = data.read(str(voc_set(tmp_path, xml(CAT))))
    item = only(found)
    assert item.boxes.tolist() == [[10, 20, 40, 50]]
    assert (item.width, item.height, found.classes) == (WIDTH, HEIGHT, ("cat",))
    assert not found.problems.counts
    image = found.pools["all"].read(0)
    assert (image.shape, image.dtype) == ((3, HEIGHT, WIDTH), torch.uint8)


@pytest.mark.parametrize(
    ("text", "kind", "boxes"),
    [
        (xml(CAT, size=(0, 0)), "no-size", [[10, 20, 40, 50]]),
        (xml(CAT, size=None), "no-size", [[10, 20, 40, 50]]),
        (xml(CAT, size=(500, 400)), "wrong-size", [[10, 20, 40, 50]]),
        (xml(("cat", 100, 200, 400, 500), size=(800, 600)), "scaled", [[10, 20, 40, 50]]),
        (xml(("cat", 40, 50, 10, 20)), "swapped", [[10, 20, 40, 50]]),
        (xml(("cat", -9, 20, 40, 90)), "clipped", [[0, 20, 40, 60]]),
        (xml(CAT, ("cat", 90, 0, 99, 9)), "outside", [[10, 20, 40, 50]]),
        (xml(CAT, ("cat", 5, 5, 5, 5)), "degenerate", [[10, 20, 40, 50]]),
        (xml(CAT, ("cat", "nan", 5, 9, 9)), "not-a-number", [[10, 20, 40, 50]]),
        (xml(CAT, ("cat", "", 5, 9, 9)), "not-a-number", [[10, 20, 40, 50]]),
        (xml(CAT, ("", 1, 5, 9, 9)), "no-box", [[10, 20, 40, 50]]),
    ],
    ids=lambda value: value if isinstance(value, str) and value in KINDS else "",
)
def test_what_is_wrong_is_mended_or_left_out_and_told(tmp_path, text, kind, boxes):
    found = data.read(str(voc_set(tmp_path, text)))
    assert only(found).boxes.tolist() == boxes
    assert found.problems.counts == {kind: 1}
    assert "a.xml" in str(found.problems)


def test_an_overhang_of_rounding_is_cut_in_silence(tmp_path):
    found = data.read(str(voc_set(tmp_path, xml(("cat", 0, 0, WIDTH + 1, HEIGHT)))))
    assert only(found).boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]
    assert not found.problems.counts


def test_difficult_objects_are_kept_apart(tmp_path):
    text = xml(CAT, extra="<difficult>1</difficult>").replace(
        "</annotation>", xml(("dog", 1, 1, 9, 9))[len("<annotation>") :]
    )
    part = data.read(str(voc_set(tmp_path, text))).pools["all"]
    assert part.items[0].ignore.tolist() == [True, False]
    assert part.num_boxes == 1


@pytest.mark.parametrize(
    ("turn", "box"),
    [
        (6, [HEIGHT - 50, 10, HEIGHT - 20, 40]),
        (8, [20, WIDTH - 40, 50, WIDTH - 10]),
        (5, [20, 10, 50, 40]),
        (7, [HEIGHT - 50, WIDTH - 40, HEIGHT - 20, WIDTH - 10]),
    ],
)
def test_boxes_of_the_stored_picture_turn_with_it(tmp_path, turn, box):
    found = data.read(str(voc_set(tmp_path, xml(CAT), turn=turn)))
    item = only(found)
    assert (item.width, item.height) == (HEIGHT, WIDTH)
    assert item.boxes.tolist() == [box]
    assert found.problems.counts == {"turned": 1}


def test_a_turned_box_holds_the_same_pixels(tmp_path):
    corner = xml(("cat", 0, 0, WIDTH // 2, HEIGHT // 2))
    for turn in (5, 6, 7, 8):
        part = data.read(str(voc_set(tmp_path / str(turn), corner, turn=turn))).pools["all"]
        x1, y1, x2, y2 = (int(value) for value in part.items[0].boxes[0])
        inside = part.read(0)[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].float()
        assert inside[0].min() > 200, turn
        assert inside[1].max() < 60, turn


def test_boxes_that_were_drawn_on_the_upright_picture_stay(tmp_path):
    found = data.read(str(voc_set(tmp_path, xml(CAT, size=(HEIGHT, WIDTH)), turn=6)))
    assert only(found).boxes.tolist() == [[10, 20, 40, 50]]
    assert not found.problems.counts


def test_entities_are_refused_and_the_rest_is_read(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY x "cat"><!ENTITY y "&x;&x;">]>' + xml(CAT).replace("cat", "&y;")
    outside = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + xml(CAT)
    cut = xml(CAT)[:-20]
    foreign = "<html><body>not found</body></html>"
    deep = "<annotation>" * 100_000
    root = voc_set(tmp_path, xml(CAT), bomb, outside, cut, foreign, "", deep)
    found = data.read(str(root))
    assert len(found.pools["all"]) == 1
    assert found.problems.counts["bad-annotation"] == 6
    assert "entities" in str(found.problems)
    with pytest.raises(DataError, match="entities"):
        voc.parse(bomb.encode(), "a.xml")


def test_pictures_without_xml_xml_without_pictures_and_empty_ones(tmp_path):
    voc_set(tmp_path, xml(CAT), xml())
    picture(tmp_path / "alone.jpg")
    (tmp_path / "lost.xml").write_text(xml(CAT), encoding="utf-8")
    found = data.read(str(tmp_path))
    assert found.problems.counts == {"no-picture": 1, "no-annotation": 1, "empty": 1}
    assert sorted(len(item.boxes) for item in found.pools["all"].items) == [0, 1]


def test_broken_pictures_are_left_out(tmp_path, monkeypatch):
    root = voc_set(tmp_path, *[xml(CAT)] * 5)
    whole = (root / "b.jpg").read_bytes()
    (root / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "c.jpg").write_bytes(b"<!doctype html><html>")
    (root / "d.jpg").write_bytes(b"")
    picture(root / "e.jpg", (4000, 4000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    found = data.read(str(root))
    assert len(found.pools["all"]) == 1
    assert found.problems.counts == {"bad-picture": 4}
    assert "too many pixels" in str(found.problems.found["bad-picture"])


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGB"])
def test_pictures_of_every_mode_come_as_rgb(tmp_path, mode):
    part = data.read(str(voc_set(tmp_path, xml(CAT), mode=mode))).pools["all"]
    image = part.read(0)
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image[:, -1, -1].min() > 240


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    with pytest.raises(DataError, match=r"no usable box.*outside") as error:
        data.read(str(voc_set(tmp_path, xml(("cat", 900, 0, 999, 9)))))
    assert error.value.code == "E503"
    with pytest.raises(DataError, match="no annotations") as error:
        data.read(str(picture(tmp_path / "pictures" / "x.jpg").parent))
    assert error.value.code == "E503"


# splits


def test_folders_tell_the_splits(tmp_path):
    for part, count in (("train", 3), ("valid", 2), ("test", 1)):
        voc_set(tmp_path / part, *[xml(CAT)] * count)
    found = data.read(str(tmp_path))
    assert {role: len(part) for role, part in found.pools.items()} == {
        "train": 3,
        "val": 2,
        "test": 1,
    }
    assert found.choose("test")[0] == "test"
    assert len(found.together()) == 6


def test_image_sets_tell_the_splits(tmp_path):
    voc_set(tmp_path / "Annotations", *[xml(CAT)] * 4)
    for path in (tmp_path / "Annotations").glob("*.jpg"):
        target = tmp_path / "JPEGImages" / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name, text in (("trainval", "a\nb\nc\n"), ("train", "a\nb\n"), ("val", "c 1\n")):
        (lists / f"{name}.txt").write_text(text, encoding="utf-8")
    (lists / "test.txt").write_text("d\n", encoding="utf-8")
    splits = data.load(str(tmp_path))
    assert splits.test is not None
    assert (len(splits.train), len(splits.val), len(splits.test)) == (2, 1, 1)


def test_seeded_splits_are_the_same_everywhere_and_share_nothing(tmp_path):
    voc_set(tmp_path, *[xml(CAT)] * 8)
    splits = [data.load(str(tmp_path), val_split=0.25, seed=seed) for seed in (0, 0, 1)]
    names = [{item.name for item in each.val.items} for each in splits]
    assert names[0] == names[1] == {"e.jpg", "f.jpg"}
    assert names[0] != names[2]
    train = {item.name for item in splits[0].train.items}
    assert not train & names[0]
    assert len(train) == 6


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(tmp_path, share):
    with pytest.raises(ConfigError):
        data.load(str(tmp_path), val_split=share)


def test_classes_can_be_chosen_and_their_order_is_kept(tmp_path):
    text = xml(CAT, ("dog", 1, 1, 9, 9), ("owl", 2, 2, 9, 9))
    found = data.read(str(voc_set(tmp_path, text)), classes=("owl", "cat"))
    assert found.classes == ("owl", "cat")
    assert only(found).labels.tolist() == [1, 0]
    assert found.problems.counts == {"unknown-class": 1}
    with pytest.raises(DataError, match="none of these classes"):
        data.read(str(tmp_path), classes=("bat",))


# COCO


def coco_set(root, annotations, *, categories=((7, "dog"), (90, "cat")), name="instances.json"):
    picture(root / "images" / "a.jpg")
    document = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": key, "name": label} for key, label in categories],
        "annotations": [{"id": i, "image_id": 5, **row} for i, row in enumerate(annotations)],
    }
    (root / name).write_text(json.dumps(document), encoding="utf-8")
    return root


def test_category_ids_may_have_gaps(tmp_path):
    rows = [
        {"category_id": 90, "bbox": [10, 20, 30, 30], "area": 450.0, "iscrowd": 0},
        {"category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 1},
    ]
    found = data.read(str(coco_set(tmp_path, rows)))
    item = only(found)
    assert found.classes == ("dog", "cat")
    assert item.labels.tolist() == [1, 0]
    assert item.boxes.tolist() == [[10, 20, 40, 50], [1, 2, 4, 6]]
    assert item.ignore.tolist() == [False, True]
    assert item.areas is not None
    assert item.areas.tolist() == [450, 12]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"category_id": 3, "bbox": [1, 1, 2, 2]}, "unknown-class"),
        ({"category_id": 7, "bbox": [1, 1, -2, 2]}, "degenerate"),
        ({"category_id": 7, "bbox": [1, 1, 2]}, "not-a-number"),
        ({"category_id": 7, "bbox": [1, 1, "x", 2]}, "not-a-number"),
        ({"category_id": 7, "bbox": [1, 1, 10**400, 2]}, "not-a-number"),
        ({"category_id": 7}, "no-box"),
        ({"category_id": [7], "bbox": [1, 1, 2, 2]}, "unknown-class"),
        ({"category_id": 7, "bbox": [1, 1, 2, 2], "image_id": 99}, "no-picture"),
    ],
)
def test_bad_rows_of_coco_are_left_out(tmp_path, row, kind):
    good = {"category_id": 90, "bbox": [10, 20, 30, 30]}
    found = data.read(str(coco_set(tmp_path, [good, row])))
    assert only(found).boxes.tolist() == [[10, 20, 40, 50]]
    assert found.problems.counts == {kind: 1, "unused-class": 1}


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{", '{"images": 3, "annotations": []}', '{"images": [1, null]}']
)
def test_damaged_json_is_told(tmp_path, text):
    coco_set(tmp_path, [{"category_id": 90, "bbox": [10, 20, 30, 30]}])
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    found = data.read(str(tmp_path))
    assert len(found.pools["all"]) == 1
    assert found.problems.counts["unused-class"] == 1
    assert sum(found.problems.counts.values()) >= 2


def test_one_coco_file_can_be_named_wherever_its_pictures_are(tmp_path):
    rows = [{"category_id": 90, "bbox": [10, 20, 30, 30]}]
    coco_set(tmp_path, rows, name="first.json")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "first.json").rename(tmp_path / "annotations" / "instances_val2017.json")
    found = data.read(str(tmp_path / "annotations" / "instances_val2017.json"))
    assert list(found.pools) == ["val"]


# YOLO


def yolo_set(root, text, names="names: [cat, 'big dog']\n"):
    picture(root / "images" / "train" / "a.jpg")
    label = root / "labels" / "train" / "a.txt"
    label.parent.mkdir(parents=True)
    label.write_text(text, encoding="utf-8")
    if names:
        (root / "data.yaml").write_text(names, encoding="utf-8")
    return root


def test_yolo_shares_become_pixels(tmp_path):
    polygon = "0 0.125 0.5 0.5 0.5 0.25 1.0\n"
    found = data.read(str(yolo_set(tmp_path, "1 0.5 0.5 0.25 0.5\n" + polygon)))
    (item,) = found.pools["train"].items
    assert found.classes == ("cat", "big dog")
    assert item.labels.tolist() == [1, 0]
    assert item.boxes.tolist() == [[30, 15, 50, 45], [10, 30, 40, 60]]
    assert data.read(str(tmp_path / "data.yaml")).classes == found.classes


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("5 0.5 0.5 0.1 0.1", "unknown-class"),
        ("0.5 0.5 0.5 0.1 0.1", "bad-line"),
        ("-1 0.5 0.5 0.1 0.1", "bad-line"),
        ("cat 0.5 0.5 0.1 0.1", "bad-line"),
        ("0 0.5 0.5 0.1", "bad-line"),
        ("0 0.5 0.5 nan 0.1", "not-a-number"),
        ("0 0.5 0.5 0 0.1", "degenerate"),
        ("0 40 30 20 20", "outside"),
    ],
)
def test_bad_lines_of_yolo_are_left_out(tmp_path, line, kind):
    found = data.read(str(yolo_set(tmp_path, f"1 0.5 0.5 0.25 0.5\n\n{line}\n")))
    (item,) = found.pools["train"].items
    assert item.boxes.tolist() == [[30, 15, 50, 45]]
    assert found.problems.counts[kind] == 1


def test_a_picture_without_labels_has_no_objects(tmp_path):
    yolo_set(tmp_path, "0 0.5 0.5 0.25 0.5\n")
    picture(tmp_path / "images" / "train" / "b.jpg")
    found = data.read(str(tmp_path))
    assert [len(item.boxes) for item in found.pools["train"].items] == [1, 0]
    assert found.problems.counts == {"no-label-file": 1, "unused-class": 1}


@pytest.mark.parametrize(
    "text",
    [
        "names: [a, 'b c', d]",
        "path: x\nnames:\n- a\n- b c\n- d\nnc: 3\n",
        "names:\n  0: a\n  1: b c  # second\n  2: d\nval: y\n",
        "names: ['a',\n  \"b c\",\n  d]\n",
        "names: {0: a, 1: 'b c', 2: d}\n",
    ],
)
def test_names_of_every_form(text):
    assert yolo.parse_names(text) == {0: "a", 1: "b c", 2: "d"}


# zips and other places


def test_a_zip_is_read_in_place(tmp_path):
    voc_set(tmp_path / "in", xml(CAT), xml(("dog", 1, 1, 9, 9)))
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((tmp_path / "in").iterdir()):
            archive.write(file, f"wrapped/{file.name}")
        archive.writestr("__MACOSX/wrapped/._a.xml", "junk")
    part = data.read(str(path)).pools["all"]
    assert [item.name for item in part.items] == ["wrapped/a.jpg", "wrapped/b.jpg"]
    assert part.read(1).shape == (3, HEIGHT, WIDTH)


def test_unsafe_and_damaged_zips_are_refused(tmp_path):
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../a.xml", xml(CAT))
    with pytest.raises(DataError) as error:
        data.read(str(path))
    assert error.value.code == "E505"
    path.write_bytes(b"PK\x03\x04" + b"x" * 100)
    with pytest.raises(DataError):
        data.read(str(path))
    with pytest.raises(DataError) as error:
        data.read(str(tmp_path / "nowhere"))
    assert error.value.code == "E501"


def test_links_that_lead_back_up_end(tmp_path):
    voc_set(tmp_path / "set", xml(CAT))
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set", target_is_directory=True)
    assert len(data.read(str(tmp_path / "set")).pools["all"]) == 1


def test_a_picture_that_keeps_its_header_at_the_end(tmp_path):
    root = voc_set(tmp_path, xml(CAT))
    (root / "a.jpg").unlink()
    stored = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(stored, "TIFF")
    (root / "a.tif").write_bytes(stored.getvalue())
    assert only(data.read(str(root))).name == "a.tif"


def test_every_kind_of_problem_says_what_was_done():
    done = ("left out", "taken", "put right", "cut", "scaled", "turned", "kept", "without objects")
    assert all(any(word in text for word in done) for text in KINDS.values())
