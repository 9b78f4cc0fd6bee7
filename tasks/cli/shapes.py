"""The command that shows what each round makes of its parent before anything runs: shapes given, and shapes solved.

The command that measures shapes for a round with a speed-up, and writes what it found into params.yaml.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from tasks.cli.console import err, out, print_json
from tasks.errors import ParamsError
from tasks.models.shapes import AXES
from tasks.params.classification import ClassificationParams
from tasks.params.edit import planned_text, write_text
from tasks.params.file import load_params
from tasks.params.parts import refusal
from tasks.running.start import find_workspace

SHOWN: Final = 20  # candidates, for people


def add_shapes_command(app: typer.Typer) -> None:
    """Add the command of this file to the program."""
    app.command(epilog="Example: compactlm shapes --json")(shapes)


def shapes(
    round_name: Annotated[
        str | None,
        typer.Argument(metavar="[ROUND]", help="A round with a budget: list every shape within 5 % below it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")] = False,
) -> None:
    """Show the shape each round reaches, as given or as solved for its budget; nothing is run."""
    from tasks.data.sources import locate
    from tasks.running.preflight import read_model_config

    params = load_params(find_workspace(Path.cwd()) / "params.yaml")
    if not isinstance(params, ClassificationParams):
        raise ParamsError(f"params.yaml: task: {refusal(params.task, 'shapes')}")
    config = read_model_config(locate(params.teacher.model, "teacher.model"))
    rows = _rounds(params, config) if round_name is None else _candidates(params, config, round_name)
    if as_json:
        print_json(rows)
        return
    heads = ("round", *AXES, "parameters", "ratio", "") if round_name is None else (*AXES, "size", "loss", "")
    rows.sort(key=lambda row: row.get("candidate") is None)  # those that a search tries come first
    table = Table(*heads, box=None)
    for row in rows[:SHOWN] if round_name else rows:
        sizes = [f"{row['shape'][axis]:,}" for axis in AXES]
        if round_name is None:
            table.add_row(row["round"], *sizes, f"{row['params_total']:,}", f"{row['ratio']:.1f}", row["how"])
        else:
            tried = f"candidate {row['candidate']}" if row.get("candidate") else ""
            table.add_row(*sizes, f"{row['size']:,}", f"{row['loss']:.3f}", tried)
    out.print(table)
    if round_name and len(rows) > SHOWN:
        out.print(f"{len(rows) - SHOWN} more: compactlm shapes {round_name} --json")


def _rounds(params: ClassificationParams, config: dict[str, Any]) -> list[dict[str, Any]]:
    from tasks.models.architectures import adapter_of
    from tasks.running.preflight import check_shapes

    adapter, classes = adapter_of(config), len(params.data.labels)
    whole = adapter.count_parameters(config, adapter.shape(config), classes)["total"]
    rows = []
    for name, shape in {"teacher": adapter.shape(config), **check_shapes(params, config)}.items():
        total = adapter.count_parameters(config, shape, classes)["total"]
        rows.append(
            {"round": name, "shape": shape, "params_total": total, "ratio": whole / total, "how": _how(params, name)}
        )
    return rows


def _how(params: ClassificationParams, name: str) -> str:
    if name == "teacher":
        return ""
    target = params.rounds[name]
    if target.granularity != "structured":
        return f"masks, {target.pattern or f'{target.sparsity:.0%} of the weights in layers at zero'}"
    if target.search is not None:
        ((key, value),) = target.budgets.items()
        return f"first of {target.search.candidates} candidates for {key}: {value:,}"
    return "".join(f"solved for {key}: {value:,}" for key, value in target.budgets.items()) or "given"


def _candidates(params: ClassificationParams, config: dict[str, Any], name: str) -> list[dict[str, Any]]:
    from tasks.models.architectures import adapter_of
    from tasks.pruning.planning import Measure, candidates, possible_shapes
    from tasks.running.preflight import check_shapes

    if name not in params.rounds or not params.rounds[name].budgets:
        with_budget = [one for one, target in params.rounds.items() if target.budgets]
        raise ParamsError(
            f"{name}: is no round of params.yaml with a budget; "
            f"{'such are ' + ', '.join(with_budget) if with_budget else 'none has one'}"
        )
    solved = check_shapes(params, config)
    target = params.rounds[name]
    parent = config if target.parent == "teacher" else adapter_of(config).resized(config, solved[target.parent])
    measure = Measure(config, len(params.data.labels), params.evaluate.latency_tokens)
    where = f"params.yaml: rounds.{name}"
    rows = [vars(one) for one in candidates(where, target, parent, measure)]
    if target.search is None:
        return rows
    tried = possible_shapes(where, target, parent, measure)
    return [{**row, "candidate": tried.index(row["shape"]) + 1 if row["shape"] in tried else None} for row in rows]


def add_measure_command(app: typer.Typer) -> None:
    """Add the command of this file to the program."""
    app.command(epilog="Example: compactlm measure r3")(measure)


def measure(
    round_name: Annotated[str, typer.Argument(metavar="ROUND", help="A round with `speedup`.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Edit a value of params.yaml first.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value for programs.")] = False,
) -> None:
    """Time shapes for a round against the teacher on this machine, and write them into params.yaml as `measured`.

    The run reads them from there and times nothing itself: the same params.yaml gives the same shape on every machine.
    """
    workspace = find_workspace(Path.cwd())
    changes = overrides or []
    _, params = planned_text(workspace, None, changes)
    found = _timed(params, round_name)
    text, _ = planned_text(workspace, None, [*changes, f"rounds.{round_name}.measured={json.dumps(found)}"])
    said = write_text(workspace, text)
    if as_json:
        return print_json(found)
    table = Table(*AXES, "ms", "teacher ms", "times as fast", box=None)
    for one in found["shapes"]:
        speedup = one["teacher_latency_ms"] / one["latency_ms"]
        times = f"{one['latency_ms']:.2f}", f"{one['teacher_latency_ms']:.2f}", f"{speedup:.2f}"
        table.add_row(*[f"{one[axis]:,}" for axis in AXES], *times)
    out.print(table)
    for line in said[-1:]:
        err.print(line)


def _timed(params: Any, name: str) -> dict[str, Any]:
    """Return the section `measured` of a round."""
    from tasks.data.sources import locate
    from tasks.models.architectures import adapter_of
    from tasks.pruning.planning import Measure
    from tasks.pruning.speed import measure_front, random_weights_clock
    from tasks.running.preflight import check_shapes, read_model_config

    rounds = params.rounds if isinstance(params, ClassificationParams) else {}
    target = rounds.get(name)
    if target is None or target.speedup is None:
        having = [one for one, other in rounds.items() if other.speedup is not None]
        raise ParamsError(
            f"{name}: is no round of params.yaml with speedup; {'such are ' + ', '.join(having) if having else 'none has it'}"
        )
    config = read_model_config(locate(params.teacher.model, "teacher.model"))
    parent = config
    if target.parent != "teacher":
        earlier = {one: rounds[one] for one in list(rounds)[: list(rounds).index(name)]}
        if rounds[target.parent].search is not None:
            raise ParamsError(
                f"rounds.{name}.parent: {target.parent} has its shape only after its search; give it that shape"
            )
        solved = check_shapes(params.model_copy(update={"rounds": earlier}), config)
        parent = adapter_of(config).resized(config, solved[target.parent])
    tokens = params.evaluate.latency_tokens
    clock = random_weights_clock(parent, config, tokens, params.evaluate.latency_repeats)
    shapes = measure_front(target, parent, Measure(config, len(params.data.labels), tokens), clock)
    return {"tokens": tokens, "machine": f"{platform.machine()}, {platform.system()}", "shapes": shapes}
