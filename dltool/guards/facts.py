"""What a topic or a stranger says of its data and model, so that the checks that apply can run."""

from __future__ import annotations

from dataclasses import dataclass

TASKS = (
    "classify",
    "multilabel",
    "regress",
    "causal-lm",
    "masked-lm",
    "seq2seq",
    "detect",
    "other",
)


@dataclass(frozen=True)
class Facts:
    """State what is known; what is left out is found out from the batch, or not judged.

    Attributes:
        task: one of `TASKS`; empty to find out.
        num_classes: classes, or tokens of the vocabulary; 0 to find out.
        causal: an output at place t may depend on inputs up to t alone.
        pad: the token id that fills short sequences.
        ignore_index: the target that the loss leaves out.
        ordered: the order of the tokens carries meaning.
        linear: the model is meant to be affine (a linear regression, a linear autoencoder).
        stochastic: the model is meant to draw random numbers in evaluation mode.
        mixed: outputs of one sample are meant to depend on others (graphs, contrast over a batch).
        pretrained: some weights were trained before.
    """

    task: str = ""
    num_classes: int = 0
    causal: bool | None = None
    pad: int | None = None
    ignore_index: int = -100
    ordered: bool | None = None
    linear: bool = False
    stochastic: bool = False
    mixed: bool = False
    pretrained: bool = False

    def __post_init__(self) -> None:
        if self.task and self.task not in TASKS:
            from dltool.errors import ConfigError

            raise ConfigError(
                "E206",
                f"the task {self.task!r} is not known",
                expected=f"one of {', '.join(TASKS)}, or nothing to find out",
                cure='leave task out, or use task="other"',
            )
