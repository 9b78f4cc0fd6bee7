"""The values of a params.yaml, each with the reason for it: what follows from the rows, the teacher and the ratio asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tasks.drafting.facts import RowFacts, TeacherFacts
from tasks.drafting.table import NEAR, SHARES, counts_in_words

MOST_TOKENS: Final = 256  # of a text, the cost of a row grows with them
SPEND: Final = {"first": 750_000, "between": 1_500_000, "last": 3_500_000}  # tokens that a round trains on, as by default
TRANSFER_TOKENS: Final = 2_500_000
DISAGREEMENT: Final = 0.08  # share of rows on which two equally good models answer differently, roughly
FOREIGN: Final = 2.2  # tokens a word from which a teacher hardly knows a language
# Kinds of change in the outside of a text: docs/robust.md.
CHANGES: Final = (
    *("handles", "links", "hashtags", "emoticons", "end_marks", "entities", "numbers", "typos"),
    *("emails", "titles", "names", "negation"),
)
STEPS: Final = 500  # that a teacher is fine-tuned for, at least, unless texts are so long that this takes too long:
TEACHER_TOKENS: Final = 1_200_000  # twice what the default run trains its teacher on


@dataclass(frozen=True)
class Entry:
    """One line of the file: key, value, and why it is so ('' where the line itself says it)."""

    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Draft:
    """A params.yaml as sections of entries, and what a person should know or look at."""

    sections: dict[str, list[Entry]]
    warnings: list[str] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """Return the plain values."""
        return {name: _plain(entries) for name, entries in self.sections.items()}


def _plain(entries: list[Entry]) -> Any:
    if len(entries) == 1 and entries[0].key == "":
        return entries[0].value
    if all(entry.key == "-" for entry in entries):
        return [entry.value for entry in entries]
    return {entry.key: entry.value for entry in entries}


@dataclass(frozen=True)
class Wanted:
    """What a person asks for: source and columns of the data, the model's name, how many times smaller."""

    source: str
    columns: Mapping[str, str | None]
    name: str
    ratio: float


def draft(wanted: Wanted, rows: RowFacts, teacher: TeacherFacts) -> Draft:
    """Return the draft for a classifier of these rows."""
    made = Draft({})
    max_tokens = _max_tokens(rows, teacher, made.warnings)
    typical = min(max_tokens, max(8, rows.tokens[0]))
    transfer = max(1000, min(60_000, TRANSFER_TOKENS // typical, 50 * rows.of_set("train")))
    labels = dict(enumerate(rows.rows))
    made.sections.update(
        {
            "task": [Entry("", "classification", "one label a text")],
            "seed": [Entry("", 0)],
            "data": [
                Entry("source", wanted.source),
                Entry("columns", dict(wanted.columns), _columns_why(wanted)),
                Entry("labels", labels, counts_in_words(rows.rows)),
                Entry("task_sources", None, "all rows"),
                Entry("splits", SHARES, _split_why(rows, wanted)),
                Entry("near_duplicate_similarity", NEAR, "shared / all words of two texts; from here on they go into one set"),
                Entry(
                    "transfer", _transfer(rows, transfer), "no other text is named, so halves of two training texts are joined"
                ),
                Entry("evaluation_sets", {}, "no further labelled texts are named"),
                Entry("typos", {"of": "test", "word_share": 0.1}, "the set test_typos: slips of the keyboard"),
                Entry("stress", _stress(rows), "no text of another subject is named; copies of rows with another outside are"),
                Entry("calibration_rows", min(512, max(1, rows.of_set("train") // 2))),
                Entry("max_tokens", max_tokens, f"of 95 % of the texts at most {rows.tokens[1]:,}, of half {rows.tokens[0]:,}"),
            ],
            "validate_data": _limits(rows, made.warnings),
            "teacher": _teacher(rows, teacher, typical),
            "prune": _prune(teacher),
            "distill": _distill(),
            "rounds": _rounds(wanted.ratio, rows, typical, transfer),
            "trials": [Entry("", {"rounds": [], "candidates": [], "places": []})],
            "evaluate": [
                Entry("bootstrap_resamples", 2000),
                Entry("confidence", 0.95),
                Entry("calibration_bins", 15),
                Entry("rare_token_share", 0.1, "the tenth of the rows with the rarest words"),
                Entry("latency_batches", [1, 32]),
                Entry("latency_tokens", max(8, 8 * math.ceil(typical / 8)), "as long as half of the texts"),
                Entry("latency_repeats", 30),
            ],
            "baselines": [Entry("random_init", [])],
            "gates": _gates(wanted.ratio, rows),
            "promotion": _promotion(rows),
            "report": [Entry("examples", 5, "texts on which student and teacher disagree most surely; 0 shows none")],
            "registry": [Entry("model_name", wanted.name)],
            "runtime": [
                Entry("device", "auto"),
                Entry("precision", "auto"),
                Entry("threads", None),
                Entry("launcher", None),
                Entry("compile", False),
            ],
        }
    )
    _warn(made.warnings, rows)
    return made


def _columns_why(wanted: Wanted) -> str:
    return "the file's own sets" if wanted.columns["split"] else "no column names the sets: they follow from the texts"


def _split_why(rows: RowFacts, wanted: Wanted) -> str:
    counts = ", ".join(f"{name} {rows.of_set(name):,}" for name in ("train", "validation", "test"))
    return f"{'not used, the file has its own' if wanted.columns['split'] else 'by hash of the text'}: {counts}"


def _max_tokens(rows: RowFacts, teacher: TeacherFacts, warnings: list[str]) -> int:
    most = teacher.positions or MOST_TOKENS
    asked = min(MOST_TOKENS, 8 * math.ceil(rows.tokens[1] / 8))
    chosen = max(8, min(most, asked))
    if chosen < rows.tokens[1]:
        longer = "the teacher reads no more" if most <= asked else f"data.max_tokens takes up to {most:,}, and time grows with it"
        warnings.append(f"more than 5 % of the texts are cut at {chosen:,} tokens (95 % have up to {rows.tokens[1]:,}); {longer}")
    return chosen


def _transfer(rows: RowFacts, spliced: int) -> dict[str, Any]:
    low, high = rows.words
    return {"sources": [], "min_words": low, "max_words": max(high, low), "rows": 0, "spliced_rows": spliced, "surface": None}


def _stress(rows: RowFacts) -> dict[str, Any]:
    changed = {"of": "validation", "rows": max(1, min(400, rows.of_set("validation"))), "kinds": list(CHANGES)}
    return {"sets": {}, "changed": changed}


def _prune(teacher: TeacherFacts) -> list[Entry]:
    prior = 0.3 if teacher.is_wordpiece else None
    why = "the weight of the tokenizer's own order beside counts" if teacher.is_wordpiece else "for WordPiece tokenizers alone"
    return [
        Entry("criterion", "activation"),
        Entry("depth", "harm"),
        Entry("merge_heads", False),
        Entry("vocabulary_prior", prior, why),
    ]


def _limits(rows: RowFacts, warnings: list[str]) -> list[Entry]:
    least, share = min(rows.rows.values()), max(rows.rows.values()) / rows.total
    repeated = max(0.1, _up(rows.repeated_share + 0.01))
    conflicting = max(0.01, _up(rows.conflicting_share + 0.005))
    if repeated > 0.1:
        warnings.append(
            f"{_percent(rows.repeated_share)} of the rows have a text that stands there before; each text is used once"
        )
    if conflicting > 0.01:
        warnings.append(
            f"{_percent(rows.conflicting_share)} of the rows have a text that also stands there with another label; none is used"
        )
    return [
        Entry("min_rows_per_class", min(100, least), f"the rarest class has {least:,}"),
        Entry(
            "max_class_share", min(1.0, max(0.9, _up(share + 0.01))), f"the most frequent class has {_percent(share)} of the rows"
        ),
        Entry("max_duplicate_share", min(1.0, repeated), f"{_percent(rows.repeated_share)} of the rows repeat a text"),
        Entry("max_conflicting_share", min(1.0, conflicting), f"{_percent(rows.conflicting_share)} of the rows"),
        Entry("max_characters", max(20_000, 2 * rows.characters), f"the longest text has {rows.characters:,}"),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _up(share: float) -> float:
    return math.ceil(share * 100) / 100


def _teacher(rows: RowFacts, teacher: TeacherFacts, typical: int) -> list[Entry]:
    train, batch = max(1, rows.of_set("train")), 32
    affordable = max(2, round(TEACHER_TOKENS / train / typical))
    epochs = 0 if teacher.answers else min(20, affordable, max(3, math.ceil(STEPS * batch / train)))
    why = "it answers these classes already" if teacher.answers else f"fine-tuned on {train:,} rows"
    large = teacher.hidden > 512
    return [
        Entry("model", teacher.source, f"{teacher.millions:.1f} M parameters"),
        Entry("epochs", epochs, why),
        Entry("frozen_layers", 0, "the embeddings stay as they are"),
        Entry("learning_rate", 3.0e-5 if large else 8.0e-5, f"for {teacher.hidden} channels"),
        Entry("batch_rows", batch),
        Entry("warmup_share", 0.1),
        Entry("weight_decay", 0.01),
        Entry("max_gradient_norm", 1.0),
        Entry("label_smoothing", 0.0),
        Entry("checkpoints", 3),
    ]


def _distill() -> list[Entry]:
    return [
        Entry("loss", "forward_kl"),
        Entry("temperature", 2.0),
        Entry("kd_weight", 0.9, "share of KD in the loss of labelled rows; the rest is cross-entropy"),
        Entry("cache", None),
        Entry("hidden", None),
        Entry("relations", None),
        Entry("batch_rows", 64),
        Entry("warmup_share", 0.1),
        Entry("weight_decay", 0.01),
        Entry("max_gradient_norm", 1.0),
        Entry("accumulate", 1),
        Entry("average", None),
        Entry("piece_dropout", None),
        Entry("checkpoints", 4),
    ]


def ratios(ratio: float) -> list[float]:
    """Return how many times smaller than the teacher each round is: steps of about two to three, the last one `ratio`."""
    count = 1 if ratio <= 2.5 else 2 if ratio <= 6.5 else 3 if ratio <= 16 else 4
    return [round(ratio ** (number / count), 2) for number in range(1, count)] + [ratio]


def _rounds(ratio: float, rows: RowFacts, typical: int, transfer: int) -> list[Entry]:
    made, parent = [], "teacher"
    steps = ratios(ratio)
    for number, smaller in enumerate(steps, 1):
        kind = "last" if number == len(steps) else "first" if number == 1 else "between"
        epochs = max(0.1, round(SPEND[kind] / typical / transfer, 1))
        labelled = max(1, min(10, round(2000 / max(1, rows.of_set("train")))))
        round_ = {"parent": parent, "ratio": smaller, "labelled_epochs": labelled, "transfer_epochs": epochs}
        why = f"{smaller:g}x smaller than the teacher; `compactlm shapes` shows its shape"
        made.append(Entry(f"r{number}", {**round_, "learning_rate": 2.0e-4 if number == 1 and len(steps) > 1 else 3.0e-4}, why))
        parent = f"r{number}"
    return made


def provable_drop(rows: int) -> float:
    """Return the loss of accuracy that an equal model is shown not to have 9 times in 10, rounded up to points.

    The paired difference of two equal models has the standard deviation sqrt(`DISAGREEMENT` / rows); a bound at 95 % lies 1.645
    of them below it, and 9 times in 10 it is no more than 1.282 below its mean.
    """
    return math.ceil(100 * (1.645 + 1.282) * math.sqrt(DISAGREEMENT / max(1, rows))) / 100


def _gates(ratio: float, rows: RowFacts) -> list[Entry]:
    test, least = rows.of_set("test"), rows.least("test")
    drop = max(0.04, provable_drop(test))
    shown = {"versus": "teacher", "max_drop": drop, "test": "paired_bootstrap", "confidence": 0.95, "min_support": min(200, test)}
    support = min(100, max(20, least))
    mild = {"severity": "warn"}
    changed = max(1, min(150, rows.of_set("validation") // 2))
    skewed = max(rows.rows.values()) > 3 * min(rows.rows.values())
    rules: list[tuple[dict[str, Any], str]] = [
        ({"metric": "accuracy", "set": "test", "versus": "teacher", "min_ratio": 0.97}, f"of {test:,} rows"),
        (
            {"metric": "macro_f1", "set": "test", "versus": "teacher", "min_ratio": 0.95} | ({} if skewed else mild),
            "every class counts alike",
        ),
        ({"metric": "accuracy", "set": "test_typos", "versus": "teacher", "max_drop": 0.05} | mild, ""),
        (
            {"metric": "accuracy", "set": "test"} | shown | ({} if drop <= 0.06 else mild),
            f"an equal model passes 9 times in 10 on {test:,} rows",
        ),
        (
            {
                "metric": "accuracy",
                "set": "test",
                "slices": "class:*",
                "versus": "teacher",
                "max_drop": 0.10,
                "min_support": support,
            }
            | ({} if least >= 50 else mild),
            f"each class; the rarest has {least:,} rows there",
        ),
        (
            {"metric": "accuracy", "set": "test", "slices": "*", "versus": "teacher", "max_drop": 0.10, "min_support": 50} | mild,
            "short and long texts, rare words",
        ),
        ({"metric": "accuracy", "set": "test", "versus": "tfidf_logistic", "min_gain": 0.0} | mild, "else word counts will do"),
        (
            {"metric": "agreement", "set": "stress_*", "min": 0.80, "min_support": 500} | mild,
            "held until data.stress.sets names texts of another subject: docs/robust.md",
        ),
        (
            {"metric": "response_gap", "set": "changed_validation", "slices": "change:*", "max": 0.25, "min_support": changed}
            | mild,
            "the outside of a text moves student and teacher alike (logits)",
        ),
        ({"metric": "calibration_error", "set": "test", "max": 0.15} | mild, ""),
        ({"metric": "params_total", "versus": "teacher", "max_ratio": round(1.1 / ratios(ratio)[0], 2)}, ""),
        ({"metric": "latency_ms_p50_batch_1", "versus": "teacher", "max_ratio": 0.9}, ""),
        ({"metric": "load_back_max_difference", "max": 1.0e-5}, ""),
        ({"metric": "golden_max_difference", "max": 1.0e-4}, ""),
        ({"metric": "onnx_max_difference", "max": 1.0e-4}, ""),
        ({"check": "data_validated"}, ""),
        ({"check": "no_overlap"}, ""),
    ]
    return [Entry("-", rule, why) for rule, why in rules]


def _promotion(rows: RowFacts) -> list[Entry]:
    test = rows.of_set("test")
    drop = max(0.04, provable_drop(test))
    better = {"metric": "accuracy", "set": "test", "versus": "champion", "max_drop": drop}
    shown = {"test": "paired_bootstrap", "confidence": 0.95, "min_support": min(200, test)}
    gates = [
        {**better, **shown},
        {"metric": "churn", "set": "test", "versus": "champion", "max": 0.25, "severity": "warn"},
        {"check": "lineage"},
        {"check": "serves"},
        {"check": "clean_git", "severity": "warn"},
    ]
    return [Entry("gates", gates), Entry("approval", None, "or {quorum: 1, ...}: docs/registry.md"), Entry("remote", None)]


def _warn(warnings: list[str], rows: RowFacts) -> None:
    if rows.pieces_per_word > FOREIGN:
        warnings.append(
            f"the teacher cuts a word into {rows.pieces_per_word:.1f} tokens in the mean, so it hardly knows this language; "
            "give one that does with --teacher"
        )
    if rows.of_set("test") < 200:
        warnings.append(
            f"the test set has {rows.of_set('test'):,} rows: an accuracy on it is right to about "
            f"±{100 / math.sqrt(max(1, rows.of_set('test'))):.0f} points"
        )
