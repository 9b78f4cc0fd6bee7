"""The house rules of tasks/ and flows/: few rooms, each by its name, and the page that leads through them."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.params.base import CAUSAL_LM, CLASSIFICATION
from tasks.running.stage import STAGES

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "tasks"
ROOMS = sorted(path.name for path in TASKS.iterdir() if path.is_dir() and path.name != "__pycache__")
GUIDE = ROOT / "docs" / "architecture.md"
MOST_PARAMETERS = 7


def modules() -> list[Path]:
    return sorted(path for folder in ("flows", "tasks") for path in (ROOT / folder).rglob("*.py"))


def contracts() -> list[dict[str, Any]]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(content["tool"]["importlinter"]["contracts"])


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_the_top_of_tasks_can_be_read_at_a_glance() -> None:
    assert len(list(TASKS.glob("*.py"))) <= 10
    assert len(ROOMS) <= 19
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 500


def test_a_stage_is_one_file_whatever_the_task() -> None:
    files = {path.stem for path in (TASKS / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)
    for task in (CLASSIFICATION, CAUSAL_LM):
        twins = [path for path in TASKS.rglob(f"*{task}*") if path.suffix != ".pyc" and path.name != f"{task}.py"]
        assert [path for path in twins if "templates" not in path.parts] == [], "what differs by task is a file named after it"


def test_all_stages_are_kept_apart() -> None:
    [apart] = [contract for contract in contracts() if contract["type"] == "independence"]
    assert sorted(apart["modules"]) == sorted(f"tasks.stages.{stage}" for stage in STAGES)


def test_all_rooms_have_their_storey() -> None:
    [storeys] = [contract for contract in contracts() if contract["type"] == "layers"]
    named = {name.strip() for storey in storeys["layers"] for name in storey.split("|")}
    loose = {path.stem for path in TASKS.glob("*.py")} - {"__init__", "__main__"}
    assert named == {*ROOMS, *loose}


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_function_takes_more_than_a_reader_can_hold(path: Path) -> None:
    if path.parent == TASKS / "stages":  # their arguments are the flags of a command
        return
    for function in functions(path):
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count = len([argument for argument in given if argument.arg not in ("self", "cls")])
        assert count <= MOST_PARAMETERS, f"{path.name}: {function.name} takes {count} parameters"


def test_no_rule_is_switched_off_where_the_code_could_keep_it() -> None:
    pattern = re.compile(r"# (fmt: (skip|off)|noqa: ARG001)")
    every = [*modules(), *sorted((ROOT / "tests").rglob("*.py"))]
    here = Path(__file__)
    assert [path.name for path in every if path != here and pattern.search(path.read_text(encoding="utf-8"))] == []


def test_the_templates_of_every_room_are_installed_with_it() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rooms = {f"tasks.{folder.parent.name}" for folder in TASKS.glob("*/templates")}
    assert set(content["tool"]["setuptools"]["package-data"]) == rooms


def test_unit_tests_stand_in_folders_named_after_the_rooms() -> None:
    folders = {path.name for path in (ROOT / "tests" / "unit").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= {*ROOMS, "ground", "bench"}
    assert list((ROOT / "tests" / "unit").glob("test_*.py")) == []


def test_the_guide_names_every_room_and_no_path_that_is_not_there() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [room for room in ROOMS if f"`{room}/`" not in text] == []
    paths = re.findall(r"`((?:tasks|flows|tests|params|docs)/[\w./*-]+)`", text)
    assert paths
    of_recipes = re.compile(r"/(VERB|NAME)\.py$")  # files that are yet to be written
    assert [path for path in paths if not of_recipes.search(path) and not list(ROOT.glob(path))] == []


def test_the_guide_answers_twelve_questions_with_a_place_each() -> None:
    section = GUIDE.read_text(encoding="utf-8").split("## Where is ...?")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "?" in line]
    assert len(rows) >= 12
    assert [row for row in rows if "`tasks/" not in row and "`flows/" not in row] == []


def test_recipes_have_at_most_four_steps() -> None:
    recipes = re.split(r"^### ", GUIDE.read_text(encoding="utf-8").split("## Recipes")[1], flags=re.MULTILINE)[1:]
    titles = [recipe.splitlines()[0] for recipe in recipes]
    assert titles == ["Add a criterion", "Add a loss", "Add a family", "Add a metric with its gate", "Add a stage", "Add a task"]
    for recipe in recipes:
        assert 1 <= len(re.findall(r"^\d\. ", recipe, flags=re.MULTILINE)) <= 4
