"""VERIFY.md of an export: commands of public tools that check each file; the tests run these very commands."""

from __future__ import annotations

from typing import Final

PROVENANCE: Final = "provenance.intoto.jsonl"  # signed: one DSSE envelope a line
STATEMENT: Final = "provenance.statement.json"  # not signed
BOM: Final = "bom.cdx.json"
EVENTS: Final = "openlineage.jsonl"
SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "model.sig"
PUBLIC_KEY: Final = "signer.pub.pem"

_HEAD: Final = """# How to check this folder

With public tools only; run everything in this folder, with Python 3.11 or newer in a virtual environment of its own:

```
pip install {packages}
```

| file | is | checked by |
|---|---|---|
{rows}
"""

_SUMS: Final = """## Every file, against accident

```sh
sha256sum --check --strict --quiet {sums}
```
"""

_UNSIGNED: Final = """This export is **not signed**: the sums show accidents, and anybody who changes a file can also change them.
"""

_KEY: Final = """## The key

Everything below proves that the owner of `{key}` made this folder. Who that is, these files cannot prove: get the key's
fingerprint from the publisher by another way, and compare it with

```sh
openssl pkey -pubin -in {key} -outform DER | sha256sum
```

At the time of the export it was `{fingerprint}`.
"""

_MANIFEST: Final = """## Every file, against forgery (OpenSSF model signing)

No file of this folder may be changed, missing or added (where a download tool left files of its own, such as `.cache`,
add `--ignore_unsigned_files`):

```sh
python -m model_signing verify key . --signature {signature} --public_key {key}
```
"""

_ENVELOPE: Final = """## Where the model came from (in-toto, SLSA provenance v1, DSSE)

The envelope must be signed by the key; the statement in it names the sha256 of each file of the model, of the receipt of
each stage, of the data, of the teacher, and the commit of the code:

```sh
python - <<'EOF'
import hashlib, json, pathlib
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

key = SSlibKey.from_crypto(load_pem_public_key(pathlib.Path("{key}").read_bytes()))
envelope = Envelope.from_dict(json.loads(pathlib.Path("{provenance}").read_text()))
envelope.verify([key], 1)
assert envelope.payload_type == "application/vnd.in-toto+json"
content = json.loads(envelope.payload)
Statement.copy_from_pb(ParseDict(content, Statement([], "", {{}}).pb)).validate()
provenance = content["predicate"]
ParseDict(provenance, Provenance())
for one in [*content["subject"], *provenance["runDetails"]["byproducts"]]:
    found = hashlib.sha256(pathlib.Path(one["name"]).read_bytes()).hexdigest()
    assert found == one["digest"]["sha256"], one["name"] + " is not the file that was signed"
for one in provenance["buildDefinition"]["resolvedDependencies"]:
    print(one["name"], *one["digest"].values())
EOF
```
"""

_BOM: Final = """## What it consists of (CycloneDX 1.6)

Valid, and about the weights that lie here:

```sh
python - <<'EOF'
import hashlib, json, pathlib
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path("{bom}").read_text()
fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
assert fault is None, fault
for one in json.loads(text)["metadata"]["component"]["components"]:
    found = hashlib.sha256(pathlib.Path(one["name"]).read_bytes()).hexdigest()
    assert found == one["hashes"][0]["content"], one["name"] + " is not the file of the bill of materials"
EOF
```
"""

_ROWS: Final = {
    "model files, `onnx/`": ("the model", "sums, signature, provenance, bill of materials"),
    "`README.md`": ("the model card", "sums, signature"),
    "`evidence/`": ("measured quality and cost, verdict", "sums, signature"),
    "`receipts/`": ("what each stage read, ran and wrote", "sums, signature, provenance"),
    f"`{BOM}`": ("CycloneDX 1.6 bill of materials", "sums, signature, schema"),
    f"`{EVENTS}`": ("OpenLineage events, one a line", "sums, signature"),
    "`VERIFY.md`": ("this text", "sums, signature"),
}


def verify_text(fingerprint: str | None) -> str:
    """Return VERIFY.md; `fingerprint` is the sha256 of the public key (DER) in hex, None for an export without signature."""
    signed = fingerprint is not None
    rows = dict(_ROWS)
    if signed:
        rows[f"`{PROVENANCE}`"] = (
            "in-toto statement with SLSA provenance v1 in a DSSE envelope",
            "signature, its own signature",
        )
        rows[f"`{PUBLIC_KEY}`"] = ("the key of the signatures", "sums, signature, its fingerprint")
        rows[f"`{SUMS}`"] = ("sha256 of each file except itself and the signatures", "signature")
        rows[f"`{SIGNATURE}`"] = ("OpenSSF model signature over every other file", "its own signature")
    else:
        rows[f"`{STATEMENT}`"] = ("in-toto statement with SLSA provenance v1", "sums")
        rows = {name: (what, how.replace("sums, signature", "sums")) for name, (what, how) in rows.items()}
    packages = ['"cyclonedx-python-lib[json-validation]>=11,<12"']
    packages += ['"model-signing>=1.1.1,<2"', "pyOpenSSL", "in-toto-attestation", "securesystemslib"] if signed else []
    lines = "\n".join(f"| {name} | {what} | {how} |" for name, (what, how) in rows.items())
    parts = [_HEAD.format(packages=" ".join(packages), rows=lines), _SUMS.format(sums=SUMS)]
    if signed:
        parts.append(_KEY.format(key=PUBLIC_KEY, fingerprint=fingerprint))
        parts.append(_MANIFEST.format(signature=SIGNATURE, key=PUBLIC_KEY))
        parts.append(_ENVELOPE.format(provenance=PROVENANCE, key=PUBLIC_KEY))
    else:
        parts.append(_UNSIGNED)
    return "\n".join([*parts, _BOM.format(bom=BOM)])
