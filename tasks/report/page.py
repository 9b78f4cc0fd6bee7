"""The report as one HTML page that asks for nothing else: plain values in, a string out, the same for the same values.

A story has: name, rounds (names in order), models (teacher and rounds: quality, cost, verdict, steps, summary), rivals,
selection, validation, data, receipts (may be empty), seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tasks.report import classification as page_details
from tasks.report import classification as page_search
from tasks.report.charts import Point, front
from tasks.report.parts import (
    STYLE,
    count,
    interval,
    milliseconds,
    percent,
    ratio,
    rule_list,
    share,
    size,
    table,
    text,
    value_of,
    verdict_mark,
    zeros,
)

Story = Mapping[str, Any]
MAIN_SET: Final = "test"
RIVAL: Final = "tfidf_logistic"
_TIMES: Final = "\N{MULTIPLICATION SIGN}"


def render(story: Story) -> str:
    """Return the whole page."""
    title = headline(story)
    name, sets = focus(story), set_names(story)
    sections = [
        _front(story),
        _rounds(story),
        page_search.searches(story),
        verdicts(story),
        page_details.slices(story, name),
        page_details.rivals(story, name, sets),
        page_details.int8(story, MAIN_SET),
        page_details.curves(story),
        page_details.origin(story),
    ]
    return document(story["name"], title, _header(story, title) + "".join(sections))


def document(name: str, title: str, body: str) -> str:
    """Return an HTML document around the parts of a page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(name)}: {text(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style></head>\n<body><main>\n{body}"
        "</main></body></html>\n"
    )


def headline(story: Story) -> str:
    """Return the verdict in one sentence."""
    chosen = story["selection"]["selected"]
    if chosen is None:
        verdicts = [f"{name} is {STATE[story['models'][name]['verdict']['verdict']]}" for name in story["rounds"]]
        return f"No round may be promoted: {joined(verdicts)}."
    smaller = ratio(_cost(story, "teacher", "params_total"), _cost(story, chosen, "params_total"))
    kept = ratio(_accuracy(story, chosen), _accuracy(story, "teacher"))
    size_words = f"is {smaller:.1f} times smaller than its teacher" if smaller else "passes its gates"
    kept_words = f" and keeps {percent(kept)} of its accuracy on {MAIN_SET}" if kept else ""
    return f"{chosen} {size_words}{kept_words}."


def focus(story: Story) -> str:
    """Return the round the details are about: the selected one, else the last."""
    return str(story["selection"]["selected"] or story["rounds"][-1])


def set_names(story: Story) -> list[str]:
    """Return the evaluation sets, test first and validation last."""
    names = story["models"]["teacher"]["quality"]["sets"]
    return sorted(names, key=lambda name: (name == "validation", name != MAIN_SET, name))


STATE: Final = {"pass": "ready", "fail": "refused by a gate", "hold": "undecided"}


def joined(parts: list[str]) -> str:
    """Return parts of a sentence as people list them."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _cost(story: Story, model: str, *keys: str) -> float | None:
    found: float | None = value_of(story["models"][model]["cost"], *keys)
    return found


def _overall(story: Story, model: str, set_name: str, metric: str) -> Mapping[str, float] | None:
    found: Mapping[str, float] | None = value_of(
        story["models"][model]["quality"], "sets", set_name, "slices", "overall", metric
    )
    return found


def _accuracy(story: Story, model: str) -> float | None:
    found: float | None = value_of(_overall(story, model, MAIN_SET, "accuracy"), "value")
    return found


def _header(story: Story, title: str) -> str:
    name = focus(story)
    verdict = story["models"][name]["verdict"]
    facts = [
        ("Parameters", count(_cost(story, name, "params_total")), count(_cost(story, "teacher", "params_total"))),
        ("Weights", size(_cost(story, name, "size_bytes")), size(_cost(story, "teacher", "size_bytes"))),
        (f"Accuracy on {MAIN_SET}", share(_accuracy(story, name)), share(_accuracy(story, "teacher"))),
        (
            "Latency, batch 1",
            milliseconds(_cost(story, name, "latency", "torch", "1", "latency_ms_p50")),
            milliseconds(_cost(story, name, "latency", "torch", "1", "teacher_latency_ms_p50")),
        ),
    ]
    items = "".join(f"<div><dt>{a}</dt><dd>{b}<small>teacher {c}</small></dd></div>" for a, b, c in facts)
    return (
        f'<header><p class="kicker">{text(story["name"])} · compression report</p><h1>{text(title)}</h1>\n'
        f"<p>{verdict_mark(verdict['verdict'])} {text(name)}: {text(verdict.get('sentence', ''))}. "
        f'{text(story["selection"]["sentence"])}.</p>\n<dl class="facts">{items}</dl></header>\n'
    )


def _front(story: Story) -> str:
    points = []
    for name in ("teacher", *story["rounds"]):
        accuracy, params = _overall(story, name, MAIN_SET, "accuracy"), _cost(story, name, "params_total")
        if accuracy is None or not params:
            continue
        int8 = value_of(story["models"][name]["quality"], "sets", MAIN_SET, "variants", "onnx_int8", "accuracy")
        kind = "teacher" if name == "teacher" else "chosen" if name == story["selection"]["selected"] else "round"
        points.append(
            Point(
                name,
                params,
                accuracy["value"],
                accuracy["low"],
                accuracy["high"],
                _cost(story, name, "latency", "torch", "1", "latency_ms_p50"),
                (int8["value"], int8["low"], int8["high"]) if int8 else None,
                kind,
            )
        )
    rival = value_of(story["rivals"], RIVAL, "sets", MAIN_SET, "slices", "overall", "accuracy", "value")
    line = ("TF-IDF + logistic regression", rival) if rival is not None else None
    if not points:
        return ""
    level = percent(value_of(story["models"]["teacher"]["quality"], "confidence")).replace(".0", "")
    return (
        "<section><h2>Size, quality and latency</h2>\n"
        f'<figure><div class="wide">{front(points, line, 980, MAIN_SET)}</div>'
        f'<div class="narrow">{front(points, line, 358, MAIN_SET)}</div>'
        "<figcaption>Up and to the left is better. The area of a circle is the median latency at batch 1; a diamond is "
        f"the same model in ONNX Runtime with dynamic int8 (as many parameters, fewer bytes). Whiskers are {level} "
        "bootstrap intervals over the rows.</figcaption></figure></section>\n"
    )


def _rounds(story: Story) -> str:
    names = ["teacher", *story["rounds"]]
    chosen = story["selection"]["selected"]
    header = ["", *[f"{text(n)}{'<small>selected</small>' if n == chosen else ''}" for n in names]]
    rows: list[list[str]] = [["verdict", *[verdict_cell(story, name) for name in names]], ["size"]]
    for words, key, form in (
        ("parameters", "params_total", count),
        ("not in embeddings", "params_non_embedding", count),
        ("weights", "size_bytes", size),
        ("ONNX", "size_bytes_onnx", size),
        ("ONNX int8", "size_bytes_onnx_int8", size),
    ):
        rows.append([words, *[_against(story, name, form, key) for name in names]])
    if any("sparsity" in story["models"][name]["cost"] for name in names):
        rows.append(["weights at zero", *[zeros(story["models"][name]["cost"]) for name in names]])
    rows.append(["cost of an answer"])
    rows.append(["FLOPs an example", *[_against(story, name, count, "flops_per_example") for name in names]])
    for kind, words in (("torch", "PyTorch"), ("onnx", "ONNX"), ("onnx_int8", "ONNX int8")):
        for batch in sorted(value_of(story["models"]["teacher"]["cost"], "latency", kind) or (), key=int):
            label = f"latency, batch {text(batch)}<small>{words}, median</small>"
            rows.append([label, *[_latency_cell(story, name, kind, batch) for name in names]])
    for set_name in set_names(story):
        rows += _quality_rows(story, set_name, names)
    threads = _cost(story, "teacher", "threads")
    note = f", latency on {threads:g} thread{'s' if threads != 1 else ''}" if threads else ""
    return (
        "<section><h2>Teacher and rounds</h2>\n"
        + table(f"Small print: intervals, and the ratio to the teacher{note}.", header, rows)
        + "</section>\n"
    )


def verdict_cell(story: Story, name: str) -> str:
    """Return the verdict on a round; the teacher is judged by nobody."""
    return (
        "<small>the reference</small>"
        if name == "teacher"
        else verdict_mark(story["models"][name]["verdict"]["verdict"])
    )


def _against(story: Story, name: str, form: Any, key: str) -> str:
    mine, theirs = _cost(story, name, key), _cost(story, "teacher", key)
    factor = ratio(theirs, mine)
    times = f"<small>{factor:.1f}{_TIMES} less</small>" if factor and name != "teacher" else ""
    return f"{form(mine)}{times}"


def _latency_cell(story: Story, name: str, kind: str, batch: str) -> str:
    mine, ratio_p50 = (_cost(story, name, "latency", kind, batch, key) for key in ("latency_ms_p50", "ratio_p50"))
    times = f"<small>{1 / ratio_p50:.1f}{_TIMES} faster</small>" if ratio_p50 and name != "teacher" else ""
    return f"{milliseconds(mine)}{times}"


def _quality_rows(story: Story, set_name: str, names: list[str]) -> list[list[str]]:
    rows = value_of(story["models"]["teacher"]["quality"], "sets", set_name, "rows")
    found = [[f"{text(set_name)}, {rows:,} rows" if rows is not None else text(set_name)]]
    found.append(["accuracy", *[interval(_overall(story, name, set_name, "accuracy")) for name in names]])
    reference = value_of(_overall(story, "teacher", set_name, "accuracy"), "value")
    kept = [percent(ratio(value_of(_overall(story, n, set_name, "accuracy"), "value"), reference)) for n in names]
    found.append(["of the teacher's", *kept])
    for metric, words in (("agreement", "agrees with teacher"), ("calibration_error", "calibration error")):
        found.append([words, *[interval(_overall(story, name, set_name, metric)) for name in names]])
    return found


def verdicts(story: Story) -> str:
    """Return what came of every rule, round by round."""
    parts = ["<section><h2>Verdicts, rule by rule</h2>\n"]
    for name in story["rounds"]:
        verdict = story["models"][name]["verdict"]
        parts.append(f"<h3>{text(name)}: {verdict_mark(verdict['verdict'])}</h3>{rule_list(verdict['rules'])}\n")
    return "".join([*parts, "</section>\n"])
