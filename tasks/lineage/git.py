"""What Git recorded: the files of a commit, with the difference of a dirty workspace applied. Nothing is checked out."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path


class Snapshot:
    """The files below the workspace at one commit: path -> blob, read when asked for."""

    def __init__(self, workspace: Path, blobs: Mapping[str, str], env: Mapping[str, str]) -> None:
        self._workspace, self.blobs, self._env = workspace, dict(blobs), dict(env)

    def read(self, paths: list[str]) -> dict[str, bytes]:
        """Return path -> bytes of those paths the snapshot has and Git can still read whole."""
        known = [path for path in paths if path in self.blobs]
        asked = "".join(f"{self.blobs[path]}\n" for path in known).encode()
        done = _git(self._workspace, "cat-file", "--batch", env=self._env, given=asked)
        found: dict[str, bytes] = {}
        rest = done.stdout
        for path in known:
            head, _, rest = rest.partition(b"\n")
            words = head.split()
            if len(words) != 3 or words[1] != b"blob":
                continue  # Git says why on standard error; a file it cannot read is not there for us
            size = int(words[2])
            found[path], rest = rest[:size], rest[size + 1 :]
        return found

    def below(self, folder: str) -> list[str]:
        """Return the paths of the files in a folder, or the path itself."""
        return [path for path in self.blobs if path == folder or path.startswith(f"{folder}/")]


def has_commit(workspace: Path, commit: str) -> bool:
    """Return whether this repository has the commit."""
    return _git(workspace, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def is_reachable(workspace: Path, commit: str) -> bool:
    """Return whether a branch, a tag or HEAD leads to the commit; what none leads to is swept away one day."""
    if _git(workspace, "merge-base", "--is-ancestor", commit, "HEAD").returncode == 0:
        return True
    return bool(_git(workspace, "for-each-ref", "--contains", commit, "--count=1").stdout.strip())


def snapshot(workspace: Path, commit: str, diff: str | None, scratch: Path) -> Snapshot | None:
    """Return the files of a commit with `diff` applied, or None when the commit is missing or the diff does not fit.

    The repository is not changed: index and new objects go below `scratch`.
    """
    if not has_commit(workspace, commit):
        return None
    folder = Path(tempfile.mkdtemp(dir=scratch))
    own = _git(workspace, "rev-parse", "--path-format=absolute", "--git-path", "objects").stdout.decode().strip()
    (folder / "objects").mkdir()
    env = {
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": own,
    }
    top = Path(_git(workspace, "rev-parse", "--show-toplevel").stdout.decode().strip())
    if _git(top, "read-tree", commit, env=env).returncode != 0:
        return None
    if (
        diff
        and _git(top, "apply", "--cached", "--whitespace=nowarn", "-", env=env, given=diff.encode()).returncode != 0
    ):
        return None
    prefix = _git(workspace, "rev-parse", "--show-prefix").stdout.decode().strip()
    blobs = {}
    for line in _git(top, "ls-files", "-s", "-z", env=env).stdout.decode().split("\0")[:-1]:
        facts, _, path = line.partition("\t")
        if path.startswith(prefix):
            blobs[path.removeprefix(prefix)] = facts.split()[1]
    return Snapshot(workspace, blobs, env)


def _git(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **(env or {})},
        input=given,
        capture_output=True,
        check=False,
    )
