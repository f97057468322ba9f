"""The options of `seq2seq`, declared once for the commands that share them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dltool.options import BY_RECIPE, data_option, training_option
from dltool_seq2seq.config import (
    ATTENTIONS,
    LEVELS,
    MODELS,
    NORMS,
    POSITIONS,
    SCHEDULES,
    TASKS,
)

DECODING_PANEL = "Decoding"


def _decoding(text: str, *names: str, **settings: object) -> object:
    return typer.Option(*names, help=text, rich_help_panel=DECODING_PANEL, **settings)  # type: ignore[arg-type]  # passed through to typer


Task = Annotated[
    str,
    data_option(
        f"{', '.join(TASKS)}; or a table of pairs (CSV, TSV, JSON Lines), or two parallel files "
        "SOURCE,TARGET; plain, .gz or .xz.",
        metavar="TASK|FILE|SOURCE,TARGET",
    ),
]
SourceColumn = Annotated[
    str, data_option("Column of the sources: a name, or a number from 1 without a header.")
]
TargetColumn = Annotated[str, data_option("Column of the targets.")]
Encoding = Annotated[str, data_option("Encoding of the files.")]
Val = Annotated[
    str,
    data_option("Validation pairs, named as in --task.", show_default="a share of the task's"),
]
Test = Annotated[
    str, data_option("Test pairs, named as in --task.", show_default="a share of the task's")
]
ValFraction = Annotated[float, data_option("Share that chooses the best epoch; 0: none.")]
TestFraction = Annotated[float, data_option("Share for the final test; 0: none.")]
Samples = Annotated[
    int, data_option("Training pairs of a generated task.", min=1, show_default=BY_RECIPE)
]
MaxValue = Annotated[int, data_option("Largest operand of arithmetic.", min=1)]
Operators = Annotated[str, data_option("Operators of arithmetic: +, - or +-.")]
Level = Annotated[
    str, data_option(f"What a token is: {', '.join(LEVELS)}.", show_default=BY_RECIPE)
]
Lower = Annotated[
    bool, data_option("Bring texts to lower case.", "--lower/--no-lower", show_default=BY_RECIPE)
]
VocabSize = Annotated[
    int, data_option("Most entries of a vocabulary; 0: no limit.", min=0, show_default=BY_RECIPE)
]
MinFreq = Annotated[int, data_option("A rarer token is unknown.", min=1, show_default=BY_RECIPE)]
ShareVocab = Annotated[
    bool,
    data_option("One vocabulary and embedding for both sides.", "--share-vocab/--no-share-vocab"),
]
Limit = Annotated[int, data_option("Pairs to read of --task; 0: all.", min=0)]
MaxLength = Annotated[
    int,
    data_option("Longest sequence in tokens, end mark included.", min=2, show_default=BY_RECIPE),
]
Bucket = Annotated[
    int,
    data_option(
        "Batches whose pairs are sorted by length together; 0: none.",
        min=0,
        show_default=BY_RECIPE,
    ),
]
ReverseSource = Annotated[
    bool,
    data_option(
        "Read sources from their last token to their first.",
        "--reverse-source/--no-reverse-source",
    ),
]
ReverseTarget = Annotated[
    bool,
    data_option(
        "Write targets from their last token to their first; they are shown as usual.",
        "--reverse-target/--no-reverse-target",
        show_default=BY_RECIPE,
    ),
]
ModelName = Annotated[str, training_option(f"{', '.join(MODELS)}.")]
Width = Annotated[int, training_option("Features of every layer.", min=2, show_default=BY_RECIPE)]
Layers = Annotated[
    int,
    training_option("Layers of the encoder and of the decoder.", min=1, show_default=BY_RECIPE),
]
DecoderLayers = Annotated[int, training_option("Layers of the decoder; 0: as the encoder.", min=0)]
Heads = Annotated[int, training_option("Attention heads of the transformer.", min=1)]
Feedforward = Annotated[
    int, training_option("Inner width of the transformer; 0: four times --width.", min=0)
]
Norm = Annotated[str, training_option(f"Layer norm of the transformer: {', '.join(NORMS)}.")]
Positions = Annotated[str, training_option(f"Of the transformer: {', '.join(POSITIONS)}.")]
Attention = Annotated[str, training_option(f"Of a recurrent decoder: {', '.join(ATTENTIONS)}.")]
Bidirectional = Annotated[
    bool,
    training_option(
        "Let a recurrent encoder read both ways.",
        "--bidirectional/--no-bidirectional",
        show_default=BY_RECIPE,
    ),
]
Tied = Annotated[
    bool,
    training_option(
        "Let the output layer be the target embedding.",
        "--tied/--no-tied",
        show_default=BY_RECIPE,
    ),
]
Dropout = Annotated[
    float, training_option("Share of features left out in training.", show_default=BY_RECIPE)
]
Schedule = Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")]
Warmup = Annotated[float, training_option("Share of the steps in which the rate rises.")]
LabelSmoothing = Annotated[
    float,
    training_option("Share of the target spread over all tokens.", show_default=BY_RECIPE),
]
ScheduledSampling = Annotated[
    float,
    training_option("Share of decoder inputs that are the model's own answers, at the end."),
]
Decoder = Annotated[str, _decoding("greedy, beam or sample.", "--decoder")]
Beam = Annotated[int, _decoding("Targets that a beam search follows at once.", min=1)]
LengthPenalty = Annotated[
    float, _decoding("Of a beam search: 0 compares sums, larger prefers longer targets.")
]
Temperature = Annotated[float, _decoding("Of sampling: below 1 sharper, above 1 flatter.")]
TopK = Annotated[int, _decoding("Sample among the k likeliest tokens; 0: all.", min=0)]
TopP = Annotated[float, _decoding("Sample among the likeliest tokens that reach p together.")]
MinLength = Annotated[int, _decoding("Fewest tokens of a target.", "--min-length", min=0)]
MaxTokens = Annotated[
    int, _decoding("Most tokens of a target; 0: what the model takes.", "--max-length", min=0)
]
SampleSeed = Annotated[int, _decoding("Seed of sampling.", "--seed", min=0)]
Plot = Annotated[Path, typer.Option("--out", help="Picture to write, a PNG.")]
