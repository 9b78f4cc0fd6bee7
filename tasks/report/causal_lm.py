"""The report of a language model."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from tasks.report.page import (
    MAIN_SET,
    Form,
    Story,
    batches_of,
    cost_of,
    cost_rows,
    curves,
    document,
    focus,
    header,
    names_of,
    origin,
    overall,
    overall_of,
    refusal,
    rounds_section,
    verdicts,
)
from tasks.report.parts import Cell, Row, Table, count, interval, milliseconds, ratio, size, tables_section, value_of

COSTS: Final[tuple[tuple[str, str, Form], ...]] = (
    ("parameters", "params_total", count),
    ("not in embeddings", "params_non_embedding", count),
    ("weights", "size_bytes", size),
    ("FLOPs a token", "flops_per_token", count),
    ("peak memory of a forward pass", "peak_memory_bytes", size),
)
QUALITY: Final = (
    ("perplexity", "perplexity"),
    ("times the teacher's", "perplexity_ratio"),
    ("nats a token", "nll_nats_per_token"),
    ("nats a byte", "nll_nats_per_byte"),
    ("agrees with teacher", "agreement"),
)


def render(story: Story) -> str:
    """Return the whole page."""
    title, name = headline(story), focus(story)
    perplexities = [f"{value_of(overall(story, n, MAIN_SET, 'perplexity'), 'value'):.2f}" for n in (name, "teacher")]
    fact = (f"Perplexity on {MAIN_SET}", perplexities[0], perplexities[1])
    sections = [
        header(story, title, fact, "A further token"),
        _rounds(story),
        _random_starts(story),
        verdicts(story),
        curves(story, "validation_nll_nats_per_token", "validation nats a token", min),
        origin(story),
    ]
    return document(f"{story['name']}: {title}", sections)


def headline(story: Story) -> str:
    """Return the verdict in one sentence."""
    chosen = story["selection"]["selected"]
    if chosen is None:
        return refusal(story)
    smaller = ratio(cost_of(story, "teacher", "params_total"), cost_of(story, chosen, "params_total"))
    times = value_of(overall(story, chosen, MAIN_SET, "perplexity_ratio"), "value")
    return (
        f"{chosen} is {smaller or 1.0:.1f} times smaller than its teacher, at {times or 0.0:.2f} times its perplexity "
        f"on {MAIN_SET}."
    )


def _rounds(story: Story) -> Markup:
    names = names_of(story)
    rows: list[Row] = [["cost"], *cost_rows(story, COSTS)]
    for batch in batches_of(story, "torch"):
        latencies, speeds = (
            [cost_of(story, name, "latency", "torch", batch, key) for name in names]
            for key in ("latency_ms_p50", "tokens_per_second")
        )
        label = Cell(f"latency of a further token, batch {batch}", "median, with key-value cache")
        rows.append([label, *map(milliseconds, latencies)])
        rows.append([f"tokens a second, batch {batch}", *map(count, speeds)])
    for set_name in story["models"]["teacher"]["quality"]["sets"]:
        rows += _quality_rows(story, set_name, names)
    caption = (
        "Small print: bootstrap intervals over blocks. Perplexities are per token of the teacher's, for every round."
    )
    return rounds_section(story, caption, rows)


def _quality_rows(story: Story, set_name: str, names: list[str]) -> list[Row]:
    rows: list[Row] = [[f"{set_name}, {overall(story, 'teacher', set_name, 'support'):,} blocks"]]
    rows += [[words, *[interval(overall(story, name, set_name, key)) for name in names]] for words, key in QUALITY]
    place = ("sets", set_name, "variants", "greedy", "repetition_rate")
    sampled = [value_of(story["models"][name]["quality"], *place) for name in names]
    return [*rows, ["repeats itself, greedily continued", *map(interval, sampled)]] if any(sampled) else rows


def _random_starts(story: Story) -> Markup:
    rows: list[Row] = [
        [
            Cell(name, set_name),
            interval(overall(story, name, set_name, "perplexity")),
            interval(overall_of(quality, set_name, "perplexity")),
        ]
        for name, quality in story["random_init"].items()
        for set_name in quality["sets"]
    ]
    if not rows:
        return Markup()
    caption = "The same shape and budget of distillation, from the pruned teacher and from random weights."
    return tables_section("What the pruning is worth", Table(caption, ["perplexity", "pruned", "random start"], rows))
