"""What the reports of both tasks share. A page asks for nothing else, and the same values make the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from markupsafe import Markup

from tasks.artifacts import Cost, Quality, Verdict
from tasks.report.charts import curve, thinned
from tasks.report.parts import (
    NOTHING,
    Cell,
    Row,
    Table,
    count,
    filled,
    milliseconds,
    ratio,
    size,
    tables_section,
    value_of,
)

MAIN_SET: Final = "test"
STATE: Final = {"pass": "ready", "fail": "refused by a gate", "hold": "undecided"}
PACKAGES: Final = ("torch", "transformers", "onnxruntime", "scikit-learn", "numpy", "dvc", "mlflow", "prefect")
Form = Callable[[float | None], str]


class ModelRecord(TypedDict):
    """What is known of the teacher or a round; the teacher has no verdict, and `search` has who searched for its shape."""

    quality: Quality
    cost: Cost
    summary: dict[str, Any]
    steps: list[dict[str, Any]]
    verdict: Verdict
    search: dict[str, Any] | None


class Story(TypedDict):
    """What a report tells: rounds in order, models by name; `random_init` is of rounds trained from random weights too."""

    name: str
    seed: int
    rounds: list[str]
    models: dict[str, ModelRecord]
    rivals: dict[str, Any]
    random_init: dict[str, Quality]
    selection: dict[str, Any]
    validation: dict[str, Any]
    data: dict[str, Any]
    receipts: list[dict[str, Any]]


def document(title: str, sections: Sequence[Markup]) -> str:
    """Return an HTML document of these sections."""
    return str(filled("page.html.j2", title=title, sections=sections))


def names_of(story: Story) -> list[str]:
    """Return the teacher and the rounds."""
    return ["teacher", *story["rounds"]]


def focus(story: Story) -> str:
    """Return the round the details are about: the selected one, else the last."""
    return str(story["selection"]["selected"] or story["rounds"][-1])


def cost_of(story: Story, model: str, *keys: str) -> float | None:
    """Return a number of a model's cost.json, None where it has none."""
    number: float | None = value_of(story["models"][model]["cost"], *keys)
    return number


def overall(story: Story, model: str, set_name: str, metric: str) -> Mapping[str, float] | None:
    """Return the interval of a metric over a whole set."""
    return overall_of(story["models"][model]["quality"], set_name, metric)


def overall_of(quality: Mapping[str, Any], set_name: str, metric: str) -> Mapping[str, float] | None:
    """Return the interval of a metric over a whole set, from quality.json."""
    measured: Mapping[str, float] | None = value_of(quality, "sets", set_name, "slices", "overall", metric)
    return measured


def refusal(story: Story) -> str:
    """Return in a sentence what became of the rounds where none was selected."""
    states = [f"{name} is {STATE[story['models'][name]['verdict']['verdict']]}" for name in story["rounds"]]
    listed = states[0] if len(states) == 1 else f"{', '.join(states[:-1])} and {states[-1]}"
    return f"No round may be promoted: {listed}."


def header(story: Story, title: str, quality: tuple[str, str, str], latency: str) -> Markup:
    """Return the head of the page; `quality` is a fact of its own: words, the round's number, the teacher's."""
    name, selection = focus(story), story["selection"]
    facts = [
        (words, form(cost_of(story, name, key)), form(cost_of(story, "teacher", key))) for words, key, form in FACTS
    ]
    median = [
        milliseconds(cost_of(story, name, "latency", "torch", "1", key))
        for key in ("latency_ms_p50", "teacher_latency_ms_p50")
    ]
    choice = selection.get("sentence") or (
        f"{selection['num_candidates']} rounds were judged; the choice is the {selection['rule']}"
    )
    return filled(
        "header.html.j2",
        name=story["name"],
        title=title,
        round=name,
        verdict=story["models"][name]["verdict"],
        choice=choice,
        facts=[*facts, quality, (latency, *median)],
    )


FACTS: Final[Sequence[tuple[str, str, Form]]] = (("Parameters", "params_total", count), ("Weights", "size_bytes", size))


def rounds_section(story: Story, caption: str, rows: Sequence[Row]) -> Markup:
    """Return the table of all models, their verdicts in its first row."""
    names, chosen = names_of(story), story["selection"]["selected"]
    header: Row = ["", *[Cell(name, "selected" if name == chosen else "") for name in names]]
    marks = [Cell(story["models"][name]["verdict"]["verdict"], kind="mark") for name in story["rounds"]]
    return tables_section(
        "Teacher and rounds", Table(caption, header, [["verdict", Cell("", "the reference"), *marks], *rows])
    )


def cost_rows(story: Story, costs: Iterable[tuple[str, str, Form]]) -> list[Row]:
    """Return a row for each key of cost.json, with how much less it is than the teacher's."""
    return [[words, *[_against(story, name, key, form) for name in names_of(story)]] for words, key, form in costs]


def _against(story: Story, name: str, key: str, form: Form) -> Cell:
    number = cost_of(story, name, key)
    factor = ratio(cost_of(story, "teacher", key), number)
    return Cell(form(number), f"{factor:.1f}\N{MULTIPLICATION SIGN} less" if factor and name != "teacher" else "")


def batches_of(story: Story, kind: str) -> list[str]:
    """Return the batch sizes at which latency was taken in a format."""
    return sorted(value_of(story["models"]["teacher"]["cost"], "latency", kind) or (), key=int)


def verdicts(story: Story) -> Markup:
    """Return what came of every rule, round by round."""
    return filled("verdicts.html.j2", verdicts={name: story["models"][name]["verdict"] for name in story["rounds"]})


def curves(
    story: Story,
    metric: str = "validation_accuracy",
    words: str = "validation accuracy",
    best_of: Callable[[Iterable[float]], float] = max,
) -> Markup:
    """Return a panel a model with its loss and what was measured on validation over the steps."""
    panels = []
    for name in names_of(story):
        steps = story["models"][name]["steps"]
        loss, measured = (
            [(float(step["step"]), float(step[key])) for step in steps if key in step] for key in ("loss", metric)
        )
        panels.append(
            {
                "name": name,
                "kept": value_of(story["models"][name]["summary"], "best_checkpoint") or NOTHING,
                "chart": curve(name, thinned(loss), measured, words, best_of),
                "note": _by_heart(steps),
            }
        )
    return filled("curves.html.j2", panels=panels)


def _by_heart(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return how near to its teacher the last checkpoint was on validation, and on rows that it trained on."""
    last = next((step for step in reversed(steps) if "learnt_kl_nats_per_example" in step), None)
    if last is None:
        return ""
    validation, learnt = (last[f"{rows}_kl_nats_per_example"] for rows in ("validation", "learnt"))
    return f"KL to the teacher {validation:.3f} on validation, {learnt:.3f} on rows it learnt from"


def origin(story: Story) -> Markup:
    """Return where each thing came from: data, models, code, environment, and each stage's receipt.

    Several commits or versions are all shown, for stages may come from different ones.
    """
    receipts = story["receipts"]
    versions = {
        package: sorted({v for each in receipts if (v := value_of(each, "environment", "packages", package))})
        for package in PACKAGES
    }
    return filled(
        "origin.html.j2",
        validation=story["validation"],
        seed=story["seed"],
        weights={name: value_of(story["models"][name]["quality"], "model_sha256") for name in names_of(story)},
        commits=sorted({(r["git"]["commit"], r["git"]["dirty"]) for r in receipts if value_of(r, "git", "commit")}),
        systems=sorted({f"Python {r['environment']['python']}, {r['environment']['platform']}" for r in receipts}),
        packages={package: found for package, found in versions.items() if found},
        sets=_sets_table(story["validation"], story["data"]),
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
            f"{receipt['compute_seconds']:,.1f} s",
            f"{receipt['startup_seconds']:,.1f} s",
            size(receipt.get("peak_memory_bytes")),
            receipt.get("device") or NOTHING,
            receipt.get("precision") or NOTHING,
            Cell((value_of(receipt, "git", "commit") or NOTHING)[:10], kind="code"),
        ]
        for receipt in sorted(receipts, key=lambda receipt: (receipt["started_at"], receipt["stage"]))
    ]
    if not rows:
        return Table("No receipts were given, so there are no times and no commits here.", [], [])
    header = ["stage", "started", "work", "start-up", "peak memory", "device", "precision", "commit"]
    return Table("Receipts: what each stage of this result took, whenever it ran", header, rows)
