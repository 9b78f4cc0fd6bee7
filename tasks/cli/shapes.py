"""The commands about shapes: what each round makes of its parent before anything runs, and timings of shapes for a speed-up."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from tasks.cli.console import Json, err, out, print_json
from tasks.cli.project import find_project, params_of
from tasks.errors import ParamsError

if TYPE_CHECKING:
    from tasks.params.base import Params
    from tasks.params.classification import ClassificationParams
    from tasks.params.rounds import Round
    from tasks.pruning.planning import Measure

SHOWN: Final = 20  # candidates, for people


def shapes(
    round_name: Annotated[
        str | None, typer.Argument(metavar="[ROUND]", help="A round with a budget: list every shape within 5 % below it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the shape each round reaches, as given or as solved for its budget; nothing is run."""
    from tasks.models.shapes import AXES
    from tasks.params.classification import ClassificationParams
    from tasks.params.parts import refusal

    params = params_of(find_project())
    if not isinstance(params, ClassificationParams):
        raise ParamsError(f"params.yaml: task: {refusal(params.task, 'shapes')}")
    config = _teacher_config(params)
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


def _teacher_config(params: ClassificationParams) -> dict[str, Any]:
    from tasks.data.sources import locate
    from tasks.running.preflight import read_model_config

    return read_model_config(locate(params.teacher.model, "teacher.model"))


def _rounds(params: ClassificationParams, config: dict[str, Any]) -> list[dict[str, Any]]:
    from tasks.models.architectures import adapter_of
    from tasks.running.preflight import check_shapes

    adapter, classes = adapter_of(config), len(params.data.labels)
    shapes = {"teacher": adapter.shape(config), **check_shapes(params, config)}
    totals = {name: adapter.count_parameters(config, shape, classes)["total"] for name, shape in shapes.items()}
    return [
        {
            "round": name,
            "shape": shape,
            "params_total": totals[name],
            "ratio": totals["teacher"] / totals[name],
            "how": _how(params, name),
        }
        for name, shape in shapes.items()
    ]


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
    from tasks.pruning.planning import candidates, possible_shapes
    from tasks.running.preflight import check_shapes

    target = params.rounds.get(name)
    if target is None or not target.budgets:
        with_budget = [other for other, has in params.rounds.items() if has.budgets]
        raise _no_such_round(name, "a budget", with_budget, "none has one")
    parent = _parent_config(config, target, check_shapes(params, config))
    where, measure = f"params.yaml: rounds.{name}", _measure_of(params, config)
    rows = [vars(candidate) for candidate in candidates(where, target, parent, measure)]
    if target.search is None:
        return rows
    tried = possible_shapes(where, target, parent, measure)
    return [{**row, "candidate": tried.index(row["shape"]) + 1 if row["shape"] in tried else None} for row in rows]


def _no_such_round(name: str, what: str, having: list[str], otherwise: str) -> ParamsError:
    words = f"such are {', '.join(having)}" if having else otherwise
    return ParamsError(f"{name}: is no round of params.yaml with {what}; {words}")


def _parent_config(config: dict[str, Any], target: Round, solved: Mapping[str, Mapping[str, int]]) -> Mapping[str, Any]:
    """Return the config of what a round starts from, given the shapes of the rounds before it."""
    from tasks.models.architectures import adapter_of

    return config if target.parent == "teacher" else adapter_of(config).resized(config, solved[target.parent])


def _measure_of(params: ClassificationParams, config: dict[str, Any]) -> Measure:
    from tasks.pruning.planning import Measure

    return Measure(config, len(params.data.labels), params.evaluate.latency_tokens)


def measure(
    round_name: Annotated[str, typer.Argument(metavar="ROUND", help="A round with `speedup`.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Edit a value of params.yaml first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time shapes for a round against the teacher on this machine, and write them into params.yaml as `measured`.

    The run reads them from there and times nothing itself: the same params.yaml gives the same shape on every machine.
    """
    from tasks.models.shapes import AXES
    from tasks.params.edit import planned_text, write_text
    from tasks.params.file import load_text

    workspace = find_project()
    changes = overrides or []
    params = load_text(planned_text(workspace, None, changes), "params.yaml")
    timed = _timed(params, round_name)
    text = planned_text(workspace, None, [*changes, f"rounds.{round_name}.measured={json.dumps(timed)}"])
    lines = write_text(workspace, text)
    if as_json:
        return print_json(timed)
    table = Table(*AXES, "ms", "teacher ms", "times as fast", box=None)
    for shape in timed["shapes"]:
        speedup = shape["teacher_latency_ms"] / shape["latency_ms"]
        times = f"{shape['latency_ms']:.2f}", f"{shape['teacher_latency_ms']:.2f}", f"{speedup:.2f}"
        table.add_row(*[f"{shape[axis]:,}" for axis in AXES], *times)
    out.print(table)
    for line in lines[-1:]:
        err.print(line)


def _timed(params: Params, name: str) -> dict[str, Any]:
    """Return the section `measured` of a round."""
    from tasks.params.classification import ClassificationParams
    from tasks.pruning.speed import measure_front, random_weights_clock
    from tasks.running.preflight import check_shapes

    rounds = params.rounds if isinstance(params, ClassificationParams) else {}
    target = rounds.get(name)
    if not isinstance(params, ClassificationParams) or target is None or target.speedup is None:
        having = [other for other, has in rounds.items() if has.speedup is not None]
        raise _no_such_round(name, "speedup", having, "none has it")
    config = _teacher_config(params)
    earlier = {other: rounds[other] for other in list(rounds)[: list(rounds).index(name)]}
    if target.parent != "teacher" and rounds[target.parent].search is not None:
        raise ParamsError(f"rounds.{name}.parent: {target.parent} has its shape only after its search; give it that shape")
    # The shape of the round itself follows from what is measured here.
    solved = check_shapes(params.model_copy(update={"rounds": earlier}), config) if target.parent != "teacher" else {}
    parent = _parent_config(config, target, solved)
    tokens = params.evaluate.latency_tokens
    clock = random_weights_clock(parent, config, tokens, params.evaluate.latency_repeats)
    shapes = measure_front(target, parent, _measure_of(params, config), clock)
    return {"tokens": tokens, "machine": f"{platform.machine()}, {platform.system()}", "shapes": shapes}
