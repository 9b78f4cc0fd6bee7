"""VERIFY.md of an export: commands of public tools that check each file; the tests run these very commands."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PROVENANCE: Final = "provenance.intoto.jsonl"  # signed: one DSSE envelope a line
STATEMENT: Final = "provenance.statement.json"  # not signed
BOM: Final = "bom.cdx.json"
EVENTS: Final = "openlineage.jsonl"
SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "model.sig"
PUBLIC_KEY: Final = "signer.pub.pem"
TEMPLATES: Final = Path(__file__).with_name("templates")


def verify_text(fingerprint: str | None) -> str:
    """Return VERIFY.md; `fingerprint` is the sha256 of the public key (DER) in hex, None for an export without signature."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.get_template("VERIFY.md.j2").render(
        fingerprint=fingerprint,
        provenance=PROVENANCE,
        statement=STATEMENT,
        bom=BOM,
        events=EVENTS,
        sums=SUMS,
        signature=SIGNATURE,
        key=PUBLIC_KEY,
    )
