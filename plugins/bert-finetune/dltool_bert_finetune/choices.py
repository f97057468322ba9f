"""The options of `train` and `pretrain`, each with its help."""

from __future__ import annotations

from typing import Annotated

from dltool.options import data_option, training_option
from dltool_bert_finetune.config import (
    CLASS_WEIGHTS,
    MONITORS,
    SCHEDULES,
    SIZES,
    TASKS,
)
from dltool_bert_finetune.pretrain_config import DOCUMENTS

DataOption = Annotated[
    str,
    data_option(
        "A CSV, TSV, JSON Lines, CoNLL or SQuAD file (.gz, .xz, .bz2 too), a folder with train, "
        "val and test files, or reviews: made-up sentences to try it."
    ),
]
ValDataOption = Annotated[str, data_option("Validation file.", show_default="split off")]
TestDataOption = Annotated[str, data_option("Test file.", show_default="split off")]
TaskOption = Annotated[str, data_option(f"{', '.join(TASKS)}.")]
TextOption = Annotated[
    str,
    data_option("Column of the text, words or question, or its number.", show_default="inferred"),
]
SecondOption = Annotated[
    str,
    data_option("Column of the second text of a pair, or the context.", show_default="inferred"),
]
LabelOption = Annotated[
    str, data_option("Column of the label, tags or answer.", show_default="inferred")
]
SeparatorOption = Annotated[str, data_option("Between the labels of one text.", show_default="|")]
EncodingOption = Annotated[str, data_option("Of the files.")]
MaxTrainOption = Annotated[int, data_option("Training texts to draw; 0: all.", min=0)]
MaxEvalOption = Annotated[
    int, data_option("Validation and test texts to draw of each; 0: all.", min=0)
]
ValFractionOption = Annotated[
    float, data_option("Share that chooses the best epoch where there is no such file.")
]
TestFractionOption = Annotated[
    float, data_option("Share for the final test where there is no such file.")
]
ModelOption = Annotated[
    str,
    training_option("A model folder in the Hub's layout, a run, a name on the Hub, or scratch."),
]
RevisionOption = Annotated[
    str, training_option("Branch, tag or commit of a name on the Hub.", show_default="main")
]
SizeOption = Annotated[str, training_option(f"Of a model from scratch: {', '.join(SIZES)}.")]
VocabularyOption = Annotated[
    int, training_option("Word pieces of a model from scratch, at most.", min=100)
]
MaxLengthOption = Annotated[int, training_option("Tokens of a text; longer ones are cut.", min=4)]
StrideOption = Annotated[
    int,
    training_option(
        "Tokens that two windows of a long text share (token, qa).",
        min=0,
        show_default="a third of --max-length",
    ),
]
NewHeadOption = Annotated[
    bool, training_option("Replace a head that was trained for other classes.", "--new-head")
]
MaxTokensOption = Annotated[
    int, training_option("Texts times longest text of a batch; 0: no limit.", min=0)
]
ScheduleOption = Annotated[str, training_option(f"{', '.join(SCHEDULES)}.")]
WarmupOption = Annotated[float, training_option("Share of the steps in which the rate rises.")]
LayerDecayOption = Annotated[
    float, training_option("Rate of a layer as a share of that of the layer above.")
]
FreezeOption = Annotated[
    str,
    training_option(
        "none, embeddings, encoder (runs once, its features are kept), or a number of layers."
    ),
]
GradualOption = Annotated[
    bool, training_option("Free one more layer from above each epoch.", "--gradual")
]
LoraRankOption = Annotated[
    int, training_option("Train low-rank additions of this rank; 0: the weights.", min=0)
]
LabelSmoothingOption = Annotated[
    float, training_option("Share of the target spread over all classes.")
]
ClassWeightsOption = Annotated[str, training_option(f"{', '.join(CLASS_WEIGHTS)}.")]
CheckpointingOption = Annotated[
    bool,
    training_option("Less memory for a third more time.", "--gradient-checkpointing"),
]
MonitorOption = Annotated[
    str, training_option(f"What chooses the best epoch: {', '.join(MONITORS)}.")
]
PretrainDataOption = Annotated[
    str,
    data_option(
        "Text files or folders, comma-separated (.gz, .xz, .bz2 too), or lee: 300 news texts "
        "that ship with gensim."
    ),
]
DocumentsOption = Annotated[
    str, data_option(f"What ends a document: {' or '.join(DOCUMENTS)} (an empty line).")
]
MaxDocumentsOption = Annotated[int, data_option("Take so many from the start; 0: all.", min=0)]
PretrainValFractionOption = Annotated[
    float, data_option("Share of the documents that chooses the best epoch.")
]
PretrainTestFractionOption = Annotated[
    float, data_option("Share of the documents for the final test.")
]
PretrainModelOption = Annotated[
    str,
    training_option("scratch, or a model to go on with: a folder, a run, a name on the Hub."),
]
PretrainMaxLengthOption = Annotated[int, training_option("Tokens of an input, 512 at most.", min=8)]
MaskFractionOption = Annotated[float, training_option("Share of the tokens to guess.")]
WholeWordOption = Annotated[
    bool, training_option("Hide all pieces of a word together.", "--whole-word")
]
NextSentenceOption = Annotated[
    bool,
    training_option(
        "Also tell whether a sentence follows another.",
        "--next-sentence/--no-next-sentence",
    ),
]
