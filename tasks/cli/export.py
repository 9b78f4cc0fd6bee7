"""The command that writes a model with everything known of it into a folder for strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.cli.console import Json, err, show, shown
from tasks.cli.lineage import Model
from tasks.cli.project import find_project


def export(
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new or empty folder.")],
    model: Model = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="An EC P-256 private key (PEM) that signs the folder.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="License of the weights, such as Apache-2.0.")
    ] = None,
    openlineage: Annotated[
        str | None, typer.Option("--openlineage", metavar="URL", help="Also send the lineage events there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model into a folder that a stranger can verify: files, signatures, provenance, bill of materials, card.

    The model is audited first, and refused when a check fails. VERIFY.md in the folder has the commands to check it.
    """
    from tasks.attestation.export import ExportRequest, export_model

    workspace = find_project()
    with err.status("auditing") as status:
        request = ExportRequest(folder.absolute(), key, license_, openlineage)
        report = export_model(workspace, model, request, lambda line: status.update(shown(line)))
    signed = f"signed with key {report['signed_with'][:16]}..." if report["signed_with"] else "not signed: no --key"
    show(
        report,
        as_json,
        f"{report['path']}: {report['model']}/{report['version']} ({report['round']}), {len(report['files'])} files, "
        f"{report['bytes'] / 1e6:.1f} MB in {report['seconds']:.1f} s, {signed}; VERIFY.md says how to check it",
    )
