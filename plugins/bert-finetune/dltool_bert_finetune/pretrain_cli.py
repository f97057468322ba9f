"""Options and help of `bert-finetune pretrain`."""

from __future__ import annotations

from dltool import asking
from dltool_bert_finetune import choices
from dltool_bert_finetune.config import SCRATCH
from dltool_bert_finetune.pretrain_config import PretrainConfig, recipe

TOPIC = "bert-finetune"


@asking.trains(PretrainConfig, TOPIC, leave_out=("guards",))
def pretrain(
    asked: asking.Asked[PretrainConfig],
    data: choices.PretrainDataOption = PretrainConfig.data,
    documents: choices.DocumentsOption = PretrainConfig.documents,
    encoding: choices.EncodingOption = PretrainConfig.encoding,
    max_documents: choices.MaxDocumentsOption = PretrainConfig.max_documents,
    val_fraction: choices.PretrainValFractionOption = PretrainConfig.val_fraction,
    test_fraction: choices.PretrainTestFractionOption = PretrainConfig.test_fraction,
    model: choices.PretrainModelOption = PretrainConfig.model,
    revision: choices.RevisionOption = PretrainConfig.revision,
    size: choices.SizeOption = PretrainConfig.size,
    vocabulary: choices.VocabularyOption = PretrainConfig.vocabulary,
    max_length: choices.PretrainMaxLengthOption = PretrainConfig.max_length,
    mask_fraction: choices.MaskFractionOption = PretrainConfig.mask_fraction,
    whole_word: choices.WholeWordOption = PretrainConfig.whole_word,
    next_sentence: choices.NextSentenceOption = PretrainConfig.next_sentence,
    schedule: choices.ScheduleOption = PretrainConfig.schedule,
    warmup: choices.WarmupOption = PretrainConfig.warmup,
) -> None:
    """Pre-train a BERT on plain text: hidden words and next sentences; train --model takes it."""
    folder, config, origins = asked.settled(recipe(asked.chosen))
    if folder is None and config.model != SCRATCH:
        from dltool_bert_finetune import hub

        hub.expect(config.model, config.revision)
    asked.console.loading()
    from dltool_bert_finetune.pretrain import pretrain as run_pretraining

    run_pretraining(config, origins, console=asked.console, out=asked.out, resume=folder)
