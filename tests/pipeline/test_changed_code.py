"""Code that is changed while a run goes on: nothing is recorded under code that did not run, and the next run makes it whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.audit.walk import audit
from tasks.files import file_sha256, read_json
from tests.pipeline.scene import commit
from tests.tiny_project import Project

# Put into a stage, it waits for the test to do something.
WAITS = """
    import time as _time
    if Path(".compactlm/hold").exists() and Path(".compactlm/hold").read_text() == round:
        Path(".compactlm/held").touch()
        while Path(".compactlm/hold").exists():
            _time.sleep(0.05)
"""


def append(place: Path) -> None:
    place.write_text(place.read_text(encoding="utf-8") + "# an edit\n", encoding="utf-8")


def run_with(project: Project, round_name: str, meanwhile: Callable[[], None]) -> tuple[int, str]:
    """Return exit code and words of `compactlm run` in which `meanwhile` happens while the gate of a round works."""
    hold, held = project.folder / ".compactlm/hold", project.folder / ".compactlm/held"
    hold.write_text(round_name, encoding="utf-8")
    child = project.start("run")
    while not held.exists() and child.poll() is None:
        time.sleep(0.05)
    meanwhile()
    hold.unlink()
    held.unlink()
    _, said = child.communicate()
    return child.returncode, said


def code_of(project: Project, stage: str) -> dict[str, str]:
    return dict(read_json(project.folder / f"artifacts/receipts/{stage}.json")["code"])


def alarms(project: Project) -> list[str]:
    checks = audit(project.folder, "tiny@challenger")["checks"]
    return [f"{check['name']} {check['subject']} {check['sentence']}" for check in checks if check["result"] != "PASS"]


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project whose gates are to be judged again, and can be held."""
    copy = finished.copy(tmp_path / "project")
    gate = copy.folder / "tasks/stages/gate.py"
    text = gate.read_text(encoding="utf-8")
    begin = text.index('"""Return', text.index("def run("))
    end = text.index('"""\n', begin + 3) + 4
    gate.write_text(text[:end] + WAITS + text[end:], encoding="utf-8")
    commit(copy, "a gate that can be held")
    return copy


@pytest.mark.slow
def test_what_changes_while_a_run_goes_on_is_told_and_the_next_run_makes_it_whole(project: Project) -> None:
    code = project.folder / "tasks"
    before = {name: file_sha256(code / name) for name in ("errors.py", "gates/judge.py")}
    append(code / "errors.py")
    append(code / "report/page.py")
    commit(project, "edits of what every stage has loaded, and of what a later one loads")
    append(code / "gates/judge.py")
    commit(project, "an edit of what the gates load")

    def moves(to: str) -> Callable[[], None]:
        return lambda: print(project.shell("git", "checkout", "-q", to))

    # As a `git pull` does, while the first gate is judged: it has loaded its code, the later stages load the new one.
    moves("main~2")()
    status, said = run_with(project, "r1", moves("main~1"))
    assert status == 2, said
    assert "Traceback" not in said
    assert "code has changed since this run began: tasks/errors.py" in said
    assert "error: changed while this run went on: tasks/errors.py, tasks/report/page.py. " in said
    assert code_of(project, "gate@r1")["tasks/errors.py"] == before["errors.py"]
    for stage in ("gate@r2", "gate@r3", "report"):
        assert code_of(project, stage)["tasks/errors.py"] == file_sha256(code / "errors.py") != before["errors.py"]
    assert code_of(project, "report")["tasks/report/page.py"] == file_sha256(code / "report/page.py")

    # And while a stage is at work with code that changes: what it makes is not kept.
    moves("main")()
    status, said = run_with(project, "r2", moves("main~1"))
    assert status == 2, said
    assert "Traceback" not in said
    assert "error: gate@r2: changed while it ran: tasks/gates/judge.py. " in said

    states = project.run()  # with the judge of before, whose verdicts are in the run cache
    assert [states[f"gate@{name}"] for name in ("r1", "r2", "r3")] == ["restored", "restored", "skipped"]
    for name in ("r1", "r2", "r3"):
        assert code_of(project, f"gate@{name}")["tasks/gates/judge.py"] == before["gates/judge.py"]
    assert alarms(project) == []
