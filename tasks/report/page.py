"""What the reports of both tasks share. A page asks for nothing else, and the same values make the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from tasks.report.charts import curve, thinned
from tasks.report.parts import NOTHING, Cell, Row, Table, count, filled, interval, milliseconds, size, tables_section
from tasks.report.story import ModelRecord, Story, value_of

MAIN_SET: Final = "test"
STATE: Final = {"pass": "ready", "fail": "refused by a gate", "hold": "undecided"}
PACKAGES: Final = ("torch", "transformers", "onnxruntime", "scikit-learn", "numpy", "dvc", "mlflow", "prefect")
Costs = Sequence[tuple[str, str, Callable[[float | None], str]]]  # words, key of cost.json, how it is written
FACTS: Final[Costs] = (("Parameters", "params_total", count), ("Weights", "size_bytes", size))


def document(title: str, sections: Sequence[Markup]) -> str:
    """Return an HTML document of these sections."""
    return str(filled("page.html.j2", title=title, sections=sections))


def refusal(story: Story) -> str:
    """Return in a sentence what became of the rounds where none was selected."""
    states = [f"{name} is {STATE[verdict['verdict']]}" for name, verdict in story.verdicts.items()]
    listed = states[0] if len(states) == 1 else f"{', '.join(states[:-1])} and {states[-1]}"
    return f"No round may be promoted: {listed}."


def header(story: Story, title: str, quality: tuple[str, str, str], latency: str) -> Markup:
    """Return the head of the page; `quality` is a fact of its own: words, the round's number, the teacher's."""
    name, selection = story.focus, story.selection
    facts = [(words, *[form(story.cost(model, key)) for model in (name, "teacher")]) for words, key, form in FACTS]
    keys = ("latency_ms_p50", "teacher_latency_ms_p50")
    facts += [quality, (latency, *[milliseconds(story.cost(name, "latency", "torch", "1", key)) for key in keys])]
    choice = selection.get("sentence") or (
        f"{selection['num_candidates']} rounds were judged; the choice is the {selection['rule']}"
    )
    values = {"name": story.name, "title": title, "round": name, "verdict": story.verdicts[name], "choice": choice}
    return filled("header.html.j2", facts=facts, **values)


def rounds_section(story: Story, caption: str, rows: Sequence[Row]) -> Markup:
    """Return the table of all models, their verdicts in its first row."""
    chosen = story.selection["selected"]
    marks = [Cell(verdict["verdict"], kind="mark") for verdict in story.verdicts.values()]
    header: Row = ["", *[Cell(name, "selected" if name == chosen else "") for name in story.models]]
    first: Row = ["verdict", Cell("", "the reference"), *marks]
    return tables_section("Teacher and rounds", Table(caption, header, [first, *rows]))


def cost_rows(story: Story, costs: Costs) -> list[Row]:
    """Return a row for each key of cost.json, with how much less it is than the teacher's."""

    def cell(name: str, key: str, form: Callable[[float | None], str]) -> Cell:
        times = story.times_less(name, key) if name != "teacher" else None
        return Cell(form(story.cost(name, key)), f"{times:.1f}\N{MULTIPLICATION SIGN} less" if times else "")

    return [[words, *[cell(name, key, form) for name in story.models]] for words, key, form in costs]


def metric_rows(story: Story, set_name: str, place: Sequence[str], metrics: Mapping[str, str]) -> list[Row]:
    """Return a row for each metric (words -> key) with its interval at a place of a set of quality.json."""
    return [
        [words, *[interval(story.measured(name, set_name, *place, key)) for name in story.models]]
        for words, key in metrics.items()
    ]


def batches_of(story: Story, kind: str) -> list[str]:
    """Return the batch sizes at which latency was taken in a format."""
    return sorted(value_of(story.models["teacher"]["cost"], "latency", kind) or (), key=int)


def verdicts(story: Story) -> Markup:
    """Return what came of every rule, round by round."""
    return filled("verdicts.html.j2", verdicts=story.verdicts)


def curves(
    models: Mapping[str, ModelRecord],
    metric: str = "validation_accuracy",
    words: str = "validation accuracy",
    best_of: Callable[[Iterable[float]], float] = max,
) -> Markup:
    """Return a panel a model with its loss and what was measured on validation over the steps."""
    panels = []
    for name, model in models.items():
        loss, measured = (
            [(float(step["step"]), float(step[key])) for step in model["steps"] if key in step] for key in ("loss", metric)
        )
        chart = curve(name, thinned(loss), measured, words, best_of)
        kept = value_of(model["summary"], "best_checkpoint") or NOTHING
        panels.append({"name": name, "kept": kept, "chart": chart, "note": _by_heart(model["steps"])})
    return filled("curves.html.j2", panels=panels)


def _by_heart(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return how near to its teacher the last checkpoint was on validation, and on rows that it trained on."""
    last = next((step for step in reversed(steps) if "learnt_kl_nats_per_example" in step), None)
    if last is None:
        return ""
    validation, learnt = (last[f"{rows}_kl_nats_per_example"] for rows in ("validation", "learnt"))
    return f"KL to the teacher {validation:.3f} on validation, {learnt:.3f} on rows it learnt from"


def data_checks(story: Story) -> Markup:
    """Return every expectation of the data with what was asked and what was seen."""
    rows: list[Row] = []
    for check in story.validation["expectations"]:
        asked = ", ".join(f"{key.replace('_', ' ')} {_listed(value)}" for key, value in sorted(check["arguments"].items()))
        seen: list[str | Cell] = [
            f"{check['observed']['unexpected_count']:,} of {check['observed']['element_count']:,} unexpected"
            if "unexpected_count" in check["observed"]
            else _listed(check["observed"].get("observed_value", NOTHING)),
            Cell("pass" if check["success"] else "fail", kind="mark"),
        ]
        what = check["expectation"].removeprefix("expect_").replace("_", " ")
        rows.append([check["name"].replace("_", " "), check["suite"], Cell(what, asked), *seen])
    caption = "What Great Expectations was asked of the data before anything was trained on them"
    return tables_section(
        "Checks of the data", Table(caption, ["check", "of", "expected", "seen", "result"], rows, numbers_from=9)
    )


def _listed(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_listed, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def origin(story: Story) -> Markup:
    """Return where each thing came from: data, models, code, environment, and each stage's receipt.

    Several commits or versions are all shown, for stages may come from different ones.
    """
    receipts = story.receipts
    versions = {
        package: sorted({v for each in receipts if (v := value_of(each, "environment", "packages", package))})
        for package in PACKAGES
    }
    return filled(
        "origin.html.j2",
        validation=story.validation,
        seed=story.seed,
        weights={name: value_of(model["quality"], "model_sha256") for name, model in story.models.items()},
        commits=sorted({(r["git"]["commit"], r["git"]["dirty"]) for r in receipts if value_of(r, "git", "commit")}),
        systems=sorted({f"Python {r['environment']['python']}, {r['environment']['platform']}" for r in receipts}),
        versions=versions,
        sets=_sets_table(story.validation, story.data),
        receipts=_receipts_table(receipts),
    )


def _sets_table(validation: Mapping[str, Any], data: Mapping[str, Any]) -> Table:
    rows = []
    for name, entry in sorted(validation["sets"].items(), key=lambda item: -item[1]["rows"]):
        classes = ", ".join(f"{label} {number:,}" for label, number in entry["classes"].items()) or "no labels"
        tokens = value_of(data, "sets", name, "tokens")
        counts = [f"{entry['rows']:,}", f"{tokens:,}" if tokens is not None else NOTHING]
        rows.append([name, ", ".join(entry["sources"]), classes, *counts])
    return Table("Sets of the data", ["set", "sources", "classes", "rows", "tokens"], rows, numbers_from=3)


def _receipts_table(receipts: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            receipt["stage"],
            receipt["started_at"],
            *[f"{receipt[key]:,.1f} s" for key in ("compute_seconds", "startup_seconds")],
            size(receipt.get("peak_memory_bytes")),
            *[receipt.get(key) or NOTHING for key in ("device", "precision")],
            Cell((value_of(receipt, "git", "commit") or NOTHING)[:10], kind="code"),
        ]
        for receipt in sorted(receipts, key=lambda receipt: (receipt["started_at"], receipt["stage"]))
    ]
    if not rows:
        return Table("No receipts were given, so there are no times and no commits here.", [], [])
    header = ["stage", "started", "work", "start-up", "peak memory", "device", "precision", "commit"]
    return Table("Receipts: what each stage of this result took, whenever it ran", header, rows)
