"""What names objects of DVC's cache is read rather too wide than too narrow; outputs are read with their paths."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.running.objects import names_here, names_in, object_path, outputs_in, with_files

A, B, C, D = (digit * 32 for digit in "abcd")
LOCK = f"""schema: '2.0'
stages:
  prune@r1:
    cmd: python -m tasks prune
    deps:
    - path: artifacts/in
      hash: md5
      md5: {A}
      size: 1
    params:
      params.yaml:
        outs: [1]
    outs:
    - path: artifacts/out
      hash: md5
      md5: {B}.dir
      size: 1
      nfiles: 2
    - md5: {C}
      path: 'artifacts/two words'
  outs:
    cmd: x
    deps:
    - path: other
      md5: {D}
"""
ENTRY = f"""cmd: python -m tasks prune
deps:
- path: artifacts/in
  md5: {A}
outs:
- path: artifacts/out
  hash: md5
  md5: {B}.dir
"""


def test_outputs_are_told_from_inputs() -> None:
    assert outputs_in(LOCK) == {"artifacts/out": f"{B}.dir", "artifacts/two words": C}
    assert outputs_in(ENTRY) == {"artifacts/out": f"{B}.dir"}


def test_every_name_is_found_and_no_part_of_a_longer_one() -> None:
    assert names_in(LOCK) == {A, f"{B}.dir", C, D}
    assert names_in(f'sha256 {A}{B} and "md5": "{C}"') == {C}


def test_a_listing_stands_for_its_files_and_a_broken_one_for_itself(tmp_path: Path) -> None:
    def put(name: str, content: str) -> None:
        object_path(tmp_path, name).parent.mkdir(parents=True, exist_ok=True)
        object_path(tmp_path, name).write_text(content, encoding="utf-8")

    put(f"{A}.dir", json.dumps([{"md5": B, "relpath": "x"}]))
    put(f"{C}.dir", "[1")
    put(B, "12345")
    (tmp_path / "files/md5/aa/tmp").touch()
    assert with_files(tmp_path, [f"{A}.dir", f"{C}.dir", f"{D}.dir"]) == {f"{A}.dir", B, f"{C}.dir", f"{D}.dir"}
    assert {name: size for name, size in names_here(tmp_path).items() if name == B} == {B: 5}
    assert len(names_here(tmp_path)) == 3
