"""Shared parts: a tiny BERT with a WordPiece tokenizer, made on the spot, and a hypothesis profile that fits CI."""

from __future__ import annotations

import json
import logging
import os
import string
from pathlib import Path
from typing import Any

# Tiny tensors on two threads wait for each other more than they compute, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

settings.register_profile("ci", max_examples=25, deadline=None)
settings.load_profile("ci")

# Files that take long, so that the processes end together: nothing long is left for the end. The first one makes the finished
# project that others copy, which takes two minutes and mostly waits; what stands behind it needs none, up to test_honest.
LONG = (
    "pipeline/test_audit.py",
    "integration/test_flow.py",
    "integration/test_servers.py",
    "integration/test_promotion.py",
    "integration/test_tracking.py",
    "integration/test_clones.py",
    "integration/test_gc.py",
    "integration/test_backup.py",
    "integration/test_causal_stages.py",
    "integration/test_pairs.py",
    "property/test_families.py",
    "integration/test_verdicts.py",
    "integration/test_processes.py",
    "integration/test_evaluate.py",
    "pipeline/test_honest.py",
    "integration/test_decoders.py",
    "architecture/test_recipes.py",
    "pipeline/test_audit_approvals.py",
    "pipeline/test_replay.py",
    "pipeline/test_export_model.py",
    "pipeline/test_promotion_checks.py",
    "pipeline/test_bad_input.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first, then the others of their folders, then the rest."""
    rank = {name: place for place, name in enumerate((*LONG, "pipeline", "integration"))}

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(Path(__file__).parent)
        return rank.get(file.as_posix(), rank.get(file.parts[0], len(rank)))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _lines_are_heard() -> None:
    """Undo what commands and libraries that ran in this process before have done to our logger."""
    logger = logging.getLogger("compactlm")
    logger.disabled, logger.propagate = False, True


WORDS = ["film", "great", "dull", "plot", "act", "fine", "slow", "##ing", "##ly", "not", "never", "good", "bad"]


def tiny_tokenizer(extra: list[str] | None = None) -> dict[str, Any]:
    """Return a WordPiece tokenizer.json with all lower-case letters, a few words and `extra` pieces."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list(string.ascii_lowercase)
    pieces = [*special, *letters, *[f"##{c}" for c in letters], *string.digits, ".", ",", *WORDS, *(extra or [])]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocab[s], "content": s, **token} for s in special],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def tiny_config(vocabulary: int, hidden: int = 32, heads: int = 4, ffn: int = 48, layers: int = 3) -> dict[str, Any]:
    """Return the config of a tiny BERT classifier with two classes."""
    return {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }


def write_tokenizer_files(tokenizer: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json, vocab.txt and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "vocab.txt").write_text("\n".join(tokenizer["model"]["vocab"]) + "\n")
    settings_ = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings_))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT classifier with random, well-spread weights."""
    folder = tmp_path_factory.mktemp("tiny_model")
    write_tiny_model(folder)
    return folder


def write_tiny_model(folder: Path) -> None:
    """Write a tiny BERT classifier with random, well-spread weights."""
    import torch

    from tasks.models.checkpoint import classifier_from_config, save_classifier

    tokenizer = tiny_tokenizer()
    write_tokenizer_files(tokenizer, folder)
    torch.manual_seed(0)
    model = classifier_from_config(tiny_config(len(tokenizer["model"]["vocab"])))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    save_classifier(model, folder, folder)
