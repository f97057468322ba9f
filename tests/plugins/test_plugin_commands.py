"""Names, choices, installers, lock files and completion of plugins."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dltool import plugins
from dltool.errors import ConfigError, PluginError
from dltool.plugins import Plugin, lock, owner, settings, template
from dltool.plugins.lock import Pin

SPEC = importlib.util.spec_from_file_location("hostile", Path(__file__).parents[1] / "hostile.py")
assert SPEC is not None
assert SPEC.loader is not None
hostile = importlib.util.module_from_spec(SPEC)
sys.modules["hostile"] = hostile
SPEC.loader.exec_module(hostile)


@pytest.fixture
def site(tmp_path):
    """A folder of installed packages that comes first on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def two(site):
    """Two distributions with a topic `tides` each."""
    for letter in "ba":
        summary = f"Tides of {letter}"
        package = f"plug_{letter}"
        cli = hostile.GOOD_APP.replace("1}", f"'{letter}'}}")
        hostile.install(site, "tides", package=package, summary=summary, cli=cli)
    return {"PYTHONPATH": str(site)}


def listed(dltool, **variables):
    found = dltool("plugin", "list", "--json", **variables).json()["data"]["plugins"]
    return {item["name"]: item for item in found if not item["is_own"]}


# Names and choices


def test_two_of_one_name_are_both_reached_and_neither_wins_in_silence(dltool, two):
    found = listed(dltool, **two)
    assert set(found) == {"tides", "dltool-b:tides"}
    assert found["tides"]["distribution"] == "dltool-a"
    assert "first by name of its distribution" in found["tides"]["why"]
    assert found["tides"]["rivals"] == ["dltool-b:tides"]
    shown = dltool("plugin", "list", **two).out
    assert "has the plain name: the first by name of its distribution" in shown
    for name, letter in {"tides": "a", "dltool-a:tides": "a", "dltool-b:tides": "b"}.items():
        said = dltool(name, "say", "--json", **two)
        assert said.json()["data"] == {"said": letter}
        assert ("choose with dltool plugin prefer" in said.err) == (name == "tides")


def test_the_users_choice_is_kept_and_can_be_forgotten(dltool, two, tmp_path):
    assert not (tmp_path / "home").exists()
    dltool("plugin", "prefer", "dltool-b:tides", **two)
    kept = json.loads((tmp_path / "home" / "config" / "plugins.json").read_text(encoding="utf-8"))
    assert kept == {"disabled": [], "preferred": {"tides": "dltool-b"}}
    found = listed(dltool, **two)
    assert found["tides"]["distribution"] == "dltool-b"
    assert "your choice" in found["tides"]["why"]
    said = dltool("tides", "say", "--json", **two)
    assert (said.json()["data"], said.err) == ({"said": "b"}, "")
    dltool("plugin", "prefer", "--forget", "tides", **two)
    assert listed(dltool, **two)["tides"]["distribution"] == "dltool-a"


def test_a_choice_must_be_between_plugins(dltool, two):
    assert "does not say which" in dltool("plugin", "prefer", "tides", code=2, **two).err
    assert "no other plugin" in dltool("plugin", "prefer", "dltool:cnn", code=2, **two).err
    dltool("plugin", "prefer", "dltool-c:tides", code=4, **two)


def test_a_disabled_plugin_is_out_until_it_is_enabled(dltool, two):
    dltool("plugin", "disable", "dltool-a:tides", **two)
    found = listed(dltool, **two)
    assert found["tides"]["distribution"] == "dltool-b"
    assert found["tides"]["why"] == "has the plain name: the others are disabled"
    assert found["dltool-a:tides"]["is_disabled"]
    assert "dltool-a:tides" not in dltool("--help", **two).out
    refused = dltool("dltool-a:tides", "say", "--json", code=4, **two)
    assert refused.json()["error"]["code"] == "E407"
    assert "dltool plugin enable dltool-a:tides" in refused.err
    dltool("plugin", "enable", "dltool-a:tides", **two)
    assert listed(dltool, **two)["tides"]["distribution"] == "dltool-a"


def test_our_own_topics_can_be_disabled_too(dltool):
    dltool("plugin", "disable", "gpu")
    assert "  gpu " not in dltool("--help").out
    dltool("gpu", "info", code=4)
    assert "disabled by you" in dltool("plugin", "doctor").out
    dltool("plugin", "enable", "gpu")
    dltool("gpu", "info", "--json")


def test_what_is_no_longer_installed_can_still_be_enabled(dltool, two):
    dltool("plugin", "disable", "dltool-a:tides", **two)
    assert "disabled but not installed" in dltool("plugin", "doctor").out
    dltool("plugin", "enable", "dltool-a:tides")
    assert "not installed" not in dltool("plugin", "doctor").out.split("plugin choices")[-1]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"disabled": 3}', '{"preferred": {"a": 1}}'])
def test_damaged_choices_are_ignored_told_and_not_overwritten(dltool, tmp_path, content):
    file = tmp_path / "home" / "config" / "plugins.json"
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="utf-8")
    assert "  cnn " in dltool("--help").out
    dltool("cnn", "--help")
    assert "cannot be used" in dltool("plugin", "doctor", code=6).out
    assert str(file) in dltool("plugin", "disable", "gpu", code=2).err
    assert file.read_text(encoding="utf-8") == content


def test_a_selection_by_environment(dltool, two):
    assert set(listed(dltool, DLTOOL_PLUGINS="dltool-b:tides", **two)) == {"dltool-b:tides"}
    assert set(listed(dltool, DLTOOL_PLUGINS="tides,gpu", **two)) == {"tides"}
    assert listed(dltool, DLTOOL_PLUGINS="", **two) == {}
    shown = dltool("--no-plugins", "plugin", "list", **two)
    assert shown.out == "no topic is installed\n"
    dltool("--no-plugins", "tides", "say", code=2, **two)


def test_the_doctor_finds_what_a_shadow_and_a_conflict_are(dltool, site, two):
    hostile.MATRIX = hostile.matrix()
    hostile.MATRIX["shadows_our_topic"].make(site)
    shown = dltool("plugin", "doctor", code=6, **two).out
    assert "another dltool_cnn is first on the path" in shown
    assert "cure: dltool plugin prefer dltool-a:tides, or another of them" in shown


def test_the_doctor_compares_requirements(dltool, site):
    pytest.importorskip("packaging")
    wants = ("dltool>=99", "not-there-at-all", "typer>=0.1")
    hostile.install(site, "tides", requires=wants)
    shown = dltool("plugin", "doctor", PYTHONPATH=str(site)).out
    assert "is not >=99; not-there-at-all is not installed" in shown


# What checks leave behind


def test_a_failed_call_is_remembered_until_the_source_changes(dltool, site, tmp_path):
    path = {"PYTHONPATH": str(site)}
    folder = hostile.install(site, "evil", cli="raise RuntimeError('no luck')\n")
    assert "RuntimeError: no luck" in dltool("evil", "--help", **path).out
    dltool("evil", "info", "x", code=4, **path)
    dltool("plugin", "info", "evil", **path)
    assert not (tmp_path / "home").exists()
    assert "[broken]" not in dltool("--help", **path).out
    dltool("evil", "say", code=4, **path)
    assert "[broken] cannot be imported: RuntimeError: no luck" in " ".join(
        dltool("--help", **path).out.split()
    )
    (folder / "cli.py").write_text(hostile.GOOD_APP, encoding="utf-8")
    assert "[broken]" not in dltool("--help", **path).out


def test_what_was_missing_and_has_come_is_no_longer_told(dltool, site):
    path = {"PYTHONPATH": str(site)}
    hostile.install(site, "evil", cli=f"def f():\n    import came_later\nf()\n{hostile.GOOD_APP}")
    dltool("plugin", "check", "evil", code=6, **path)
    assert "[broken]" in dltool("--help", **path).out
    (site / "came_later.py").touch()
    assert "[broken]" not in dltool("--help", **path).out
    dltool("plugin", "check", "evil", **path)


@pytest.mark.parametrize(
    "source",
    [
        "'''\nimport not_there_at_all\n'''\n",
        "try:\n    import not_there_at_all\nexcept ImportError:\n    pass\n",
        "if False:\n    import not_there_at_all\n",
        "def f():\n    import not_there_at_all\n",
        "import sys\nsys.modules['not_there_at_all'] = sys\nimport not_there_at_all\n",
        "from __future__ import annotations\nimport os.path, json\n",
    ],
)
def test_the_look_at_sources_accuses_nobody_wrongly(dltool, site, source):
    hostile.install(site, "tides", cli=source + hostile.GOOD_APP)
    path = {"PYTHONPATH": str(site)}
    assert "[broken]" not in dltool("--help", **path).out
    dltool("tides", "say", "--json", **path)


def test_a_failing_state_folder_is_no_failure(dltool, site, tmp_path):
    hostile.install(site, "evil", cli="raise RuntimeError('no luck')\n")
    (tmp_path / "home").write_text("a file", encoding="utf-8")
    refused = dltool("evil", "say", code=4, PYTHONPATH=str(site))
    assert "no luck" in refused.err


# Installers


def of(name, tmp_path, program="tool", **more):
    return owner.Owner(name, tmp_path / "env", program, **more)


def test_commands_are_those_of_the_owner(tmp_path):
    python = sys.executable
    expected = {
        "pip": (["tool", "-m", "pip", "install", "x"], ["-m", "pip", "uninstall", "--yes", "x"]),
        "uv pip": (
            ["tool", "pip", "install", "--python", python, "x"],
            ["pip", "uninstall", "--python", python, "x"],
        ),
        "pipx": (["tool", "inject", "env", "x"], ["uninject", "env", "x"]),
    }
    for name, (install, uninstall) in expected.items():
        assert owner.install_command(of(name, tmp_path), ["x"]) == install
        assert owner.uninstall_command(of(name, tmp_path), "x") == ["tool", *uninstall]
    words = owner.install_command(of("pip", tmp_path), ["a", "b"], upgrade=True, editable=True)
    assert words[3:] == ["install", "--upgrade", "--editable", "a", "--editable", "b"]


def test_uv_tool_keeps_what_it_had(tmp_path):
    (tmp_path / "uv-receipt.toml").write_text(
        '[tool]\nrequirements = [{ name = "dltool", extras = ["all"], specifier = ">=1" }, '
        '{ name = "dltool-a", specifier = "==2" }, { name = "b", directory = "/src/dltool-b" }]\n',
        encoding="utf-8",
    )
    found = owner.detect(tmp_path)
    assert found.name == "uv tool"
    assert owner.install_command(found, ["x"])[1:] == (
        [
            "tool",
            "install",
            "dltool[all]>=1",
            "--with",
            "dltool-a==2",
            "--with",
            "/src/dltool-b",
            "--with",
            "x",
        ]
    )
    assert owner.uninstall_command(found, "dltool_a")[1:] == (
        ["tool", "install", "--reinstall", "dltool[all]>=1", "--with", "/src/dltool-b"]
    )
    assert owner.uninstall_command(found, "dltool-b")[-1] == "dltool-a==2"


def test_owners_are_told_apart(tmp_path, monkeypatch):
    assert owner.detect(tmp_path, in_venv=True).name == "pip"
    (tmp_path / "pipx_metadata.json").touch()
    assert owner.detect(tmp_path).name == "pipx"
    (tmp_path / "pipx_metadata.json").unlink()
    (tmp_path / "pyvenv.cfg").write_text("home = /usr\nuv = 0.9.1\n", encoding="utf-8")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert owner.detect(tmp_path, in_venv=True).name == "uv pip"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert owner.detect(tmp_path, in_venv=True).name == "pip"


def test_the_systems_python_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    found = owner.detect(tmp_path, in_venv=False)
    assert found.name == "system"
    with pytest.raises(PluginError, match="PEP 668") as caught:
        owner.install_command(found, ["dltool-x"])
    assert caught.value.code == "E406"
    assert "pipx inject dltool dltool-x" in caught.value.cure
    with pytest.raises(PluginError, match="PEP 668"):
        owner.uninstall_command(found, "dltool-x")
    assert owner.detect(tmp_path, in_venv=True).name != "system"


def test_an_environment_without_pip_and_uv_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(owner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match="neither pip nor uv") as caught:
        owner.install_command(owner.detect(tmp_path, in_venv=True), ["x"])
    assert "ensurepip" in caught.value.cure


def test_nothing_is_installed_without_consent(dltool):
    shown = dltool("plugin", "install", "dltool-x", code=2)
    assert "pip install dltool-x" in shown.err
    assert "add --yes" in shown.err
    shown = dltool("plugin", "install", "dltool-x", "--dry-run", "--json", "--", "--no-index")
    data = shown.json()["data"]
    assert data["ran"] is False
    assert data["command"][-4:] == ["pip", "install", "dltool-x", "--no-index"]
    dltool("plugin", "install", "./not-there", "--yes", code=5)
    dltool("plugin", "install", "--yes", code=2)
    dltool("plugin", "uninstall", "cnn", "--yes", code=4)
    dltool("plugin", "uninstall", "dltool", "--yes", code=4)


def test_a_failing_installer_is_an_error_of_ours(dltool):
    words = ["plugin", "install", "dltool-there-is-none", "--yes", "--json", "--", "--no-index"]
    answer = dltool(*words, code=4)
    assert answer.json()["error"]["code"] == "E405"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code"), [("n", 0), ("y", 4)])
def test_a_terminal_is_asked(environment, work, answer, code):
    controller, terminal = pty.openpty()
    words = [sys.executable, "-m", "dltool", "plugin", "install", "x-none", "--", "--no-index"]
    child = subprocess.Popen(
        words, stdin=terminal, stdout=terminal, stderr=terminal, cwd=work, env=environment
    )
    os.close(terminal)
    text, deadline, answered = "", time.monotonic() + 60, False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([controller], [], [], 0.2)
        try:
            text += os.read(controller, 4096).decode() if ready else ""
        except OSError:
            break  # Linux: the other end is closed
        if "run it?" in text and not answered:
            answered = True
            os.write(controller, f"{answer}\n".encode())
        if not ready and child.poll() is not None:
            break
    assert child.wait(60) == code, text
    assert answered
    assert "install only what you trust" in text


# Lock files


PINS = [
    Pin("dltool-a", "1.0"),
    Pin("dltool-b", "2.0", "file:///src/my%20b"),
    Pin("dltool-c", "0.1", "file:///src/c", is_editable=True),
    Pin("dltool-d", "3", "git+https://example.org/d.git@abc"),
]


def test_a_lock_file_reads_back():
    text = lock.text(PINS)
    assert lock.parse(text, "file") == PINS
    assert [pin.target() for pin in PINS] == [
        "dltool-a==1.0",
        "/src/my b",
        "/src/c",
        "dltool-d @ git+https://example.org/d.git@abc",
    ]
    with pytest.raises(ConfigError, match="line 2 of file"):
        lock.parse("dltool-a==1\nrm -rf /\n", "file")


def test_a_comparison_names_what_is_missing_and_what_is_more():
    present = [Pin("dltool_A", "1.0"), Pin("dltool-b", "1.9"), Pin("dltool-e", "1")]
    absent, more = lock.compare(PINS, present)
    assert [pin.name for pin in absent] == ["dltool-b", "dltool-c", "dltool-d"]
    assert [pin.name for pin in more] == ["dltool-e"]


def test_sync_shows_its_commands(dltool, site, tmp_path):
    hostile.install(site, "tides")
    file = tmp_path / "plugins.lock"
    file.write_text(lock.text(PINS), encoding="utf-8")
    path = {"PYTHONPATH": str(site)}
    shown = dltool("plugin", "sync", file, "--prune", "--dry-run", "--json", **path)
    commands = shown.json()["data"]["commands"]
    assert [command[3:] for command in commands] == [
        ["install", PINS[0].target(), PINS[1].target(), PINS[3].target()],
        ["install", "--editable", "/src/c"],
        ["uninstall", "--yes", "dltool-tides"],
    ]
    assert shown.json()["data"]["ran"] is False
    dltool("plugin", "sync", tmp_path / "none", code=5)
    frozen = dltool("plugin", "freeze", **path).out
    assert frozen.splitlines()[1:] == ["dltool-tides==1.0"]
    again = dltool("plugin", "sync", "-", stdin=frozen.encode(), **path)
    assert "nothing to do" in again.out


# New topics


@pytest.mark.parametrize("name", ["", "-x", "x-", "My", "a b", "ünter", "1st", "a/b", "runs"])
def test_a_bad_name_makes_no_topic(tmp_path, name):
    with pytest.raises(ConfigError):
        template.write(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_new_topic_is_clean_and_overwrites_nothing(dltool, work):
    made = dltool("plugin", "new", "my-topic", "--json").json()["data"]
    assert len(made["files"]) == 12
    dltool("plugin", "new", "my-topic", code=2)
    folder = work / "dltool-my-topic"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.*"))
    assert "{{" not in text
    assert "my-topic" in text
    if shutil.which("ruff"):
        for words in (["check", "--select", "E,F,I,B,UP,SIM,PT,RET"], ["format", "--check"]):
            line = ["ruff", *words, "--isolated", "--line-length", "100", "--no-cache", str(folder)]
            done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)
            assert done.returncode == 0, done.stdout


# Completion


def complete(environment, work, shell, line, **variables):
    words = line.split(" ")
    asked = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_DLTOOL_COMPLETE": f"complete_{shell}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dltool"],
        capture_output=True,
        text=True,
        cwd=work,
        env={**environment, **asked, **variables},
        check=True,
    )
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_verbs_are_completed_without_imports(environment, work, site, shell):
    hostile.install(site, "tides", cli="import os; os._exit(9)\n")
    path = {"PYTHONPATH": str(site)}
    found = complete(environment, work, shell, "dltool ", **path)
    for name in ("tides", "cnn", "plugin"):
        assert name in found
    assert "say" in complete(environment, work, shell, "dltool tides ", **path)
    found = complete(environment, work, shell, "dltool cnn tr", **path)
    assert "train" in found
    assert "evaluate" not in found
    assert "install" in complete(environment, work, shell, "dltool plugin in", **path)
    assert "tides" in complete(environment, work, shell, "dltool plugin info t", **path)
    assert "--epochs" in complete(environment, work, shell, "dltool cnn train --ep", **path)
    assert "tides" not in complete(environment, work, shell, "dltool c", **path)
    assert not list(work.iterdir())


def test_bash_completes_in_earnest(environment, work):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    program = f"{sys.executable} -m dltool"
    script = f"""
    dltool() {{ {program} "$@"; }}
    export -f dltool
    eval "$(_DLTOOL_COMPLETE=source_bash dltool)"
    COMP_WORDS=(dltool cnn ev); COMP_CWORD=2
    _dltool_completion() {{ local IFS=$'\\n'; COMPREPLY=( $( COMP_WORDS="${{COMP_WORDS[*]}}" \\
        COMP_CWORD=$COMP_CWORD _DLTOOL_COMPLETE=complete_bash dltool ) ); }}
    _dltool_completion
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [bash, "-c", script], capture_output=True, text=True, cwd=work, env=environment, check=True
    )
    assert done.stdout.strip() == "evaluate"


def test_zsh_completes_in_earnest(environment, work):
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("there is no zsh")
    answer = complete(environment, work, "zsh", "dltool cnn ")
    script = f"_arguments() {{ print -rl -- $@ }}\n{answer}"
    done = subprocess.run([zsh, "-fc", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("*: :((")
    assert "train" in done.stdout


# The functions themselves


def test_an_api_range_is_understood():
    from dltool.plugins.manifest import api_fits

    fits = {">=1": True, ">=1,<2": True, "==1": True, "1": True, "<=1": True, "!=1": False}
    fits |= {">1": False, "<1": False, ">=2": False, "": False, ">=1,": False, "~=1": False}
    assert {text: api_fits(text) for text in fits} == fits


def test_choices_are_changed_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path))
    settings.change_choices(disable="a:x")
    settings.change_choices(disable="b:y")
    settings.change_choices(prefer=("x", "c"))
    settings.change_choices(enable="a:x")
    assert settings.read_choices() == settings.Choices(frozenset({"b:y"}), {"x": "c"})


def test_places_follow_the_system(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "platform", "linux")
    monkeypatch.delenv("DLTOOL_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/me")
    assert settings.config_folder() == tmp_path / "dltool"
    assert settings.state_folder() == Path("/home/me/.local/state/dltool")
    monkeypatch.setattr(settings, "platform", "darwin")
    import platformdirs

    expected = platformdirs.user_config_path("dltool", appauthor=False)
    assert settings.config_folder() == expected


def test_a_plugin_is_found_by_either_name(monkeypatch):
    known = [
        Plugin("tides", "a:app", "dltool-a", "1", entry="tides"),
        Plugin("dltool-b:tides", "b:app", "dltool-b", "1", entry="tides"),
    ]
    monkeypatch.setattr(plugins, "discover", lambda: known)
    assert plugins.find("tides") is plugins.find("dltool-a:tides") is known[0]
    assert plugins.find("dltool-b:tides") is known[1]
    with pytest.raises(PluginError, match="no plugin is named 'x'"):
        plugins.find("x")
