"""What every command prints with --json is what `dltool schema` says; so is what it is told."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

from dltool import plugins, schemas, tree
from dltool.commands import CORE_COMMANDS

SOURCE = importlib.util.spec_from_file_location(
    "outputs", Path(__file__).parent.parent / "outputs.py"
)
outputs = importlib.util.module_from_spec(SOURCE)
SOURCE.loader.exec_module(outputs)
# their --json is that of the command that they run
OTHERS = ("resume",)


def held(answer, topic, verb):
    jsonschema.validate(answer, schemas.output(topic, verb))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of its own, an empty cache, no network."""
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def test_an_error_of_every_command_is_as_every_schema_says(place, monkeypatch):
    found = plugins.discover()
    monkeypatch.setattr(plugins, "discover", lambda: found)  # once for all
    own = [plugin.name for plugin in found if plugin.is_own]
    failed = jsonschema.Draft202012Validator(schemas.FAILED)
    failed.check_schema(schemas.FAILED)
    refused = 0
    for name in (*own, *CORE_COMMANDS):
        for words, command in tree.walk(tree.root(name), (name,)):
            assert any("--json" in each.flags for each in tree.parameters(command)), words
            told = outputs.answer(f"{' '.join(words)} --no-such-option --such=x")
            assert told["status"] == "error", words
            failed.validate(told)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["CORE", "TRAINED"])
def test_what_commands_print_is_as_their_schema_says(name, place):
    for line in getattr(outputs, name):
        told = outputs.answer(line)
        assert told["status"] == "ok", (line, told)
        if line.split()[0] not in OTHERS:
            held(told, *outputs.name_of(line))


@pytest.mark.slow
def test_what_the_larger_topics_print_is_as_their_schema_says(place):
    for line in [*outputs.TRAINED, *outputs.MORE, *outputs.LONG]:
        told = outputs.answer(line)
        assert told["status"] == "ok", (line, told)
        if line.split()[0] not in OTHERS:
            held(told, *outputs.name_of(line))


def test_a_missing_key_a_wrong_type_and_a_second_status_are_seen():
    told = {"schema": 1, "command": "data path", "status": "ok", "warnings": []}
    for data in ({"name": "digits"}, {"name": "digits", "path": 3}):
        with pytest.raises(jsonschema.ValidationError):
            held({**told, "data": data}, "data", "path")
    good = {**told, "data": {"name": "digits", "path": "/"}}
    held(good, "data", "path")
    with pytest.raises(jsonschema.ValidationError):
        held({**good, "status": "error"}, "data", "path")


def test_a_file_of_settings_fits_the_schema_that_editors_get(tmp_path):
    whole = schemas.project()
    jsonschema.Draft202012Validator.check_schema(whole)
    good = {"train": {"seed": 3}, "cnn": {"learning_rate": 0.1, "augment": "flip"}}
    jsonschema.validate({**good, "bert-finetune": {"pretrain": {"epochs": 2}}}, whole)
    for bad in ({"cnn": {"lr": 1}}, {"cnn": {"epochs": 0}}, {"train": {"width": 1}}, {"x": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, whole)
    train = schemas.inputs("cnn", "train")
    assert train["properties"]["learning_rate"]["description"] == "Peak learning rate."
    jsonschema.validate({"epochs": 3}, train)
    predict = schemas.inputs("cnn", "predict")
    assert predict["required"] == ["run", "images"]


def test_the_command_prints_schemas_and_refuses(dltool):
    assert json.loads(dltool("schema", "cnn", "train").out)["title"] == "dltool cnn train"
    assert "E206" in dltool("schema", "cnn", "trian", code=2).err
    dltool("schema", "nothing", code=4)
    dltool("schema", "--output", code=2)
