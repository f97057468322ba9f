"""`dltool topics`: what each topic says of itself holds for its commands."""

import importlib
import re

import pytest
import typer

from dltool import plugins


def test_the_matrix_names_every_topic_and_loads_none(dltool):
    shown = dltool("topics", "--json").json()["data"]
    names = [topic["name"] for topic in shown["topics"]]
    assert {"cnn", "linreg"} <= set(names)
    for topic in shown["topics"]:
        assert topic["state"] == "ok"
        assert set(topic["verbs"]) <= set(shown["verbs"])
    assert "cnn" in dltool("topics").out


@pytest.mark.parametrize(
    "name", ["bert-finetune", "cnn", "detect", "linreg", "mlp-xor", "seq2seq", "word2vec"]
)
def test_formats_belong_to_verbs_that_are_there(name):
    plugin = plugins.find(name)
    app = getattr(importlib.import_module(plugin.module), plugin.reference.partition(":")[2])
    commands = typer.main.get_command(app).commands
    for verb, formats in (*plugin.reads, *plugin.writes):
        assert verb in plugin.verbs
        assert formats
    for verb, formats in plugin.writes:
        if verb in ("export", "convert"):
            texts = " ".join(param.help or "" for param in commands[verb].params)
            missing = [each for each in formats if not re.search(rf"\b{each}\b", texts)]
            assert not missing, f"{name} {verb} says nothing of {missing}"


def test_a_manifest_with_odd_formats_is_a_fault():
    from dltool.plugins import manifest

    for odd in ("csv", {"train": "csv"}, {"train": [1]}):
        with pytest.raises(ValueError, match="table of lists"):
            manifest._fields({"reads": odd})
