"""The door to Git: what it recorded, edits of a dirty workspace applied, to read or in a worktree."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tasks.errors import UserError

# Hooks are the user's own programs, such as DVC's, which would fill a worktree from the cache.
NO_HOOKS: Final = ("-c", f"core.hooksPath={os.devnull}")


class Snapshot:
    """The files below the workspace at one commit: path -> blob, read when asked for."""

    def __init__(self, workspace: Path, blobs: Mapping[str, str], env: Mapping[str, str]) -> None:
        self._workspace, self.blobs, self._env = workspace, dict(blobs), dict(env)

    def read(self, paths: list[str]) -> dict[str, bytes]:
        """Return path -> bytes of those paths the snapshot has and Git can still read whole."""
        left = [path for path in paths if path in self.blobs]
        contents: dict[str, bytes] = {}
        while left:
            blobs = "".join(f"{self.blobs[path]}\n" for path in left).encode()
            rest = git(self._workspace, "cat-file", "--batch", env=self._env, given=blobs).stdout
            while left and rest:
                head, _, rest = rest.partition(b"\n")
                words = head.split()
                if len(words) == 3 and words[1] == b"blob":
                    size = int(words[2])
                    if len(rest) <= size:
                        break  # Git knew the size, and then could not read the rest
                    contents[left[0]], rest = rest[:size], rest[size + 1 :]
                left = left[1:]
            left = left[1:]  # Git stops at an object that is broken; the others may be whole
        return contents

    def below(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder, or the path itself."""
        return [path for path in self.blobs if path == folder or path.startswith(f"{folder}/")]


def has_commit(workspace: Path, commit: str) -> bool:
    """Return whether this repository has the commit."""
    return git(workspace, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def damage(workspace: Path, commit: str) -> str | None:
    """Return what Git says when it cannot read a commit that it has, or its folders; None when all is well."""
    done = git(workspace, "ls-tree", "-r", commit)
    words = done.stderr.decode(errors="replace").strip()
    broken = done.returncode != 0 and ("corrupt" in words or has_commit(workspace, commit))
    return words.splitlines()[-1] if broken else None


def git_facts(workspace: Path) -> dict[str, str]:
    """Return what the record of a run says of Git: `git_commit`, nothing outside of Git."""
    done = git(workspace, "rev-parse", "HEAD")
    return {"git_commit": done.stdout.decode().strip()} if done.returncode == 0 else {}


def is_reachable(workspace: Path, commit: str) -> bool:
    """Return whether a branch, a tag or HEAD leads to the commit; what none leads to is swept away one day."""
    if git(workspace, "merge-base", "--is-ancestor", commit, "HEAD").returncode == 0:
        return True
    return bool(git(workspace, "for-each-ref", "--contains", commit, "--count=1").stdout.strip())


def snapshot(workspace: Path, commit: str, diff: str | None, scratch: Path) -> Snapshot | None:
    """Return the files of a commit with `diff` applied, or None when the commit is missing or the diff does not fit.

    The repository is not changed: index and new objects go below `scratch`.
    """
    if not has_commit(workspace, commit):
        return None
    folder = Path(tempfile.mkdtemp(dir=scratch))
    own = git(workspace, "rev-parse", "--path-format=absolute", "--git-path", "objects").stdout.decode().strip()
    (folder / "objects").mkdir()
    env = {
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": own,
    }
    top = Path(git(workspace, "rev-parse", "--show-toplevel").stdout.decode().strip())
    if git(top, "read-tree", commit, env=env).returncode != 0:
        return None
    if diff and git(top, "apply", "--cached", "--whitespace=nowarn", "-", env=env, given=diff.encode()).returncode != 0:
        return None
    prefix = git(workspace, "rev-parse", "--show-prefix").stdout.decode().strip()
    blobs = {}
    for line in git(top, "ls-files", "-s", "-z", env=env).stdout.decode().split("\0")[:-1]:
        facts, _, path = line.partition("\t")
        if path.startswith(prefix):
            blobs[path.removeprefix(prefix)] = facts.split()[1]
    return Snapshot(workspace, blobs, env)


@contextmanager
def worktree(workspace: Path, into: Path) -> Iterator[Path]:
    """Give where the project is in a new worktree at `into`, still without files; it is taken away at the end."""
    try:
        done = git(workspace, *NO_HOOKS, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(into), "HEAD")
        if done.returncode != 0:
            raise UserError(f"{workspace}: git makes no worktree: {done.stderr.decode(errors='replace').strip()}")
        yield into / git(workspace, "rev-parse", "--show-prefix").stdout.decode().strip()
    finally:
        git(workspace, "worktree", "remove", "--force", str(into))


def switch(worktree: Path, commit: str, diff: str | None) -> bool:
    """Return whether the worktree now has the files of a commit with `diff` applied; files that Git ignores stay."""
    if git(worktree, *NO_HOOKS, "checkout", "--quiet", "--force", "--detach", commit).returncode != 0:
        return False
    # In the index too, so that the next switch takes away the files it adds.
    return not diff or git(worktree, "apply", "--index", "--whitespace=nowarn", "-", given=diff.encode()).returncode == 0


def commits_of(workspace: Path, path: str) -> list[str]:
    """Return the commits of every branch and tag that changed a file of the project, oldest first."""
    done = git(workspace, "log", "--all", "--topo-order", "--reverse", "--format=%H", "--", path)
    return done.stdout.decode().split()


def read_refs(workspace: Path, prefix: str) -> dict[str, bytes]:
    """Return name -> content of the blobs that the refs below `prefix` point at, by name; empty where Git cannot read one."""
    listed = git(workspace, "for-each-ref", "--sort=refname", "--format=%(refname) %(objectname)", prefix)
    names = dict(line.split() for line in listed.stdout.decode().splitlines())
    contents = Snapshot(workspace, names, {}).read(list(names))
    return {name: contents.get(name, b"") for name in names}


def create_ref(workspace: Path, name: str, content: str) -> bool:
    """Return whether a new ref now points at a blob with this content; False when there is such a ref already."""
    kept = git(workspace, "hash-object", "-w", "--stdin", given=content.encode())
    blob = kept.stdout.decode().strip()
    # The empty old value: only if there is none.
    return kept.returncode == 0 and git(workspace, "update-ref", name, blob, "").returncode == 0


def git(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Return how a Git command in a folder ended, with its bytes; every one of this program goes through here."""
    return subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **(env or {})}, input=given, capture_output=True, check=False
    )


def has_git(workspace: Path) -> bool:
    """Return whether the project is in a Git repository, without which no decision can be recorded."""
    return git(workspace, "rev-parse", "--git-dir").returncode == 0
