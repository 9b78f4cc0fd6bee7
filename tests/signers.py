"""Keys, proposals and signed statements for tests of approvals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from tasks.promotion.approval import canonical, digest_of
from tasks.promotion.keys import own_public_key, sign

FORMATS = {"openssh": PrivateFormat.OpenSSH, "pem": PrivateFormat.PKCS8}


def make_key(path: Path, kind: str = "openssh", passphrase: bytes | None = None) -> Path:
    """Write a new private ed25519 key and return its path."""
    guard = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, FORMATS[kind], guard))
    path.chmod(0o600)
    return path


def signed_by(secret: Path, about: dict[str, Any], name: str, /, **other: Any) -> dict[str, Any]:
    """Return the statement of an approver about a proposal, with fields replaced by `other`, signed by a key."""
    said = {
        "proposal": digest_of(about),
        "decision": "approve",
        "name": name,
        "key": own_public_key(secret),
        "at": "2026-01-02T00:00:00Z",
        "reason": "",
        **other,
    }
    return {"statement": said, "signature": sign(canonical(said), secret)}
