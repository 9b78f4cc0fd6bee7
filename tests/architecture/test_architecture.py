"""What holds the parts together: import contracts, dvc.yaml against the code it runs, and commands that documents show."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grimp
import pytest
import typer
import typer.main
from importlinter.cli import lint_imports
from ruamel.yaml import YAML

from tasks.cli import app as cli
from tasks.errors import UserError
from tasks.params.file import apply_overrides
from tasks.running.stage import STAGES, main, stage_function

ROOT = Path(__file__).resolve().parents[2]
# Every stage runs on these; a change of them is no reason to train again.
GROUND = (
    "tasks.artifacts",
    "tasks.children",
    "tasks.entry",
    "tasks.errors",
    "tasks.files",
    "tasks.git",
    "tasks.lineage",
    "tasks.params",
    "tasks.progress",
    "tasks.running",
)
# A run that has every stage there can be: the second round searches, and the third is trained from random weights too.
EVERY_STAGE = [
    "baselines.random_init=[r3]",
    "rounds.r2={parent: r1, ratio: 4, search: {candidates: 3, transfer_rows: 20000, keep: 2}, labelled_epochs: 1, "
    "transfer_epochs: 0.5, learning_rate: 3.0e-4}",
    "trials={rounds: [r2], candidates: [1, 2, 3], places: [1, 2]}",
]
RECEIPTS = "artifacts/receipts"  # read by the report alone, and never a dependency: a receipt holds times
README = ROOT / "README.md"
SHELLS = {"", "sh", "bash", "shell", "console"}
PROGRAMS = {"compactlm", "make", "dvc", "python"}


@dataclass(frozen=True)
class Entry:
    """A stage of dvc.yaml as DVC reads it, every `foreach` written out."""

    name: str
    arguments: list[str]  # of `python -m tasks`
    deps: list[str]
    outs: list[str]
    params: list[str]

    @property
    def verb(self) -> str:
        return self.arguments[0]

    def paths(self, role: str) -> list[str]:
        """Return the values of the stage's arguments that are inputs, or outputs."""
        found = dict(zip(self.arguments[1::2], self.arguments[2::2], strict=True))
        roles = stage_function(self.verb)[1]
        given = {flag.removeprefix("--").replace("-", "_"): value for flag, value in found.items()}
        return [value for name, value in given.items() if roles.get(name) == role]


def _entries() -> list[Entry]:
    """Return the stages of dvc.yaml for a run that has every stage there can be."""
    import tempfile

    from dvc.repo import Repo

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
        text = apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), EVERY_STAGE, "p")
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        Repo.init(name, no_scm=True).close()
        with Repo(name) as repo:
            return [_entry(stage) for stage in repo.index.stages]


def _entry(stage: Any) -> Entry:
    words = shlex.split(stage.cmd)
    assert words[:3] == ["python", "-m", "tasks"], stage.cmd
    return Entry(
        name=stage.name,
        arguments=words[3:],
        deps=[dep.def_path for dep in stage.deps if not getattr(dep, "params", None)],
        outs=[out.def_path for out in stage.outs],
        params=[key for dep in stage.deps for key in getattr(dep, "params", ())],
    )


ENTRIES = _entries()
EVERYTHING = YAML(typ="safe").load(
    apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), EVERY_STAGE, "params.yaml")
)
every_stage = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports test files by their name alone, and stops at the second of two."""
    names = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, times in names.items() if times > 1] == []


def test_git_is_called_through_its_door() -> None:
    files = [path for folder in ("flows", "tasks") for path in (ROOT / folder).rglob("*.py")]
    callers = [path.relative_to(ROOT).as_posix() for path in files if '["git",' in path.read_text(encoding="utf-8")]
    assert callers == ["tasks/git.py"]


def test_import_contracts_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0, capsys.readouterr().out


@functools.cache
def _imports() -> grimp.ImportGraph:
    graph = grimp.build_graph("tasks", cache_dir=None)
    for module in graph.modules:
        if any(module == room or module.startswith(f"{room}.") for room in GROUND):
            graph.remove_module(module)
    return graph


def _code_of(verb: str) -> set[str]:
    """Return the files that hold the code of a stage, plumbing left out."""
    stage = f"tasks.stages.{verb}"
    modules = {stage, *_imports().find_upstream_modules(stage)}
    found = set()
    for module in modules:
        path = module.replace(".", "/")
        found.add(f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py")
    return found


@every_stage
def test_the_code_of_a_stage_is_what_dvc_watches(entry: Entry) -> None:
    code = _code_of(entry.verb)
    watched = [dep for dep in entry.deps if _holds("tasks", dep)]
    unwatched = {path for path in code if not any(_holds(dep, path) for dep in watched)}
    assert unwatched == set(), "imported, but no dependency in dvc.yaml"
    idle = {dep for dep in watched if not any(_holds(dep, path) for path in code)}
    assert idle == set(), "a dependency in dvc.yaml, but not imported"


@every_stage
def test_the_files_of_a_stage_are_what_dvc_watches(entry: Entry) -> None:
    for path in entry.paths("input"):
        if path != RECEIPTS:
            assert any(_holds(dep, path) or _holds(path, dep) for dep in entry.deps), f"{path} is read and no dep"
    for path in entry.paths("output"):
        assert any(_holds(out, path) or _holds(path, out) for out in entry.outs), f"{path} is written and no out"
    used = [*entry.paths("input"), *entry.paths("output"), f"{RECEIPTS}/{entry.name}.json"]
    for path in [*entry.deps, *entry.outs]:
        known = any(_holds(path, one) or _holds(one, path) for one in used)
        assert known or _holds("tasks", path), f"{path} stands in dvc.yaml, and no argument names it"


@every_stage
def test_a_receipt_is_an_output_and_never_a_dependency(entry: Entry) -> None:
    receipt = f"{RECEIPTS}/{entry.name}.json"
    assert receipt in entry.outs
    assert entry.arguments[-2:] == ["--receipt", receipt]
    assert not [dep for dep in entry.deps if _holds(RECEIPTS, dep) or _holds(dep, RECEIPTS)]


@every_stage
def test_params_of_a_stage_exist(entry: Entry) -> None:
    assert entry.params
    for key in entry.params:
        place = EVERYTHING
        for part in key.split("."):
            assert part in place, f"{key} is not in params.yaml"
            place = place[part]


def test_every_stage_is_in_dvc_yaml() -> None:
    assert {entry.verb for entry in ENTRIES} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help_with_an_example(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([stage, "--help"])
    assert leave.value.code == 0
    shown = capsys.readouterr().out
    assert f"example: python -m tasks {stage} --" in shown
    assert "--receipt" in shown
    assert "--json" in shown


COMPACTLM: Any = typer.main.get_command(cli.app)


@pytest.mark.parametrize("name", COMPACTLM.commands)
def test_every_command_has_help_with_an_example_and_json(name: str) -> None:
    command = COMPACTLM.commands[name]
    assert command.help
    assert command.epilog.startswith(f"Example: compactlm {name}")
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    _check_compactlm(shlex.split(command.epilog)[2:])


def shown_commands(text: str) -> Iterator[list[str]]:
    """Return the words of each command of ours that the code blocks and the inline code of a document show."""
    for language, block in re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                if language != "console" or line.startswith("$ "):
                    yield from _commands_of(line.removeprefix("$ "))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+ [^`\n]+)`", prose):
        yield from _commands_of(code)


def _commands_of(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # prose with an apostrophe
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if not set(word) <= set("&|;<>()"):
            command.append(word)
            continue
        while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
            command.pop(0)
        if len(command) > 1 and Path(command[0]).name in PROGRAMS:
            yield [Path(command[0]).name, *command[1:]]
        command = []


SHOWN = [
    (path.name, words)
    for path in (README, *sorted((ROOT / "docs").glob("*.md")))
    if path.exists()
    for words in shown_commands(path.read_text(encoding="utf-8"))
]


def test_the_readme_shows_commands() -> None:
    assert README.exists()
    assert {"compactlm", "make"} <= {words[0] for name, words in SHOWN if name == "README.md"}


@pytest.mark.parametrize(("name", "words"), SHOWN, ids=[" ".join(words) for _, words in SHOWN])
def test_every_command_in_the_documents_exists(name: str, words: list[str]) -> None:
    _check(words)


def _check(words: list[str]) -> None:
    if words[0] == "compactlm":
        _check_compactlm(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
        asked = [word for word in words[1:] if "=" not in word]
        assert set(asked) <= set(targets), f"make has no target {set(asked) - set(targets)}"
    elif words[0] == "dvc":
        _check_dvc(words[1:])
    elif words[1] == "-m" and words[2:3] == ["tasks"]:
        assert words[3] in (*STAGES, "STAGE", "--help")
    elif words[1] == "-m":
        assert importlib.util.find_spec(words[2]) is not None, f"no module {words[2]}"


def _check_compactlm(arguments: list[str]) -> None:
    """Raise unless `compactlm ARGUMENTS` is a command whose options exist and whose overrides params.yaml takes."""
    name, *rest = [word for word in arguments if word != "--help"] or [""]
    if name and not rest:  # prose names the command without what it is given
        assert name in COMPACTLM.commands
    elif name:
        with COMPACTLM.commands[name].make_context(name, rest) as context:
            overrides = context.params.get("set_") or []
            apply_overrides((ROOT / "params.yaml").read_text(encoding="utf-8"), overrides, "params.yaml")


def _check_dvc(arguments: list[str]) -> None:
    from dvc.cli.parser import get_main_parser

    if arguments[-1] == "--set-param":  # prose names the option without its value
        arguments = [*arguments, "seed=1"]
    parsed = get_main_parser().parse_args(arguments)
    known = {entry.name for entry in ENTRIES} | {entry.verb for entry in ENTRIES}
    assert set(getattr(parsed, "targets", None) or []) <= known


def test_commands_of_a_document_are_found() -> None:
    text = (
        "Run `compactlm status` now, it's `a b`.\n```sh\n# first\nOMP_NUM_THREADS=1 .venv/bin/compactlm run \\\n"
        "  --set seed=1 && make test  # both\n```\n```console\n$ dvc repro | cat\ndvc says this\n```\n"
        "```json\nmake sense\n```\n"
    )
    assert list(shown_commands(text)) == [
        ["compactlm", "run", "--set", "seed=1"],
        ["make", "test"],
        ["dvc", "repro"],
        ["compactlm", "status"],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "compactlm runn",
        "compactlm run --sett seed=1",
        "compactlm run --set sed=1",
        "make tset",
        "dvc reproo",
        "dvc repro prune@r9",
        "python -m tasks prun",
        "python -m tests.bensh",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    from dvc.cli import DvcParserError

    usage_error = typer.BadParameter.__bases__[0]  # click's, or typer's own copy of it
    with pytest.raises((AssertionError, KeyError, UserError, DvcParserError, usage_error)):
        _check(line.split())
