"""The Hugging Face libraries, brought in quietly and only where they are needed."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from dltool.errors import MissingExtra

EXTRA = "bert"


def load(name: str, extra: str = EXTRA) -> ModuleType:
    """Import a library; progress bars and reports of `transformers` stay off the screen.

    Raises:
        MissingExtra: it is not installed.
    """
    # many processes share a machine, and threads that fork after use make tokenizers warn
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name.split(".")[0]:
            raise
        raise MissingExtra(name.split(".")[0], extra) from error
    if name.split(".")[0] == "transformers":
        logging = importlib.import_module("transformers.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings about their own future off the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
