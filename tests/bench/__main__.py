"""Measures on the artifacts of a finished run and prints what it finds; nothing is written there.

The tables of comparisons take from minutes to hours, so they run only by name. Each cell is kept in --results as soon as it
is measured, and a cell that is there is not measured again.

examples: python -m tests.bench throughput --rows 512
          python -m tests.bench criteria --rows 8000 --results ../tables
          python -m tests.bench seeds --runs ../seed0 ../seed1 ../seed2
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tasks.errors import EXIT_USER_ERROR, UserError
from tasks.running.start import find_workspace

NAMES: Final = ("throughput", "noop", "latency", "gates", "decoder", "bert_base")
TABLES: Final = ("criteria", "masks", "curves", "rivals")
ROWS: Final = 1024
TRANSFER_ROWS: Final = 40_000
ALONE: Final = ("team",)  # minutes, so only by name
OF_RUNS: Final = ("seeds",)  # which take --runs instead of a workspace
WITHOUT_A_RUN: Final = ("gates", "decoder", *ALONE, *OF_RUNS)


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks named by argv, all of them without a name, and return an exit code."""
    options = _parser().parse_args(argv)
    known = (*NAMES, *TABLES, *ALONE, *OF_RUNS)
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        _parser().error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    if set(options.names) & set(OF_RUNS) and len(options.runs) < 2:
        _parser().error("seeds needs --runs with two or more finished runs")
    try:
        workspace = find_workspace(options.workspace)
        needs_a_run = not options.names or not set(options.names) <= set(WITHOUT_A_RUN)
        if needs_a_run and not (workspace / "artifacts" / "report.html").exists():
            raise UserError(f"{workspace / 'artifacts'}: no finished run to measure; `compactlm run` makes one")
        found = {name: _measure(name, workspace, options) for name in options.names or NAMES}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if options.json:
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        for name, facts in found.items():
            if name in TABLES:
                print(facts["markdown"])
            else:
                Console(highlight=False).print(RENDERED[name](facts) if name in RENDERED else _table(name, facts))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(NAMES)}; all of these without a name; {', '.join((*TABLES, *ALONE, *OF_RUNS))}",
    )
    parser.add_argument(
        "--rows",
        type=int,
        help="throughput: rows of train, and as many of transfer (1024); tables: transfer rows, beside all labelled ones (40000)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path(tempfile.gettempdir()) / "compactlm-tables",
        help="tables: folder for cells.jsonl, the tables and the plot (%(default)s)",
    )
    parser.add_argument("--only", action="append", default=[], help="tables: this group of cells alone, e.g. 8x; may be repeated")
    parser.add_argument("--round", help="throughput: whose student; the last round without it")
    parser.add_argument("--turns", type=int, default=3, help="throughput and noop: times each side is measured")
    parser.add_argument("--repeats", type=int, default=100, help="latency: calls of each model")
    parser.add_argument("--test-rows", type=int, default=964, help="gates: rows of the test set; the default run has 964")
    parser.add_argument("--models", type=int, default=1000, help="gates: simulated students of each kind")
    parser.add_argument("--blocks", type=int, default=8, help="decoder: blocks of 256 tokens a step")
    parser.add_argument("--layers", type=int, default=24, help="decoder: layers of the student")
    parser.add_argument("--teacher-layers", type=int, default=30, help="decoder: layers of the teacher")
    parser.add_argument("--threads", type=int, help="decoder: threads of torch; as many as it takes by itself without")
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[], help="seeds: workspaces of runs that differ in seed and runtime alone"
    )
    parser.add_argument("--workspace", type=Path, default=Path.cwd(), help="project with a finished run")
    parser.add_argument("--json", action="store_true", help="print one JSON value for programs")
    return parser


def _measure(name: str, workspace: Path, options: argparse.Namespace) -> dict[str, Any]:
    if name in TABLES:
        from tests.bench.tables import command

        return command.measure(name, workspace, options.results, options.rows or TRANSFER_ROWS, options.only)
    if name == "throughput":
        from tasks.params.file import load_params
        from tests.bench import throughput

        rounds = load_params(workspace / "params.yaml").rounds
        chosen = options.round or list(rounds)[-1]
        if chosen not in rounds:
            raise UserError(f"--round {chosen}: not a round; allowed: {', '.join(rounds)}")
        return throughput.measure(workspace, chosen, options.rows or ROWS, options.turns)
    if name == "noop":
        from tests.bench import noop

        return noop.measure(workspace, options.turns)
    if name == "team":
        from tests.bench import team

        return team.measure()
    if name == "decoder":
        from tests.bench import decoder

        return decoder.measure(options.blocks, options.layers, options.teacher_layers, options.turns, options.threads)
    if name == "gates":
        from tasks.params.file import load_params
        from tests.bench import gates

        return gates.measure(load_params(workspace / "params.yaml"), options.test_rows, options.models)
    if name == "seeds":
        from tests.bench import seeds

        return seeds.measure(options.runs)
    if name == "bert_base":
        from tests.bench import bert_base

        return bert_base.measure(workspace, options.repeats)
    from tests.bench import latency

    return latency.measure(workspace, options.repeats)


def _table(name: str, facts: dict[str, Any]) -> Table:
    table = Table(name, "", box=None)
    for key, value in facts.items():
        table.add_row(key.replace("_", " "), str(value))
    return table


def _latency_table(facts: dict[str, Any]) -> Table:
    title = f"latency, {facts['tokens']} tokens, {facts['threads']} thread, {facts['turns']} turns"
    table = Table("round", "format", "batch", "ms p50", "teacher ms p50", "ratio", title=title, box=None)
    for name, formats in facts["rounds"].items():
        for kind, batches in formats.items():
            for rows, one in batches.items():
                mine, hers = one["latency_ms_p50"], one["teacher_latency_ms_p50"]
                table.add_row(name, kind, rows, f"{mine:.2f}", f"{hers:.2f}", f"{one['ratio_p50']:.3f}")
    return table


def _seeds_table(facts: dict[str, Any]) -> Table:
    title = f"share of the teacher's accuracy at home, {facts['confidence']:.0%} interval of the rows; elsewhere"
    away = [name for name in facts["rows"] if name in next(iter(facts["rounds"].values()))["away"]]
    columns = ("round", "size", *(f"seed {seed}" for seed in facts["seeds"]), "mean, interval", *away)
    table = Table(*columns, title=title, box=None)
    for name, one in facts["rounds"].items():
        shares, mean = (f"{share:.1%}" for share in one["shares"]), one["mean"]
        between = f"{mean['value']:.1%} {mean['low']:.1%}-{mean['high']:.1%}"
        others = (f"{statistics.mean(one['away'][of]):.1%}" for of in away)
        table.add_row(name, f"{one['params_total'] / 1e6:.1f} M", *shares, between, *others)
    return table


RENDERED: Final = {"latency": _latency_table, "seeds": _seeds_table}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
