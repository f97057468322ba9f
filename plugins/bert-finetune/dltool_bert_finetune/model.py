"""Build the network: pretrained or from scratch, with a head for the task, frozen or adapted.

BERT: Devlin et al., 2018, https://arxiv.org/abs/1810.04805. The small sizes: Turc et al., 2019,
https://arxiv.org/abs/1908.08962. Low-rank adaptation: Hu et al., 2021,
https://arxiv.org/abs/2106.09685. Layer-wise rates: Howard and Ruder, 2018.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from dltool.errors import CheckpointError, ConfigError, DltoolError
from dltool_bert_finetune import library, tokens
from dltool_bert_finetune.config import SIZES, TrainConfig
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import Tokeniser

HEADS = (
    "classifier",
    "score",
    "pre_classifier",
    "pooler",
    "head",
    "sequence_summary",
    "qa_outputs",
)
LAYER = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)\.")
KINDS = {
    "classify": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regress": "regression",
}
TEXT_HEAD = "SequenceClassification"
TOKEN_HEADS = {"token": "TokenClassification", "qa": "QuestionAnswering"}
NEVER = -1e4  # the logit of an answer that begins or ends in the padding


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what a library raises while it reads a model folder into one line."""
    try:
        with library.quiet(), contextlib.redirect_stderr(io.StringIO()):
            yield
    except (DltoolError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
        raise CheckpointError(
            "E513",
            f"{name} cannot be used as a text encoder ({said})",
            expected="a model folder in the layout of the Hub, such as a BERT, DistilBERT, "
            "RoBERTa, DeBERTa or ModernBERT",
            cure="name another with --model",
        ) from error


def read_settings(folder: Path, name: str) -> Any:
    """Return a model folder's config as the library's object; no code from the folder is run."""
    transformers = library.load("transformers")
    with explained(name):
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def read_tokeniser(folder: Path, settings: Any, name: str, max_length: int) -> Tokeniser:
    """Return a model folder's tokeniser, checked against the model."""
    transformers = library.load("transformers")
    with explained(name):
        loaded = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return tokens.wrap(loaded, settings, max_length)


def scratch_settings(size: str, vocabulary: int, *, pad: int = 0) -> Any:
    """Return the config of a BERT of one of the published sizes."""
    transformers = library.load("transformers")
    layers, width = SIZES[size]
    return transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        pad_token_id=pad,
    )


def label_settings(settings: Any, targets: Targets) -> Any:
    """Write classes and task into a config, where pipelines look for them."""
    names = targets.classes or (("begin", "end") if targets.task == "qa" else ("value",))
    settings.id2label = dict(enumerate(names))
    settings.label2id = {name: number for number, name in enumerate(names)}
    settings.num_labels = len(names)
    settings.problem_type = KINDS.get(targets.task)
    return settings


def kind_for(task: str) -> Any:
    """Return the class of `transformers` that puts the head of a task on an encoder."""
    transformers = library.load("transformers")
    return getattr(transformers, f"AutoModelFor{TOKEN_HEADS.get(task, TEXT_HEAD)}")


def with_fresh_weights(settings: Any, task: str, name: str = "the model") -> nn.Module:
    """Build a network for a task from a config, with random weights."""
    with explained(name):
        network: nn.Module = kind_for(task).from_config(settings)
    return network.float()


def pretrained(folder: Path, name: str, targets: Targets, *, new_head: bool) -> nn.Module:
    """Load an encoder and put a head for the task on it; say what of it is new.

    Raises:
        CheckpointError: E513, weights of the encoder are missing, or it has a head for other
            classes and `new_head` is False.
    """
    settings = read_settings(folder, name)
    if not new_head:
        _refuse_other_head(settings, name, targets)
    settings = label_settings(settings, targets)
    with explained(name):
        network, report = kind_for(targets.task).from_pretrained(
            folder,
            config=settings,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    check_report(report, name, new_head=new_head)
    network = network.float()
    if new_head:
        fresh = with_fresh_weights(settings, targets.task, name).state_dict()
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if is_head(key):
                    value.copy_(fresh[key])
    return network  # type: ignore[no-any-return]


def is_head(name: str) -> bool:
    """Tell whether a weight belongs to what stands on the encoder."""
    words = name.split(".")
    return any(word in HEADS for word in words) and not any(word == "layer" for word in words)


def check_report(report: Mapping[str, Any], name: str, *, new_head: bool = False) -> list[str]:
    """Return the weights that were not in the folder, once they are the head's alone.

    Raises:
        CheckpointError: E513.
    """
    missing = sorted(map(str, report["missing_keys"]))
    strange = [key for key in missing if not is_head(key)]
    sizes = [
        str(item[0] if isinstance(item, tuple) else item) for item in report["mismatched_keys"]
    ]
    wrong = [key for key in sizes if not is_head(key)]
    if strange or wrong or report.get("error_msgs"):
        example = (strange + wrong + [str(text) for text in report.get("error_msgs", ())])[0]
        raise CheckpointError(
            "E513",
            f"{name}: {len(strange)} weights of the encoder are missing and {len(wrong)} have "
            f"another shape ({example[:120]})",
            cure="use weights and config.json of one and the same model",
        )
    if sizes and not new_head:
        raise CheckpointError(
            "E513",
            f"{name} has a head of another size ({', '.join(sizes[:3])})",
            cure="add --new-head to begin with a fresh one",
        )
    return missing


def _refuse_other_head(settings: Any, name: str, targets: Targets) -> None:
    """Refuse a model that was trained for other classes, unless it has no classes of its own."""
    wanted_head = TOKEN_HEADS.get(targets.task, TEXT_HEAD)
    heads = [
        head
        for head in (TEXT_HEAD, *TOKEN_HEADS.values())
        if any(head in each for each in settings.architectures or ())
    ]
    if not heads or (heads == [wanted_head] and targets.task == "qa"):
        return
    if wanted_head not in heads:
        raise CheckpointError(
            "E513",
            f"{name} has a head for another task ({heads[0]}, not {wanted_head})",
            cure="add --new-head to begin with a fresh one",
        )
    own = [str(settings.id2label[number]) for number in sorted(settings.id2label)]
    unnamed = all(re.fullmatch(r"LABEL_\d+", label) for label in own)
    wanted = list(targets.classes) or ["value"]
    if own == wanted or (len(own) == len(wanted) and (unnamed or len(wanted) == 1)):
        return
    raise CheckpointError(
        "E513",
        f"{name} has a head for {len(own)} classes ({', '.join(own[:6])}), the data has "
        f"{len(wanted)} ({', '.join(wanted[:6])})",
        cure="add --new-head to begin with a fresh one",
    )


# ---- what is trained ------------------------------------------------------------------------


def depth(name: str, layers: int) -> int:
    """Return how far from the input a weight is: 0 embeddings, 1 to L layers, L + 1 the rest."""
    found = LAYER.search(name)
    if found:
        return int(found[1]) + 1
    return 0 if "embedding" in name else layers + 1


def count_layers(network: nn.Module) -> int:
    """Return the number of layers of the encoder."""
    numbers = [found[1] for name, _ in network.named_parameters() if (found := LAYER.search(name))]
    return max(map(int, numbers)) + 1 if numbers else 0


def freeze(network: nn.Module, config: TrainConfig) -> None:
    """Leave the embeddings and the lowest layers, or all but the head, as they are."""
    if config.freeze == "none":
        return
    layers = count_layers(network)
    if config.frozen_layers > layers:
        raise ConfigError("E202", f"--freeze {config.frozen_layers}: the model has {layers} layers")
    for name, parameter in network.named_parameters():
        place = depth(name, layers)
        is_low = place == 0 or place <= config.frozen_layers
        if not is_head(name) if config.freeze == "encoder" else is_low:
            parameter.requires_grad_(False)


def unfreeze_for(network: nn.Module, epoch: int) -> None:
    """Free the head in epoch 0 and one more layer from above in each epoch after it."""
    layers = count_layers(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(depth(name, layers) >= layers + 1 - epoch)


def adapted(network: nn.Module, rank: int, task: str) -> nn.Module:
    """Put low-rank additions beside the encoder's linear layers; they and the head are trained."""
    peft = library.load("peft")
    encoder = str(network.base_model_prefix)
    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    heads = [
        name
        for name, part in network.named_children()
        if name != encoder and list(part.parameters())
    ]
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        target_modules=[name for name in linear if name.startswith(f"{encoder}.")],
        modules_to_save=heads,
        task_type={"token": "TOKEN_CLS", "qa": "QUESTION_ANS"}.get(task, "SEQ_CLS"),
    )
    with library.quiet():
        return peft.get_peft_model(network, settings)  # type: ignore[no-any-return]


def merged(network: nn.Module) -> nn.Module:
    """Return the network with its low-rank additions added into the weights."""
    if not hasattr(network, "merge_and_unload"):
        return network
    with library.quiet():
        return network.merge_and_unload()  # type: ignore[no-any-return, operator]


def parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return groups by depth; matrices have weight decay, biases and norms have none.

    The rate of depth d of L layers is `learning_rate * layer_decay ** (L + 1 - d)`.
    """
    layers = count_layers(network)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            place = depth(name, layers) if config.layer_decay != 1.0 else layers + 1
            groups.setdefault((place, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.learning_rate * config.layer_decay ** (layers + 1 - place),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        # the head first: its rate is the one that is shown
        for (place, decays), parameters in sorted(groups.items(), key=lambda item: -item[0][0])
    ]


def schedule(optimizer: Optimizer, kind: str, total: int, warmup: float) -> LambdaLR:
    """Return a scheduler: linear warm-up, then linear or cosine decay to 0, or a constant."""
    rise = round(warmup * total)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        share = (step - rise) / max(total - rise, 1)
        if kind == "constant":
            return 1.0
        left = 1 - min(share, 1.0)
        return left if kind == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    return LambdaLR(optimizer, factor)


# ---- sizes and scales -----------------------------------------------------------------------


def count_by_group(network: nn.Module) -> dict[str, dict[str, int]]:
    """Return total and trained parameters of embeddings, each layer and the head."""
    layers = count_layers(network)
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in network.named_parameters():
        place = depth(name, layers)
        group = "embeddings" if place == 0 else f"layer {place}" if place <= layers else "head"
        entry = counts.setdefault(group, {"parameters": 0, "trained": 0})
        entry["parameters"] += parameter.numel()
        entry["trained"] += parameter.numel() if parameter.requires_grad else 0
    return counts


@torch.no_grad()
def fold_scale(network: nn.Module, mean: float, std: float) -> None:
    """Let the head give y = z * std + mean in place of z, so that others need not know of it."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    last.weight.mul_(std)
    if last.bias is not None:
        last.bias.mul_(std).add_(mean)


def forward(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return logits for a batch of tokens; its `labels` are not shown to the model.

    They are (B, outputs), or (B, T, outputs) for tags, and begin and end for answers.
    """
    inputs = {name: part for name, part in batch.items() if name != "labels"}
    out = network(**inputs)
    if "start_logits" not in out:
        logits: Tensor = out.logits
        return logits
    both = torch.stack((out.start_logits, out.end_logits), dim=-1)  # (B, T, 2)
    return both.masked_fill(batch["attention_mask"].unsqueeze(-1) == 0, NEVER)
