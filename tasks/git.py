"""The door to Git: what it recorded, edits of a dirty workspace applied, to read or in a worktree.

It is asked with settings of our own: what a person has set for reading by eye must not change what is recorded.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tasks.errors import UserError

# Git's own defaults, whatever the configuration says: the form of a diff, how a patch is applied, and bytes as they are.
OWN: Final = {
    "apply.ignoreWhitespace": "no",
    "color.ui": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.fsmonitor": "false",
    # Hooks are the user's own programs, such as DVC's, which would fill a worktree from the cache.
    "core.hooksPath": os.devnull,
    "core.quotePath": "true",
    "core.safecrlf": "false",
    "core.sparseCheckout": "false",
    "diff.algorithm": "default",
    "diff.context": "3",
    "diff.dstPrefix": "b/",
    "diff.indentHeuristic": "true",
    "diff.interHunkContext": "0",
    "diff.mnemonicPrefix": "false",
    "diff.noprefix": "false",
    "diff.orderFile": os.devnull,
    "diff.relative": "false",
    "diff.srcPrefix": "a/",
    "diff.submodule": "short",
    "diff.suppressBlankEmpty": "false",
    "i18n.logOutputEncoding": "UTF-8",
    "log.follow": "false",
    "log.showSignature": "false",
}
SETTINGS: Final = tuple(word for name, value in OWN.items() for word in ("-c", f"{name}={value}"))
# Of Git's variables those that say where configuration is and how others are reached; the rest, which a hook or an alias sets
# for the command that it belongs to, lead to another repository, another index or another diff.
KEPT: Final = ("GIT_CONFIG", "GIT_SSH", "GIT_SSL", "GIT_ASKPASS", "GIT_TERMINAL", "GIT_EXEC_PATH", "GIT_CEILING", "GIT_DISCOVERY")
# Its words are looked at, so they are English; and what an object says is what it has always said.
OWN_ENV: Final = {"LC_ALL": "C", "LANGUAGE": "", "GIT_NO_REPLACE_OBJECTS": "1"}
OF_ANOTHER: Final = "dubious ownership"
UNASKED: Final = {"GIT_TERMINAL_PROMPT": "0"}  # who has no access gets no question, which nobody might be there to answer
BRANCHES: Final = "refs/heads"
NO_COMMIT: Final = "0" * 40  # what `update-ref` takes for "there is none"
HIDDEN: Final = ("S", "s", "h")  # what `ls-files -v` marks files with that are taken for unchanged


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


def is_shallow(workspace: Path) -> bool:
    """Return whether this clone was made without the older commits."""
    return path_of(workspace, "--is-shallow-repository") == "true"


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
    own = path_of(workspace, "--path-format=absolute", "--git-path", "objects")
    (folder / "objects").mkdir()
    env = {
        "GIT_INDEX_FILE": str(folder / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": '"' + own.replace("\\", "\\\\").replace('"', '\\"') + '"',  # a colon would end it
    }
    top = Path(path_of(workspace, "--show-toplevel"))
    if git(top, "read-tree", commit, env=env).returncode != 0:
        return None
    if diff and not _apply(top, "--cached", diff, env):
        return None
    prefix = path_of(workspace, "--show-prefix")
    blobs = {}
    for line in os.fsdecode(git(top, "ls-files", "-s", "-z", env=env).stdout).split("\0")[:-1]:
        facts, _, path = line.partition("\t")
        if path.startswith(prefix):
            blobs[path.removeprefix(prefix)] = facts.split()[1]
    return Snapshot(workspace, blobs, env)


@contextmanager
def worktree(workspace: Path, into: Path) -> Iterator[Path]:
    """Give where the project is in a new worktree at `into`, still without files; it is taken away at the end."""
    try:
        done = git(workspace, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(into), "HEAD")
        if done.returncode != 0:
            raise UserError(f"{workspace}: git makes no worktree: {done.stderr.decode(errors='replace').strip()}")
        place = into / path_of(workspace, "--show-prefix")
        place.mkdir(parents=True, exist_ok=True)  # of a project below the top of its repository
        yield place
    finally:
        git(workspace, "worktree", "remove", "--force", str(into))


def switch(worktree: Path, commit: str, diff: str | None) -> bool:
    """Return whether the worktree now has the files of a commit with `diff` applied; files that Git ignores stay."""
    if git(worktree, "checkout", "--quiet", "--force", "--detach", commit).returncode != 0:
        return False
    # In the index too, so that the next switch takes away the files it adds; from the top, for below it Git leaves out files.
    return not diff or _apply(Path(path_of(worktree, "--show-toplevel")), "--index", diff)


def _apply(folder: Path, where: str, diff: str, env: Mapping[str, str] | None = None) -> bool:
    """Return whether a diff could be applied; one recorded under a person's `diff.noprefix` has paths without a/ and b/."""
    words = ("apply", where, "--whitespace=nowarn")
    return any(git(folder, *words, strip, "-", env=env, given=diff.encode()).returncode == 0 for strip in ("-p1", "-p0"))


def path_of(folder: Path, *asked: str) -> str:
    """Return what `git rev-parse` says of a path, which may end with a blank."""
    return os.fsdecode(git(folder, "rev-parse", *asked).stdout).removesuffix("\n")


def edits(folder: Path, left_out: Sequence[str]) -> bytes:
    """Return the difference of the tracked files below a folder from HEAD, as a patch; `left_out` are names beside it.

    Files that a person told Git to take for unchanged are looked at all the same.
    """
    words = ("--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "HEAD", "--", ".")
    flagged = [line[2:] for line in os.fsdecode(git(folder, "ls-files", "-v", "-z").stdout).split("\0") if line[:1] in HIDDEN]
    with tempfile.TemporaryDirectory(prefix="compactlm-") as scratch:
        env = {}
        if hidden := [name for name in flagged if (folder / name).exists()]:
            env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            shutil.copyfile(path_of(folder, "--path-format=absolute", "--git-path", "index"), env["GIT_INDEX_FILE"])
            for flag in ("--no-assume-unchanged", "--no-skip-worktree"):
                git(folder, "update-index", flag, "--", *hidden, env=env)
        return git(folder, "diff", *words, *(f":(exclude){name}" for name in left_out), env=env).stdout


def commits_of(workspace: Path, path: str) -> list[str]:
    """Return the commits of every branch and tag that changed a file of the project, oldest first."""
    done = git(workspace, "log", "--all", "--topo-order", "--reverse", "--format=%H", "--", path)
    return done.stdout.decode().split()


def blobs_named(workspace: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Return blob -> path of the project's files of these names (`dvc.lock`, `*.dvc`) in all commits that a ref or HEAD leads to.

    UserError where Git cannot read one of these commits.
    """
    places = [f":(glob)**/{pattern}" for pattern in patterns]
    words = ("--all", "--full-history", "--root", "-m", "--raw", "--no-abbrev", "--no-renames", "-z", "--format=")
    parts = os.fsdecode(_asked(workspace, "log", *words, "--", *places)).split("\0")
    found = {}
    for facts, path in itertools.pairwise(parts):
        columns = facts.strip().split()
        # Modes and blobs before and after, and what happened; links and submodules are no files of DVC's.
        if facts.lstrip().startswith(":") and columns[1].startswith("100") and _is_named(path, patterns):
            found[columns[3]] = path
    return found


def blobs_at_tips(workspace: Path, patterns: Sequence[str]) -> dict[str, str]:
    """Return the same of those commits alone at which a ref or HEAD points."""
    found: dict[str, str] = {}
    for commit in _asked(workspace, "rev-list", "--no-walk", "--all").decode().split():
        for line in os.fsdecode(_asked(workspace, "ls-tree", "-r", "-z", commit)).split("\0")[:-1]:
            facts, _, path = line.partition("\t")
            if _is_named(path, patterns) and " blob " in facts:
                found[facts.split()[2]] = path
    return found


def _is_named(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(Path(path).name, pattern) for pattern in patterns)


def _asked(workspace: Path, *words: str) -> bytes:
    done = git(workspace, *words)
    if done.returncode:
        raise UserError(f"{workspace}: Git cannot read its commits: {_last_words(done)}; `git fsck` says more")
    return done.stdout


def uncommitted(workspace: Path) -> tuple[list[str], list[str]]:
    """Return the project's files that differ from HEAD or that Git does not know yet, and those of HEAD that are gone."""
    changed = _names(git(workspace, "diff", "--name-only", "-z", "--relative", "--no-renames", "HEAD", "--", "."))
    new = _names(git(workspace, "ls-files", "--others", "--exclude-standard", "-z"))
    there = [name for name in (*changed, *new) if (workspace / name).is_file()]
    return sorted({*there}), sorted(name for name in changed if not (workspace / name).exists())


def _names(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    return [name for name in os.fsdecode(done.stdout).split("\0") if name]


def create_bundle(workspace: Path, place: Path) -> None:
    """Write all refs, whatever they point at, and all that they lead to, into one file; UserError where Git cannot."""
    done = git(workspace, "bundle", "create", "--quiet", str(place), "--all")
    if done.returncode:
        raise UserError(f"{workspace}: Git makes no bundle: {_last_words(done)}; `git fsck` says more")


def refs_of(workspace: Path, prefix: str) -> dict[str, str]:
    """Return name -> object of the refs below `prefix`, by name."""
    listed = git(workspace, "for-each-ref", "--sort=refname", "--format=%(objectname) %(refname)", prefix)
    return _refs(listed.stdout)


def _refs(listed: bytes) -> dict[str, str]:
    pairs = [line.split(maxsplit=1) for line in listed.decode().splitlines()]
    return {name: blob for blob, name in pairs}


def read_blobs(workspace: Path, blobs: Mapping[str, str]) -> dict[str, bytes]:
    """Return name -> content of blobs; empty where Git cannot read one."""
    contents = Snapshot(workspace, blobs, {}).read(list(blobs))
    return {name: contents.get(name, b"") for name in blobs}


def read_refs(workspace: Path, prefix: str) -> dict[str, bytes]:
    """Return name -> content of the blobs that the refs below `prefix` point at, by name; empty where Git cannot read one."""
    return read_blobs(workspace, refs_of(workspace, prefix))


def create_blob(workspace: Path, content: str) -> str:
    """Return the name of a blob with this content, which Git keeps now; empty where it cannot."""
    return git(workspace, "hash-object", "-w", "--stdin", given=content.encode()).stdout.decode().strip()


def create_ref(workspace: Path, name: str, content: str) -> bool:
    """Return whether a new ref now points at a blob with this content; False when there is such a ref already."""
    blob = create_blob(workspace, content)
    # The empty old value: only if there is none.
    return bool(blob) and git(workspace, "update-ref", name, blob, "").returncode == 0


def remotes(workspace: Path) -> list[str]:
    """Return the names of the remotes of a repository."""
    return git(workspace, "remote").stdout.decode(errors="replace").split()


def refs_at(workspace: Path, remote: str, prefix: str) -> dict[str, str]:
    """Return name -> object of the refs below `prefix` at a remote, by name; OSError with Git's words when it cannot be asked."""
    done = git(workspace, "ls-remote", "--refs", "--", remote, f"{prefix}/*", env=UNASKED)
    if done.returncode:
        raise OSError(_last_words(done))
    return dict(sorted((name, blob) for name, blob in _refs(done.stdout).items() if name.startswith(f"{prefix}/")))


def fetch_objects(workspace: Path, remote: str, names: Sequence[str]) -> None:
    """Bring what refs of a remote point at, and change no ref here; OSError with Git's words when that does not go."""
    words = ("--quiet", "--no-tags", "--no-prune", "--no-write-fetch-head", "--no-auto-maintenance", "--refmap=", "--stdin")
    done = git(workspace, "fetch", *words, "--", remote, env=UNASKED, given="".join(f"{name}\n" for name in names).encode())
    if done.returncode:
        raise OSError(_last_words(done))


def push_new(workspace: Path, remote: str, refs: Mapping[str, str]) -> str:
    """Let new refs of a remote point at objects, all or none; return why that did not go, empty when it did.

    The remote takes none in place of one that it has: whoever comes second is refused.
    """
    absent = [f"--force-with-lease={name}:" for name in refs]
    words = ["--quiet", "--no-verify", "--no-follow-tags", *(["--atomic"] if len(refs) > 1 else [])]
    done = git(workspace, "push", *words, *absent, "--", remote, *(f"{blob}:{name}" for name, blob in refs.items()), env=UNASKED)
    return _last_words(done) if done.returncode else ""


def commit_of(workspace: Path, name: str) -> str:
    """Return the commit that a branch, a tag or another name leads to, empty where there is none."""
    return path_of(workspace, "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")


def branch_at(workspace: Path, remote: str, name: str) -> str:
    """Return the commit of a branch at a remote, which is fetched without a change of any ref here; empty where there is none.

    OSError with Git's words when the remote cannot be asked.
    """
    ref = f"{BRANCHES}/{name}"
    asked = git(workspace, "ls-remote", "--refs", "--", remote, ref, env=UNASKED)
    if asked.returncode:
        raise OSError(_last_words(asked))
    commit = _refs(asked.stdout).get(ref, "")
    if commit and not has_commit(workspace, commit):
        fetch_objects(workspace, remote, [ref])
    return commit


def leads_to(workspace: Path, commit: str, ancestor: str) -> bool:
    """Return whether a commit is, or comes after, another one."""
    return git(workspace, "merge-base", "--is-ancestor", ancestor, commit).returncode == 0


def differs(workspace: Path, old: str, new: str, path: str) -> bool:
    """Return whether a file of the project is another one in two commits."""
    return git(workspace, "diff", "--quiet", old, new, "--", path).returncode != 0


def join(workspace: Path, commit: str, before: str, kept: Sequence[str], message: str) -> str:
    """Return a new commit after `before` and `commit`: the files of `commit`, but for those in `kept`, which are `before`'s.

    No branch is changed, and no working tree. UserError with Git's words where that does not go.
    """
    top, prefix = Path(path_of(workspace, "--show-toplevel")), path_of(workspace, "--show-prefix")
    with tempfile.TemporaryDirectory(prefix="compactlm-") as scratch:
        env = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _do(top, "read-tree", commit, env=env)
        for path in kept:
            entry = os.fsdecode(_do(top, "ls-tree", before, "--", prefix + path)).partition("\t")[0].split()
            if entry:
                _do(top, "update-index", "--add", "--cacheinfo", f"{entry[0]},{entry[2]},{prefix + path}", env=env)
        tree = _do(top, "write-tree", env=env).decode().strip()
    words = ("commit-tree", tree, "-p", before, "-p", commit, "-m", message)
    return _do(workspace, *words, env=_author(workspace)).decode().strip()


def commit_files(workspace: Path, paths: Sequence[str], message: str) -> str:
    """Return the commit that records these files, and nothing else that is edited; empty when HEAD has them so already.

    UserError with Git's words where that does not go.
    """
    there = [path for path in paths if (workspace / path).is_file()]
    if there:
        _do(workspace, "add", "--force", "--", *there)
    if not there or git(workspace, "diff", "--cached", "--quiet", "HEAD", "--", *there).returncode == 0:
        return ""
    words = ("commit", "--quiet", "--no-verify", "--no-gpg-sign", "--only", "-m", message, "--", *there)
    _do(workspace, *words, env=_author(workspace))
    return commit_of(workspace, "HEAD")


def move_branch(workspace: Path, name: str, new: str, old: str) -> bool:
    """Return whether a branch leads to `new` now; False when it did not lead to `old` (empty: there was none)."""
    return git(workspace, "update-ref", f"{BRANCHES}/{name}", new, old or NO_COMMIT).returncode == 0


def push_branch(workspace: Path, remote: str, name: str) -> str:
    """Bring a branch to a remote, only forward; return why that did not go, empty when it did."""
    ref = f"{BRANCHES}/{name}"
    done = git(workspace, "push", "--quiet", "--no-verify", "--no-follow-tags", "--", remote, f"{ref}:{ref}", env=UNASKED)
    return _last_words(done) if done.returncode else ""


def push_commit(workspace: Path, remote: str, commit: str, ref: str) -> str:
    """Let a ref of a remote lead to a commit; return why that did not go, empty when it did."""
    done = git(workspace, "push", "--quiet", "--no-verify", "--no-follow-tags", "--", remote, f"{commit}:{ref}", env=UNASKED)
    return _last_words(done) if done.returncode else ""


def drop_at(workspace: Path, remote: str, ref: str) -> None:
    """Take a ref away from a remote, if it is there and the remote answers."""
    git(workspace, "push", "--quiet", "--no-verify", "--", remote, f":{ref}", env=UNASKED)


def first_commit(workspace: Path) -> str:
    """Return the oldest commit that HEAD comes from, by which clones of one project know each other; empty without one."""
    found = git(workspace, "rev-list", "--max-parents=0", "HEAD").stdout.decode().split()
    return found[-1] if found else ""


def _author(workspace: Path) -> dict[str, str]:
    """Return who commits: the person that Git knows here, else this program."""
    known = all(git(workspace, "config", key).stdout.strip() for key in ("user.name", "user.email"))
    own = {"NAME": "compactlm", "EMAIL": "compactlm@localhost"}
    return {} if known else {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in own.items()}


def _do(workspace: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    done = git(workspace, *arguments, env=env)
    if done.returncode:
        raise UserError(f"{workspace}: git {arguments[0]} does not go: {_last_words(done)}")
    return done.stdout


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    faults = [line for line in lines if line.startswith(("fatal:", "error:", "!", "remote:"))]
    return (faults or lines or [f"git ended with code {done.returncode}"])[0]


def git(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Return how a Git command in a folder ended, with its bytes; every one of this program goes through here."""
    shown = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(KEPT)}
    whole = {**shown, **OWN_ENV, **(env or {})}
    return subprocess.run(["git", *SETTINGS, *arguments], cwd=folder, env=whole, input=given, capture_output=True, check=False)


def has_git(workspace: Path) -> bool:
    """Return whether the project is in a Git repository, without which no decision can be recorded."""
    return git(workspace, "rev-parse", "--git-dir").returncode == 0


def refusal(workspace: Path) -> str | None:
    """Return why Git does not read a repository that is there, and what to do: it belongs to another user; None when it does."""
    words = git(workspace, "rev-parse", "--git-dir").stderr.decode(errors="replace")
    if OF_ANOTHER not in words:
        return None
    return (
        f"{workspace}: Git does not read this repository, because it belongs to another user, so no commit could be recorded; "
        f"if you trust it: git config --global --add safe.directory {shlex.quote(os.path.realpath(workspace))}"
    )
