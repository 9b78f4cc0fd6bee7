"""The schema of params.yaml for the task classification: where the text comes from, and how a classifier learns."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tasks.data.sources import texts_wanted
from tasks.gates.rules import EXACT, OF_ORDER
from tasks.params.base import AnyDistill, AnyEvaluate, AnyTraining, Checks, ExtraLoss, Params, Prune, Splits
from tasks.params.parts import Count, Drift, LearningRate, Name, PartOf, Positive, Section, Share, Source, did_you_mean
from tasks.params.rounds import Round, Search, row_faults
from tasks.params.unlabelled import Stress, Surface, Texts

ALONE = "second_text_alone"
SWAPPED_SET = "test"  # on which texts change places: `tasks.measuring.classification.INT8_SET`
SETS = ("train", "validation", "test", "transfer", "calibration")


def _told_apart(labels: dict[int, str]) -> dict[int, str]:
    """Return the names of classes; ValueError for one that is blank or for two that a reader, or a file, would take for one."""
    numbers: dict[str, int] = {}
    for number, name in labels.items():
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise ValueError(f"class {number} is called {name!r}; a name has letters, no outer blanks and no line break")
        first = numbers.setdefault(" ".join(unicodedata.normalize("NFC", name).casefold().split()), number)
        if first != number:
            raise ValueError(
                f"classes {first} and {number} are called {labels[first]!r} and {name!r}, which are one name but for capitals, "
                "blanks or the way accents are written; give each class a name of its own"
            )
    if {*labels.values()} == {str(number) for number in labels} and any(str(number) != labels[number] for number in labels):
        raise ValueError(
            f"the names {', '.join(labels.values())} are numbers of other classes: a file could mean either; use words"
        )
    return labels


class Columns(Section):
    """Which column of the data file holds what; `split` may be null, then rows are split by content hash.

    `text_pair` and `group` alone may be left out. With `text_pair` a row is a pair of texts. Pairs of one first text are never
    divided between sets, and with `group` neither are those that have one value there.
    """

    text: str
    text_pair: str | None = None
    label: str
    source: str | None
    split: str | None
    group: str | None = None

    @model_validator(mode="after")
    def _are_columns_of_their_own(self) -> Self:
        named = [name for name in (self.text, self.text_pair, self.label, self.split, self.group) if name is not None]
        if len(set(named)) < len(named):
            wanted = "text, label and split must be three columns"
            if self.text_pair is not None:
                wanted = "text, text_pair, label, split and group must be columns of their own"
            raise ValueError(f"{wanted}, not {', '.join(map(repr, named))}; name each by its own")
        return self

    @model_validator(mode="after")
    def _groups_are_of_pairs(self) -> Self:
        if self.group is not None and self.text_pair is None:
            raise ValueError(
                f"group: {self.group!r}: only pairs of texts are kept together; name the second text in text_pair, or write "
                "group: null"
            )
        return self


class Transfer(Section):
    """Unlabelled text on which the student imitates the teacher: sentences of `sources`, spliced training rows, broad text.

    `broad` and `surface` alone may be left out: then there is no broad text, and rows stay as they are.
    """

    sources: list[str]
    min_words: Positive
    max_words: Positive
    rows: Count
    spliced_rows: Count
    broad: dict[Name, Texts] | None = None
    surface: Surface | None = None

    @property
    def all_rows(self) -> int:
        """Return how many rows are asked for in all."""
        return self.rows + self.spliced_rows + sum(texts.rows for texts in (self.broad or {}).values())


class EvaluationSet(Section):
    """A further labelled evaluation set, held out by source."""

    sources: list[str]
    rows: Positive


class Typos(Section):
    """A copy of an evaluation set with slips of the keyboard in a share of the words: the set `<of>_typos`."""

    of: Name
    word_share: PartOf


class Data(Section):
    """Where the text comes from and how it is cut into sets."""

    source: Source
    columns: Columns
    labels: Annotated[dict[int, str], AfterValidator(_told_apart)]
    task_sources: list[str] | None
    splits: Splits
    near_duplicate_similarity: Annotated[float, Field(gt=0.5, le=1.0)]
    transfer: Transfer
    evaluation_sets: dict[Name, EvaluationSet]
    typos: Typos | None
    stress: Stress | None
    calibration_rows: Positive
    max_tokens: Annotated[int, Field(ge=8)]

    @model_validator(mode="after")
    def _labels_are_dense(self) -> Self:
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise ValueError(f"labels must number the classes 0, 1, ...; got {sorted(self.labels)}")
        if set(self.evaluation_sets) & set(SETS):
            raise ValueError(f"evaluation_sets may not be named {', '.join(SETS[:-1])} or {SETS[-1]}")
        return self

    @model_validator(mode="after")
    def _pairs_have_what_they_need(self) -> Self:
        if self.columns.text_pair is None:
            return self
        single = {"transfer.broad": self.transfer.broad, "stress": self.stress, "transfer.surface": self.transfer.surface}
        for key, wanted in single.items():
            if wanted is not None:
                raise ValueError(f"{key}: is for single texts, and columns.text_pair makes pairs of them; allowed: null")
        return self

    @model_validator(mode="after")
    def _typos_are_of_a_set(self) -> Self:
        sets = ["validation", "test", *self.evaluation_sets]
        if self.typos is not None and self.typos.of not in sets:
            raise ValueError(f"typos.of: {self.typos.of!r} is not one of {', '.join(sets)}{did_you_mean(self.typos.of, sets)}")
        if self.typos is not None and f"{self.typos.of}_typos" in sets:
            raise ValueError(f"evaluation_sets: {self.typos.of}_typos is the name of the set that `typos` makes")
        return self

    @model_validator(mode="after")
    def _stress_is_apart(self) -> Self:
        stress, sets = self.stress, ["validation", "test", *self.further_sets]
        if stress is None:
            return self
        if stress.changed is not None and stress.changed.of not in sets:
            hint = did_you_mean(stress.changed.of, sets)
            raise ValueError(f"stress.changed.of: {stress.changed.of!r} is not one of {', '.join(sets)}{hint}")
        if taken := sorted(set(stress.set_names) & {*SETS, *sets}):
            raise ValueError(f"evaluation_sets: {taken[0]} is the name of a set that `stress` makes")
        learnt = {self.source, *(texts.source for texts in (self.transfer.broad or {}).values())}
        for name, texts in stress.sets.items():
            if texts.source in learnt:
                raise ValueError(f"stress.sets.{name}.source: {texts.source} is learnt from too; what is learnt measures nothing")
        return self

    @property
    def unlabelled_sets(self) -> list[str]:
        """Return the names of the sets on which every student is compared with its teacher without labels."""
        return self.stress.set_names if self.stress else []

    @property
    def further_sets(self) -> list[str]:
        """Return the names of the evaluation sets besides validation and test."""
        return [*self.evaluation_sets, *([f"{self.typos.of}_typos"] if self.typos else [])]

    @property
    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""
        return ["validation", "test", *self.further_sets]


class ValidateData(Section):
    """Limits the data must keep to; beyond them the run stops before any training."""

    min_rows_per_class: Positive
    max_class_share: PartOf
    max_duplicate_share: Share
    max_conflicting_share: Share
    max_characters: Positive
    drift: Drift | None = None


class Teacher(AnyTraining):
    """The model to compress; `epochs: 0` takes it as it is."""

    model: Source
    epochs: Count
    frozen_layers: Count | None
    learning_rate: LearningRate
    batch_rows: Positive
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)]


class Hidden(ExtraLoss):
    """An extra loss on what the layers hold of a row: `tasks.training.hidden`."""

    loss: Literal["cosine", "mse"]
    layers: Literal["uniform", "last"]


class Relations(ExtraLoss):
    """An extra loss on how the tokens of a row relate in the last layer: `tasks.training.hidden`."""

    heads: Positive


class RowPrune(Prune):
    """How a classifier's structures, and the pieces of its vocabulary, are chosen."""

    vocabulary_prior: Annotated[float, Field(gt=0.0, lt=1.0)] | None  # weight of the tokenizer's own order beside counts


class Distill(AnyDistill):
    """How the student learns from the teacher; the budgets of a round stand in `rounds`."""

    cache: None  # dvc.yaml names the key for all tasks
    hidden: Hidden | None
    relations: Relations | None
    batch_rows: Positive
    average: Annotated[float, Field(gt=0.0, lt=1.0)] | None
    piece_dropout: PartOf | None  # share of longer pieces that are spelled with shorter ones

    @model_validator(mode="after")
    def _relations_need_the_teachers_tokens(self) -> Self:
        if self.piece_dropout is not None and self.relations is not None:
            raise ValueError(
                "piece_dropout: relations compares tokens with the teacher's, one by one; set one of the two to null"
            )
        return self


class Evaluate(AnyEvaluate):
    """What is measured of a classifier."""

    calibration_bins: Positive
    rare_token_share: Share


class ClassificationParams(Params):
    """The whole of params.yaml for the task classification."""

    task: Literal["classification"]
    data: Data
    validate_data: ValidateData
    teacher: Teacher
    prune: RowPrune
    distill: Distill
    rounds: dict[Name, Round]
    evaluate: Evaluate

    @property
    def drift(self) -> Drift | None:
        return self.validate_data.drift

    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""
        texts = {key: entry["source"] for key, entry in texts_wanted(self.data.model_dump()).values()}
        return {"data.source": self.data.source, **texts, "teacher.model": self.teacher.model}

    def unlabelled_sets(self) -> list[str]:
        """Return the names of the sets on which every student is compared with its teacher without labels."""
        return self.data.unlabelled_sets

    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""
        return self.data.measured_sets

    def needing_whole_weights(self) -> Iterator[str]:
        """Return the extra losses, the average of weights, and masks."""
        for key in ("hidden", "relations", "average"):
            if getattr(self.distill, key) is not None:
                yield f"distill.{key}"
        for name, target in self.rounds.items():
            if target.granularity != "structured":
                yield f"rounds.{name}.granularity: {target.granularity}"

    def searches(self) -> dict[str, Search]:
        """Return round -> its search; ValueError unless all have the same numbers."""
        searches = {name: target.search for name, target in self.rounds.items() if target.search is not None}
        if len({(search.candidates, search.keep) for search in searches.values()}) > 1:
            raise ValueError(
                f"rounds: {', '.join(searches)} have a search each; give all of them the same candidates and the same keep"
            )
        return searches

    def checks(self) -> Checks:
        """Return the checks of every task, and those of classifiers."""
        return [
            *super().checks(),
            (("rounds", "data", "runtime"), self._training_faults),
            (("rounds", "baselines"), self._rival_faults),
            (("gates", "promotion", "data"), self._pair_faults),
        ]

    def _training_faults(self) -> Iterator[str]:
        for name, target in self.rounds.items():
            yield from row_faults(f"rounds.{name}", target, self.data.transfer.all_rows)
            if target.search is not None and self.runtime.launcher is not None:
                yield f"rounds.{name}.search trains each candidate in one process; set runtime.launcher: null"

    def _pair_faults(self) -> Iterator[str]:
        pairs = self.data.columns.text_pair is not None
        for where, asked in (("gates", self.gates), ("promotion.gates", self.promotion.gates)):
            for place, gate in enumerate(asked):
                if gate.versus == ALONE and not pairs:
                    yield f"{where}.{place}.versus: {ALONE} is measured of pairs; name the second text in data.columns.text_pair"
                if gate.metric == OF_ORDER and not (pairs and gate.set == SWAPPED_SET and not gate.slice and not gate.slices):
                    yield (
                        f"{where}.{place}: {OF_ORDER} is measured of pairs (data.columns.text_pair), on set {SWAPPED_SET} as a "
                        "whole; allowed: set: test without slice or slices"
                    )
                if pairs and (gate.test == "mcnemar" or (gate.confidence is not None and gate.metric in EXACT)):
                    counted = "test: mcnemar" if gate.test else f"{gate.metric} with confidence"
                    yield (
                        f"{where}.{place}: {counted} takes rows to be independent, and pairs of one first text are not; allowed "
                        "with pairs: accuracy with test: paired_bootstrap, which draws them together, or no confidence"
                    )

    def _rival_faults(self) -> Iterator[str]:
        for name, target in self.rounds.items():
            if name in self.baselines.random_init and target.granularity != "structured":
                yield f"baselines.random_init: {name!r} keeps its parent's shape and masks trained weights"
            if name in self.baselines.random_init and target.search is not None:
                yield f"baselines.random_init: {name!r} searches for its shape while it trains; give the shape that it found"
