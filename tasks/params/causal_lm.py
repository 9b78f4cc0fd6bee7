"""The schema of params.yaml for the task causal_lm: sections that differ from a classifier's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tasks.params.base import AnyDistill, AnyEvaluate, AnyTraining, Checks, ExtraLoss, Params, Splits
from tasks.params.parts import Count, Drift, LearningRate, Name, Positive, Section, Share, Source
from tasks.params.rounds import AnyRound, Sizes

SETS = ("train", "validation", "test", "calibration")
NEW = "new:gpt2"


class TextColumns(Section):
    """Which column of a table of documents holds what; of a folder of .txt files every file is a document."""

    text: str
    source: str | None


class TextSet(Section):
    """A further set of documents, of another source: what over-fitting to the training text costs."""

    source: Source
    columns: TextColumns | None
    blocks: Positive


class CausalData(Section):
    """Where the documents come from, how they are cut into sets by hash, and into blocks of tokens."""

    source: Source
    columns: TextColumns | None
    text_sources: list[str] | None
    splits: Splits
    block_tokens: Annotated[int, Field(ge=8)]
    evaluation_blocks: Positive
    calibration_blocks: Positive
    evaluation_sets: dict[Name, TextSet]

    @model_validator(mode="after")
    def _names_are_free(self) -> Self:
        if set(self.evaluation_sets) & set(SETS):
            raise ValueError(f"evaluation_sets may not be named {', '.join(SETS)}")
        if self.text_sources is not None and (self.columns is None or self.columns.source is None):
            raise ValueError("text_sources chooses by columns.source, which is null; name that column, or null both")
        return self


class ValidateText(Section):
    """Limits the documents must keep to; beyond them the run stops before any training."""

    min_documents: Positive
    max_duplicate_share: Share
    max_characters: Positive
    drift: Drift | None = None


class NewModel(Sizes):
    """The shape of a teacher that is trained from random weights; its tokenizer is trained on the training text."""

    vocabulary: Annotated[int, Field(ge=257)]  # the 256 bytes and the end of text

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide hidden = {self.hidden}")
        return self


class Training(AnyTraining):
    """How a language model is trained."""

    batch_blocks: Positive
    accumulate: Positive  # parts in which a batch is computed: less memory, the same gradient
    chunk_tokens: Positive  # logits are computed for so many tokens at a time: less memory, the same gradient


class CausalTeacher(Training):
    """The model to compress; `train_tokens: 0` takes it as it is."""

    model: Annotated[str, Field(pattern=rf"^((pkg|path|hub):.+|{NEW})$")]
    new: NewModel | None
    train_tokens: Count
    learning_rate: LearningRate

    @model_validator(mode="after")
    def _new_has_a_shape(self) -> Self:
        if (self.model == NEW) != (self.new is not None):
            raise ValueError(f"`new` gives the shape of model: {NEW}, and is null for every other model")
        if self.model == NEW and self.train_tokens == 0:
            raise ValueError(f"model: {NEW} starts from random weights; give it train_tokens")
        return self


class TopKCache(Section):
    """What `teacher_logits` keeps of the teacher: its `top_k` best pieces, in the first `tokens` that rounds learn from."""

    top_k: Annotated[int, Field(ge=128)]  # fewer cost quality: docs/causal_lm.md
    tokens: Positive


class TokenHidden(ExtraLoss):
    """An extra loss on what a layer holds of each token: `tasks.training.token_states`."""

    loss: Literal["cosine", "mse"]
    layers: Literal["last_but_two"]


class CausalDistill(AnyDistill, Training):
    """How the student learns from the teacher, which runs beside it or has left a `cache`."""

    cache: TopKCache | None
    hidden: TokenHidden | None

    @model_validator(mode="after")
    def _states_need_the_teacher_beside(self) -> Self:
        if self.hidden is not None and self.cache is not None:
            raise ValueError("hidden: compares with a teacher that runs beside the student; set cache: null")
        return self

    @model_validator(mode="after")
    def _shares_are_at_one_temperature(self) -> Self:
        if self.cache is not None and self.temperature != 1.0:
            raise ValueError(f"cache: keeps probabilities at temperature 1.0, not {self.temperature}; set cache: null")
        return self


class CausalRound(AnyRound):
    """One round: the shape to reach from `parent`, and the tokens of distillation to recover with.

    All five axes, or one of `params_total`, `ratio` and `flops_per_token` with any axes held at a size; the rest is solved.
    """

    budget_names: ClassVar[tuple[str, ...]] = ("params_total", "ratio", "flops_per_token")

    flops_per_token: Positive | None = None
    train_tokens: Positive

    @model_validator(mode="after")
    def _is_a_shape_or_a_budget(self) -> Self:
        self.check_budget()
        return self


class CausalEvaluate(AnyEvaluate):
    """What is measured of a language model; `prompts` are continued greedily, to see whether it repeats itself."""

    batch_blocks: Positive
    prompts: Positive
    prompt_tokens: Positive
    new_tokens: Annotated[int, Field(ge=8)]


class CausalLMParams(Params):
    """The whole of params.yaml for the task causal_lm."""

    task: Literal["causal_lm"]
    data: CausalData
    validate_data: ValidateText
    teacher: CausalTeacher
    distill: CausalDistill
    rounds: dict[Name, CausalRound]
    evaluate: CausalEvaluate

    @property
    def drift(self) -> Drift | None:
        return self.validate_data.drift

    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""
        texts = {f"data.evaluation_sets.{name}.source": part.source for name, part in self.data.evaluation_sets.items()}
        teacher = {} if self.teacher.new is not None else {"teacher.model": self.teacher.model}
        return {"data.source": self.data.source, **texts, **teacher}

    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""
        return ["validation", "test", *self.data.evaluation_sets]

    def needing_whole_weights(self) -> Iterator[str]:
        """Return the extra loss."""
        if self.distill.hidden is not None:
            yield "distill.hidden"

    def checks(self) -> Checks:
        """Return the checks of every task, and those of language models."""
        return [
            *super().checks(),
            (("rounds", "distill"), self._training_faults),
            (("evaluate", "data"), self._sample_faults),
            (("report",), self._report_faults),
        ]

    def _report_faults(self) -> Iterator[str]:
        if self.report.examples:
            yield "report.examples: the report of a language model shows no texts; write report: {examples: 0}"

    def _training_faults(self) -> Iterator[str]:
        cache = self.distill.cache
        for name, target in self.rounds.items():
            if self.distill.hidden is not None and target.layers is not None and target.layers < 3:
                yield (
                    f"rounds.{name}.layers: {target.layers}, and distill.hidden compares a layer two below the last; "
                    "keep at least 3, or set distill.hidden: null"
                )
            if cache is not None and target.train_tokens > cache.tokens:
                yield (
                    f"rounds.{name}.train_tokens: {target.train_tokens} is more than the {cache.tokens} of distill.cache.tokens; "
                    "cache as many, or set distill.cache: null"
                )

    def _sample_faults(self) -> Iterator[str]:
        longest = self.evaluate.prompt_tokens + self.evaluate.new_tokens
        if longest > self.data.block_tokens or self.evaluate.latency_tokens >= self.data.block_tokens:
            yield (
                "evaluate: prompt_tokens + new_tokens must be at most data.block_tokens = "
                f"{self.data.block_tokens}, and latency_tokens below it; a new model knows no longer positions"
            )
