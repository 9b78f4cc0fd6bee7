"""The files of an export beside the model, and the texts of its pages from templates.

VERIFY.md shows commands of public tools that check each file; the tests run these very commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.report.markdown import Markdown, bullets, plain, table

PROVENANCE: Final = "provenance.intoto.jsonl"  # signed: one DSSE envelope a line
STATEMENT: Final = "provenance.statement.json"  # not signed
BOM: Final = "bom.cdx.json"
EVENTS: Final = "openlineage.jsonl"
SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "model.sig"
PUBLIC_KEY: Final = "signer.pub.pem"
CARD: Final = "README.md"
VERIFY: Final = "VERIFY.md"
SIGNING_TOOLS: Final = '"model-signing>=1.1.1,<2" pyOpenSSL in-toto-attestation securesystemslib'
TEMPLATES: Final = Path(__file__).with_name("templates")


def rendered(name: str, **values: Any) -> str:
    """Return the text of a page, such as README.md, from its template; a value that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        finalize=plain,  # what is filled in is text, unless it was made as markdown
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"table": table, "bullets": bullets}
    return environment.get_template(f"{name}.j2").render(values)


def verify_text(fingerprint: str | None) -> str:
    """Return VERIFY.md; `fingerprint` is the sha256 of the public key (DER) in hex, None for an export without signature."""
    files = {"bom": BOM, "events": EVENTS, "sums": SUMS, "signature": SIGNATURE, "key": PUBLIC_KEY}
    further = Markdown(f" {SIGNING_TOOLS}" if fingerprint else "")
    return rendered(VERIFY, fingerprint=fingerprint, further=further, provenance=PROVENANCE, statement=STATEMENT, **files)
