"""Names and signatures that plugins rely on change only with a level and a CHANGELOG entry."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import dltool

SPEC = importlib.util.spec_from_file_location("public_api", Path(__file__).parent / "public_api.py")
assert SPEC is not None
assert SPEC.loader is not None
public_api = importlib.util.module_from_spec(SPEC)
sys.modules["public_api"] = public_api
SPEC.loader.exec_module(public_api)

HOW = "see python tests/public_api.py --help, and docs/plugins.md"


def snapshot():
    return json.loads(public_api.snapshot_path().read_text(encoding="utf-8"))


def test_names_and_signatures_are_those_of_the_level():
    before, now = snapshot(), public_api.current()
    assert not public_api.broken(before, now), f"raise dltool.API_LEVEL; {HOW}"
    assert sorted(now) == sorted(before), f"new names need a snapshot and a CHANGELOG line; {HOW}"


def test_the_changelog_tells_the_level_and_the_fingerprint(repository):
    changelog = repository / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("there is no CHANGELOG.md yet")
    line = public_api.changelog_line(snapshot())
    assert line in changelog.read_text(encoding="utf-8"), HOW


def test_every_level_has_its_snapshot(repository):
    files = {path.name for path in (repository / "tests").glob("api_level_*.json")}
    assert files == {f"api_level_{level}.json" for level in range(1, dltool.API_LEVEL + 1)}


@pytest.mark.parametrize(
    "change",
    [
        lambda api: api.pop("dltool.device.choose"),
        lambda api: api.update({"dltool.device.choose": "def (name: str, other: int) -> Choice"}),
        lambda api: api["dltool.console.Console"].pop(),
    ],
    ids=["a name goes", "a signature changes", "a method goes"],
)
def test_a_change_is_seen_and_changes_the_fingerprint(change):
    before, now = snapshot(), snapshot()
    change(now)
    assert len(public_api.broken(before, now)) == 1
    assert public_api.fingerprint(now) != public_api.fingerprint(before)


def test_the_real_signatures_are_described():
    api = snapshot()
    assert api["dltool.device.choose"] == "def (name: 'str') -> 'Choice'"
    assert api["dltool.options.EpochsOption"] == "option int --epochs"
    assert any(line.startswith("def result(") for line in api["dltool.console.Console"])
    assert "save_every: float | str" in api["dltool.training.Settings"]


def imported_names(text):
    """Yield `module.name` for everything that a source takes from dltool."""
    modules = {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dltool":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(node.module) and is_module(full):
                    modules[alias.asname or alias.name] = full
                else:
                    yield full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            if module:
                yield f"{module}.{node.attr}"


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(
    "folder", ["dltool/templates/topic/package", "examples/third_party_plugin"]
)
def test_template_and_example_use_the_public_api_alone(repository, folder):
    public = set(public_api.documented())
    sources = [*(repository / folder).rglob("*.py.txt"), *(repository / folder).rglob("*.py")]
    assert sources
    used = set()
    for path in sources:
        text = path.read_text(encoding="utf-8")
        used |= set(imported_names(text.replace("{{package}}", "dltool_x")))
    assert len(used) > 20
    assert used <= public, used - public
