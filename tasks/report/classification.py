"""The report of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from tasks.report import elsewhere, page, use
from tasks.report.charts import Point, front
from tasks.report.page import MAIN_SET
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
    share,
    size,
    tables_section,
)
from tasks.report.story import Story, ratio, value_of

TFIDF: Final = "tfidf_logistic"
RIVALS: Final = {TFIDF: "TF-IDF + logistic regression", "second_text_alone": "the same of the second text alone"}
SWAPPED: Final = ("variants", "swapped")
MOST_SLICES: Final = 10
SIZES: Final[page.Costs] = (
    ("parameters", "params_total", count),
    ("not in embeddings", "params_non_embedding", count),
    ("weights", "size_bytes", size),
    ("ONNX", "size_bytes_onnx", size),
    ("ONNX int8", "size_bytes_onnx_int8", size),
)
FLOPS: Final[page.Costs] = (("FLOPs an example", "flops_per_example", count),)
FORMATS: Final = {"torch": "PyTorch", "onnx": "ONNX", "onnx_int8": "ONNX int8"}
WHOLE: Final = ("slices", "overall")
INT8: Final = ("variants", "onnx_int8")


def render(story: Story) -> str:
    """Return the whole page."""
    title, sets = headline(story), set_names(story)
    student, teacher = (share(story.overall(name, MAIN_SET, "accuracy")) for name in (story.focus, "teacher"))
    sections = [
        page.header(story, title, (f"Accuracy on {MAIN_SET}", student, teacher), "Latency, batch 1"),
        elsewhere.section(story),
        _front(story),
        _rounds(story, sets),
        searches({name: model["search"] for name, model in story.models.items()}),
        page.verdicts(story),
        _slices(story, story.focus),
        _rivals(story, story.focus, sets),
        _int8(story),
        use.section(story, _of_pairs(story)),
        _pairs(story),
        page.curves(story.models),
        page.data_checks(story),
        page.origin(story),
    ]
    return page.document(f"{story.name}: {title}", sections)


def headline(story: Story) -> str:
    """Return the verdict in one sentence."""
    chosen = story.selection["selected"]
    if chosen is None:
        return page.refusal(story)
    smaller = story.times_less(chosen, "params_total")
    kept = ratio(*[story.overall(name, MAIN_SET, "accuracy") for name in (chosen, "teacher")])
    size_words = f"is {smaller:.1f} times smaller than its teacher" if smaller else "passes its gates"
    kept_words = f" and keeps {percent(kept)} of its accuracy on {MAIN_SET}" if kept else ""
    return f"{chosen} {size_words}{kept_words}."


def set_names(story: Story) -> list[str]:
    """Return the evaluation sets, test first and validation last."""
    names = story.models["teacher"]["quality"]["sets"]
    return sorted(names, key=lambda name: (name == "validation", name != MAIN_SET, name))


def _front(story: Story) -> Markup:
    points = []
    for name in story.models:
        accuracy, params = story.measured(name, MAIN_SET, *WHOLE, "accuracy"), story.cost(name, "params_total")
        if accuracy is not None and params:
            kind = {"teacher": "teacher", story.selection["selected"]: "chosen"}.get(name, "round")
            latency = story.cost(name, "latency", "torch", "1", "latency_ms_p50")
            points.append(Point(name, params, accuracy, latency, story.measured(name, MAIN_SET, *INT8, "accuracy"), kind))
    if not points:
        return Markup()
    rival = value_of(story.rivals, TFIDF, "sets", MAIN_SET, *WHOLE, "accuracy", "value")
    line = (RIVALS[TFIDF], rival) if rival is not None else None
    level = percent(value_of(story.models["teacher"]["quality"], "confidence")).replace(".0", "")
    wide, narrow = (front(points, line, width, MAIN_SET) for width in (980, 358))
    return filled("front.html.j2", wide=wide, narrow=narrow, level=level)


def _rounds(story: Story, sets: Sequence[str]) -> Markup:
    rows: list[Row] = [["size"], *page.cost_rows(story, SIZES)]
    if any("sparsity" in model["cost"] for model in story.models.values()):
        rows.append(["weights at zero", *[_zeros(model["cost"]) for model in story.models.values()]])
    rows += [["cost of an answer"], *page.cost_rows(story, FLOPS)]
    for kind, words in FORMATS.items():
        for batch in page.batches_of(story, kind):
            cells = [_latency(story, name, kind, batch) for name in story.models]
            rows.append([Cell(f"latency, batch {batch}", f"{words}, median"), *cells])
    for set_name in sets:
        count_of_rows = value_of(story.models["teacher"]["quality"], "sets", set_name, "rows")
        accuracies = [story.overall(name, set_name, "accuracy") for name in story.models]
        rows.append([f"{set_name}, {count_of_rows:,} rows" if count_of_rows is not None else set_name])
        rows += page.metric_rows(story, set_name, WHOLE, {"accuracy": "accuracy"})
        rows.append(["of the teacher's", *[percent(ratio(accuracy, accuracies[0])) for accuracy in accuracies]])
        further = {"agrees with teacher": "agreement", "calibration error": "calibration_error"}
        rows += page.metric_rows(story, set_name, WHOLE, further)
    threads = story.cost("teacher", "threads")
    note = f", latency on {threads:g} thread{'s' if threads != 1 else ''}" if threads else ""
    return page.rounds_section(story, f"Small print: intervals, and the ratio to the teacher{note}.", rows)


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
    median, against = (story.cost(name, "latency", kind, batch, key) for key in ("latency_ms_p50", "ratio_p50"))
    faster = f"{1 / against:.1f}\N{MULTIPLICATION SIGN} faster" if against and name != "teacher" else ""
    return Cell(milliseconds(median), faster)


def searches(records: Mapping[str, Mapping[str, Any] | None]) -> Markup:
    """Return a table for each round that searched for its shape, of its search.json; nothing where none did."""
    tables = [_candidates(name, search) for name, search in records.items() if search]
    return tables_section("Candidates, ranked after a short distillation", *tables) if tables else Markup()


def _candidates(name: str, search: Mapping[str, Any]) -> Table:
    key = f"best_{search['metric']}"
    rows: list[Row] = [
        [
            Cell(f"candidate {each['candidate']}", "taken" if each["candidate"] == search["chosen"] else ""),
            *[f"{width:,}" for width in each["shape_after"].values()],
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
    for set_name, entry in story.models[name]["quality"]["sets"].items():
        for slice_name, part in entry["slices"].items():
            before = story.measured("teacher", set_name, "slices", slice_name, "accuracy")
            is_whole = slice_name != "overall" and part["support"] == entry["slices"]["overall"]["support"]
            if part["support"] and before and not is_whole:  # the one source of a set is the set again
                losses.append((before["value"] - part["accuracy"]["value"], set_name, slice_name, part, before))
    losses.sort(key=lambda loss: (-round(loss[0], 9), loss[1], loss[2]))
    worst = [loss for loss in losses if loss[0] > 0][:MOST_SLICES]
    rows: list[Row] = [
        [
            Cell(slice_name, set_name),
            f"{part['support']:,}",
            *map(interval, (before, part["accuracy"])),
            Cell(f"{100 * lost:.1f}", bar=100 * lost / worst[0][0]),
        ]
        for lost, set_name, slice_name, part, before in worst
    ]
    caption = f"Accuracy of {name} against the teacher. Few rows make wide intervals: read a loss together with them."
    table = Table(caption if rows else f"{name} loses on none of them.", ["slice", "rows", "teacher", name, "points lost"], rows)
    return tables_section("Slices that lost most", table)


def _of_pairs(story: Story) -> bool:
    return story.measured("teacher", MAIN_SET, *SWAPPED, "order_sensitivity") is not None


def _pairs(story: Story) -> Markup:
    """Return what the report says of pairs of texts; nothing where rows are single texts."""
    if not _of_pairs(story):
        return Markup()
    rows: list[Row] = [
        [Cell(words, MAIN_SET), *[interval(story.measured(name, MAIN_SET, *SWAPPED, key)) for name in story.models]]
        for words, key in (("moves when the texts change places", "order_sensitivity"), ("keeps its class then", "agreement"))
    ]
    entry = value_of(story.data, "sets", MAIN_SET) or {}
    groups = f"{entry['rows']:,} rows of {entry['groups']:,} groups" if "groups" in entry else "Rows of one first text"
    caption = (
        f"A row is a pair of texts. {MAIN_SET}: {groups}; intervals and proofs draw whole groups, since rows of one first text "
        "are not independent. The first line is half the sum over classes of |p(a, b) - p(b, a)|, 0 where the order says nothing."
    )
    return tables_section("As pairs", Table(caption, ["", *story.models], rows))


def _rivals(story: Story, name: str, sets: Sequence[str]) -> Markup:
    """Return the table of what one could use instead: a linear model, the teacher in int8, a random start."""
    rows: list[Row] = []
    for model, kind in ((name, "torch"), (name, "onnx_int8"), ("teacher", "onnx_int8"), ("teacher", "torch")):
        place, key, words = (
            (WHOLE, "size_bytes", "PyTorch") if kind == "torch" else (INT8, f"size_bytes_{kind}", "ONNX Runtime, int8")
        )
        accuracies = [interval(story.measured(model, set_name, *place, "accuracy")) for set_name in sets]
        latencies = [story.cost(model, "latency", kind, batch, "latency_ms_p50") for batch in ("1", "32")]
        rows.append([Cell(model, words), *accuracies, size(story.cost(model, key)), *map(milliseconds, latencies)])
    others = {Cell(RIVALS.get(rival, rival.replace("_", " "))): entry for rival, entry in sorted(story.rivals.items())}
    for round_name, quality in story.random_init.items():
        others[Cell(f"random start, shape of {round_name}", "the same budget of distillation")] = quality
    for label, quality in others.items():
        accuracies = [interval(value_of(quality, "sets", set_name, *WHOLE, "accuracy")) for set_name in sets]
        rows.append([label, *accuracies, NOTHING, NOTHING, NOTHING])
    header = ["", *[f"accuracy on {set_name}" for set_name in sets], "bytes", "latency, batch 1", "latency, batch 32"]
    caption = "Like with like: compare PyTorch with PyTorch and int8 with int8. A dash: not measured."
    return tables_section("Honest rivals", Table(caption, header, rows))


def _int8(story: Story) -> Markup:
    """Return the table of what each model is as int8, beside the teacher as int8."""
    smaller = [story.times_less(name, "size_bytes_onnx_int8") for name in story.models]
    rows: list[Row] = [
        ["bytes", *[size(story.cost(name, "size_bytes_onnx_int8")) for name in story.models]],
        ["times smaller", *[NOTHING if times is None else f"{times:.1f}" for times in smaller]],
    ]
    for batch in ("1", "32"):
        shares = [story.cost(name, "latency", "onnx_int8", batch, "ratio_p50") for name in story.models]
        rows.append([f"times faster, batch {batch}", *[f"{1 / each:.1f}" if each else NOTHING for each in shares]])
    metrics = {
        "accuracy": "accuracy",
        "of the teacher's accuracy": "accuracy_ratio",
        "chooses as the teacher": "agreement",
        "chooses as in PyTorch": "agreement_fp32",
    }
    rows += [[Cell(str(row[0]), MAIN_SET), *row[1:]] for row in page.metric_rows(story, MAIN_SET, INT8, metrics)]
    caption = "ONNX Runtime with dynamic int8 on both sides, on one thread."
    return tables_section("As int8", Table(caption, ["", *story.models], rows))
