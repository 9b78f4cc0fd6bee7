"""What a run shows on its Prefect page: the table of rounds, a plot of size against accuracy, and a link to MLflow."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from tasks.artifacts import TEACHER
from tasks.errors import UserError
from tasks.files import read_json
from tasks.params.base import Params
from tasks.promotion.decision_page import as_markdown
from tasks.promotion.decisions import read_log
from tasks.registry.records import RoundFiles, latency, overall, quality_of
from tasks.report.markdown import Markdown, bullets, code, plain

WIDTH: Final = 480
HEIGHT: Final = 260
MARGIN: Final = 45


def publish_artifacts(workspace: Path, params: Params, runs: Mapping[str, str], uri: str) -> None:
    """Create the artifacts of a finished run on its Prefect page."""
    rows = [_row(RoundFiles(workspace, name)) for name in (TEACHER, *params.rounds)]
    metric = next(key for key in rows[0] if key.startswith("test_")).removeprefix("test_")
    create_table_artifact(rows, key="rounds", description="Every round: size, quality on test, latency, verdict")
    plot = base64.b64encode(
        svg_plot([(r["round"], r["parameters"], r[f"test_{metric}"]) for r in rows], metric).encode()
    ).decode()
    text = f"## Size and {plain(metric)}\n\n![size against {plain(metric)}](data:image/svg+xml;base64,{plot})\n"
    create_markdown_artifact(text + "\nThe full report: `compactlm report`.\n", key="front")
    if uri.startswith("http"):
        link = f"{uri}/#/experiments?searchFilter={quote(params.registry.model_name)}"
        create_link_artifact(link, link_text="runs in MLflow", key="mlflow")
    else:
        lines = bullets(Markdown(f"{plain(name)}: run {code(run_id)}") for name, run_id in runs.items())
        create_markdown_artifact(f"`compactlm ui` opens the pages of these runs in MLflow.\n\n{lines}", key="mlflow")
    _publish_decision(workspace, params.registry.model_name)


def _publish_decision(workspace: Path, name: str) -> None:
    """Show the newest decision about the model; a log that is missing or not intact shows none, and is told elsewhere."""
    try:
        log = read_log(workspace)
    except UserError:
        return
    for entry in [entry for entry in log if entry["model"] == name][-1:]:
        create_markdown_artifact(as_markdown(entry), key="decision")


def _row(files: RoundFiles) -> dict[str, Any]:
    cost = files.costs()
    metric, value = quality_of(overall(read_json(files.quality))["test"])
    return {
        "round": files.label,
        "parameters": cost["params_total"],
        "size_mb": round(cost["size_bytes"] / 1e6, 1),
        f"test_{metric}": round(value, 4),
        "latency_ms_p50": min(latency(cost, "latency_ms_p50").values()),
        "verdict": files.judged() or "",
    }


def svg_plot(points: Sequence[tuple[str, float, float]], metric: str = "accuracy") -> str:
    """Return an SVG with one labelled dot a round: total parameters to the right, the metric upwards."""
    largest = max(size for _, size, _ in points)
    low = min(value for _, _, value in points) - 0.02
    high = max(value for _, _, value in points) + 0.02
    dots = []
    for name, size, value in points:
        x = MARGIN + (WIDTH - 2 * MARGIN) * size / largest
        y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / (high - low)
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#2563eb"/>')
        dots.append(f'<text x="{x:.1f}" y="{y - 10:.1f}" text-anchor="middle">{escape(name)} {value:.3f}</text>')
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{right}" fill="none" stroke="#888"/>{"".join(dots)}'
        f'<text x="{right}" y="{HEIGHT - 15}" text-anchor="end">parameters, up to {largest:,}</text>'
        f'<text x="{MARGIN}" y="{MARGIN - 18}" text-anchor="middle">{escape(metric)}</text></svg>'
    )
