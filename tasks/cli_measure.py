"""The command that measures shapes for a round with a speed-up, and writes what it found into params.yaml."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tasks.console import err, out, print_json
from tasks.errors import ParamsError
from tasks.lineage.start import find_workspace
from tasks.params import Params
from tasks.pruning.shapes import AXES
from tasks.workspace_params import planned_text, write_text


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
    from tasks.models.planning import Measure
    from tasks.models.preflight import check_shapes, read_model_config
    from tasks.models.speed import measure_front, random_weights_clock

    rounds = params.rounds if isinstance(params, Params) else {}
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
