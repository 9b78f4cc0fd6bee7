"""The same text for every student: segments of the teacher's blocks, read in windows of a student's own tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.data.blocks import block_ids
from tasks.data.segments import Windows, _cuts, block_bytes, segments_of, windows_of
from tests.families import BYTES, END, bytes_tokenizer

LENGTH = 12


@given(count=st.integers(1, 90))
def test_every_token_but_the_first_is_predicted_once_with_at_least_half_a_window_before_it(count: int) -> None:
    seen = []
    for start, first, stop in _cuts(count, LENGTH):
        assert 0 <= start < first
        assert stop - start <= LENGTH
        assert first == 1 or first - start >= LENGTH // 2
        seen += range(first, stop)
    assert seen == list(range(1, count))


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("theé n"), max_size=20), min_size=3, max_size=8))
def test_windows_hold_the_text_of_the_blocks(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Here the teacher has the token `th` and the student has not."""
    folder = tmp_path_factory.mktemp("segments")
    teacher, student = write(bytes_tokenizer(), folder / "teacher.json"), without_merges(folder / "student.json")
    stream = [i for text in texts for i in [*coder(teacher).encode(text).ids, BYTES - 1]]
    stream += [5] * (-len(stream) % LENGTH)
    blocks = np.array(stream, dtype=np.int32).reshape(-1, LENGTH)
    tokenizer = json.loads(teacher.read_text())
    segments = segments_of(blocks, tokenizer, teacher, BYTES - 1)
    assert segments["row_id"].tolist() == block_ids(blocks)
    windows = windows_of(segments, student, BYTES - 2, LENGTH)
    assert windows.ids_WT.shape[1] == LENGTH
    pieces = windows.per_segment(windows.ids_WT[:, 1:])
    for number, block in enumerate(blocks):
        first = windows.ids_WT[np.flatnonzero(windows.spans_W3[:, 0] == number)[0], 0]
        ids = [int(first), *pieces[number].tolist()]
        parts = split(ids, BYTES - 2)
        wanted = [coder(teacher).decode(part) for part in split(block.tolist(), BYTES - 1)]
        assert [coder(student).decode(part) for part in parts] == wanted
    text = coder(teacher).decode(stream, skip_special_tokens=False)
    whole = len(text.replace(END, "\n").encode())
    assert block_bytes(blocks, tokenizer).sum() <= whole


def test_one_value_a_predicted_token_is_put_together_by_segment() -> None:
    spans = np.array([[0, 1, 4], [0, 2, 4], [1, 1, 3]], dtype=np.int32)
    windows = Windows(np.zeros((3, 4), dtype=np.int32), spans)
    values = np.array([[1, 2, 3], [9, 4, 5], [6, 7, 0]])
    assert [one.tolist() for one in windows.per_segment(values)] == [[1, 2, 3, 4, 5], [6, 7]]


def write(tokenizer: dict[str, Any], file: Path) -> Path:
    file.write_text(json.dumps(tokenizer))
    return file


def without_merges(file: Path) -> Path:
    tokenizer = bytes_tokenizer()
    vocab = tokenizer["model"]["vocab"]
    del vocab["th"]
    tokenizer["model"] |= {"vocab": {token: i for i, token in enumerate(vocab)}, "merges": []}
    tokenizer["added_tokens"][0]["id"] = BYTES - 2
    return write(tokenizer, file)


def coder(file: Path) -> Tokenizer:
    return Tokenizer.from_file(str(file))


def split(ids: list[int], end: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for one in ids:
        if one == end:
            parts.append([])
        else:
            parts[-1].append(one)
    return parts
