"""What the files of the schema share: how a section reads, names for kinds of values, and what only one task can do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

CLASSIFICATION: Final = "classification"
CAUSAL_LM: Final = "causal_lm"

# task -> what it cannot do that another can -> why not, and what there is instead. Every refusal is worded here.
CANNOT: Final[Mapping[str, Mapping[str, str]]] = {
    CLASSIFICATION: {"cache": "of a classifier all logits are cached; write cache: null"},
    CAUSAL_LM: {
        "broad": "a language model learns from blocks of its own text",
        "compare": "compare shows accuracies of classifiers; a language model's rounds stand side by side in the report",
        "export": "export describes classifiers; a language model's folder is the `path` that `compactlm models --json` shows",
        "granularity": "masks are for classifiers; a round of a language model gives axes or a budget",
        "predict": (
            "is a language model, which continues texts and gives no labels; its folder loads with AutoModelForCausalLM, and "
            "`mlflow models serve` continues texts by HTTP"
        ),
        "piece_dropout": "a language model predicts its pieces, so they stay as they are",
        "search": "rounds of a language model do not search",
        "shapes": (
            "shapes is for classifiers; the rounds of a language model are solved when its run starts, and the plan.json of "
            "each says how"
        ),
        "stress": (
            "sets without labels are for classifiers; a language model's perplexity on other text is measured by evaluation_sets"
        ),
        "surface": "only rows of a classifier are dressed",
        "vocabulary_prior": "of a language model's pieces those that occur most often stay",
        "slices": "language models have neither slices nor the rival tfidf_logistic",
        "speedup": "shapes of language models are not measured; give params_total, ratio or flops_per_token",
    },
}
MODELS: Final = {CLASSIFICATION: "classifiers", CAUSAL_LM: "language models"}

Share = Annotated[float, Field(ge=0.0, le=1.0)]
PartOf = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
LearningRate = Annotated[float, Field(gt=0.0, lt=1.0)]
Confidence = Annotated[float, Field(gt=0.5, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Source = Annotated[str, Field(pattern=r"^(pkg|path|hub):.+$")]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are refused, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Drift(Section):
    """How far new data may be from that of the last result in Git, before a run stops: `tasks.data.profile`."""

    label_share: Share
    length: Annotated[float, Field(ge=0.0)]
    rows_lost: Share
    divergence: Share


def refusal(task: str, feature: str) -> str | None:
    """Return why a task cannot do something and what there is instead, None when it can."""
    return CANNOT[task].get(feature)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the allowed word that is nearest, or nothing."""
    near = difflib.get_close_matches(word, list(allowed), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
