"""Where a run of a ref starts, in real repositories: what of the former result it takes over, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.errors import ParamsError, ResourceError, UserError
from tasks.git import commit_files, commit_of, git
from tasks.running.scheduled import (
    RESULTS,
    Schedule,
    Start,
    check_out,
    checked_schedule,
    find_start,
    is_unchanged,
    keep,
    only_tick,
)

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org")


def do(folder: Path, *words: str) -> str:
    done = git(folder, *WHO, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def write(folder: Path, files: dict[str, str], message: str) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    do(folder, "add", "-A")
    do(folder, "commit", "-qm", message)
    return commit_of(folder, "HEAD")


@pytest.fixture
def author(tmp_path: Path) -> Path:
    """A clone in which somebody works, of a remote beside it."""
    do(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    do(tmp_path, "clone", "-q", "remote.git", "author")
    folder = tmp_path / "author"
    do(folder, "switch", "-qc", "main")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("")
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")  # as `dvc init` writes it
    write(folder, {"dvc.yaml": "stages: {}\n", "params.yaml": "{}\n", ".gitignore": "/.compactlm/\n", "dvc.lock": "a\n"}, "one")
    do(folder, "push", "-q", "origin", "main")
    return folder


@pytest.fixture
def home(author: Path) -> Path:
    """The clone that runs the schedule."""
    do(author.parent, "clone", "-q", "remote.git", "home")
    return author.parent / "home"


def tick(schedule: Schedule, files: dict[str, str]) -> Start:
    """Run a tick whose run leaves these files."""
    start = find_start(schedule)
    place = check_out(schedule, start.base)
    for name, text in files.items():
        (place / name).write_text(text)
    commit_files(place, RESULTS, "result")
    kept = keep(schedule, start, "completed", "2026-01-01T00:00:00+00:00")
    assert "unpushed" not in kept
    return start


def at(folder: Path, name: str, file: str) -> str:
    return do(folder, "show", f"{name}:{file}")


def test_a_result_is_a_commit_of_its_own_branch_here_and_at_the_remote(author: Path, home: Path) -> None:
    made = checked_schedule(home, "origin/main", "nightly")
    before = (commit_of(home, "HEAD"), (home / "dvc.lock").read_text(), do(home, "status", "--porcelain"))
    start = tick(made, {"dvc.lock": "b\n"})
    assert start.base == start.commit == commit_of(author, "HEAD")
    assert at(home, "compactlm/runs/nightly", "dvc.lock") == "b"
    assert do(author, "ls-remote", "origin", "refs/heads/compactlm/runs/nightly").startswith(commit_of(home, made.branch))
    assert (commit_of(home, "HEAD"), (home / "dvc.lock").read_text(), do(home, "status", "--porcelain")) == before


def test_the_next_run_starts_from_the_result_and_the_ref(author: Path, home: Path) -> None:
    made = checked_schedule(home, "origin/main", "nightly")
    tick(made, {"dvc.lock": "b\n", "sources.lock": "new data\n"})
    result = commit_of(home, made.branch)
    assert find_start(made).base == result  # nothing is new: the result is where the next run starts
    newer = write(author, {"params.yaml": "seed: 1\n"}, "two")
    do(author, "push", "-q", "origin", "main")
    start = find_start(made)
    assert do(home, "log", "-1", "--format=%P", start.base).split() == [result, newer]
    assert [at(home, start.base, name) for name in ("params.yaml", "dvc.lock", "sources.lock")] == ["seed: 1", "b", "new data"]
    # Locks that the ref itself has brought are newer than the former result's.
    write(author, {"dvc.lock": "merged by a person\n"}, "three")
    do(author, "push", "-q", "origin", "main")
    start = find_start(made)
    assert [at(home, start.base, name) for name in ("dvc.lock", "sources.lock")] == ["merged by a person", "new data"]


def test_a_ref_that_has_taken_over_the_result_is_run_as_it_is(author: Path, home: Path) -> None:
    made = checked_schedule(home, "origin/main", "nightly")
    tick(made, {"dvc.lock": "b\n"})
    do(author, "pull", "-q", "origin", "compactlm/runs/nightly")
    newer = write(author, {"params.yaml": "seed: 1\n"}, "two")
    do(author, "push", "-q", "origin", "main")
    assert find_start(made).base == newer


def test_nothing_new_is_found_without_a_run_and_a_change_of_anything_is_not_missed(author: Path, home: Path) -> None:
    write(author, {"params.yaml": (Path(__file__).parents[3] / "params.yaml").read_text(), "sources.lock": "{}\n"}, "real params")
    do(author, "push", "-q", "origin", "main")
    made = checked_schedule(home, "origin/main", "nightly")
    tick(made, {"dvc.lock": "b\n"})
    start = find_start(made)
    assert not is_unchanged(made, start)  # the data is not that of sources.lock
    from tasks.data.sources import refresh_lock
    from tasks.params.file import load_params

    refresh_lock(load_params(made.place / "params.yaml").sources(), made.place / "sources.lock")
    commit_files(made.place, RESULTS, "sources")
    keep(made, start, "completed", "2026-01-01T00:00:00+00:00")
    start = find_start(made)
    assert is_unchanged(made, start)
    for outcome, unchanged in (("not recorded", False), ("nothing passed", True)):
        keep(made, start, outcome, "2026-01-01T00:00:00+00:00")
        assert is_unchanged(made, start) is unchanged
    lock = made.place / "dvc.lock"
    lock.write_text("half a run\n")
    assert not is_unchanged(made, start)
    lock.write_text("b\n")
    assert is_unchanged(made, start)
    write(author, {"README.md": "a word\n"}, "two")
    do(author, "push", "-q", "origin", "main")
    assert not is_unchanged(made, find_start(made))


def test_what_cannot_be_pushed_is_told_and_tried_again(author: Path, home: Path) -> None:
    made = checked_schedule(home, "origin/main", "nightly")
    start = find_start(made)
    (check_out(made, start.base) / "dvc.lock").write_text("b\n")
    commit_files(made.place, RESULTS, "result")
    remote = author.parent / "remote.git"
    remote.rename(remote.with_name("away"))
    kept = keep(made, start, "completed", "2026-01-01T00:00:00+00:00")
    assert kept["unpushed"].startswith("origin: ")
    with pytest.raises(ResourceError, match="--ref origin/main: origin cannot be reached"):
        find_start(made)
    remote.with_name("away").rename(remote)
    start = find_start(made)
    assert start.base == kept["head"]
    assert not is_unchanged(made, start)
    assert "unpushed" not in keep(made, start, "no change", "2026-01-01T00:00:00+00:00")


def test_a_second_clone_goes_on_from_the_first_ones_result_and_two_at_once_are_told(author: Path, home: Path) -> None:
    first = checked_schedule(home, "origin/main", "nightly")
    do(author.parent, "clone", "-q", "remote.git", "second")
    second = checked_schedule(author.parent / "second", "origin/main", "nightly")
    tick(first, {"dvc.lock": "b\n"})
    assert find_start(second).base == commit_of(home, first.branch)
    tick(second, {"dvc.lock": "c\n"})
    assert find_start(first).base == commit_of(second.home, second.branch)
    (check_out(first, commit_of(home, first.branch)) / "dvc.lock").write_text("d\n")
    commit_files(first.place, RESULTS, "result")
    kept = keep(first, find_start(first), "completed", "2026-01-01T00:00:00+00:00")
    assert "unpushed" in kept
    with pytest.raises(UserError, match="two clones run this schedule"):
        find_start(first)


def test_half_a_run_and_strange_files_are_gone_at_the_next_one_and_what_git_ignores_stays(author: Path, home: Path) -> None:
    made = checked_schedule(home, "origin/main", "nightly")
    place = check_out(made, find_start(made).base)
    for name in ("dvc.lock", "params.yaml", "tasks/stray.py", ".compactlm/scratch/step", ".dvc/config.local"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x = 1\n" if name != ".dvc/config.local" else "")
    place = check_out(made, find_start(made).base)
    assert (place / "dvc.lock").read_text() == "a\n"
    assert not (place / "tasks").exists()
    assert (place / ".compactlm/scratch/step").exists()
    shutil.rmtree(made.tree)  # by a person
    assert (check_out(made, find_start(made).base) / "dvc.yaml").exists()


def test_a_project_below_the_top_of_its_repository_runs_below_the_top_of_the_worktree(author: Path, home: Path) -> None:
    files = {"dvc.yaml": "stages: {}\n", "params.yaml": "{}\n", ".dvc/config": "[core]\n    no_scm = true\n"}
    write(author, {f"models/small/{name}": text for name, text in files.items()}, "two")
    do(author, "push", "-q", "origin", "main")
    do(home, "pull", "-q")
    made = checked_schedule(home / "models" / "small", "origin/main", "nightly")
    tick(made, {"dvc.lock": "b\n"})
    assert made.place == made.tree / "models" / "small"
    assert at(home, made.branch, "models/small/dvc.lock") == "b"
    write(author, {"other.txt": "x\n"}, "three")
    do(author, "push", "-q", "origin", "main")
    assert at(home, find_start(made).base, "models/small/dvc.lock") == "b"


def test_another_environment_is_refused(author: Path, home: Path) -> None:
    write(author, {"requirements.lock": "torch==9\n"}, "two")
    do(author, "push", "-q", "origin", "main")
    made = checked_schedule(home, "origin/main", "nightly")
    with pytest.raises(ResourceError, match=r"requirements\.lock is another one than that of .*git pull"):
        check_out(made, find_start(made).base)


@pytest.mark.parametrize(
    ("ref", "name", "words"),
    [
        ("origin/nothing", None, "--ref origin/nothing: origin has no such branch"),
        ("nothing", None, "--ref nothing: there is no such branch, tag or commit here"),
        ("main", "../up", "--name '../up': write letters"),
        ("main", "a..b", "--name 'a..b'"),
        ("main", "x.lock", "--name 'x.lock'"),
        ("--upload-pack=x", "n", "--ref --upload-pack=x: there is no such branch"),
    ],
)
def test_refs_and_names_that_cannot_be(home: Path, ref: str, name: str | None, words: str) -> None:
    with pytest.raises(ParamsError) as refused:
        checked_schedule(home, ref, name)
    assert words in str(refused.value)


def test_a_schedule_is_named_after_its_ref(home: Path) -> None:
    assert checked_schedule(home, "origin/main", None).branch == "compactlm/runs/origin-main"
    assert checked_schedule(home, "main", None).remote is None


def test_one_tick_at_a_time(home: Path) -> None:
    made = checked_schedule(home, "main", None)
    with only_tick(made), pytest.raises(ResourceError, match="an earlier run of this schedule is under way"), only_tick(made):
        pass
