"""docs/reliability.md: every test that it names is there."""

import re


def test_every_named_test_exists(repository):
    text = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    defined, files = set(), set()
    for path in (repository / "tests").rglob("test_*.py"):
        files.add(path.relative_to(repository / "tests").as_posix())
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"\b(test_\w+)`", text)) - {"test_docs"}
    assert len(named) > 50
    assert named <= defined, named - defined
    for path in re.findall(r"`([\w/]*test_\w+\.py)", text):
        assert any(known.endswith(path) for known in files), path
