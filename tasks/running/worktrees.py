"""Worktrees that stay: the project at a commit, with the DVC cache of the workspace that they belong to.

What has been made in one, and half-done training, is still there when it is brought to another commit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tasks.errors import ParamsError, ResourceError, UserError
from tasks.files import file_sha256
from tasks.git import git, path_of, switch
from tasks.running.dvc import cache_folder, share_cache

PACKAGES: Final = "requirements.lock"


def worktree_at(home: Path, tree: Path, commit: str, called: str) -> Path:
    """Return where the project of `home` is in its worktree `tree`, which has the files of a commit now, and no others.

    `called`: how people name the commit. UserError where Git makes no worktree, the commit has no project there, or it wants
    another environment than this one.
    """
    git(home, "worktree", "prune")  # one whose folder was removed
    if not tree.is_dir() or path_of(tree, "--show-toplevel") != str(tree.resolve()):
        tree.parent.mkdir(parents=True, exist_ok=True)
        done = git(home, "worktree", "add", "--quiet", "--force", "--detach", "--no-checkout", str(tree), commit)
        if done.returncode:
            raise UserError(f"{tree}: git makes no worktree: {done.stderr.decode(errors='replace').strip()}")
    if not switch(tree, commit, None):
        raise UserError(f"{tree}: git cannot check out {commit[:12]}; see `git -C {tree} status`, or remove the folder")
    git(tree, "clean", "--quiet", "--force", "-d", "--exclude=.dvc")
    place = tree / path_of(home, "--show-prefix")
    if not (place / "dvc.yaml").exists():
        raise ParamsError(f"{called}: {commit[:12]} has no compactlm project where {home} is")
    ours, theirs = (file_sha256(path) if (path := folder / PACKAGES).exists() else "" for folder in (home, place))
    if ours != theirs:
        raise ResourceError(
            f"{called}: its {PACKAGES} is another one than that of {home}, whose packages would be used; "
            "`git pull` and `make setup` there, and start this process again"
        )
    share_cache(place, cache_folder(home), home)
    return place
