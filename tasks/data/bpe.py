"""A byte-level BPE tokenizer trained on texts, written in the form stock classes read.

Source: Sennrich et al., arXiv:1508.07909; over bytes as in GPT-2, so that every text can be written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.errors import DataError

END: Final = "<|endoftext|>"  # id 0


def train_tokenizer(texts: Sequence[str], vocabulary: int, out: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json with `vocabulary` pieces, the end of text being id 0.

    Raises DataError when the texts have not so many: a model would carry rows that nothing ever reads.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = tokenizer.get_vocab_size()
    if pieces < vocabulary:
        raise DataError(
            f"params.yaml: teacher.new.vocabulary: {vocabulary} pieces are asked, and the {len(texts)} training documents give "
            f"{pieces}; ask for at most {pieces}, or add documents"
        )
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "pad_token": END}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")
