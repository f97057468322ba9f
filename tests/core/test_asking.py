"""A training command gets the shared options of its config, and hands over what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from dltool import asking, ranges
from dltool.errors import ConfigError
from dltool.options import training_option
from dltool.training_config import RunConfig, TrainingConfig


@dataclass(frozen=True)
class Config(TrainingConfig):
    """Of the command under test."""

    epochs: int = 12
    width: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.at_least("--width", self.width, 1)


def command(config_class, **settings):
    """Return an app with one training command, and the list of what it was asked."""
    app, asked_for = typer.Typer(), []

    @app.command()
    @asking.trains(config_class, "demo", **settings)
    def train(
        asked: asking.Asked[Config],
        width: Annotated[int, training_option("Channels.")] = 16,
        device: Annotated[str, training_option("Only cpu.")] = "cpu",
    ) -> None:
        """Train."""
        asked_for.append((asked, width, asked.settled({"learning_rate": 0.5, "epochs": 3})))

    return app, asked_for


def run(app, *words):
    return CliRunner().invoke(app, list(words), catch_exceptions=True)


def test_flag_before_file_before_recipe_before_default(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("epochs = 7\nbatch_size = 9\n", encoding="utf-8")
    app, asked_for = command(Config)
    done = run(app, "--width", "4", "--batch-size", "5", "--config", str(file))
    assert done.exit_code == 0, done.output
    asked, width, (folder, config, origins) = asked_for[0]
    assert folder is None
    assert width == 4
    assert (config.width, config.batch_size, config.epochs) == (4, 5, 7)
    assert config.learning_rate == 0.5
    assert config.clip == 0.0
    assert origins["width"] == origins["batch_size"] == "flag"
    assert origins["epochs"] == f"file {file}"
    assert (origins["learning_rate"], origins["clip"]) == ("recipe", "default")
    assert asked.chosen == {"epochs": 7, "batch_size": 5, "width": 4}


def test_a_command_keeps_its_own_option_and_leaves_out_others():
    app, _ = command(Config, leave_out=("guards",))
    text = run(app, "--help").output
    assert "Only cpu." in text
    assert "cuda:N" not in text
    assert "--guards" not in text
    assert "--ema" in text
    plain, _ = command(RunConfig)
    assert "--ema" not in run(plain, "--help").output


def test_the_default_in_the_help_is_the_config_s():
    app, _ = command(Config)
    lines = " ".join(run(app, "--help").output.split())
    assert "default: fp32" in lines
    assert "default: 60s" in lines


def test_out_is_refused_beside_resume():
    app, _ = command(Config)
    done = run(app, "--resume", "latest", "--out", "x")
    assert isinstance(done.exception, ConfigError)
    assert done.exception.code == "E205"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("seed", -1),
        ("seed", 2**63),
        ("keep", 1),
        ("threads", -1),
        ("on_nan", "ignore"),
        ("guards", "none"),
        ("save_every", "soon"),
        ("max_time", "-1h"),
        ("batch_size", 0),
        ("accumulate", 0),
        ("patience", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("clip", float("inf")),
        ("ema", 1.0),
        ("width", 0),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ConfigError):
        Config(**{field: value})
