"""The one door to the signing libraries (the extra `attest`): OpenSSF model signing, DSSE envelopes, and their key.

Everything works offline with one elliptic-curve key; P-256 is the curve that both formats and all their tools take.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

MAKE_A_KEY = (
    "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signer.pem` makes one; keep it outside of the project"
)


@dataclass(frozen=True)
class SigningKey:
    """A private key that was read and found fit: its file, the key, its public half as PEM, and that one's fingerprint."""

    path: Path
    private: EllipticCurvePrivateKey
    public_pem: bytes
    fingerprint: str  # sha256 of the public key's DER in hex


def read_key(path: Path) -> SigningKey:
    """Return the key of a PEM file; UserError unless it is an EC P-256 private key without a passphrase."""
    _require_libraries()
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"--key {path}: cannot be read as a PEM private key without passphrase ({error}); {MAKE_A_KEY}") from None
    if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP256R1):
        raise UserError(f"--key {path}: not an elliptic-curve key of the curve P-256; {MAKE_A_KEY}")
    public = private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(path, private, pem, hashlib.sha256(der).hexdigest())


def signed_manifest(folder: Path, key: SigningKey) -> bytes:
    """Return an OpenSSF model signature over every file of a folder: a Sigstore bundle that lists their sha256.

    Anything can keep it beside the folder, such as a promotion beside the model it promotes. Two signatures of the same
    folder differ (ECDSA is randomised) and verify alike.
    """
    _require_libraries()
    from model_signing import signing

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "model.sig"
        signing.Config().use_elliptic_key_signer(private_key=key.path).sign(folder, place)
        return place.read_bytes()


def envelope(payload: bytes, payload_type: str, key: SigningKey) -> dict[str, Any]:
    """Return a DSSE envelope of the payload, signed. Source: DSSE protocol v1 (secure-systems-lab/dsse)."""
    _require_libraries()
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    made = Envelope(payload, payload_type, {})
    made.sign(CryptoSigner(key.private))
    content: dict[str, Any] = made.to_dict()
    return content


def _require_libraries() -> None:
    try:
        import model_signing  # noqa: F401
        import OpenSSL  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"signing needs a library that is not installed ({error.name}); "
            "`pip install 'model-signing>=1.1.1,<2' pyOpenSSL` installs it (the extra `attest`), or leave out --key"
        ) from None
