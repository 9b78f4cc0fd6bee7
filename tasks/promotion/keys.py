"""The one door to keys: ed25519 signatures in the format of OpenSSH, which `ssh-keygen -Y verify` reads as well.

The format is PROTOCOL.sshsig of OpenSSH: what is signed holds a namespace, so that a signature made for something else is
none here, and the signature holds its public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import subprocess
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from tasks.errors import UserError

NAMESPACE: Final = "compactlm"
MAGIC: Final = b"SSHSIG"
HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
END: Final = "-----END SSH SIGNATURE-----"


def public_key(line: str) -> str:
    """Return `ssh-ed25519 BASE64` of a public key line, its comment left off; ValueError if it is none."""
    try:
        key = load_ssh_public_key(" ".join(line.split()[:2]).encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"{line!r} is not a public ed25519 key; it looks like the line in ~/.ssh/id_ed25519.pub")
    return _line(key)


def own_public_key(path: Path) -> str:
    """Return the public key of the private key in a file, or of the `.pub` file itself."""
    key = _read(path)
    if isinstance(key, Ed25519PrivateKey):
        return _line(key.public_key())
    beside = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    if beside.is_file():
        return public_key(beside.read_text(encoding="utf-8"))
    raise UserError(f"--key {path}: it has a passphrase and there is no {beside}; make it: ssh-keygen -y -f {path} > {beside}")


def sign(message: bytes, path: Path) -> str:
    """Return the armoured signature of a message by the ed25519 key in a file (OpenSSH or PEM).

    A key with a passphrase, or one of which only the `.pub` file is here, is left to `ssh-keygen` and so to the agent.
    """
    key = _read(path)
    if key is None:
        return _by_ssh_keygen(message, path)
    kind, hashed = b"ssh-ed25519", b"sha512"
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = key.sign(_signed(message, NAMESPACE.encode(), hashed))
    blob = MAGIC + struct.pack(">I", 1) + _string(_string(kind) + _string(raw)) + _string(NAMESPACE.encode())
    blob += _string(b"") + _string(hashed) + _string(_string(kind) + _string(signature))
    text = base64.b64encode(blob).decode()
    return "\n".join([BEGIN, *(text[at : at + 70] for at in range(0, len(text), 70)), END, ""])


def signer(message: bytes, signature: str) -> str | None:
    """Return the public key line that made this signature of this message; None if none did."""
    try:
        body = signature.strip().removeprefix(BEGIN).removesuffix(END)
        blob = base64.b64decode("".join(body.split()), validate=True)
        if blob[:10] != MAGIC + struct.pack(">I", 1):
            return None
        key, namespace, reserved, hashed, signed = _strings(blob[10:], 5)
        kind, raw = _strings(key, 2)
        signed_kind, value = _strings(signed, 2)
        if (kind, signed_kind, namespace, reserved) != (b"ssh-ed25519", kind, NAMESPACE.encode(), b""):
            return None
        public = Ed25519PublicKey.from_public_bytes(raw)
        public.verify(value, _signed(message, namespace, hashed))
    except (ValueError, KeyError, struct.error, binascii.Error, InvalidSignature):
        return None
    return _line(public)


def fingerprint(line: str) -> str:
    """Return a public key's fingerprint as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _read(path: Path) -> Ed25519PrivateKey | None:
    """Return the private key of a file; None if it needs a passphrase or is a public key; UserError if it is no key."""
    if not path.is_file():
        raise UserError(f"--key {path}: there is no such file; give an ed25519 key, or make one: ssh-keygen -t ed25519")
    data = path.read_bytes()
    if data.startswith(b"ssh-ed25519 "):
        return None
    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        key = load(data, password=None)
    except (TypeError, UnsupportedAlgorithm):
        return None
    except ValueError as error:
        if "assword" in str(error) or "encrypted" in str(error):
            return None
        raise UserError(f"--key {path}: not a private key in the format of OpenSSH or PEM: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"--key {path}: only ed25519 keys sign here; make one: ssh-keygen -t ed25519")
    return key


def _by_ssh_keygen(message: bytes, path: Path) -> str:
    command = ["ssh-keygen", "-Y", "sign", "-f", str(path), "-n", NAMESPACE]
    done = subprocess.run(command, input=message, capture_output=True, check=False)
    if done.returncode:
        raise UserError(
            f"--key {path}: ssh-keygen could not sign: {done.stderr.decode().strip()}; `ssh-add {path}` gives the "
            "key to your agent"
        )
    return done.stdout.decode()


def _signed(message: bytes, namespace: bytes, hashed: bytes) -> bytes:
    return MAGIC + _string(namespace) + _string(b"") + _string(hashed) + _string(HASHES[hashed](message).digest())


def _line(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _strings(blob: bytes, count: int) -> list[bytes]:
    """Return the `count` strings a blob consists of; ValueError if it is anything else."""
    strings = []
    for _ in range(count):
        (length,) = struct.unpack(">I", blob[:4])
        strings.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    if blob:
        raise ValueError("more than was announced")
    return strings
