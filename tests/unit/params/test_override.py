"""`--set` changes a value in its place and nothing else; `undo` takes that back and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.errors import ParamsError, UserError
from tasks.params.edit import planned_text, read_text, undo, write_text
from tasks.params.override import override

ROOT = Path(__file__).resolve().parents[3]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "params").glob("*.yaml"))]
EVERY = 17  # of the values of a file, so that it takes a second
SHAPES = """\
# a comment
a: 1     # of a
b: {x: 1,
   y: 2}   # of b
c:
  d: null  # of d
  e:
  f: |
    text

  # at the end of c
g:   # of g
- 1
# within g
- 2  # two
labels: {0: neg, 1: pos}
"""


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the lines that went and those that came."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:] for line in lines if line[0] == "-"], [line[2:] for line in lines if line[0] == "+"]


def places(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        yield f"{prefix}{key}", item
        if isinstance(item, dict):
            yield from places(item, f"{prefix}{key}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_value_of_every_file_changes_its_line_alone(path: Path) -> None:
    text = read_text(path)
    values = YAML(typ="safe").load(text)
    for number, (key, value) in enumerate(places(values)):
        if number % EVERY:
            continue
        made = override(text, f"{key}=[0, new]", path.name)
        went, came = changed(text, made)
        assert len(came) == 1, (key, came)
        assert isinstance(value, dict | list) or len(went) == 1, (key, went)
        place: Any = YAML(typ="safe").load(made)
        for part in key.split("."):
            place = place[part if part in place else int(part)]
        assert place == [0, "new"]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("wanted", "went", "came"),
    [
        ("a=2", ["a: 1     # of a"], ["a: 2     # of a"]),
        ("a=", ["a: 1     # of a"], ["a: null     # of a"]),
        ("a=x: y", ["a: 1     # of a"], ['a: {"x": "y"}     # of a']),
        ("b.y=p, q", ["   y: 2}   # of b"], ['   y: "p, q"}   # of b']),
        ("b.z=3", ["   y: 2}   # of b"], ["   y: 2, z: 3}   # of b"]),
        ("c.d={k: [1]}", ["  d: null  # of d"], ["  d: {k: [1]}  # of d"]),
        ("c.e=5", ["  e:"], ["  e: 5"]),
        ("c.f=1", ["  f: |", "    text"], ["  f: 1"]),
        ("c.new=null", [], ["  new: null"]),
        ("g=[]", ["g:   # of g", "- 1", "# within g", "- 2  # two"], ["g: []   # of g"]),
        ("labels.1=good", ["labels: {0: neg, 1: pos}"], ["labels: {0: neg, 1: good}"]),
        ("labels.2=so-so", ["labels: {0: neg, 1: pos}"], ["labels: {0: neg, 1: pos, 2: so-so}"]),
        ("new=é", [], ["new: é"]),
    ],
)
def test_each_shape_of_a_value_is_changed_in_its_place(wanted: str, went: list[str], came: list[str], ends: str) -> None:
    text = SHAPES.replace("\n", ends)
    made = override(text, wanted, "params.yaml")
    assert changed(text, made) == (went, came)
    assert made.count("\r") == (made.count("\n") if ends == "\r\n" else 0)
    assert override("\ufeff" + text, wanted, "params.yaml") == "\ufeff" + made


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("a=[1", "the value is not YAML"),
        ("a=*x", "the value is not YAML"),
        ("a.b=1", "has no keys below a"),
        ("g.0=1", "has no keys below g; give all of it"),
        ("z.b=1", "has no key 'z' there; allowed: a, b, c, g, labels"),
        ("a", "no '='"),
    ],
)
def test_what_cannot_be_set_is_refused(wanted: str, words: str) -> None:
    with pytest.raises(ParamsError, match=r"^--set ") as refused:
        override(SHAPES, wanted, "params.yaml")
    assert words in str(refused.value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with params.yaml, without Git."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


def edit(project: Path, old: str, new: str) -> None:
    text = read_text(project / "params.yaml")
    assert old in text
    (project / "params.yaml").write_text(text.replace(old, new), encoding="utf-8")


def set_(project: Path, *overrides: str) -> list[str]:
    return write_text(project, planned_text(project, None, list(overrides)))


def test_undo_takes_back_the_last_change_alone(project: Path) -> None:
    edit(project, "seed: 0", "seed: 5  # mine, not committed")
    mine = read_text(project / "params.yaml")
    said = set_(project, "rounds.r3.layers=2")
    assert said == ["params.yaml: rounds.r3.layers: 3 -> 2", "params.yaml was changed; undo with: compactlm undo"]
    once = read_text(project / "params.yaml")
    assert set_(project, "rounds.r3.layers=2") == []
    set_(project, "data.max_tokens=64", "gates=[{metric: params_total, max: 9}]", "rounds.r3.layers=1")
    said = undo(project)
    assert "params.yaml: -     layers: 1" in said
    assert "params.yaml: +     layers: 2" in said
    assert read_text(project / "params.yaml") == once
    assert undo(project) == ["params.yaml: -     layers: 2", "params.yaml: +     layers: 3"]
    assert read_text(project / "params.yaml") == mine
    with pytest.raises(UserError, match="no change of `compactlm run --set`"):
        undo(project)


def test_undo_keeps_what_was_edited_elsewhere_after_the_change(project: Path) -> None:
    before = read_text(project / "params.yaml")
    set_(project, "rounds.r3.layers=2")
    edit(project, "seed: 0", "seed: 5\n# one line more")
    edit(project, "  model_name: compactlm-sentiment", "  model_name: mine")
    undo(project)
    kept = before.replace("seed: 0", "seed: 5\n# one line more").replace("name: compactlm-sentiment", "name: mine")
    assert read_text(project / "params.yaml") == kept


def test_undo_refuses_where_the_changed_line_was_edited_again(project: Path) -> None:
    set_(project, "rounds.r3.layers=2")
    edit(project, "    layers: 2\n", "    layers: 1\n")
    mine = read_text(project / "params.yaml")
    with pytest.raises(UserError, match=r"edited since; by hand, it was:\n    layers: 3"):
        undo(project)
    assert read_text(project / "params.yaml") == mine


def test_another_description_is_undone_to_the_byte(project: Path) -> None:
    edit(project, "seed: 0", "seed: 5  # mine")
    mine = read_text(project / "params.yaml")
    other = project / "other.yaml"
    other.write_bytes((ROOT / "params/bert-base-sst2.yaml").read_bytes())
    write_text(project, planned_text(project, other, []))
    assert read_text(project / "params.yaml") == read_text(other)
    undo(project)
    assert read_text(project / "params.yaml") == mine
