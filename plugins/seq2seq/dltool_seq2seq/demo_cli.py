"""Options of `seq2seq attention-demo`: the parts of attention, each with its known value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool import options
from dltool.console import Console

Out = Annotated[Path | None, typer.Option("--out", help="Draw it into this PNG.")]

app = typer.Typer(
    help="Show the parts of attention at work, each checked against its known value.",
    no_args_is_help=True,
    context_settings=options.HELP,
)


@app.command()
def pooling(
    points: Annotated[int, typer.Option(min=2, help="Points to learn from.")] = 50,
    width: Annotated[float, typer.Option(min=0.01, help="Width of the fixed kernel.")] = 1.0,
    epochs: Annotated[int, typer.Option(min=1, help="Steps that fit the learnt kernel.")] = 100,
    seed: options.SeedOption = 0,
    out: Out = None,
    json: options.JsonOption = False,
) -> None:
    """Pool by distance: kernel regression with a fixed and with a learnt width."""
    console = Console("seq2seq attention-demo pooling", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.pooling(points, width, epochs, seed, out, console)


@app.command()
def masks(
    lengths: Annotated[str, typer.Option(help="Valid lengths of two rows of four.")] = "2,3",
    out: Out = None,
    json: options.JsonOption = False,
) -> None:
    """Softmax over valid places alone; an empty row gives zeros."""
    console = Console("seq2seq attention-demo masks", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.masks(lengths, out, console)


@app.command()
def additive(out: Out = None, json: options.JsonOption = False) -> None:
    """Additive attention with valid lengths 2 and 6 of 10 equal keys."""
    console = Console("seq2seq attention-demo additive", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.scored("additive", out, console)


@app.command()
def dot(out: Out = None, json: options.JsonOption = False) -> None:
    """Scaled dot-product attention, against torch's; why it is scaled."""
    console = Console("seq2seq attention-demo dot", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.scored("dot", out, console)


@app.command()
def multihead(
    heads: Annotated[int, typer.Option(min=1, help="Heads.")] = 4,
    width: Annotated[int, typer.Option(min=1, help="Features.")] = 100,
    json: options.JsonOption = False,
) -> None:
    """Multi-head attention with the weights of torch's own, and what it costs."""
    console = Console("seq2seq attention-demo multihead", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.multihead(heads, width, console)


@app.command()
def positions(
    places: Annotated[int, typer.Option(min=2, help="Places.")] = 60,
    width: Annotated[int, typer.Option(min=2, help="Features.")] = 32,
    columns: Annotated[str, typer.Option(help="Columns to draw: 6-9.")] = "6-9",
    out: Out = None,
    json: options.JsonOption = False,
) -> None:
    """Sinusoidal positions: norm, shift by a rotation, and rotary positions."""
    console = Console("seq2seq attention-demo positions", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.positions(places, width, columns, out, console)


@app.command("masked-loss")
def masked_loss(json: options.JsonOption = False) -> None:
    """The loss of padded sequences: by real tokens, not by padded length."""
    console = Console("seq2seq attention-demo masked-loss", json=json)
    console.loading()
    from dltool_seq2seq import demo

    demo.masked_loss(console)
