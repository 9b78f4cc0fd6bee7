"""The report of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from tasks.report.charts import Point, front
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
from tasks.report.parts import (
    NOTHING,
    Cell,
    Row,
    Table,
    count,
    filled,
    interval,
    milliseconds,
    percent,
    ratio,
    share,
    size,
    tables_section,
    value_of,
)

TFIDF: Final = "tfidf_logistic"
RIVALS: Final = {TFIDF: "TF-IDF + logistic regression"}
MOST_SLICES: Final = 10
SIZES: Final[tuple[tuple[str, str, Form], ...]] = (
    ("parameters", "params_total", count),
    ("not in embeddings", "params_non_embedding", count),
    ("weights", "size_bytes", size),
    ("ONNX", "size_bytes_onnx", size),
    ("ONNX int8", "size_bytes_onnx_int8", size),
)
FORMATS: Final = {"torch": "PyTorch", "onnx": "ONNX", "onnx_int8": "ONNX int8"}
INT8: Final = (
    ("accuracy", "accuracy"),
    ("of the teacher's accuracy", "accuracy_ratio"),
    ("chooses as the teacher", "agreement"),
    ("chooses as in PyTorch", "agreement_fp32"),
)


def render(story: Story) -> str:
    """Return the whole page."""
    title, name, sets = headline(story), focus(story), set_names(story)
    accuracy = (f"Accuracy on {MAIN_SET}", share(_accuracy(story, name)), share(_accuracy(story, "teacher")))
    sections = [
        header(story, title, accuracy, "Latency, batch 1"),
        _front(story),
        _rounds(story),
        searches(story),
        verdicts(story),
        _slices(story, name),
        _rivals(story, name, sets),
        _int8(story, MAIN_SET),
        curves(story),
        origin(story),
    ]
    return document(f"{story['name']}: {title}", sections)


def headline(story: Story) -> str:
    """Return the verdict in one sentence."""
    chosen = story["selection"]["selected"]
    if chosen is None:
        return refusal(story)
    smaller = ratio(cost_of(story, "teacher", "params_total"), cost_of(story, chosen, "params_total"))
    kept = ratio(_accuracy(story, chosen), _accuracy(story, "teacher"))
    size_words = f"is {smaller:.1f} times smaller than its teacher" if smaller else "passes its gates"
    kept_words = f" and keeps {percent(kept)} of its accuracy on {MAIN_SET}" if kept else ""
    return f"{chosen} {size_words}{kept_words}."


def set_names(story: Story) -> list[str]:
    """Return the evaluation sets, test first and validation last."""
    names = story["models"]["teacher"]["quality"]["sets"]
    return sorted(names, key=lambda name: (name == "validation", name != MAIN_SET, name))


def _accuracy(story: Story, model: str, set_name: str = MAIN_SET) -> float | None:
    value: float | None = value_of(overall(story, model, set_name, "accuracy"), "value")
    return value


def _front(story: Story) -> Markup:
    points = []
    for name in names_of(story):
        accuracy, params = overall(story, name, MAIN_SET, "accuracy"), cost_of(story, name, "params_total")
        if accuracy is None or not params:
            continue
        int8 = value_of(story["models"][name]["quality"], "sets", MAIN_SET, "variants", "onnx_int8", "accuracy")
        kind = "teacher" if name == "teacher" else "chosen" if name == story["selection"]["selected"] else "round"
        latency = cost_of(story, name, "latency", "torch", "1", "latency_ms_p50")
        points.append(Point(name, params, accuracy, latency, int8, kind))
    if not points:
        return Markup()
    rival = value_of(story["rivals"], TFIDF, "sets", MAIN_SET, "slices", "overall", "accuracy", "value")
    line = (RIVALS[TFIDF], rival) if rival is not None else None
    level = percent(value_of(story["models"]["teacher"]["quality"], "confidence")).replace(".0", "")
    wide, narrow = (front(points, line, width, MAIN_SET) for width in (980, 358))
    return filled("front.html.j2", wide=wide, narrow=narrow, level=level)


def _rounds(story: Story) -> Markup:
    names = names_of(story)
    rows: list[Row] = [["size"], *cost_rows(story, SIZES)]
    if any("sparsity" in story["models"][name]["cost"] for name in names):
        rows.append(["weights at zero", *[_zeros(story["models"][name]["cost"]) for name in names]])
    rows += [["cost of an answer"], *cost_rows(story, [("FLOPs an example", "flops_per_example", count)])]
    for kind, words in FORMATS.items():
        for batch in batches_of(story, kind):
            label = Cell(f"latency, batch {batch}", f"{words}, median")
            rows.append([label, *[_latency(story, name, kind, batch) for name in names]])
    for set_name in set_names(story):
        rows += _quality_rows(story, set_name, names)
    threads = cost_of(story, "teacher", "threads")
    note = f", latency on {threads:g} thread{'s' if threads != 1 else ''}" if threads else ""
    return rounds_section(story, f"Small print: intervals, and the ratio to the teacher{note}.", rows)


def _zeros(cost: Mapping[str, Any]) -> str | Cell:
    """Return how many weights of a masked model are zero, with both denominators; a dash where none was masked."""
    masked = cost.get("sparsity")
    if masked is None:
        return NOTHING
    return Cell(
        f"{100 * masked['sparsity_of_masked']:.1f}% of {masked['weights_masked']:,} in layers",
        f"{100 * masked['sparsity_of_total']:.1f}% of all parameters; no faster in a dense runtime",
    )


def _latency(story: Story, name: str, kind: str, batch: str) -> Cell:
    median, against = (cost_of(story, name, "latency", kind, batch, key) for key in ("latency_ms_p50", "ratio_p50"))
    faster = f"{1 / against:.1f}\N{MULTIPLICATION SIGN} faster" if against and name != "teacher" else ""
    return Cell(milliseconds(median), faster)


def _quality_rows(story: Story, set_name: str, names: list[str]) -> list[Row]:
    rows = value_of(story["models"]["teacher"]["quality"], "sets", set_name, "rows")
    reference = _accuracy(story, "teacher", set_name)
    return [
        [f"{set_name}, {rows:,} rows" if rows is not None else set_name],
        ["accuracy", *[interval(overall(story, name, set_name, "accuracy")) for name in names]],
        ["of the teacher's", *[percent(ratio(_accuracy(story, name, set_name), reference)) for name in names]],
        ["agrees with teacher", *[interval(overall(story, name, set_name, "agreement")) for name in names]],
        ["calibration error", *[interval(overall(story, name, set_name, "calibration_error")) for name in names]],
    ]


def searches(story: Story) -> Markup:
    """Return a table for each round that searched for its shape; nothing where none did."""
    records = [(name, story["models"][name].get("search")) for name in story["rounds"]]
    tables = [_candidates(name, search) for name, search in records if search]
    return tables_section("Candidates, ranked after a short distillation", *tables) if tables else Markup()


def _candidates(name: str, search: Mapping[str, Any]) -> Table:
    key = f"best_{search['metric']}"
    rows = [
        [
            Cell(f"candidate {each['candidate']}", "taken" if each["candidate"] == search["chosen"] else ""),
            *[f"{size:,}" for size in each["shape_after"].values()],
            count(each["params_total"]),
            f"{each['loss']:.2f}",
            str(each["rank_before"]),
            f"{each['short'][key]:.4f}",
            str(each["rank_after"]),
            f"{each['finished'][key]:.4f}" if each["finished"] else NOTHING,
        ]
        for each in sorted(search["candidates"], key=lambda each: int(each["rank_after"]))
    ]
    axes = search["candidates"][0]["shape_after"]
    header = ["", *axes, "parameters", "planned loss", "rank before", "KL, short", "rank after", "KL, finished"]
    caption = (
        f"{name}: KL of the teacher from the student, nats per validation row; smaller is better. The best {search['keep']} "
        "were finished with the whole budget of the round."
    )
    return Table(caption, header, rows)


def _slices(story: Story, name: str) -> Markup:
    """Return the slices on which a round lost most accuracy against the teacher, largest loss first."""
    losses = []
    student, teacher = (story["models"][model]["quality"]["sets"] for model in (name, "teacher"))
    for set_name in student:
        for slice_name, part in student[set_name]["slices"].items():
            before = value_of(teacher, set_name, "slices", slice_name, "accuracy")
            is_whole = slice_name != "overall" and part["support"] == student[set_name]["slices"]["overall"]["support"]
            if part["support"] and before and not is_whole:  # the one source of a set is the set again
                losses.append((before["value"] - part["accuracy"]["value"], set_name, slice_name, part, before))
    losses.sort(key=lambda loss: (-round(loss[0], 9), loss[1], loss[2]))
    worst = [loss for loss in losses if loss[0] > 0][:MOST_SLICES]
    caption = f"Accuracy of {name} against the teacher. Few rows make wide intervals: read a loss together with them."
    rows = [
        [
            Cell(slice_name, set_name),
            f"{part['support']:,}",
            interval(before),
            interval(part["accuracy"]),
            Cell(f"{100 * lost:.1f}", bar=100 * lost / worst[0][0]),
        ]
        for lost, set_name, slice_name, part, before in worst
    ]
    if not worst:
        caption = f"{name} loses on none of them."
    return tables_section(
        "Slices that lost most", Table(caption, ["slice", "rows", "teacher", name, "points lost"], rows)
    )


def _rivals(story: Story, name: str, sets: Sequence[str]) -> Markup:
    """Return the table of what one could use instead: a linear model, the teacher in int8, a random start."""
    header = ["", *[f"accuracy on {s}" for s in sets], "bytes", "latency, batch 1", "latency, batch 32"]
    rows = [
        _model_row(story, name, "torch", Cell(name, "PyTorch"), sets),
        _model_row(story, name, "onnx_int8", Cell(name, "ONNX Runtime, int8"), sets),
        _model_row(story, "teacher", "onnx_int8", Cell("teacher", "ONNX Runtime, int8"), sets),
        _model_row(story, "teacher", "torch", Cell("teacher", "PyTorch"), sets),
    ]
    others = [
        (Cell(RIVALS.get(rival, rival.replace("_", " "))), quality)
        for rival, quality in sorted(story["rivals"].items())
    ]
    others += [
        (Cell(f"random start, shape of {of}", "the same budget of distillation"), quality)
        for of, quality in story["random_init"].items()
    ]
    for label, quality in others:
        rows.append([label, *[interval(overall_of(quality, s, "accuracy")) for s in sets], NOTHING, NOTHING, NOTHING])
    caption = "Like with like: compare PyTorch with PyTorch and int8 with int8. A dash: not measured."
    return tables_section("Honest rivals", Table(caption, header, rows))


def _model_row(story: Story, model: str, kind: str, label: Cell, sets: Sequence[str]) -> Row:
    quality, in_torch = story["models"][model]["quality"], kind == "torch"
    place = ("slices", "overall") if in_torch else ("variants", kind)
    return [
        label,
        *[interval(value_of(quality, "sets", s, *place, "accuracy")) for s in sets],
        size(cost_of(story, model, "size_bytes" if in_torch else f"size_bytes_{kind}")),
        *[milliseconds(cost_of(story, model, "latency", kind, batch, "latency_ms_p50")) for batch in ("1", "32")],
    ]


def _int8(story: Story, set_name: str) -> Markup:
    """Return the table of what each model is as int8, beside the teacher as int8."""
    names = names_of(story)
    sizes = {name: cost_of(story, name, "size_bytes_onnx_int8") for name in names}
    smaller = [ratio(sizes["teacher"], sizes[name]) for name in names]
    rows: list[Row] = [
        ["bytes", *map(size, sizes.values())],
        ["times smaller", *[NOTHING if times is None else f"{times:.1f}" for times in smaller]],
    ]
    for batch in ("1", "32"):
        ratios = [cost_of(story, name, "latency", "onnx_int8", batch, "ratio_p50") for name in names]
        rows.append(
            [f"times faster, batch {batch}", *[f"{1 / against:.1f}" if against else NOTHING for against in ratios]]
        )
    for words, key in INT8:
        place = ("sets", set_name, "variants", "onnx_int8", key)
        cells = [interval(value_of(story["models"][name]["quality"], *place)) for name in names]
        rows.append([Cell(words, set_name), *cells])
    return tables_section(
        "As int8", Table("ONNX Runtime with dynamic int8 on both sides, on one thread.", ["", *names], rows)
    )
