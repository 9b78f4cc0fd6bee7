"""Files that are cut, nested without end or crafted: each is refused with a sentence, at once and in little memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.data.gguf_header import check_gguf
from tasks.data.sources import check_lock, is_locked
from tasks.errors import ParamsError, SourceError, UserError
from tasks.files import parse_json, parse_object, read_json
from tasks.lineage.chain import KEYS, parse
from tasks.models.weight_files import stored_weights
from tasks.params.file import parse_yaml
from tasks.promotion.answers import read_answer, read_statements
from tasks.promotion.approval import statement_faults
from tasks.promotion.decisions import faults, read_lines, shape_faults

DEEP = "[" * 100_000
MEMORY_BYTES = 64 << 20


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    tracemalloc.stop()


def test_json_of_any_depth_is_a_value_error(tmp_path: Path) -> None:
    for content in (DEEP, DEEP.encode(), '{"a":' * 100_000, "{", "\ufeff{}", b"\xff", b""):
        with pytest.raises(ValueError, match=r"."):
            parse_json(content)
    for content in ("[]", "1", "null", '"a"'):
        with pytest.raises(ValueError, match="a JSON object is needed"):
            parse_object(content)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # of which no byte is written
    with pytest.raises(ValueError, match="bytes are too many"):
        read_json(large)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a: {DEEP}", "nested more than 100 levels deep"),
        ("{a: " * 100_000, "nested more than 100 levels deep"),
        ("- " * 100_000, "nested more than 100 levels deep"),
        ("".join(" " * level + "a:\n" for level in range(2_000)), "nested more than 100 levels deep"),
        ("a: &a [*a]", "aliases"),
        ("a: &a {b: *a}", "aliases"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)), "aliases"),
    ],
)
def test_yaml_that_would_crash_or_fill_the_memory_is_refused(text: str, words: str) -> None:
    with pytest.raises(ParamsError, match=f"params.yaml: .*{words}"):
        parse_yaml(text, "params.yaml")


def test_yaml_as_people_write_it_is_read() -> None:
    text = "base: &base {a: 1}\nmore: {<<: *base, b: [1, [2, [3]]]}\nlist:\n  - - - 1\n" + "x: [" + "[], " * 300 + "]\n"
    value = parse_yaml(text, "params.yaml")
    assert value["more"] == {"a": 1, "b": [1, [2, [3]]]}
    assert value["list"] == [[[1]]]


@pytest.mark.parametrize("content", [DEEP, "[]", '{"data.source": 1}', '{"data.source": {"source": "x"}}', "{", "\x00"])
def test_a_crafted_lock_of_sources_is_refused(tmp_path: Path, content: str) -> None:
    lock = tmp_path / "sources.lock"
    lock.write_text(content, encoding="utf-8")
    for ask in (check_lock, is_locked):
        with pytest.raises(SourceError, match=r"sources.lock: .*git checkout sources.lock"):
            ask({"data.source": "path:x"}, lock)


RECEIPT: dict[str, Any] = {
    **{key: {} for key in KEYS},
    "stage": "fetch",
    "command": ["fetch"],
    "compute_seconds": 1.0,
    "started_at": "2026-01-01T00:00:00Z",
    "git": {"commit": None, "dirty": False, "diff_sha256": None},
    "environment": {},
    "outputs": {"a": {"sha256": "0", "files": {"b": {"sha256": "1", "md5": "2"}}}},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": []}, "inputs is no object"),
        ({"outputs": {"a": 1}}, "a file has no digest"),
        ({"outputs": {"a": {"sha256": 1}}}, "a file has no digest"),
        ({"outputs": {"a": {"sha256": "1", "files": []}}}, "a file has no digest"),
        ({"outputs": {"a": {"sha256": "1", "files": {"b": []}}}}, "a file has no digest"),
        ({"git": {}}, "git tells no commit"),
        ({"command": "fetch"}, "command is no list"),
        ({"command": [1]}, "command is no list"),
        ({"compute_seconds": "1"}, "no number"),
        ({"started_at": "then"}, "no time"),
        ({"started_at": []}, "no time"),
        ({"params": None}, "params is no object"),
        ({"stage": []}, "of stage"),
    ],
)
def test_a_crafted_receipt_is_none(change: dict[str, Any], words: str) -> None:
    assert parse("fetch", json.dumps(RECEIPT).encode()) == RECEIPT
    with pytest.raises(ValueError, match=words):
        parse("fetch", json.dumps({**RECEIPT, **change}).encode())
    with pytest.raises(ValueError, match="nested too deeply"):
        parse("fetch", DEEP.encode())


@pytest.mark.parametrize("content", [DEEP, "1", "[]", "null", '[["a", "b"]]', "{"])
def test_a_crafted_line_of_the_log_is_no_decision(tmp_path: Path, content: str) -> None:
    (tmp_path / "decisions.jsonl").write_text(f"{content}\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1 is not a decision"):
        read_lines(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"a": NaN}', '{"a": ' + "[" * 700 + "]" * 700 + "}", '{"model": 1, "verdict": []}'])
def test_a_crafted_decision_breaks_the_chain_and_nothing_else(tmp_path: Path, content: str) -> None:
    (tmp_path / "decisions.jsonl").write_text(f"{content}\n", encoding="utf-8")
    log = read_lines(tmp_path)
    assert shape_faults(log)[0].startswith("decision 1 is no decision: ")
    assert "decision 1 was changed: its digest is not that of its content" in faults(log)


@pytest.mark.parametrize(
    "content", [DEEP, "[]", "1", "{}", '{"statement": 1, "signature": 1}', '{"statement": {}, "signature": []}']
)
def test_a_crafted_answer_does_not_count(tmp_path: Path, content: str) -> None:
    digest = "0" * 64
    place = tmp_path / "approvals" / digest[:16] / "approve-0.json"
    place.parent.mkdir(parents=True)
    place.write_text(content, encoding="utf-8")
    answers, wrong = read_statements(tmp_path, digest)
    assert [read_answer(place)] == (answers or [None])
    proposal = {"policy": {"approvers": {}, "not_author": False}, "authors": [], "proposed_at": "", "expires_at": ""}
    assert wrong or all(statement_faults(answer, proposal, "2026-01-01T00:00:00Z") for answer in answers)


def weight(dtype: str = "F32", shape: tuple[int, ...] = (2,), begin: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safetensors(header: dict[str, Any] | str, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut short"),
        (b"\x00" * 7, "cut short"),
        (safetensors({"a": weight()}, b"1234"), "cut short"),
        (safetensors({"a": weight()}, length=1 << 62), "its header says that it is 4,611,686,018,427,387,904 long"),
        (safetensors({"a": weight(), "b": weight(begin=4, end=12)}, bytes(12)), "b: its header gives"),  # overlap
        (safetensors({"a": weight(), "b": weight(begin=12, end=20)}, bytes(20)), "b: its header gives"),  # a hole
        (safetensors({"a": weight(begin=-8, end=0)}, b""), "a: its header gives"),
        (safetensors({"a": weight(begin=8, end=0)}), "a: its header gives"),
        (safetensors({"a": weight(shape=(1 << 40, 1 << 40))}), "a: its header gives"),
        (safetensors({"a": weight(shape=(-1, -2))}), "a: its header gives"),
        (safetensors(DEEP), "no list of weights"),
        (safetensors("[]"), "no list of weights"),
        (safetensors({"a": 1}), "no list of weights"),
        (safetensors({"a": weight() | {"shape": "ab"}}), "no list of weights"),
        (safetensors({"a": weight() | {"data_offsets": [0]}}), "no list of weights"),
        (safetensors({"a": weight()}, bytes(9)), "followed by bytes of no weight"),
    ],
)
def test_broken_safetensors_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors({"__metadata__": {"format": "pt"}, "a": weight()}))
    assert list(stored_weights(tmp_path)) == ["a"]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(SourceError, match=words):
        stored_weights(tmp_path)


def text_of(words: str) -> bytes:
    return struct.pack("<Q", len(words)) + words.encode()


def gguf(*parts: bytes, version: int = 3, tensors: int = 0, values: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + b"".join(parts)


def pair(kind: int, value: bytes, key: str = "k") -> bytes:
    return text_of(key) + struct.pack("<I", kind) + value


def tensor(offset: int = 0, shape: tuple[int, ...] = (8,), kind: int = 0) -> bytes:
    return text_of("w") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def padded(content: bytes, data: int) -> bytes:
    return content + bytes(-len(content) % 32) + bytes(data)


VALUES = [pair(4, struct.pack("<I", 1)), pair(8, text_of("x")), pair(9, struct.pack("<IQ", 8, 2) + text_of("a") + text_of("b"))]
VALUES += [pair(9, struct.pack("<IQ", 6, 2) + bytes(8)), pair(7, b"\1"), pair(4, struct.pack("<I", 32), "general.alignment")]
SOUND = padded(gguf(*VALUES, tensor(), tensor(32, (32,), 2), tensors=2, values=len(VALUES)), 32 + 18)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"GG", "cut short"),
        (b"GGML" + bytes(40), "does not begin as GGUF"),
        (gguf(version=1), "is of version 1"),
        (gguf(version=1 << 24), "is of version 16777216"),  # of the other order of bytes
        (gguf(tensors=1 << 60), "cut short"),
        (gguf(values=1 << 60), "cut short"),
        (gguf(pair(9, struct.pack("<IQ", 8, 1 << 60)), values=1), "k would end at"),
        (gguf(pair(9, struct.pack("<IQ", 0, 1 << 60)), values=1), "k would end at"),
        (gguf(pair(9, struct.pack("<IQ", 9, 1)), values=1), "is a list of type 9"),
        (gguf(pair(99, b""), values=1), "is of type 99"),
        (gguf(struct.pack("<Q", 1 << 62), bytes(16), values=1), "a key would end at"),
        (gguf(pair(4, struct.pack("<I", 0), "general.alignment"), values=1), "general.alignment is 0"),
        (padded(gguf(tensor(shape=(8,) * 5), tensors=1), 64), "w has 5 dimensions"),
        (padded(gguf(tensor(shape=(1 << 40, 1 << 40)), tensors=1), 64), "cut short"),
        (padded(gguf(tensor(offset=1 << 60), tensors=1), 64), "cut short"),
        (SOUND[:-1], "cut short"),
    ],
)
def test_a_broken_gguf_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(SOUND)
    check_gguf(file)
    file.write_bytes(content)
    with pytest.raises(SourceError, match=rf"model.gguf: .*{words}"):
        check_gguf(file)


def test_every_cut_of_a_gguf_file_is_refused(tmp_path: Path) -> None:
    refused: Callable[[Path], None] = check_gguf
    file = tmp_path / "model.gguf"
    for length in range(len(SOUND)):
        file.write_bytes(SOUND[:length])
        with pytest.raises(SourceError):
            refused(file)
