"""Settings of user, project and environment: who comes first, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dltool import configs, surroundings
from dltool.errors import ConfigError
from dltool.training_config import TrainingConfig


@dataclass(frozen=True)
class Config(TrainingConfig):
    width: int = 16
    names: tuple[str, ...] = ("a",)
    fast: bool = False
    share: float | None = None


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A project three folders deep, a home of its own, no variables."""
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_comes_before_a_file_a_variable_the_project_the_user_the_recipe(places, monkeypatch):
    user = write(
        places / "home" / "config" / "config.toml",
        "[train]\nseed = 1\nclip = 1\nkeep = 5\n[my-net]\nema = 0.5\nwidth = 1\npatience = 9\n",
    )
    project = write(
        places / "project" / "dltool.toml",
        "[train]\nseed = 2\nclip = 2\n[my-net]\nwidth = 2\nema = 0.6\n",
    )
    monkeypatch.setenv("DLTOOL_MY_NET_WIDTH", "3")
    monkeypatch.setenv("DLTOOL_TRAIN_CLIP", "3")
    found = surroundings.around(Config, "my-net")
    config, origins = configs.settle(
        Config,
        flags={"batch_size": 6},
        file={"ema": 0.4, "batch_size": 5},
        file_name="f.toml",
        around=found,
        recipe={"patience": 3, "accumulate": 4},
    )
    expected = {
        "batch_size": (6, "flag"),
        "ema": (0.4, "file f.toml"),
        "width": (3, "environment DLTOOL_MY_NET_WIDTH"),
        "clip": (3.0, "environment DLTOOL_TRAIN_CLIP"),
        "seed": (2, f"project {project} [train]"),
        "keep": (5, f"user {user} [train]"),
        "patience": (9, f"user {user} [my-net]"),
        "accumulate": (4, "recipe"),
        "epochs": (10, "default"),
    }
    assert {key: (getattr(config, key), origins[key]) for key in expected} == expected


def test_the_topic_s_own_variable_and_section_come_before_those_of_all(places, monkeypatch):
    write(places / "project" / "dltool.toml", "[net]\nseed = 1\n[train]\nseed = 2\n")
    assert surroundings.around(Config, "net").values["seed"] == 1
    monkeypatch.setenv("DLTOOL_TRAIN_SEED", "3")
    monkeypatch.setenv("DLTOOL_NET_SEED", "4")
    assert surroundings.around(Config, "net").values["seed"] == 4
    monkeypatch.setenv("DLTOOL_NET_SEED", "")
    assert surroundings.around(Config, "net").values["seed"] == 3


def test_the_nearest_project_counts_and_pyproject_only_with_our_table(places):
    write(places / "project" / "dltool.toml", "[net]\nseed = 1\n")
    write(places / "project" / "a" / "pyproject.toml", "[tool.dltool.net]\nseed = 2\n")
    write(places / "project" / "a" / "b" / "pyproject.toml", "this is no TOML")
    assert surroundings.around(Config, "net").values == {"seed": 2}
    write(places / "project" / "a" / "dltool.toml", "[net]\nseed = 3\n")
    assert surroundings.around(Config, "net").values == {"seed": 3}


def test_another_verb_has_a_section_and_variables_of_its_own(places, monkeypatch):
    write(places / "project" / "dltool.toml", "[net]\nseed = 1\n[net.pretrain]\nseed = 2\n")
    monkeypatch.setenv("DLTOOL_NET_PRETRAIN_WIDTH", "7")
    assert surroundings.around(Config, "net").values == {"seed": 1}
    assert surroundings.around(Config, "net").warnings == ()
    assert surroundings.around(Config, "net", "pretrain").values == {"seed": 2, "width": 7}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("FAST", "yes", True),
        ("FAST", "0", False),
        ("NAMES", "b, c", ("b", "c")),
        ("SHARE", "0.5", 0.5),
        ("LEARNING_RATE", "1e-3", 0.001),
    ],
)
def test_a_variable_s_text_becomes_its_setting_s_type(key, text, value, monkeypatch):
    monkeypatch.setenv(f"DLTOOL_NET_{key}", text)
    found = surroundings.around(Config, "net").values[key.lower()]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("key", "text"), [("FAST", "maybe"), ("WIDTH", "1.5"), ("SHARE", "x")])
def test_a_variable_that_is_no_value_is_named(key, text, monkeypatch):
    monkeypatch.setenv(f"DLTOOL_NET_{key}", text)
    with pytest.raises(ConfigError, match=f"DLTOOL_NET_{key}") as caught:
        surroundings.around(Config, "net")
    assert caught.value.received == text


def test_variables_that_look_like_settings_are_told(monkeypatch):
    for name in ("DLTOOL_NET_LR", "DLTOOL_NET_WIDHT", "DLTOOL_WIDTH", "DLTOOL_TRAIN_WIDTH"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    monkeypatch.setenv("DLTOOL_OTHER_SEED", "1")
    told = surroundings.around(Config, "net").warnings
    assert [text.split()[2] for text in told] == [
        "DLTOOL_NET_LR",
        "DLTOOL_NET_WIDHT",
        "DLTOOL_TRAIN_WIDTH",
        "DLTOOL_WIDTH",
    ]
    assert "DLTOOL_NET_LEARNING_RATE" in told[0]
    assert "DLTOOL_NET_WIDTH" in told[1]
    assert "DLTOOL_NET_WIDTH" in told[3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 1", "stands in no section"),
        ("[train]\nwidth = 1", "unknown key 'width'"),
        ("[net]\nlr = 1", "'learning_rate'"),
        ("[net]\nseed = 'x'", "wrong type"),
        ("[net", "cannot read"),
    ],
)
def test_a_project_s_mistakes_are_named_with_file_and_section(text, words, places):
    path = write(places / "project" / "dltool.toml", text)
    with pytest.raises(ConfigError) as caught:
        surroundings.around(Config, "net")
    assert words in caught.value.one_line()
    assert str(path) in caught.value.one_line()


def test_a_value_out_of_range_is_told_with_its_origin(places):
    write(places / "project" / "dltool.toml", "[net]\nlearning_rate = -1.0\n")
    found = surroundings.around(Config, "net")
    with pytest.raises(ConfigError, match=r"set by project .*dltool.toml \[net\]"):
        configs.settle(Config, flags={}, around=found)
    with pytest.raises(ConfigError, match=r"range$"):
        configs.settle(Config, flags={"learning_rate": -2.0}, around=found)


def test_a_file_with_sections_serves_as_config_file_too(places):
    path = write(places / "c.toml", "[train]\nseed = 4\n[net]\nwidth = 5\n[cnn]\nnonsense = 1\n")
    assert configs.read_config_file(path, Config, "net") == {"seed": 4, "width": 5}


@pytest.mark.parametrize(("topic", "verb"), [("cnn", "train"), ("bert-finetune", "pretrain")])
def test_the_file_that_init_writes_names_every_setting_and_changes_none(topic, verb, capsys):
    from dltool.commands import config as command

    command.init(topic, verb, Path("all.toml"), False)
    config_class = command._training(topic, verb).callback.config_class
    command.check(Path("all.toml"), None, "train", False)
    assert "0 settings" in capsys.readouterr().out
    text = Path("all.toml").read_text()
    every = [line[2:] if " = " in line and line[2:].split()[1] == "=" else line
             for line in text.splitlines()]  # fmt: skip
    Path("some.toml").write_text("\n".join(every))
    sections = configs.read_toml(Path("some.toml"))
    own = sections[topic] if verb == "train" else sections[topic][verb]
    assert list(own) == configs.field_names(config_class)
    assert configs.checked(Path("some.toml"), own, config_class) == dict(vars(config_class()))


def test_the_commands_show_origins_and_refuse(dltool, work, places):
    write(work / "dltool.toml", "[cnn]\nepochs = 3\n")
    shown = dltool("config", "show", "cnn", "--data", "mnist", "--json").json()["data"]["settings"]
    assert shown["epochs"]["value"] == 3
    assert shown["epochs"]["origin"] == f"project {work / 'dltool.toml'} [cnn]"
    assert (shown["batch_size"]["origin"], shown["data"]["origin"]) == ("recipe", "flag")
    write(work / "bad.toml", "[cnn]\nepoch = 3\n[train]\n")
    assert "'epochs'" in dltool("config", "check", "bad.toml", code=2).err
    assert "[cnn]" in dltool("config", "init", "cnn").out
    assert "no settings" in dltool("config", "show", "cnn", "--verb", "predict", code=2).err
