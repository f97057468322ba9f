"""The documents: their commands run, their links lead somewhere."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOPICS = [
    "plugins/bert-finetune/README.md",
    "plugins/cnn/README.md",
    "plugins/detect/README.md",
    "plugins/gpu/README.md",
    "plugins/linreg/README.md",
    "plugins/mlp-xor/README.md",
    "plugins/seq2seq/README.md",
    "plugins/tensor-ops/README.md",
    "plugins/word2vec/README.md",
]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *TOPICS]
ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def commands(text, language):
    lines = "\n".join(blocks(text, language)).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", ["README.md", *TOPICS])
def test_commands_of_the_document_run(name, repository, dltool, work):
    shutil.copytree(repository / "examples" / "digits", work / "examples" / "digits")
    found = commands((repository / name).read_text(encoding="utf-8"), "sh")
    assert found
    for line in found:
        words = shlex.split(line, comments=True)
        assert words[0] == "dltool", line
        dltool(*words[1:])


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_the_page_run(name, repository, dltool, work):
    for line in commands((repository / name).read_text(encoding="utf-8"), "sh"):
        words = shlex.split(line, comments=True)
        assert words[0] == "dltool", line
        dltool(*words[1:])


@pytest.fixture(scope="module")
def helped():
    """The help of the commands that were looked at already."""
    return {}


@pytest.mark.parametrize("name", [*DOCUMENTS, *PAGES])
def test_options_in_examples_exist(name, repository, dltool, helped):
    text = (repository / name).read_text(encoding="utf-8")
    for line in commands(text, "console"):
        if line.startswith("dltool "):
            words = shlex.split(line, comments=True)
            named = [word for word in words if word.startswith("--")]
            path = [word for word in words[1:3] if not word.startswith("-")]
            if tuple(path) not in helped:
                helped[tuple(path)] = dltool(*path, "--help").out
            help_text = helped[tuple(path)]
            assert all(option in help_text for option in named), line


@pytest.mark.parametrize("name", [*DOCUMENTS, "benchmarks/RESULTS.md", *PAGES])
def test_links_lead_somewhere(name, repository):
    path = repository / name
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_pages_are_built_without_a_warning(repository, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "commands" / "cnn" / "index.html").read_text(encoding="utf-8")
    assert "dltool cnn train" in page
    assert "Peak learning rate." in page
    assert not re.search(r'(src|href)="https?://[^"]*[.](js|css|woff2?)"', page)


def test_readme_has_exactly_the_two_set_up_commands(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert commands(text, "console")[:2] == ["make demo", "make test"]
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "check", "bench"):
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_every_exit_code_is_in_the_readme(repository):
    from dltool.errors import EXIT_CODES

    text = (repository / "README.md").read_text(encoding="utf-8")
    table = text.split("| exit code | meaning |")[1].split("\n\n")[0]
    for code in EXIT_CODES:
        assert str(code) in table


def test_changelog_has_the_version(repository):
    from dltool import __version__

    assert f"## [{__version__}]" in (repository / "CHANGELOG.md").read_text(encoding="utf-8")
