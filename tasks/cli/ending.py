"""What a run ends with: its result and verdicts, what was gained and lost, where it is, and the next command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tasks.artifacts import REPORT, SELECTION, TEACHER, RoundPaths
from tasks.files import read_json
from tasks.report.parts import count, milliseconds, share, size

if TYPE_CHECKING:
    from tasks.params.base import Params

EXIT_NOTHING_PASSED: Final = 3
EXIT_NOT_RECORDED: Final = 4
SHOWN: Final = 6  # rules of a round; the report has all
WORDS: Final = {
    ("block", "fail"): "broken",
    ("block", "hold"): "undecided",
    ("warn", "fail"): "warned",
    ("warn", "hold"): "doubtful",
}


def read_ending(workspace: Path, params: Params, undelivered: str = "") -> dict[str, Any]:
    """Return the round that was selected, the verdict on each, the rules that are not kept, and what to do next.

    MLflow is not asked where it has not taken the record of the run, which `undelivered` tells.
    """
    from tasks.registry.tracking import Tracker

    verdicts = {name: read_json(RoundPaths(workspace, name).verdict) for name in params.rounds}
    selected, model = read_json(workspace / SELECTION)["selected"], params.registry.model_name
    rules = [
        {"round": name, "words": WORDS[rule["severity"], rule["result"]], **rule}
        for name, verdict in verdicts.items()
        for rule in verdict["rules"]
        if rule["result"] != "pass"
    ]
    aliases = {} if undelivered else Tracker(workspace).aliases(model)
    champion = "champion" in aliases and aliases["champion"] == aliases.get("challenger")
    after = f"compactlm export {model}@champion --out exported" if champion else "compactlm promote challenger"
    after = after if selected else "compactlm report --open"
    return {
        "model_name": model,
        "selected": selected,
        "verdicts": {name: {key: verdict.get(key, "") for key in ("verdict", "sentence")} for name, verdict in verdicts.items()},
        "rules": rules,
        "model": RoundPaths(Path(), selected).model.as_posix() if selected else None,
        "report": REPORT,
        "next": "compactlm publish" if undelivered else after,
    }


def ending_lines(ending: Mapping[str, Any], workspace: Path) -> list[str]:
    """Return the last lines of a run that had work to do."""
    selected = ending["selected"]
    shown = selected or [*ending["verdicts"]][-1]
    lines = [result_line(ending)]
    for name, verdict in ending["verdicts"].items():
        rules = [rule for rule in ending["rules"] if rule["round"] == name and (name == shown or rule["severity"] == "block")]
        if name != shown and (selected or not rules):
            lines.append(f"  {name} {verdict['verdict']}: {verdict['sentence']}")
            continue
        lines += [f"  {name} {rule['words']}: {rule['sentence']}" for rule in rules[:SHOWN]]
        lines += [f"  {name}: {len(rules) - SHOWN} rules more in the report"] if len(rules) > SHOWN else []
    lines.append(f"  {compared(workspace, shown)}")
    lines += [f"model: {ending['model']}"] if selected else []
    return [*lines, f"report: {ending['report']}", f"next: {ending['next']}"]


def result_line(ending: Mapping[str, Any]) -> str:
    """Return the result in one line."""
    selected, verdicts = ending["selected"], ending["verdicts"]
    if selected:
        return f"result: {selected} of {ending['model_name']} passes its gates: {verdicts[selected]['sentence']}"
    states = ", ".join(f"{name} {verdict['verdict']}" for name, verdict in verdicts.items())
    return f"result: no round of {ending['model_name']} passes its gates: {states}"


def compared(workspace: Path, name: str) -> str:
    """Return size, speed and quality of a round's model, each beside its teacher's."""
    quality, teacher = (read_json(RoundPaths(workspace, each).quality)["sets"]["test"] for each in (name, TEACHER))
    cost, before = (read_json(RoundPaths(workspace, each).cost) for each in (name, TEACHER))
    batch = min(cost["latency"]["torch"], key=int)
    times = cost["latency"]["torch"][batch]
    metric = "accuracy" if "accuracy" in quality["slices"]["overall"] else "perplexity"
    value, of = (each["slices"]["overall"][metric] for each in (quality, teacher))
    return (
        f"{name} and its teacher: {size(cost['size_bytes'])} of {size(before['size_bytes'])}, "
        f"{count(cost['params_total'])} of {count(before['params_total'])} parameters; "
        f"{milliseconds(times['latency_ms_p50'])} of {milliseconds(times['teacher_latency_ms_p50'])} at batch {batch}; "
        f"{metric} on test {share(value['value'])} ({share(value['low'])} to {share(value['high'])}) of {share(of['value'])}"
    )
