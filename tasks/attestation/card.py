"""The model card, README.md of an export: YAML for the Hugging Face Hub, then the same facts for people.

Source: the Hub's model card specification (modelcard.md): front matter keys and `model-index`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ruamel.yaml import YAML

from tasks.artifacts import WEIGHTS
from tasks.attestation.facts import Facts, ancestry, sources
from tasks.attestation.limits import interval, limits, teacher_slice, tradeoffs

HUB_METRICS: Final = {"accuracy": ("accuracy", "Accuracy"), "macro_f1": ("f1", "Macro F1")}
TASK: Final = {"type": "text-classification", "name": "Text classification"}


def card(facts: Facts) -> str:
    """Return the text of README.md."""
    sections = (_what, _results, _lost, _limits, _cost, _judged, _lineage, _audit)
    return "\n".join([f"---\n{_yaml(front_matter(facts))}---\n", *(section(facts) for section in sections)])


def front_matter(facts: Facts) -> dict[str, Any]:
    """Return what the Hub reads of a card."""
    names = {source.role: source.name for source in sources(facts)}
    results = [_result(facts, name, names["data"]) for name in sorted(facts.quality["sets"])]
    return {
        "license": facts.license.lower() if facts.license else "unknown",
        "library_name": "transformers",
        "pipeline_tag": TASK["type"],
        "base_model": names["teacher"],
        "datasets": [names["data"]],
        "metrics": [name for name, _ in HUB_METRICS.values()],
        "tags": ["pruning", "distillation", "compactlm", str(facts.config.get("model_type", ""))],
        "model-index": [{"name": facts.name, "results": results}],
    }


def _result(facts: Facts, name: str, data: str) -> dict[str, Any]:
    values = facts.quality["sets"][name]["slices"]["overall"]
    share = f"{100 * facts.quality['confidence']:g} %"
    metrics = [
        {
            "type": kind,
            "value": round(values[metric]["value"], 6),
            "name": f"{title}, {share} interval {values[metric]['low']:.3f} to {values[metric]['high']:.3f}",
        }
        for metric, (kind, title) in HUB_METRICS.items()
        if metric in values
    ]
    dataset = {"name": f"{data}, {name} set", "type": data, "split": name}
    return {"task": dict(TASK), "dataset": dataset, "metrics": metrics}


def _yaml(value: Mapping[str, Any]) -> str:
    yaml, text = YAML(), io.StringIO()
    yaml.width = 1000
    yaml.dump(value, text)
    return text.getvalue()


def _what(facts: Facts) -> str:
    teacher = next(source for source in sources(facts) if source.role == "teacher")
    return f"""# {facts.name}, version {facts.version}

Sorts a text into {" or ".join(facts.labels)}. Round {facts.round} of a run that pruned and distilled the teacher
`{teacher.text}`: {facts.cost["params_total"]:,} parameters, {facts.cost["size_bytes"] / 1e6:.1f} MB of weights.

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

path = "."  # this folder
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(path), AutoTokenizer.from_pretrained(path)
print(model(**tokenizer("some text", return_tensors="pt")).logits.softmax(-1))
```

How to check every byte of this folder with public tools: [VERIFY.md](VERIFY.md).
"""


def _results(facts: Facts) -> str:
    rows = []
    for name, content in sorted(facts.quality["sets"].items()):
        teacher, head = teacher_slice(facts, name, "overall"), [name, str(content["rows"])]
        for metric, value in sorted(content["slices"]["overall"].items()):
            if isinstance(value, Mapping):
                other = f"{teacher[metric]['value']:.3f}" if metric in teacher and metric != "agreement" else ""
                rows.append([*head, metric, interval(value), other])
        for variant, values in sorted(content.get("variants", {}).items()):
            rows += [[*head, f"{metric} ({variant})", interval(value), ""] for metric, value in sorted(values.items())]
    heads = ["set", "rows", "metric", f"value [{100 * facts.quality['confidence']:g} % interval]", "teacher"]
    note = "Intervals are percentile bootstraps over rows. The numbers on validation chose the checkpoint, which flatters them."
    return f"## Results\n\n{_table(heads, rows)}\n{note}\n"


def _lost(facts: Facts) -> str:
    words = _bullets(tradeoffs(facts)) or "No measured slice has a lower accuracy than the teacher's.\n"
    return f"## What it lost\n\nSlices that lost most accuracy, worst first:\n\n{words}"


def _limits(facts: Facts) -> str:
    return f"## Not without further evaluation\n\n{_bullets(limits(facts))}"


def _cost(facts: Facts) -> str:
    keys = ("latency_ms_p50", "latency_ms_p95", "teacher_latency_ms_p50")
    rows = [
        [form, batch, *(f"{latency[key]:.2f}" for key in keys)]
        for form, batches in facts.cost["latency"].items()
        for batch, latency in batches.items()
    ]
    heads = ["format", "batch", "ms (median)", "ms (95th percentile)", "teacher, ms (median)"]
    words = f"Of {facts.cost['flops_tokens']} tokens, on the machine that measured (threads: {facts.cost['threads']})."
    same = (
        f"On {facts.parity['rows']} rows the scores of the ONNX file differ from torch's by at most "
        f"{facts.parity['onnx_max_difference']:.2g}; the int8 file's by {facts.parity['onnx_int8_max_difference']:.2g}, "
        f"and it chooses the same class on {100 * facts.parity['onnx_int8_agreement']:.1f} % of them."
    )
    return f"## Cost\n\n{_table(heads, rows)}\n{words} {same}\n"


def _judged(facts: Facts) -> str:
    heads = ["metric", "set", "severity", "result", "why"]
    rules = [
        [
            rule["metric"] or rule["check"],
            str(rule.get("set") or ""),
            rule["severity"],
            rule["result"],
            rule["sentence"],
        ]
        for rule in facts.verdict["rules"]
    ]
    line = "Decision {number}, {at}: {kind}, {outcome}, by {actor}: {reason}"
    decided = (
        _bullets([line.format_map(entry) for entry in facts.decisions]) or "No decision about this model is recorded.\n"
    )
    return (
        f"## Verdict and decisions\n\nVerdict: **{facts.verdict['verdict']}**, {facts.verdict['sentence']}.\n\n"
        f"{_table(heads, rules)}\n{decided}"
    )


def _lineage(facts: Facts) -> str:
    rows = [
        [source.role, f"`{source.text}`", f"`{name}`", f"`{sha256}`"]
        for source in sources(facts)
        for name, sha256 in sorted(source.files.items())
    ]
    rows += [
        ["model", model.name, f"made by {model.stage}", f"`{model.sha256}`"] for model in reversed(ancestry(facts))
    ]
    rows += [["model", facts.round, "this one", f"`{facts.files[WEIGHTS]['sha256']}`"]]
    first, last = facts.span()
    code = f"`{facts.commit}`" if facts.commit else "in no Git repository"
    edited = sorted(stage for stage, receipt in facts.behind() if receipt["git"]["dirty"])
    note = f"\nThe code had uncommitted changes in {', '.join(edited)}; the receipts hold them.\n" if edited else ""
    return (
        f"## Lineage\n\n{_table(['what', 'name', 'file or stage', 'sha256'], rows)}\n"
        f"{len(facts.stages)} stages ran from {first} to {last}, code at commit {code}. Receipts of all: `receipts/`; "
        f"their Merkle root is `{facts.root}`.\n{note}"
    )


def _audit(facts: Facts) -> str:
    undecided = _bullets(["{name}, {subject}: {sentence}".format_map(check) for check in facts.undecided])
    words = f"Not decided:\n\n{undecided}" if undecided else "None was left undecided.\n"
    return f"## Audit before the export\n\n{facts.num_passed} checks passed, none failed. {words}"


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
