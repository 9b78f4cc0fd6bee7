"""The section of the report on searches: the candidates of a round, how they ranked, and which one was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.evaluation.page_parts import NOTHING, count, table, text

Story = Mapping[str, Any]


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
        rows.append([f"candidate {one['candidate']}{mark}", *sizes, count(one["params_total"]), f"{one['loss']:.2f}",
                     str(one["rank_before"]), f"{one['short'][key]:.4f}", str(one["rank_after"]), finished])  # fmt: skip
    axes = [text(axis) for axis in search["candidates"][0]["shape_after"]]
    header = ["", *axes, "parameters", "planned loss", "rank before", "KL, short", "rank after", "KL, finished"]
    caption = (
        f"{name}: KL of the teacher from the student, nats per validation row; smaller is better. The best {search['keep']} "
        "were finished with the whole budget of the round."
    )
    return table(caption, header, rows)
