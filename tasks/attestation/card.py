"""The model card, README.md of an export: YAML for the Hugging Face Hub, then the same facts for people.

Source: the Hub's model card specification (modelcard.md): front matter keys and `model-index`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ruamel.yaml import YAML

from tasks.artifacts import WEIGHTS
from tasks.attestation.facts import Facts, Source, ancestry, sources
from tasks.attestation.instructions import CARD, rendered
from tasks.attestation.limits import interval, limits, teacher_slice, tradeoffs
from tasks.progress import visible
from tasks.report.markdown import Markdown, code
from tasks.report.use import snippets

HUB_METRICS: Final = {"accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro F1")}
TASK: Final = {"type": "text-classification", "name": "Text classification"}
LATENCIES: Final = ("latency_ms_p50", "latency_ms_p95", "teacher_latency_ms_p50")
Rows = Iterator[list[str]]  # the cells of a table


def card(facts: Facts) -> str:
    """Return the text of README.md."""
    by_role = {source.role: source for source in sources(facts)}
    return rendered(
        CARD,
        facts=facts,
        front_matter=Markdown(_yaml(_front_matter(facts, by_role))),
        teacher=code(by_role["teacher"].text),
        root=code(facts.root),
        snippets=[each._replace(code=Markdown(each.code)) for each in snippets(".", "onnx/model.onnx", ".", facts.of_pairs)],
        commit=code(facts.commit) if facts.commit else "in no Git repository",
        changes=facts.receipts["teacher"]["facts"].get("changes", []),
        share=_share(facts),
        results=list(_results(facts)),
        tradeoffs=tradeoffs(facts),
        limits=limits(facts),
        latencies=list(_latencies(facts)),
        rules=list(_rules(facts)),
        origins=list(_origins(facts)),
        span=facts.span(),
        edited=sorted(stage for stage, receipt in facts.behind() if receipt["git"]["dirty"]),
    )


def _share(facts: Facts) -> str:
    """Return how sure the intervals are, in percent."""
    return f"{100 * facts.quality['confidence']:g}"


def _front_matter(facts: Facts, by_role: Mapping[str, Source]) -> dict[str, Any]:
    """Return what the Hub reads of a card."""
    data = visible(by_role["data"].name)
    results = [_result(facts, name, data) for name in sorted(facts.quality["sets"])]
    return {
        "license": visible(facts.license.lower()) if facts.license else "unknown",
        "library_name": "transformers",
        "pipeline_tag": TASK["type"],
        "base_model": visible(by_role["teacher"].name),
        "datasets": [data],
        "metrics": [name for name, _ in HUB_METRICS.values()],
        "tags": ["pruning", "distillation", "compactlm", visible(str(facts.config.get("model_type", "")))],
        "model-index": [{"name": visible(facts.name), "results": results}],
    }


def _result(facts: Facts, name: str, data: str) -> dict[str, Any]:
    values = facts.quality["sets"][name]["slices"]["overall"]
    metrics = []
    for metric, (kind, title) in HUB_METRICS.items():
        if metric in values:
            bounds = f"{values[metric]['low']:.3f} to {values[metric]['high']:.3f}"
            words = f"{title}, {_share(facts)} % interval {bounds}"
            metrics.append({"type": kind, "value": round(values[metric]["value"], 6), "name": words})
    dataset = {"name": f"{data}, {visible(name)} set", "type": data, "split": visible(name)}
    return {"task": dict(TASK), "dataset": dataset, "metrics": metrics}


def _yaml(value: Mapping[str, Any]) -> str:
    yaml, text = YAML(), io.StringIO()
    yaml.width = 1000
    yaml.dump(value, text)
    return text.getvalue()


def _results(facts: Facts) -> Rows:
    for name, content in sorted(facts.quality["sets"].items()):
        teacher, head = teacher_slice(facts, name, "overall"), [name, str(content["rows"])]
        for metric, value in sorted(content["slices"]["overall"].items()):
            if isinstance(value, Mapping):
                other = f"{teacher[metric]['value']:.3f}" if metric in teacher and metric != "agreement" else ""
                yield [*head, metric, Markdown(interval(value)), other]
        for variant, values in sorted(content.get("variants", {}).items()):
            for metric, value in sorted(values.items()):
                yield [*head, f"{metric} ({variant})", Markdown(interval(value)), ""]


def _latencies(facts: Facts) -> Rows:
    for form, batches in facts.cost["latency"].items():
        for batch, latency in batches.items():
            yield [form, batch, *(f"{latency[key]:.2f}" for key in LATENCIES)]


def _rules(facts: Facts) -> Rows:
    for rule in facts.verdict["rules"]:
        name, of_set = rule["metric"] or rule["check"], str(rule.get("set") or "")
        yield [name, of_set, rule["severity"], rule["result"], rule["sentence"]]


def _origins(facts: Facts) -> Rows:
    """Return what the model came from: files from outside, then the models from the first one to this one."""
    for source in sources(facts):
        for name, sha256 in sorted(source.files.items()):
            yield [source.role, code(source.text), code(name), code(sha256)]
    for model in reversed(ancestry(facts)):
        yield ["model", model.name, f"made by {model.stage}", code(model.sha256)]
    yield ["model", facts.round, "this one", code(facts.files[WEIGHTS]["sha256"])]
