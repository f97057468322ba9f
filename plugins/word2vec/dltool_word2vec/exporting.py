"""Write vectors in the forms of other programs."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from dltool import files, ranges
from dltool.console import Console
from dltool.errors import ConfigError
from dltool_word2vec import gensim_engine, store, vectors
from dltool_word2vec.cli_files import FORMATS
from dltool_word2vec.quantize import refuse_taken
from dltool_word2vec.vectors import Vectors


def export_run(folder: Path, out: Path, *, form: str, top: int, console: Console) -> None:
    """Write a model's vectors to a file, or to a folder of safetensors and JSON.

    Raises:
        ConfigError: the form is unknown or does not fit, the file is there already.
        DltoolError: it cannot be written.
    """
    ranges.one_of("--format", form, FORMATS)
    if form == "numpy" and out.suffix != ".npz":
        raise ConfigError(
            "E202",
            "NumPy files are written as .npz",
            received=str(out),
            cure=f"use {out.with_suffix('.npz')}",
        )
    refuse_taken(out)
    known = vectors.load(folder, verify=True)
    count = min(top or len(known.words), len(known.words))
    if form == "safetensors":
        _write_safetensors(known, out, count)
    elif form == "fasttext":
        _write_fasttext(known, out, top)
    else:
        with _written(out) as stream:
            _write(known, stream, form, count, console)
    size = files.folder_bytes(out) if out.is_dir() else out.stat().st_size
    data = {"out": str(out), "format": form, "words": count, "dim": known.dim, "bytes": size}
    console.result(data, f"{count:,} words, {form}, {size / 1e6:,.2f} MB\nfile  {out}")


@contextmanager
def _written(out: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its name, and rename it into place when all is there."""
    with files.explained(out):
        files.make_folder(out.parent)
        temporary = files.temporary_name(out)
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
        files.sync_folder(out.parent)


def _write(known: Vectors, stream: IO[bytes], form: str, count: int, console: Console) -> None:
    if form == "numpy":
        buffer: Any = io.BufferedWriter(stream) if isinstance(stream, io.RawIOBase) else stream
        words = np.array(known.words[:count], dtype=np.str_)
        np.savez(buffer, words=words, vectors=known.rows(slice(0, count)), allow_pickle=False)
        return
    _refuse_blanks(known, count, form)
    if form != "glove":
        stream.write(f"{count} {known.dim}\n".encode())
    with console.progress(count, "writing", "word") as bar:
        for place in store.blocks(count):
            rows = known.rows(place)
            for word, row in zip(known.words[place], rows, strict=True):
                if form == "word2vec-binary":
                    stream.write(word.encode() + b" " + row.astype("<f4").tobytes() + b"\n")
                else:
                    # repr of a float32 is the shortest text that gives the same number back
                    stream.write(f"{word} {' '.join(map(str, row))}\n".encode())
            bar.advance(len(rows))


def _refuse_blanks(known: Vectors, count: int, form: str) -> None:
    for word in known.words[:count]:
        if not word or any(letter.isspace() for letter in word):
            raise ConfigError(
                "E205",
                f"the word {word!r} holds a blank, which {form} files cannot tell from its end",
                cure="use --format numpy or safetensors",
            )


def _write_safetensors(known: Vectors, out: Path, count: int) -> None:
    words = {"words": known.words[:count], "counts": known.counts[:count]}
    arrays = {"vectors": known.rows(slice(0, count))}
    store.write_folder(out, arrays, {"model.json": {**words, "about": known.about, "tied": {}}})


def _write_fasttext(known: Vectors, out: Path, top: int) -> None:
    """Write fastText's .bin by gensim: the vectors of words and of letter groups."""
    if "ngrams" not in known.arrays or top:
        raise ConfigError(
            "E205",
            "a fastText .bin holds letter groups of a whole vocabulary",
            received=f"algorithm {known.about.get('algorithm')}"
            + (f", --top {top}" if top else ""),
            cure="use --format word2vec, which fastText reads as its .vec",
        )
    from gensim.models import FastText
    from gensim.models.fasttext import save_facebook_model

    about = known.about
    sizes = {name: int(about[name]) for name in ("min_n", "max_n", "bucket")}
    counts = known.counts or [1] * len(known.words)
    with gensim_engine.quiet():
        model: Any = FastText(
            vector_size=known.dim,
            sg=int(about.get("arch") != "cbow"),
            window=int(about.get("window", 5)),
            negative=int(about.get("negative", 5)),
            hs=int(bool(about.get("hs"))),
            min_count=1,
            sorted_vocab=0,
            **sizes,
        )
        model.build_vocab_from_freq(dict(zip(known.words, counts, strict=True)))
        gensim_engine.fill(model, known.arrays)
        model.corpus_total_words = int(about.get("corpus_words", sum(counts)))
        with files.explained(out):
            files.make_folder(out.parent)
            temporary = files.temporary_name(out)
            try:
                save_facebook_model(model, str(temporary))
                os.replace(temporary, out)
            finally:
                temporary.unlink(missing_ok=True)
