"""The commands in docs/cnn.md are understood: they exist, and so do their options and values."""

import re
import shlex

import pytest

from dltool import asking, sweeps, tree

COMMAND = re.compile(r"`dltool ((?:cnn|tensor-ops) [^`]+)`")


def commands(repository):
    text = (repository / "docs" / "cnn.md").read_text(encoding="utf-8").replace("\\|", "|")
    return [shlex.split(found) for found in dict.fromkeys(COMMAND.findall(text))]


def test_every_command_of_the_lessons_is_understood(repository):
    found = commands(repository)
    assert len(found) > 20
    train = tree.command("cnn", "train")
    parameters = tree.parameters(train)
    for topic, verb, *words in found:
        command = tree.command(topic, verb)
        with command.make_context(verb, list(words)) as context:
            pass
        if (topic, verb) == ("cnn", "train"):
            asking.look(train, "train", words)
        for text in context.params.get("sets") or []:
            sweeps.axis(text, parameters)


@pytest.mark.parametrize("name", ["docs/cnn.md", "plugins/cnn/README.md"])
def test_the_lessons_name_no_command_that_is_not_there(repository, name):
    text = (repository / name).read_text(encoding="utf-8")
    verbs = set(re.findall(r"`?dltool cnn ([a-z-]+)", text))
    assert verbs <= set(tree.root("cnn").commands)
