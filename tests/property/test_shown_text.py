"""Words of others on our pages and on the terminal show as text: they add no line, heading, link, image or escape code."""

from __future__ import annotations

import ast
import io
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.table import Table

from flows import audit as audit_flow
from flows import promote as promote_flow
from tasks.attestation.card import card
from tasks.attestation.facts import Facts
from tasks.cli.console import RunLines, Screen, shown
from tasks.progress import ACTING, visible
from tasks.promotion.decision_page import as_markdown
from tasks.report.markdown import bullets, code, plain, table
from tests.unit.promotion.test_decision_page import decision

ROOT = Path(__file__).resolve().parents[2]
FRAGMENTS = [
    *("\n", "\r", "\r\n", "\n\n", "\t", "    ", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"),
    *("\x1b[31m", "\x1b]8;;http://x\x07", "\x9b31m", "\x07", "\x08", "\x7f", "\x00", "\u202e", "\u2066", "\u200f", "\ud800"),
    *("# ", "## ", "- ", "+ ", "* ", "1. ", "2) ", "> ", "```", "~~~", "`", "``", "|", "---", "===", "***", "___", "|---|"),
    *(
        "<img src=x>",
        "<script>",
        "<!--",
        "</details>",
        "<http://x.y>",
        "<a@b.cd>",
        "![a](http://x)",
        "[a](x)",
        "[a][b]",
        "[a]: x",
    ),
    *(
        "http://x.y",
        "HTTPS://x.y",
        "ftp://x",
        "www.x.y",
        "WWW.x.y",
        "a@b.cd",
        "&#x202e;",
        "&lt;b&gt;",
        "\\",
        "\\\\",
        "\\[",
        "$x$",
    ),
    *("[/bold]", "[red]", ":smile:", "{{ 7 * 7 }}", "{% raw %}", "word", " ", "0.83", "-1.5", "a_b_c", "~~x~~", "**x**", "_x_"),
]
crafted = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), min_size=1, max_size=8).map("".join)
BENIGN = "word"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
MATTER = ("text", "softbreak", "inline")  # of which there may be any number


def structure(page: str) -> Counter[str]:
    """Return how often each element of markdown stands on a page, below its front matter."""
    found: Counter[str] = Counter()
    for token in MARKDOWN.parse(page.split("\n---\n", 1)[1] if page.startswith("---\n") else page):
        found.update([token.type, *(child.type for child in token.children or ())])
    return Counter({name: times for name, times in found.items() if name not in MATTER})


def acting(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in ACTING} - {"\n", "\u200c", "\u200d"}


def everywhere(value: Any, text: str, kept: frozenset[str] = frozenset()) -> Any:
    """Return a record with its text, but for that below some keys, replaced."""
    if isinstance(value, dict):
        return {key: one if key in kept else everywhere(one, text, kept) for key, one in value.items()}
    if isinstance(value, list):
        return [everywhere(one, text, kept) for one in value]
    return text if isinstance(value, str) else value


def a_decision(text: str) -> str:
    return as_markdown(everywhere(decision(), text, frozenset({"result"})))


def an_audit(text: str) -> str:
    check = {"name": text, "subject": text, "sentence": text, "result": "FAIL"}
    title = {"result": "FAIL", "model": text, "version": 3, "round": text, "files": 1}
    return audit_flow._markdown({**title, "counts": {"PASS": 1, "FAIL": 2, "UNKNOWN": 0}, "checks": [check, check]})


def a_form(text: str) -> str:
    policy = {"approvers": {text: ""}, "quorum": 1}
    proposal = {"round": text, "model": text, "candidate": text, "policy": policy, "expires_at": text}
    described: Any = promote_flow._form(proposal, text)
    return str(described._description)


def a_card(text: str) -> str:
    interval = {"value": 0.8, "low": 0.7, "high": 0.9}
    slices = {"overall": {"accuracy": interval, "calibration_error": interval, "support": 9}}
    slices[text] = {"accuracy": interval, "support": 9}
    quality = {"confidence": 0.95, "sets": {text: {"rows": 9, "slices": slices, "variants": {text: {text: interval}}}}}
    better = {**interval, "value": 0.9}
    teacher = {"sets": {text: {"slices": {name: {"accuracy": better} for name in slices}}}}
    latency = dict.fromkeys(("latency_ms_p50", "latency_ms_p95", "teacher_latency_ms_p50"), 1.0)
    git = {"commit": text, "dirty": True}
    data = {"source": text, "columns": {"text": text}, "labels": {"0": text}, "max_tokens": 9}
    params = {"data": data, "teacher": {"model": text}}
    params |= {"rounds": {"r1": {"parent": "teacher"}}}
    made = {"artifacts/rounds/teacher/trained/model/model.safetensors": {"sha256": text}}
    fetched = {f"artifacts/fetched/{name}": {"files": {text: {"sha256": text}}} for name in ("data", "teacher")}
    common = {"git": git, "params": params, "environment": {}, "inputs": {}, "started_at": "2026-01-01T00:00:00Z"}
    common |= {"compute_seconds": 1.0, "facts": {"changes": [text]}}
    receipts: Any = {
        "fetch": {**common, "outputs": fetched},
        "teacher": {**common, "outputs": made},
        "gate@r1": {**common, "outputs": {}},
    }
    rule = {"metric": text, "check": text, "set": text, "severity": text, "result": text, "sentence": text}
    return card(
        Facts(
            name=text,
            version=1,
            round="r1",
            license=text,
            repository=text,
            root=text,
            recorded={},
            receipts=receipts,
            stages=list(receipts),
            files={"model.safetensors": {"sha256": text}},
            config={"model_type": text},
            quality=quality,
            teacher_quality=teacher,
            cost={"params_total": 1, "size_bytes": 1, "flops_tokens": 1, "threads": 1, "latency": {text: {text: latency}}},
            parity={"rows": 1, "onnx_max_difference": 0.0, "onnx_int8_max_difference": 0.0, "onnx_int8_agreement": 1.0},
            verdict={"verdict": text, "sentence": text, "rules": [rule]},
            decisions=[{"number": 1, "at": text, "kind": text, "outcome": text, "actor": text, "reason": text}],
            undecided=[{"name": text, "subject": text, "sentence": text}],
            num_passed=1,
        )
    )


PAGES: dict[str, Callable[[str], str]] = {
    "decision": a_decision,
    "audit": an_audit,
    "form": a_form,
    "card": a_card,
    "words": lambda text: f"{plain(text)}\n\n# head\n\nsaid {plain(text)}.\n\n- {plain(text)}\n",
    "code": lambda text: f"{code(text)}\n\nsaid {code(text)}.\n",
    "table": lambda text: table(["a", text], [[text, text], [code(text), "b"]]),
    "list": lambda text: bullets([text, "b", text]),
}


@pytest.mark.parametrize("page", PAGES)
@given(text=crafted)
def test_a_page_has_the_same_elements_whatever_it_is_told(page: str, text: str) -> None:
    made, plainly = PAGES[page](f"a{text}"), PAGES[page](BENIGN)
    assert acting(made) == set()
    assert structure(made) == structure(plainly)
    assert made.count("\n") == plainly.count("\n")


@given(text=crafted)
def test_words_at_the_beginning_begin_no_element_and_no_address(text: str) -> None:
    page = plain(text)
    assert {*structure(page)} <= {"paragraph_open", "paragraph_close"}
    assert {*structure(f"- {page}")} <= {*structure("- a")}
    assert not re.search(r"(?<!\\)://|www\.", page, re.IGNORECASE)  # which become links by themselves
    assert plain(page) == page  # once is enough


@given(text=crafted)
def test_escaped_words_show_what_was_said(text: str) -> None:
    [paragraph] = [token for token in MARKDOWN.parse(f"a{plain(f'b{text}')}") if token.type == "inline"]
    seen = "".join(child.content for child in paragraph.children or ())
    assert seen.split() == visible(re.sub(r"[\t\n\r]", " ", f"ab{text}")).split()


@given(text=crafted)
def test_a_string_on_the_terminal_is_one_line_without_codes(text: str) -> None:
    file = io.StringIO()
    screen = Screen(file=file, force_terminal=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    screen.print(text)
    screen.print(shown(text))
    lines = Table("a", box=None, show_header=False)
    lines.add_row(text)
    screen.print(lines, soft_wrap=True)
    RunLines(screen).emit(logging.LogRecord("n", 20, "", 0, "%s", (text,), None))
    written = file.getvalue()
    assert acting(written) == set()
    assert written.split("\n")[0] == visible(text)
    assert written.count("\n") == 4


def test_visible_text_names_what_it_held() -> None:
    assert visible("a\x1b[31mb\u202ec\nd\te\ud800") == "a\\x1b[31mb\\u202ec\\nd\\te\\ud800"
    assert visible("a\nb\tc\x1b", kept="\n\t") == "a\nb\tc\\x1b"
    for text in ("Grüße, 你好, नमस्ते", "\u0645\u06cc\u200c\u062e", "\u3000x\u00a0y", "👩\u200d🔬"):
        assert visible(text) == text


# Who prints past the console: JSON, which escapes by itself, and markdown, which is escaped already.
PRINTING = {
    "tasks/cli/approvals.py": {"sys.stdout.write(json.dumps(signed"},
    "tasks/cli/promotion.py": {"sys.stdout.write('\\n'.join((as_markdown(entry)"},
    "tasks/progress.py": {"print(visible(line"},
}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_nothing_is_printed_past_the_helpers() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(path for folder in ("flows", "tasks") for path in (ROOT / folder).rglob("*.py")):
        for call in calls(path):
            if ast.unparse(call.func) in ("print", "Console", "rich.print", "sys.stdout.write", "sys.stderr.write"):
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(ast.unparse(call))
    assert found.keys() == PRINTING.keys()
    for path, starts in PRINTING.items():
        assert all(any(said.startswith(start) for start in starts) for said in found[path]), found[path]


SHOWING = ("create_markdown_artifact", "create_progress_artifact", "update_progress_artifact", "with_initial_data")
HELPERS = ("plain", "code", "bullets", "table", "as_markdown", "_markdown")


def bare_values(node: ast.AST) -> list[str]:
    """Return what a text is filled with that is no answer of a helper; a local's name is looked at where it is made."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in HELPERS:
        return []
    own = [ast.unparse(node.value)] if isinstance(node, ast.FormattedValue) and not isinstance(node.value, ast.Name) else []
    below = [node.value] if isinstance(node, ast.FormattedValue) else list(ast.iter_child_nodes(node))
    if own and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in HELPERS:  # type: ignore[attr-defined]
        return []
    return own + [value for child in below for value in bare_values(child)]


def test_what_flows_show_is_made_by_the_helpers() -> None:
    shown = [call for path in (ROOT / "flows").glob("*.py") for call in calls(path) if ast.unparse(call.func).endswith(SHOWING)]
    assert len(shown) >= 7
    assert [values for call in shown if (values := bare_values(call))] == []
