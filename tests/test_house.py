"""The rules of the house that can be counted."""

import ast
import sys
import tomllib

import pytest

CORE_FILE_LIMIT = 400
FUNCTION_LIMIT = 120


def sources(repository):
    return [*repository.glob("dltool/**/*.py"), *repository.glob("plugins/*/dltool_*/**/*.py")]


def imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_core_imports_no_topic_and_topics_import_no_topic(repository):
    for path in sources(repository):
        parts = path.relative_to(repository).parts
        own = parts[2] if parts[0] == "plugins" else None
        foreign = {
            name
            for name in imported(path)
            if name.startswith("dltool_") and own not in name.split(".")
        }
        assert not foreign, f"{path} imports {foreign}"


def test_files_and_functions_stay_small(repository):
    lengths = []
    for path in sources(repository):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= CORE_FILE_LIMIT, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lengths.append(node.end_lineno - node.lineno + 1)
                is_command = path.name == "cli.py" or path.parent.name == "commands"
                limit = FUNCTION_LIMIT if is_command else 80
                assert lengths[-1] <= limit, f"{path}:{node.lineno} {node.name}"
    lengths.sort()
    assert lengths[len(lengths) // 2] <= 12
    assert lengths[int(len(lengths) * 0.9)] <= 45


def test_public_functions_say_what_they_do(repository):
    for path in sources(repository):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        for node in tree.body:
            is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if is_public:
                assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name}"


def test_every_topic_is_packaged_and_registered(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    topics = {path.name for path in (repository / "plugins").iterdir() if path.is_dir()}
    assert set(project["project"]["entry-points"]["dltool.plugins"]) == topics
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    expected = {f"plugins/{topic}/dltool_{topic.replace('-', '_')}" for topic in topics}
    assert set(packages) == {"dltool", *expected}
    for package in expected:
        manifest = tomllib.loads((repository / package / "plugin.toml").read_text(encoding="utf-8"))
        assert manifest["name"] == package.split("/")[1]
        assert manifest["summary"]


def test_no_pickle_is_ever_loaded_unguarded(repository):
    for path in sources(repository):
        text = path.read_text(encoding="utf-8")
        assert "torch.load(" not in text or "weights_only=True" in text, path
        assert "pickle.load" not in text, path


def test_constraints_pin_a_matching_pair(repository):
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.14.1"
    assert pins["torchvision"].startswith("0.29.")
    assert not any("://" in line for line in lines)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the git command's posix paths")
def test_project_names_no_package_index(repository):
    for name in ("pyproject.toml", "constraints.txt", "Makefile", ".ci/run"):
        text = (repository / name).read_text(encoding="utf-8")
        assert "index-url" not in text
        assert "pypi.org" not in text


def test_every_cause_has_a_cure():
    from dltool.errors import CAUSES, CURES, DataError

    assert CAUSES.keys() == CURES.keys()
    assert DataError("E501", "gone").one_line() == f"gone. Cure: {CURES['E501']}"
