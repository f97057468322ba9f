"""Readers fed with mutated and random bytes: an error of ours or a result, never anything else.

Memory is bounded from outside: a reader that believes a header's gigabytes fails with MemoryError.
"""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dltool import checkpoint, convert, files, headers, runs
from dltool.data import archives, decode, idx, images
from dltool.errors import DltoolError

FULL = os.environ.get("DLTOOL_FAULTS") == "full"
MEMORY = 2 << 30
PARTS = {"optimizer": {"state": {0: {"m": torch.ones(3)}}, "lr": 0.1, "betas": (0.9, 0.99)}}


def examples(quick, full):
    """Set the number of examples; the same ones every time."""
    return settings(
        max_examples=full if FULL else quick,
        derandomize=True,
        database=None,
        deadline=5000,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    """Let the process grow by no more than `MEMORY`."""
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def place(tmp_path):
    """A path whose file every example writes anew."""
    return tmp_path / "file"


def mutated(*originals):
    """Take a good file, and change bytes, cut it, put bytes in or repeat a part."""
    numbers = st.integers(0, 1 << 30)
    change = st.tuples(
        st.sampled_from(["byte", "big", "cut", "insert", "repeat"]), numbers, numbers
    )

    def apply(original, changes):
        data = bytearray(original)
        for kind, where, what in changes:
            at = where % max(len(data), 1)
            if kind == "byte" and data:
                data[at] = what % 256
            elif kind == "big":
                data[at : at + 4] = struct.pack("<I", (what * 0x9E3779B1) % (1 << 32))
            elif kind == "cut":
                del data[at : at + 1 + what % 64]
            elif kind == "insert":
                data[at:at] = struct.pack("<I", what)[: 1 + what % 4]
            else:
                data += data[at : at + what % 64]
        return bytes(data)

    good = st.builds(apply, st.sampled_from(originals), st.lists(change, min_size=1, max_size=6))
    return st.one_of(good, good, good, st.binary(max_size=400))


def survives(read, *arguments):
    """Call a reader; an error of ours is as good as a result."""
    try:
        read(*arguments)
    except DltoolError as error:
        error.one_line().encode()  # what no terminal can show would fail here
        return False
    return True


def idx_file(*shape):
    count = 1
    for side in shape:
        count *= side
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(count)


IDX = idx_file(3, 4, 5)


def test_idx(place, tally):
    @examples(400, 10_000)
    @given(mutated(IDX, gzip.compress(IDX), idx_file(7)))
    def check(data):
        place.write_bytes(data)
        survives(idx.read_idx, place)

    check()
    place.write_bytes(IDX)
    assert survives(idx.read_idx, place)
    tally("fuzz: idx", 10_000 if FULL else 400, crashes=0)


def image_file(kind, mode="RGB"):
    stream = io.BytesIO()
    Image.effect_noise((9, 7), 50).convert(mode).save(stream, kind)
    return stream.getvalue()


IMAGES = [
    image_file("PNG"),
    image_file("PNG", "P"),
    image_file("PNG", "I;16"),
    image_file("JPEG"),
    image_file("JPEG", "CMYK"),
    image_file("GIF", "P"),
    image_file("BMP"),
    image_file("TIFF"),
    image_file("PPM"),
    image_file("WEBP"),
]


def test_images(tally):
    @examples(600, 20_000)
    @given(mutated(*IMAGES), st.sampled_from([None, "L", "RGB"]))
    def check(data, mode):
        survives(decode.header, data, "x.png")
        survives(decode.decode, data, "x.png", mode, (8, 8))

    check()
    assert all(survives(decode.decode, data, "x", "RGB", None) for data in IMAGES)
    tally("fuzz: image", 20_000 if FULL else 600, crashes=0)


@dataclasses.dataclass(frozen=True)
class Config:
    """Fields of every kind that configs have."""

    epochs: int = 1
    learning_rate: float = 0.1
    name: str = "a"
    on: bool = False
    sizes: tuple[int, ...] = ()


TOML = b'epochs = 3\nlearning-rate = 1e-3\nname = "b"\non = true\nsizes = [1, 2]\n'


def test_config_toml(place, tally):
    @examples(600, 20_000)
    @given(
        st.one_of(mutated(TOML), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
    )
    def check(data):
        place.write_bytes(data)
        survives(runs.read_config_file, place, Config)

    check()
    for deep in (b"epochs = " + b"[" * 100_000, b"a." * 50_000 + b"b = 1", b"x = {" * 9000):
        place.write_bytes(deep)
        assert not survives(runs.read_config_file, place, Config)
    many = b"\n".join(b"a%d" % line + b".b" * 490 + b" = 1" for line in range(60))
    for large in (many, b"#" * 70_000):
        place.write_bytes(large)
        assert not survives(runs.read_config_file, place, Config)
    place.write_bytes(TOML)
    assert survives(runs.read_config_file, place, Config)
    tally("fuzz: config TOML", 20_000 if FULL else 600, crashes=0)


@pytest.fixture
def saved(tmp_path):
    """A good checkpoint folder."""
    folder = tmp_path / "c"
    checkpoint.save(folder, {"a": torch.ones(2, 3), "b": torch.ones(4)}, PARTS, {"step": 1})
    return folder


def signed_again(folder):
    """Make the manifest fit whatever the files hold."""
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != "MANIFEST.json"
    }
    (folder / "MANIFEST.json").write_bytes(checkpoint.manifest_bytes(entries))


def test_safetensors_header(place, saved, tally):
    original = (saved / "model.safetensors").read_bytes()
    length = int.from_bytes(original[:8], "little")

    def with_header(header):
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + original[8 + length :]

    values = st.recursive(
        st.one_of(st.integers(), st.text(max_size=5), st.none(), st.floats(), st.booleans()),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner)
        ),
        max_leaves=6,
    )
    tensors = st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from([*headers.BITS]), values),
            "shape": st.one_of(st.lists(st.integers(-1, 1 << 40), max_size=70), values),
            "data_offsets": st.one_of(st.lists(st.integers(-1, 1 << 64), max_size=3), values),
        }
    )
    made = st.dictionaries(st.text(max_size=4), st.one_of(tensors, values), max_size=3)

    @examples(800, 20_000)
    @given(st.one_of(mutated(original), made.map(with_header)))
    def check(data):
        place.write_bytes(data)
        # what our reader of headers takes, safetensors takes too
        if survives(headers.read, place):
            checkpoint.tensor_files.read(place)

    check()
    place.write_bytes(original)
    assert survives(headers.read, place)
    for deep in (b'{"a":' * 100_000, b"[" * 100_000):
        place.write_bytes(struct.pack("<Q", len(deep)) + deep)
        assert not survives(headers.read, place)
    tally("fuzz: safetensors header", 20_000 if FULL else 800, crashes=0)


def test_checkpoint_with_any_content_and_a_manifest_that_fits(saved, tally):
    contents = {path.name: path.read_bytes() for path in saved.iterdir()}
    names = [name for name in contents if name != "MANIFEST.json"]

    @examples(300, 6_000)
    @given(st.data())
    def check(data):
        name = data.draw(st.sampled_from(names))
        (saved / name).write_bytes(data.draw(mutated(contents[name])))
        signed_again(saved)
        survives(checkpoint.load, saved)
        (saved / name).write_bytes(contents[name])

    check()
    signed_again(saved)
    assert survives(checkpoint.load, saved)
    tally("fuzz: checkpoint.load behind a valid manifest", 6_000 if FULL else 300, crashes=0)


def test_manifest_text(saved, tally):
    path = saved / "MANIFEST.json"
    original = path.read_bytes()

    @examples(300, 10_000)
    @given(mutated(original))
    def check(data):
        path.write_bytes(data)
        assert survives(checkpoint.load, saved) == (data == original)

    check()
    tally("fuzz: MANIFEST.json", 10_000 if FULL else 300, undetected=0)


@pytest.mark.filterwarnings("ignore")
def test_foreign_weights(place, tally):
    state = {"state_dict": {"module.a": torch.ones(2, 3), "module.b": torch.ones(1)}, "epoch": 3}
    originals = []
    for new in (True, False):
        stream = io.BytesIO()
        torch.save(state, stream, _use_new_zipfile_serialization=new)
        originals.append(stream.getvalue())

    @examples(500, 10_000)
    @given(mutated(*originals))
    def check(data):
        place.write_bytes(data)
        survives(convert.load_foreign, place)

    check()
    for original in originals:
        place.write_bytes(original)
        assert survives(convert.load_foreign, place)
    tally("fuzz: foreign .pt files", 10_000 if FULL else 500, crashes=0)


def test_archives(place, tmp_path, tally):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a/b.txt", b"hello" * 20)
        made.writestr("c.bin", bytes(300))
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        member = tarfile.TarInfo("a/b.txt")
        member.size = 100
        made.addfile(member, io.BytesIO(bytes(100)))
    numbers = iter(range(1 << 30))
    good = [stream.getvalue(), packed.getvalue(), gzip.decompress(packed.getvalue())]

    @examples(300, 5_000)
    @given(mutated(*good))
    def check(data):
        place.write_bytes(data)
        folder = tmp_path / f"out{next(numbers)}"
        if not survives(archives.extract, place, folder):
            assert not folder.exists()

    check()
    outside = {path.name for path in tmp_path.iterdir() if not path.name.startswith("out")}
    assert outside == {"file"}
    tally("fuzz: archives", 5_000 if FULL else 300, crashes=0, escapes=0)


def test_zip_of_images(tmp_path, tally):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as made:
        for name in ("cat/1.png", "dog/1.png"):
            made.writestr(name, IMAGES[0])
    original = path.read_bytes()
    reader = decode.ItemReader

    @examples(200, 5_000)
    @given(mutated(original))
    def check(data):
        path.write_bytes(data)
        if survives(images.scan, path):
            for item in images.scan(path).splits["all"]:
                survives(reader().read, item)

    check()
    path.write_bytes(original)
    assert survives(images.scan, path)
    tally("fuzz: zip of images", 5_000 if FULL else 200, crashes=0)


def test_run_files(tmp_path, tally):
    @examples(300, 5_000)
    @given(mutated(b'{"format": 1, "topic": "cnn", "status": "running", "value": 1.5}\n'))
    def check(data):
        for name in ("run.json", "metrics.jsonl", "config.json"):
            (tmp_path / name).write_bytes(data)
        survives(runs.read_json, tmp_path)
        survives(runs.read_records, tmp_path)
        survives(runs.read_config, tmp_path, Config)
        runs.listed(tmp_path)

    check()
    (tmp_path / "run.json").write_bytes(b'{"format": "new"}')
    assert survives(runs.read_json, tmp_path)
    (tmp_path / "config.json").write_bytes(b'{"epochs": 3}')
    assert not survives(runs.read_config, tmp_path, Config)
    (tmp_path / "run.json").write_bytes(b"[" * 100_000)
    (tmp_path / "metrics.jsonl").write_bytes(b"[" * 100_000)
    assert not survives(runs.read_json, tmp_path)
    survives(runs.read_records, tmp_path)
    tally("fuzz: run.json, config.json, metrics.jsonl", 5_000 if FULL else 300, crashes=0)


def test_memory_is_really_bounded():
    """The bound that the other tests rely on."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    with pytest.raises(MemoryError):
        bytearray(MEMORY + (1 << 30))
    assert hashlib.sha256(b"").hexdigest()
