"""The report of a language model."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from tasks.report import page
from tasks.report.page import MAIN_SET
from tasks.report.parts import Cell, Row, Table, count, interval, milliseconds, size, tables_section
from tasks.report.story import Story, value_of

COSTS: Final[page.Costs] = (
    ("parameters", "params_total", count),
    ("not in embeddings", "params_non_embedding", count),
    ("weights", "size_bytes", size),
    ("FLOPs a token", "flops_per_token", count),
    ("peak memory of a forward pass", "peak_memory_bytes", size),
)
QUALITY: Final = {
    "perplexity": "perplexity",
    "times the teacher's": "perplexity_ratio",
    "nats a token": "nll_nats_per_token",
    "nats a byte": "nll_nats_per_byte",
    "agrees with teacher": "agreement",
}
WHOLE: Final = ("slices", "overall")
GREEDY: Final = ("variants", "greedy")


def render(story: Story) -> str:
    """Return the whole page."""
    title = headline(story)
    student, teacher = (f"{story.overall(name, MAIN_SET, 'perplexity'):.2f}" for name in (story.focus, "teacher"))
    sections = [
        page.header(story, title, (f"Perplexity on {MAIN_SET}", student, teacher), "A further token"),
        _rounds(story),
        _random_starts(story),
        page.verdicts(story),
        page.curves(story.models, "validation_nll_nats_per_token", "validation nats a token", min),
        page.data_checks(story),
        page.origin(story),
    ]
    return page.document(f"{story.name}: {title}", sections)


def headline(story: Story) -> str:
    """Return the verdict in one sentence."""
    chosen = story.selection["selected"]
    if chosen is None:
        return page.refusal(story)
    smaller, times = story.times_less(chosen, "params_total"), story.overall(chosen, MAIN_SET, "perplexity_ratio")
    return (
        f"{chosen} is {smaller or 1.0:.1f} times smaller than its teacher, at {times or 0.0:.2f} times its perplexity "
        f"on {MAIN_SET}."
    )


def _rounds(story: Story) -> Markup:
    rows: list[Row] = [["cost"], *page.cost_rows(story, COSTS)]
    for batch in page.batches_of(story, "torch"):
        latencies, speeds = (
            [story.cost(name, "latency", "torch", batch, key) for name in story.models]
            for key in ("latency_ms_p50", "tokens_per_second")
        )
        label = Cell(f"latency of a further token, batch {batch}", "median, with key-value cache")
        rows.append([label, *map(milliseconds, latencies)])
        rows.append([f"tokens a second, batch {batch}", *map(count, speeds)])
    for set_name, entry in story.models["teacher"]["quality"]["sets"].items():
        rows += [[f"{set_name}, {entry['slices']['overall']['support']:,} blocks"]]
        rows += page.metric_rows(story, set_name, WHOLE, QUALITY)
        if any(story.measured(name, set_name, *GREEDY) for name in story.models):
            rows += page.metric_rows(story, set_name, GREEDY, {"repeats itself, greedily continued": "repetition_rate"})
    caption = "Small print: bootstrap intervals over blocks. Perplexities are per token of the teacher's, for every round."
    return page.rounds_section(story, caption, rows)


def _random_starts(story: Story) -> Markup:
    rows: list[Row] = [
        [
            Cell(name, set_name),
            interval(story.measured(name, set_name, *WHOLE, "perplexity")),
            interval(value_of(entry, *WHOLE, "perplexity")),
        ]
        for name, quality in story.random_init.items()
        for set_name, entry in quality["sets"].items()
    ]
    if not rows:
        return Markup()
    caption = "The same shape and budget of distillation, from the pruned teacher and from random weights."
    return tables_section("What the pruning is worth", Table(caption, ["perplexity", "pruned", "random start"], rows))
