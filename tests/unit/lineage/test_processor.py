"""What a receipt says of the processor."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tasks.lineage import receipts


def test_instruction_sets_that_round_are_named_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "processor\t: 0\nflags\t\t: fpu smep avx512f amx_bf16 avx2\n"
    (tmp_path / "cpuinfo").write_text(lines * 2)
    monkeypatch.setattr(receipts, "CPU_FILE", tmp_path / "cpuinfo")
    assert receipts.processor() == f"{platform.machine()} amx_bf16 avx2 avx512f"
    assert receipts.environment()["processor"] == receipts.processor()


def test_without_that_file_the_kind_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "CPU_FILE", tmp_path / "none")
    assert receipts.processor() == platform.machine()
