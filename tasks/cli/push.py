"""The command that gives a model away: as a folder in the Hugging Face Hub's layout, or to the Hub itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.cli.console import Json, err, show, shown
from tasks.cli.predict import Model

if TYPE_CHECKING:
    from tasks.using.model import Found


def push(
    model: Model,
    target: Annotated[str, typer.Argument(metavar="FOLDER|hub:ORG/NAME", help="A new or empty folder, or repository.")],
    license_: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="License of the weights, such as Apache-2.0.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a repository that is made; else it is private.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a classifier into a folder as the Hugging Face Hub lays it out, or upload it there with the token of HF_TOKEN.

    Config, weights, tokenizer, model card, ONNX files. Of a registered version that is what `compactlm export` writes, after its
    audit. Nothing is written over.
    """
    from tasks.errors import ParamsError
    from tasks.files import digest
    from tasks.using.folder import make_readable, require_free
    from tasks.using.hub import repository_of, require_writable, upload
    from tasks.using.model import find_model

    repository, place = repository_of(target), Path(target).expanduser().absolute()
    if repository is None and public:
        raise ParamsError(f"--public: {target} is a folder; only hub:ORG/NAME has viewers")
    if repository is None:
        require_free(place)
        place.parent.mkdir(parents=True, exist_ok=True)
    else:
        require_writable(repository)
    found = find_model(model, Path.cwd())
    with tempfile.TemporaryDirectory(prefix=".push-", dir=place.parent if repository is None else None) as scratch:
        folder = Path(scratch) / "model"
        with err.status("collecting") as status:
            _collect(found, license_, folder, lambda line: status.update(shown(line)))
            make_readable(folder)
            files = digest(folder)["files"]
            if repository is None:
                if place.exists():
                    place.rmdir()
                folder.rename(place)
            else:
                status.update("uploading")
        where = str(place) if repository is None else upload(folder, repository, public, f"{found.words}, by compactlm")
    size = sum(file["size_bytes"] for file in files.values())
    facts = {"model": found.words, "version": found.version, "target": where, "files": files, "bytes": size}
    show(facts, as_json, f"{where}: {found.words}, {len(files)} files, {size / 1e6:.1f} MB")


def _collect(found: Found, license_: str | None, folder: Path, say: Callable[[str], None]) -> None:
    """Write a model into a new folder: a registered version as `compactlm export` does, any other as it lies there."""
    if found.version is None:
        from tasks.using.folder import lay_out

        lay_out(found, license_, folder)
        return
    from tasks.attestation.export import ExportRequest, export_model
    from tasks.cli.project import find_project

    export_model(find_project(), found.version, ExportRequest(folder, None, license_, None), say)
