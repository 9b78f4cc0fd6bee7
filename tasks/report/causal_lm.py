"""The report of a language model as one HTML page: plain values in, a string out, the same for the same values.

A story has what `tasks.report.page` has, without rivals; `random_init` holds quality.json of rounds from random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.report import classification as page_details
from tasks.report.charts import curve, thinned
from tasks.report.page import STATE, document, joined, verdict_cell, verdicts
from tasks.report.parts import NOTHING, count, interval, milliseconds, ratio, size, table, text, value_of, verdict_mark

Story = Mapping[str, Any]
MAIN_SET: Final = "test"
_COSTS: Final = (
    ("parameters", "params_total", count),
    ("not in embeddings", "params_non_embedding", count),
    ("weights", "size_bytes", size),
    ("FLOPs a token", "flops_per_token", count),
    ("peak memory of a forward pass", "peak_memory_bytes", size),
)
_QUALITY: Final = (
    ("perplexity", "perplexity"),
    ("times the teacher's", "perplexity_ratio"),
    ("nats a token", "nll_nats_per_token"),
    ("nats a byte", "nll_nats_per_byte"),
    ("agrees with teacher", "agreement"),
)


def render(story: Story) -> str:
    """Return the whole page."""
    title = headline(story)
    sections = [_rounds(story), _random_starts(story), verdicts(story), _curves(story), page_details.origin(story)]
    return document(story["name"], title, _header(story, title) + "".join(sections))


def headline(story: Story) -> str:
    """Return the verdict in one sentence."""
    chosen = story["selection"]["selected"]
    if chosen is None:
        states = [f"{name} is {STATE[story['models'][name]['verdict']['verdict']]}" for name in story["rounds"]]
        return f"No round may be promoted: {joined(states)}."
    smaller = ratio(_cost(story, "teacher", "params_total"), _cost(story, chosen, "params_total"))
    times = value_of(_overall(story, chosen, MAIN_SET), "perplexity_ratio", "value")
    return (
        f"{chosen} is {smaller or 1.0:.1f} times smaller than its teacher, at {times or 0.0:.2f} times its perplexity "
        f"on {MAIN_SET}."
    )


def _overall(story: Story, model: str, set_name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = story["models"][model]["quality"]["sets"][set_name]["slices"]["overall"]
    return found


def _cost(story: Story, model: str, *keys: str) -> float | None:
    found: float | None = value_of(story["models"][model]["cost"], *keys)
    return found


def _header(story: Story, title: str) -> str:
    name = str(story["selection"]["selected"] or story["rounds"][-1])
    verdict = story["models"][name]["verdict"]
    facts = [
        ("Parameters", *[count(_cost(story, one, "params_total")) for one in (name, "teacher")]),
        ("Weights", *[size(_cost(story, one, "size_bytes")) for one in (name, "teacher")]),
        (
            f"Perplexity on {MAIN_SET}",
            *[f"{_overall(story, one, MAIN_SET)['perplexity']['value']:.2f}" for one in (name, "teacher")],
        ),
        (
            "A further token",
            milliseconds(_cost(story, name, "latency", "torch", "1", "latency_ms_p50")),
            milliseconds(_cost(story, name, "latency", "torch", "1", "teacher_latency_ms_p50")),
        ),
    ]
    items = "".join(f"<div><dt>{a}</dt><dd>{b}<small>teacher {c}</small></dd></div>" for a, b, c in facts)
    return (
        f'<header><p class="kicker">{text(story["name"])} · compression report</p><h1>{text(title)}</h1>\n'
        f"<p>{verdict_mark(verdict['verdict'])} {text(name)}: {text(verdict.get('sentence', ''))}. "
        f"{text(story['selection']['num_candidates'])} rounds were judged; the choice is the "
        f'{text(story["selection"]["rule"])}.</p>\n<dl class="facts">{items}</dl></header>\n'
    )


def _rounds(story: Story) -> str:
    names = ["teacher", *story["rounds"]]
    chosen = story["selection"]["selected"]
    header = ["", *[f"{text(n)}{'<small>selected</small>' if n == chosen else ''}" for n in names]]
    rows: list[list[str]] = [["verdict", *[verdict_cell(story, name) for name in names]], ["cost"]]
    for words, key, form in _COSTS:
        rows.append([words, *[form(_cost(story, name, key)) for name in names]])
    for batch in sorted(value_of(story["models"]["teacher"]["cost"], "latency", "torch") or (), key=int):
        label = f"latency of a further token, batch {text(batch)}<small>median, with key-value cache</small>"
        cells = [milliseconds(_cost(story, n, "latency", "torch", batch, "latency_ms_p50")) for n in names]
        rows.append([label, *cells])
        speeds = [_cost(story, n, "latency", "torch", batch, "tokens_per_second") for n in names]
        rows.append([f"tokens a second, batch {text(batch)}", *[count(speed) for speed in speeds]])
    for set_name in story["models"]["teacher"]["quality"]["sets"]:
        rows += _quality_rows(story, set_name, names)
    caption = (
        "Small print: bootstrap intervals over blocks. Perplexities are per token of the teacher's, for every round."
    )
    return f"<section><h2>Teacher and rounds</h2>\n{table(caption, header, rows)}</section>\n"


def _quality_rows(story: Story, set_name: str, names: list[str]) -> list[list[str]]:
    blocks = _overall(story, "teacher", set_name)["support"]
    rows = [[f"{text(set_name)}, {blocks:,} blocks"]]
    rows += [[words, *[interval(_overall(story, name, set_name)[key]) for name in names]] for words, key in _QUALITY]
    sampled = [
        value_of(story["models"][name]["quality"], "sets", set_name, "variants", "greedy", "repetition_rate")
        for name in names
    ]
    if any(sampled):
        rows.append(["repeats itself, greedily continued", *[interval(rate) for rate in sampled]])
    return rows


def _random_starts(story: Story) -> str:
    rows = []
    for name, quality in story["random_init"].items():
        for set_name, found in quality["sets"].items():
            mine = _overall(story, name, set_name)["perplexity"]
            theirs = found["slices"]["overall"]["perplexity"]
            rows.append([f"{text(name)}<small>{text(set_name)}</small>", interval(mine), interval(theirs)])
    if not rows:
        return ""
    caption = "The same shape and budget of distillation, from the pruned teacher and from random weights."
    return (
        "<section><h2>What the pruning is worth</h2>\n"
        + table(caption, ["perplexity", "pruned", "random start"], rows)
        + "</section>\n"
    )


def _curves(story: Story) -> str:
    panels = []
    for name in ("teacher", *story["rounds"]):
        steps = story["models"][name]["steps"]
        key = "validation_nll_nats_per_token"
        loss = thinned([(float(one["step"]), float(one["loss"])) for one in steps if "loss" in one])
        nll = [(float(one["step"]), float(one[key])) for one in steps if key in one]
        best = value_of(story["models"][name]["summary"], "best_checkpoint") or NOTHING
        chart = curve(name, loss, nll, "validation nats a token", min)
        panels.append(f'<figure><h3>{text(name)} <span class="note">kept {text(best)}</span></h3>{chart}</figure>')
    return f'<section><h2>Training</h2><div class="panels">{"".join(panels)}</div></section>\n'
