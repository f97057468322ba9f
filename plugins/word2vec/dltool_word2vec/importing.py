"""Make a model folder of what another program wrote."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dltool import ranges
from dltool.console import Console
from dltool.errors import ConfigError, DataError
from dltool_word2vec import fasttext_bin, foreign, vectors
from dltool_word2vec.cli_files import FORMATS
from dltool_word2vec.foreign import Found
from dltool_word2vec.gensim_engine import quiet
from dltool_word2vec.quantize import refuse_taken


def import_file(
    file: Path,
    out: Path,
    *,
    form: str,
    encoding: str,
    top: int,
    allow_pickle: Path | None,
    console: Console,
) -> None:
    """Read vectors and write them as a model folder.

    Raises:
        DataError: the file is missing, damaged or contradicts itself.
        ConfigError: the form is unknown, the folder is taken, a pickle was not allowed.
    """
    ranges.one_of("--format", form, ("auto", *FORMATS, "gensim"))
    refuse_taken(out)
    if not file.exists():
        raise DataError("E501", f"there is no file {str(file)!r}", cure="check the path")
    kind = foreign.sniff(file) if form == "auto" else form
    console.note(f"{file} is read as {kind}")
    with console.progress(None, "reading", "word") as bar:
        found = _reader(kind, file, encoding, top, allow_pickle, bar.advance)()
    if top and len(found.words) > top:
        found = Found(found.words[:top], found.matrix[:top], found.counts[:top], about=found.about)
    repeated = found.about.pop("repeated", 0)
    if repeated:
        console.warn(f"{repeated:,} words came twice; the first of each is kept")
    about = {"tokenizer": _tokenizer(found.words), **found.about, "source": str(file.name)}
    arrays = {"vectors": found.matrix, **found.arrays}
    vectors.save(out, found.words, found.counts, arrays, {**about, "form": kind})
    data = {
        "out": str(out),
        "form": kind,
        "words": len(found.words),
        "dim": int(found.matrix.shape[1]),
        "repeated": repeated,
    }
    console.result(
        data, f"{data['words']:,} words, {data['dim']} dimensions, from {kind}\nmodel {out}"
    )
    console.hint(f"dltool word2vec similar {out} {found.words[min(100, len(found.words) - 1)]}")


def _tokenizer(words: list[str]) -> str:
    """Guess how text becomes these words: capitals mean that text is cut at blanks alone."""
    return "words" if all(word == word.lower() for word in words[:2000]) else "whitespace"


def _reader(
    kind: str,
    file: Path,
    encoding: str,
    top: int,
    allow_pickle: Path | None,
    tell: Callable[[int], None],
) -> Callable[[], Found]:
    known: dict[str, Callable[[], Found]] = {
        "word2vec": lambda: foreign.read_text(
            file, header=True, encoding=encoding, top=top, tell=tell
        ),
        "glove": lambda: foreign.read_text(
            file, header=False, encoding=encoding, top=top, tell=tell
        ),
        "word2vec-binary": lambda: foreign.read_binary(file, encoding=encoding, top=top, tell=tell),
        "numpy": lambda: foreign.read_npz(file),
        "safetensors": lambda: foreign.read_safetensors(file),
        "fasttext": lambda: fasttext_bin.read(file, encoding, tell),
        "gensim": lambda: read_gensim(file, allow_pickle),
    }
    return known[kind]


def read_gensim(file: Path, allow_pickle: Path | None) -> Found:
    """Load a pickle of gensim's: only when the user names the file twice.

    Raises:
        ConfigError: it was not allowed.
        DataError: it is damaged or holds no vectors.
    """
    if allow_pickle is None or not allow_pickle.exists() or not allow_pickle.samefile(file):
        raise ConfigError(
            "E205",
            f"{file} is a pickle of gensim's: loading it runs whatever code is in it",
            cure=f"only if you trust who made it: add --allow-pickle {file}; better, have it "
            "written by wv.save_word2vec_format",
        )
    from gensim.utils import SaveLoad

    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: Any = SaveLoad.load(str(file))
    except Exception as error:  # a pickle may raise anything
        raise DataError(
            "E502",
            f"{file} cannot be loaded: {error or type(error).__name__}",
            cure="copy it again",
        ) from error
    keyed = getattr(loaded, "wv", loaded)
    if not hasattr(keyed, "index_to_key") or not hasattr(keyed, "vectors"):
        raise DataError(
            "E502",
            f"{file} holds no word vectors of gensim 4",
            received=type(loaded).__name__,
            cure="load it with the gensim that wrote it and save it as word2vec text",
        )
    return of_gensim(keyed, file)


def of_gensim(keyed: Any, file: Path) -> Found:
    """Return the vectors of gensim's KeyedVectors, letter groups included."""
    words = [str(word) for word in keyed.index_to_key]
    if not words:
        raise DataError("E503", f"{file} holds no vectors", cure="check the file")
    counts = []
    if "count" in keyed.expandos:
        counts = [int(keyed.get_vecattr(word, "count")) for word in keyed.index_to_key]
    found = Found(words, np.array(keyed.vectors, np.float32), counts)
    found.about["algorithm"] = "word2vec"
    if hasattr(keyed, "vectors_ngrams") and keyed.bucket:
        found.arrays = {
            "word_rows": np.array(keyed.vectors_vocab, np.float32),
            "ngrams": np.array(keyed.vectors_ngrams, np.float32),
        }
        sizes = {"min_n": keyed.min_n, "max_n": keyed.max_n, "bucket": keyed.bucket}
        found.about |= {"algorithm": "fasttext", **{k: int(v) for k, v in sizes.items()}}
    return found
