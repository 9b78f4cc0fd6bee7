"""The sections of params.yaml that say where a classifier's text comes from: `data` and `validate_data`."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.params_parts import Name, Positive, Section, Share, Source, did_you_mean


class Columns(Section):
    """Which column of the data file holds what; `split` may be null, then rows are split by content hash."""

    text: str
    label: str
    source: str | None
    split: str | None


class Splits(Section):
    """Shares of the labelled rows kept for validation and test; the rest is the training set."""

    validation: Annotated[float, Field(gt=0.0, lt=0.5)]
    test: Annotated[float, Field(gt=0.0, lt=0.5)]


class Transfer(Section):
    """Unlabelled text on which the student imitates the teacher: sentences of `sources`, and spliced training rows."""

    sources: list[str]
    min_words: Positive
    max_words: Positive
    rows: Annotated[int, Field(ge=0)]
    spliced_rows: Annotated[int, Field(ge=0)]


class EvaluationSet(Section):
    """A further labelled evaluation set, held out by source."""

    sources: list[str]
    rows: Positive


class Typos(Section):
    """A copy of an evaluation set with slips of the keyboard in a share of the words: the set `<of>_typos`."""

    of: Name
    word_share: Annotated[float, Field(gt=0.0, le=1.0)]


class Data(Section):
    """Where the text comes from and how it is cut into sets."""

    source: Source
    columns: Columns
    labels: dict[int, str]
    task_sources: list[str] | None
    splits: Splits
    near_duplicate_similarity: Annotated[float, Field(gt=0.5, le=1.0)]
    transfer: Transfer
    evaluation_sets: dict[Name, EvaluationSet]
    typos: Typos | None
    calibration_rows: Positive
    max_tokens: Annotated[int, Field(ge=8)]

    @model_validator(mode="after")
    def _labels_are_dense(self) -> Self:
        if sorted(self.labels) != list(range(len(self.labels))) or len(self.labels) < 2:
            raise ValueError(f"labels must number the classes 0, 1, ...; got {sorted(self.labels)}")
        if set(self.evaluation_sets) & {"train", "validation", "test", "transfer", "calibration"}:
            raise ValueError("evaluation_sets may not be named train, validation, test, transfer or calibration")
        return self

    @model_validator(mode="after")
    def _typos_are_of_a_set(self) -> Self:
        sets = ["validation", "test", *self.evaluation_sets]
        if self.typos is not None and self.typos.of not in sets:
            raise ValueError(
                f"typos.of: {self.typos.of!r} is not one of {', '.join(sets)}{did_you_mean(self.typos.of, sets)}"
            )
        if self.typos is not None and f"{self.typos.of}_typos" in sets:
            raise ValueError(f"evaluation_sets: {self.typos.of}_typos is the name of the set that `typos` makes")
        return self

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
    max_class_share: Annotated[float, Field(gt=0.0, le=1.0)]
    max_duplicate_share: Share
    max_conflicting_share: Share
    max_characters: Positive
