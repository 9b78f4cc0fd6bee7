"""The later sections of the report: slices, rivals, training curves, and where each thing came from.

The section of the report on searches: the candidates of a round, how they ranked, and which one was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tasks.report.charts import curve, thinned
from tasks.report.parts import NOTHING, count, digest, interval, milliseconds, ratio, size, table, text, value_of

Story = Mapping[str, Any]
_WORST: Final = 10
_PACKAGES: Final = ("torch", "transformers", "onnxruntime", "scikit-learn", "numpy", "dvc", "mlflow", "prefect")
_INT8: Final = (
    ("accuracy", "accuracy"),
    ("of the teacher's accuracy", "accuracy_ratio"),
    ("chooses as the teacher", "agreement"),
    ("chooses as in PyTorch", "agreement_fp32"),
)
_RIVALS: Final = {"tfidf_logistic": "TF-IDF + logistic regression"}


def slices(story: Story, name: str) -> str:
    """Return the slices on which a round lost most accuracy against the teacher, largest loss first."""
    losses = []
    rows: list[list[str]] = []
    student, teacher = (story["models"][model]["quality"]["sets"] for model in (name, "teacher"))
    for set_name in student:
        for slice_name, mine in student[set_name]["slices"].items():
            theirs = value_of(teacher, set_name, "slices", slice_name, "accuracy")
            is_whole = slice_name != "overall" and mine["support"] == student[set_name]["slices"]["overall"]["support"]
            if mine["support"] and theirs and not is_whole:  # the one source of a set is the set again
                lost = theirs["value"] - mine["accuracy"]["value"]
                losses.append((lost, set_name, slice_name, mine, theirs))
    losses.sort(key=lambda one: (-round(one[0], 9), one[1], one[2]))
    worst = [one for one in losses if one[0] > 0][:_WORST]
    if not worst:
        return f"<section><h2>Slices that lost most</h2><p>{text(name)} loses on none of them.</p></section>\n"
    for lost, set_name, slice_name, mine, theirs in worst:
        bar = f'<span class="track"><span class="bar" style="width:{100 * lost / worst[0][0]:.0f}%"></span></span>'
        label = f"{text(slice_name)}<small>{text(set_name)}</small>"
        scores = [interval(theirs), interval(mine["accuracy"])]
        rows.append([label, f"{mine['support']:,}", *scores, f"{100 * lost:.1f}{bar}"])
    caption = f"Accuracy of {name} against the teacher. Few rows make wide intervals: read a loss together with them."
    header = ["slice", "rows", "teacher", text(name), "points lost"]
    return f"<section><h2>Slices that lost most</h2>\n{table(caption, header, rows)}</section>\n"


def rivals(story: Story, name: str, sets: Sequence[str]) -> str:
    """Return the table of what one could use instead: a linear model, the teacher in int8, a random start."""
    header = ["", *[f"accuracy on {text(s)}" for s in sets], "bytes", "latency, batch 1", "latency, batch 32"]
    rows = [
        _model_row(story, name, "torch", name, sets),
        _model_row(story, name, "onnx_int8", f"{name}<small>ONNX Runtime, int8</small>", sets),
        _model_row(story, "teacher", "onnx_int8", "teacher<small>ONNX Runtime, int8</small>", sets),
        _model_row(story, "teacher", "torch", "teacher", sets),
    ]
    for rival, measured in sorted(story["rivals"].items()):
        words = _RIVALS.get(rival, rival.replace("random_init_", "random start, shape of ").replace("_", " "))
        cells = [interval(value_of(measured, "sets", s, "slices", "overall", "accuracy")) for s in sets]
        rows.append([text(words), *cells, NOTHING, NOTHING, NOTHING])
    caption = "Like with like: compare PyTorch with PyTorch and int8 with int8. A dash: not measured."
    return f"<section><h2>Honest rivals</h2>\n{table(caption, header, rows)}</section>\n"


def int8(story: Story, set_name: str) -> str:
    """Return the table of what each model is as int8, beside the teacher as int8."""
    names = ["teacher", *story["rounds"]]
    quality = {
        name: value_of(story["models"][name]["quality"], "sets", set_name, "variants", "onnx_int8") for name in names
    }
    rows = [["bytes", *[size(value_of(story["models"][name]["cost"], "size_bytes_onnx_int8")) for name in names]]]
    costs = {name: story["models"][name]["cost"] for name in names}
    whole = value_of(costs["teacher"], "size_bytes_onnx_int8")
    smaller = [ratio(whole, value_of(costs[name], "size_bytes_onnx_int8")) for name in names]
    rows.append(["times smaller", *[NOTHING if one is None else f"{one:.1f}" for one in smaller]])
    for batch in ("1", "32"):
        shares = [value_of(costs[name], "latency", "onnx_int8", batch, "ratio_p50") for name in names]
        rows.append([f"times faster, batch {batch}", *[f"{1 / one:.1f}" if one else NOTHING for one in shares]])
    for words, key in _INT8:
        rows.append([f"{words}<small>{text(set_name)}</small>", *[interval(value_of(quality[n], key)) for n in names]])
    caption = "ONNX Runtime with dynamic int8 on both sides, on one thread."
    return f"<section><h2>As int8</h2>\n{table(caption, ['', *map(text, names)], rows)}</section>\n"


def _model_row(story: Story, model: str, kind: str, words: str, sets: Sequence[str]) -> list[str]:
    quality, cost = story["models"][model]["quality"], story["models"][model]["cost"]
    place = ("slices", "overall") if kind == "torch" else ("variants", kind)
    cells = [interval(value_of(quality, "sets", s, *place, "accuracy")) for s in sets]
    weight = value_of(cost, "size_bytes" if kind == "torch" else f"size_bytes_{kind}")
    latency = [milliseconds(value_of(cost, "latency", kind, batch, "latency_ms_p50")) for batch in ("1", "32")]
    label = f"{text(model)}<small>PyTorch</small>" if kind == "torch" else words
    return [label, *cells, size(weight), *latency]


def curves(story: Story) -> str:
    """Return a panel a model with its loss and validation accuracy over the steps."""
    panels = []
    for name in ("teacher", *story["rounds"]):
        steps = story["models"][name]["steps"]
        loss = thinned([(float(one["step"]), float(one["loss"])) for one in steps if "loss" in one])
        accuracy = [
            (float(one["step"]), float(one["validation_accuracy"])) for one in steps if "validation_accuracy" in one
        ]
        best = value_of(story["models"][name]["summary"], "best_checkpoint")
        kept = f' <span class="note">kept {text(best)}</span>' if best else ""
        panels.append(f"<figure><h3>{text(name)}{kept}</h3>{curve(name, loss, accuracy)}{_by_heart(steps)}</figure>")
    return f'<section><h2>Training</h2><div class="panels">{"".join(panels)}</div></section>\n'


def _by_heart(steps: Sequence[Mapping[str, Any]]) -> str:
    """Return how near to its teacher the last checkpoint was on validation, and on rows that it trained on."""
    last = next((one for one in reversed(steps) if "learnt_kl_nats_per_example" in one), None)
    if last is None:
        return ""
    validation, learnt = (last[f"{rows}_kl_nats_per_example"] for rows in ("validation", "learnt"))
    words = f"KL to the teacher {validation:.3f} on validation, {learnt:.3f} on rows it learnt from"
    return f"<figcaption>{words}</figcaption>"


def origin(story: Story) -> str:
    """Return where each thing came from: data, models, code, environment, and each stage's receipt."""
    validation, receipts = story["validation"], story["receipts"]
    passed = sum(one["success"] for one in validation["expectations"])
    facts = [
        ("data", f"{text(validation['file'])}, sha256 {digest(validation['sha256'])}"),
        ("checks of the data", f"{passed} of {len(validation['expectations'])} expectations hold"),
        ("seed", text(story["seed"])),
    ]
    models = [(name, story["models"][name]) for name in ("teacher", *story["rounds"])]
    weights = {name: value_of(model["quality"], "model_sha256") for name, model in models}
    facts += [(f"weights of {text(name)}", f"sha256 {digest(found)}") for name, found in weights.items()]
    facts += _environment(receipts)
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in facts)
    return (
        '<section><h2>Where each thing came from</h2>\n<dl class="origin">'
        + listed
        + "</dl>\n"
        + _sets_table(validation, story["data"])
        + _receipts_table(receipts)
        + "</section>\n"
    )


def _environment(receipts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return facts on code and packages; several values are all shown, for stages may come from different commits."""
    commits = {(one["git"]["commit"], one["git"]["dirty"]) for one in receipts if value_of(one, "git", "commit")}
    found = [
        (
            "git commit",
            "<br>".join(
                f"<code>{text(commit)}</code>{' with local changes' if dirty else ''}"
                for commit, dirty in sorted(commits)
            )
            or NOTHING,
        )
    ]
    systems = sorted({f"Python {one['environment']['python']}, {one['environment']['platform']}" for one in receipts})
    if systems:
        found.append(("run on", "<br>".join(map(text, systems))))
    for package in _PACKAGES:
        versions = sorted({v for one in receipts if (v := value_of(one, "environment", "packages", package))})
        if versions:
            found.append((text(package), text(", ".join(versions))))
    return found


def _sets_table(validation: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    rows = []
    for name, found in sorted(validation["sets"].items(), key=lambda item: -item[1]["rows"]):
        classes = ", ".join(f"{text(label)} {number:,}" for label, number in found["classes"].items()) or "no labels"
        tokens = value_of(data, "sets", name, "tokens")
        rows.append(
            [
                text(name),
                text(", ".join(found["sources"])),
                classes,
                f"{found['rows']:,}",
                f"{tokens:,}" if tokens is not None else NOTHING,
            ]
        )
    return table("Sets of the data", ["set", "sources", "classes", "rows", "tokens"], rows, numbers_from=3)


def _receipts_table(receipts: Sequence[Mapping[str, Any]]) -> str:
    if not receipts:
        return '<p class="note">No receipts were given, so there are no times and no commits here.</p>'
    rows = [
        [
            text(one["stage"]),
            text(one["started_at"]),
            f"{one['compute_seconds']:,.1f} s",
            f"{one['startup_seconds']:,.1f} s",
            size(one.get("peak_memory_bytes")),
            text(one.get("device") or NOTHING),
            text(one.get("precision") or NOTHING),
            f"<code>{text((value_of(one, 'git', 'commit') or NOTHING)[:10])}</code>",
        ]
        for one in sorted(receipts, key=lambda one: (one["started_at"], one["stage"]))
    ]
    header = ["stage", "started", "work", "start-up", "peak memory", "device", "precision", "commit"]
    return table("Receipts: what each stage of this result took, whenever it ran", header, rows)


def searches(story: Story) -> str:
    """Return a table for each round that searched for its shape; nothing where none did."""
    found = [(name, story["models"][name].get("search")) for name in story["rounds"]]
    tables = "".join(_table(name, search) for name, search in found if search)
    return f"<section><h2>Candidates, ranked after a short distillation</h2>\n{tables}</section>\n" if tables else ""


def _table(name: str, search: Mapping[str, Any]) -> str:
    key = f"best_{search['metric']}"
    rows = []
    for one in sorted(search["candidates"], key=lambda one: int(one["rank_after"])):
        mark = "<small>taken</small>" if one["candidate"] == search["chosen"] else ""
        finished = f"{one['finished'][key]:.4f}" if one["finished"] else NOTHING
        sizes = [f"{size:,}" for size in one["shape_after"].values()]
        rows.append(
            [
                f"candidate {one['candidate']}{mark}",
                *sizes,
                count(one["params_total"]),
                f"{one['loss']:.2f}",
                str(one["rank_before"]),
                f"{one['short'][key]:.4f}",
                str(one["rank_after"]),
                finished,
            ]
        )
    axes = [text(axis) for axis in search["candidates"][0]["shape_after"]]
    header = ["", *axes, "parameters", "planned loss", "rank before", "KL, short", "rank after", "KL, finished"]
    caption = (
        f"{name}: KL of the teacher from the student, nats per validation row; smaller is better. The best {search['keep']} "
        "were finished with the whole budget of the round."
    )
    return table(caption, header, rows)
