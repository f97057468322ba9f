"""Archives that a stranger made: good ones come out whole, hostile ones not at all."""

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile

import pytest

from dltool.data.archives import extract, safe_members
from dltool.errors import DataError, DltoolError

FILES = {"a/one.txt": b"one", "a/b/two.bin": bytes(range(256)) * 20, "three": b""}


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files:
            file.writestr(name, content)
    return path


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as file:
        for member, content in members:
            file.addfile(member, io.BytesIO(content))
    return path


def tar_member(name, content=b"", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    return member, content


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(archive, folder, word, code="E505", **limits):
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(DataError, match=word) as caught:
        extract(archive, folder, **limits)
    assert caught.value.code == code
    assert str(archive) in caught.value.message
    assert "\n" not in caught.value.one_line()
    assert sorted(folder.parent.rglob("*")) == before, "something was left behind"


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_what_was_packed_comes_out(tmp_path, suffix):
    archive = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        make_zip(archive, FILES.items())
    else:
        mode = "w:" + suffix.partition(".")[2]
        members = [tar_member(name, content) for name, content in FILES.items()]
        make_tar(archive, [tar_member("./", kind=tarfile.DIRTYPE), *members], mode)
    folder = extract(archive, tmp_path / "new" / "out")
    assert folder == tmp_path / "new" / "out"
    assert content_of(folder) == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out"]


def test_the_kind_is_told_by_content_not_by_name(tmp_path):
    archive = make_zip(tmp_path / "data.tar.gz", FILES.items())
    assert content_of(extract(archive, tmp_path / "out")) == FILES


def test_empty_folders_come_out(tmp_path):
    archive = make_zip(tmp_path / "data.zip", [("a/empty/", b""), ("b", b"1")])
    assert (extract(archive, tmp_path / "out") / "a" / "empty").is_dir()


HOSTILE_NAMES = [
    ("../out.txt", "'..'"),
    ("a/../../out.txt", "'..'"),
    ("a\\..\\..\\out.txt", "'..'"),
    ("/etc/out.txt", "absolute"),
    ("\\\\server\\out.txt", "absolute"),
    ("C:\\out.txt", "absolute"),
    ("c:out.txt", "absolute"),
]


@pytest.mark.parametrize(("name", "word"), HOSTILE_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_leave_the_folder(tmp_path, kind, name, word):
    archive = tmp_path / f"data.{kind}"
    if kind == "zip":
        make_zip(archive, [("good.txt", b"1"), (name, b"2")])
    else:
        make_tar(archive, [tar_member("good.txt", b"1"), tar_member(name, b"2")])
    refused(archive, tmp_path / "out", word)
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "good.txt"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_tar_members_that_are_no_files(tmp_path, kind, link):
    bad = tar_member("bad", kind=kind, link=link)
    archive = make_tar(tmp_path / "data.tar", [tar_member("good.txt", b"1"), bad])
    refused(archive, tmp_path / "out", "'bad' is a link, a device")


def test_a_zip_with_a_symbolic_link(tmp_path):
    info = zipfile.ZipInfo("bad")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make_zip(tmp_path / "data.zip", [("good.txt", b"1"), (info, b"/etc/passwd")])
    refused(archive, tmp_path / "out", "'bad' is a link")


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a/b", "a/./b"), ("a/b", "a\\b")])
def test_duplicates(tmp_path, first, second):
    archive = make_zip(tmp_path / "data.zip", [(first, b"1"), (second, b"2")])
    refused(archive, tmp_path / "out", "occurs twice")
    members = [tar_member(first, b"1"), tar_member(second, b"2")]
    refused(make_tar(tmp_path / "data.tar", members), tmp_path / "out", "occurs twice")


def test_a_file_that_is_a_folder_too(tmp_path):
    archive = make_zip(tmp_path / "data.zip", [("a", b"1"), ("a/b", b"2")])
    refused(archive, tmp_path / "out", "a file and a folder")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_limits(tmp_path, kind):
    archive = tmp_path / f"data.{kind}"
    files = [(f"{number}.bin", bytes(1 << 20)) for number in range(3)]
    if kind == "zip":
        make_zip(archive, files)
    else:
        make_tar(archive, [tar_member(*file) for file in files], "w:gz")
    out = tmp_path / "out"
    refused(archive, out, r"'2.bin' is one of more than 2 members", max_files=2)
    refused(archive, out, r"'1.bin' takes the size beyond", max_bytes=(2 << 20) - 1)
    extract(archive, tmp_path / "good", max_files=3, max_bytes=3 << 20, max_ratio=2000)


def test_a_zip_bomb_by_ratio(tmp_path):
    archive = make_zip(tmp_path / "data.zip", [("a", b"1"), ("bomb", bytes(8 << 20))])
    refused(archive, tmp_path / "out", "'bomb' grows more than 500-fold", max_ratio=500)


def test_a_tar_bomb_by_ratio(tmp_path):
    members = [tar_member("a", b"1"), tar_member("bomb", bytes(8 << 20))]
    archive = make_tar(tmp_path / "data.tar.gz", members, "w:gz")
    refused(archive, tmp_path / "out", "'bomb' grows more than 500-fold", max_ratio=500)


def test_a_bomb_behind_the_end_of_a_tar(tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        file.addfile(*[tar_member("a", b"1")[0], io.BytesIO(b"1")])
    archive = tmp_path / "data.tar.gz"
    archive.write_bytes(gzip.compress(packed.getvalue() + bytes(8 << 20)))
    refused(archive, tmp_path / "out", "too many bytes", max_bytes=1 << 20)


def test_a_tar_header_that_claims_gigabytes(tmp_path):
    # a pax header of 8 GiB, which tarfile would read at once
    header = tarfile.TarInfo("x")
    header.size, header.type = 8 << 30, tarfile.XHDTYPE
    archive = tmp_path / "data.tar"
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    refused(archive, tmp_path / "out", "claims 8,589,934,592 bytes")


def test_members_that_share_their_bytes(tmp_path):
    """Let two directory entries point at the same packed bytes."""
    plain = make_zip(tmp_path / "plain.zip", [("a", bytes(range(256)) * 4000)], zipfile.ZIP_STORED)
    data = plain.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    twin = entry[:-1] + b"b"
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(entry) * 2, start, 0)
    archive = tmp_path / "data.zip"
    archive.write_bytes(data[:start] + entry + twin + tail)
    refused(archive, tmp_path / "out", "overlaps")


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_a_cut_archive_is_damaged(tmp_path, suffix, fraction):
    import random

    noise = [(f"{n}.bin", random.Random(n).randbytes(30_000)) for n in range(4)]
    archive = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        make_zip(archive, noise)
    else:
        members = [tar_member(*file) for file in noise]
        make_tar(archive, members, "w:" + suffix.partition(".")[2])
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * fraction)])
    refused(archive, tmp_path / "out", "damaged or cut off", code="E502")


def test_a_tar_cut_between_members_is_damaged(tmp_path):
    members = [tar_member("a", bytes(512)), tar_member("b", bytes(512))]
    archive = make_tar(tmp_path / "data.tar", members)
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, tmp_path / "out", "mark at its end is missing", code="E502")


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_flipped_bits_are_damage_or_unsafe_never_content(tmp_path, suffix):
    import random

    files = [(f"{n}.bin", random.Random(n).randbytes(3000)) for n in range(3)]
    archive = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        make_zip(archive, files)
    else:
        make_tar(archive, [tar_member(*file) for file in files], "w:" + suffix.partition(".")[2])
    data = bytearray(archive.read_bytes())
    draws = random.Random(1)
    for number in range(40):
        flipped = bytearray(data)
        flipped[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        archive.write_bytes(flipped)
        out = tmp_path / f"out{number}"
        try:
            extract(archive, out)
        except DataError:
            assert not out.exists()
        else:  # a bit that carries nothing, such as a time
            assert set(content_of(out).values()) == {content for _, content in files}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"),
        (b"\x00\x01\x02\xff", "is no archive"),
    ],
)
def test_what_is_no_archive(tmp_path, content, word):
    archive = tmp_path / "data.zip"
    archive.write_bytes(content)
    refused(archive, tmp_path / "out", word, code="E502")


def test_a_missing_archive(tmp_path):
    with pytest.raises(DataError, match="no file") as caught:
        extract(tmp_path / "data.zip", tmp_path / "out")
    assert caught.value.code == "E501"


def test_nothing_of_the_user_is_overwritten(tmp_path):
    archive = make_zip(tmp_path / "data.zip", FILES.items())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DltoolError, match="exists already") as caught:
        extract(archive, tmp_path / "out")
    assert caught.value.code == "E101"
    assert content_of(tmp_path / "out") == {"mine.txt": b"mine"}


def test_an_encrypted_zip_is_told(tmp_path):
    archive = make_zip(tmp_path / "data.zip", [("secret", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    refused(archive, tmp_path / "out", "encrypted", code="E502")


def test_safe_members_gives_everything_of_a_good_zip(tmp_path):
    archive = make_zip(tmp_path / "data.zip", FILES.items())
    with zipfile.ZipFile(archive) as opened:
        assert [member.filename for member in safe_members(opened)] == list(FILES)


@pytest.mark.parametrize(("name", "word"), HOSTILE_NAMES)
def test_safe_members_refuses_what_extract_refuses(tmp_path, name, word):
    archive = make_zip(tmp_path / "data.zip", [("good.txt", b"1"), (name, b"2")])
    with zipfile.ZipFile(archive) as opened, pytest.raises(DataError, match=word) as caught:
        safe_members(opened)
    assert caught.value.code == "E505"
