"""The schema of params.yaml for the task causal_lm: sections that differ from a classifier's."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from tasks.gates.rules import CHECKS_OF_CAUSAL_LM, OF_CAUSAL_LM
from tasks.params.base import Params
from tasks.params.classification import Splits, Weight, check_parts
from tasks.params.gates import Gate, check_gates
from tasks.params.parts import Name, Positive, Section, Share, Source
from tasks.params.rounds import AnyRound, check_budgets, check_round

SETS = ("train", "validation", "test", "calibration")
NEW = "new:gpt2"
CAUSAL_BUDGETS: Final = ("params_total", "ratio", "flops_per_token")


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


class NewModel(Section):
    """The shape of a teacher that is trained from random weights; its tokenizer is trained on the training text."""

    vocabulary: Annotated[int, Field(ge=257)]  # the 256 bytes and the end of text
    hidden: Positive
    heads: Positive
    ffn: Positive
    layers: Positive

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide hidden = {self.hidden}")
        return self


class Training(Section):
    """How a model is trained; the budget in tokens stands with the model."""

    batch_blocks: Positive
    warmup_share: Share
    weight_decay: Annotated[float, Field(ge=0.0)]
    max_gradient_norm: Annotated[float, Field(gt=0.0)]
    checkpoints: Positive
    accumulate: Positive  # parts in which a batch is computed: less memory, the same gradient
    chunk_tokens: Positive  # logits are computed for so many tokens at a time: less memory, the same gradient


class CausalTeacher(Training):
    """The model to compress; `train_tokens: 0` takes it as it is."""

    model: Annotated[str, Field(pattern=rf"^((pkg|path|hub):.+|{NEW})$")]
    new: NewModel | None
    train_tokens: Annotated[int, Field(ge=0)]
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]

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


class TokenHidden(Section):
    """An extra loss on what a layer holds of each token: `tasks.training.token_states`."""

    loss: Literal["cosine", "mse"]
    weight: Weight
    layers: Literal["last_but_two"]
    until_share: Annotated[float, Field(gt=0.0, le=1.0)]


class CausalDistill(Training):
    """How the student learns from the teacher; the names of losses are those of `tasks.training.losses.LOSSES`."""

    loss: Literal["forward_kl", "jensen_shannon", "reverse_kl"]
    temperature: Annotated[float, Field(gt=0.0)]
    kd_weight: Share
    cache: TopKCache | None
    hidden: TokenHidden | None

    @model_validator(mode="after")
    def _states_need_the_teacher_beside(self) -> Self:
        if self.hidden is not None and self.cache is not None:
            raise ValueError("hidden: compares with a teacher that runs beside the student; set cache: null")
        if self.hidden is not None:
            check_parts("hidden", self.hidden.weight, self.accumulate)
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

    budget_names: ClassVar[tuple[str, ...]] = CAUSAL_BUDGETS

    flops_per_token: Positive | None = None
    train_tokens: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]

    @model_validator(mode="after")
    def _is_a_shape_or_a_budget(self) -> Self:
        check_budgets(self.axes, self.budgets, CAUSAL_BUDGETS)
        return self


class CausalEvaluate(Section):
    """What is measured, on how many repeats; `prompts` are continued greedily, to see whether a model repeats itself."""

    bootstrap_resamples: Positive
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    batch_blocks: Positive
    prompts: Positive
    prompt_tokens: Positive
    new_tokens: Annotated[int, Field(ge=8)]
    latency_batches: list[int]
    latency_tokens: Positive
    latency_repeats: Positive


class CausalLMParams(Params):
    """The whole of params.yaml for the task causal_lm."""

    task: Literal["causal_lm"]
    data: CausalData
    validate_data: ValidateText
    teacher: CausalTeacher
    distill: CausalDistill
    rounds: dict[Name, CausalRound]
    evaluate: CausalEvaluate

    def sources(self) -> dict[str, str]:
        """Return key -> source of everything that is fetched and pinned in sources.lock."""
        found = {"data.source": self.data.source}
        found |= {f"data.evaluation_sets.{name}.source": one.source for name, one in self.data.evaluation_sets.items()}
        return found if self.teacher.new is not None else {**found, "teacher.model": self.teacher.model}

    def measured_sets(self) -> list[str]:
        """Return the names of the sets on which every model is measured."""
        return ["validation", "test", *self.data.evaluation_sets]

    @model_validator(mode="after")
    def _gates_can_be_judged(self) -> Self:
        for where, gates in (("gates", self.gates), ("promotion.gates", self.promotion.gates)):
            for place, gate in enumerate(gates):
                self._check_gate(f"{where}.{place}", gate)
        check_gates(self.gates, self.promotion.gates, self.measured_sets())
        return self

    def _check_gate(self, where: str, gate: Gate) -> None:
        if gate.check is not None:
            if gate.check not in CHECKS_OF_CAUSAL_LM:
                raise ValueError(
                    f"{where}.check: {gate.check} cannot be answered of language models; allowed: "
                    f"{', '.join(CHECKS_OF_CAUSAL_LM)}"
                )
        elif gate.metric not in OF_CAUSAL_LM:
            raise ValueError(
                f"{where}.metric: {gate.metric!r} is not measured of language models; allowed: "
                f"{', '.join(sorted(OF_CAUSAL_LM))}"
            )
        if gate.versus == "tfidf_logistic" or gate.slice or gate.slices:
            raise ValueError(f"{where}: language models have neither slices nor the rival tfidf_logistic")

    @model_validator(mode="after")
    def _rounds_shrink(self) -> Self:
        if not self.rounds:
            raise ValueError("rounds: at least one round is needed")
        seen: dict[str, dict[str, int]] = {}
        for name, target in self.rounds.items():
            check_round(name, target, seen)
            seen[name] = target.axes
        for name in self.baselines.random_init:
            if name not in self.rounds:
                raise ValueError(f"baselines.random_init: {name!r} is not a round; allowed: {', '.join(self.rounds)}")
        return self

    @model_validator(mode="after")
    def _nothing_is_searched(self) -> Self:
        if any(self.trials.model_dump().values()):
            raise ValueError(
                "trials: rounds of a language model do not search; write trials: {rounds: [], candidates: [], places: []}"
            )
        return self

    @model_validator(mode="after")
    def _states_are_whole(self) -> Self:
        if self.distill.hidden is not None and self.runtime.sharded:
            raise ValueError("distill.hidden needs whole weights; set runtime.launcher.strategy: ddp")
        for name, target in self.rounds.items():
            if self.distill.hidden is not None and target.layers is not None and target.layers < 3:
                raise ValueError(
                    f"rounds.{name}.layers: {target.layers}, and distill.hidden compares a layer two below the last; "
                    "keep at least 3, or set distill.hidden: null"
                )
        return self

    @model_validator(mode="after")
    def _cache_covers_rounds(self) -> Self:
        cache = self.distill.cache
        for name, target in self.rounds.items():
            if cache is not None and target.train_tokens > cache.tokens:
                raise ValueError(
                    f"rounds.{name}.train_tokens: {target.train_tokens} is more than the {cache.tokens} of distill.cache.tokens; "
                    "cache as many, or set distill.cache: null"
                )
        return self

    @model_validator(mode="after")
    def _samples_fit(self) -> Self:
        longest = self.evaluate.prompt_tokens + self.evaluate.new_tokens
        if longest > self.data.block_tokens or self.evaluate.latency_tokens >= self.data.block_tokens:
            raise ValueError(
                "evaluate: prompt_tokens + new_tokens must be at most data.block_tokens = "
                f"{self.data.block_tokens}, and latency_tokens below it; a new model knows no longer positions"
            )
        return self
