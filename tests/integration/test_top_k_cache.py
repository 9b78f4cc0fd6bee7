"""A language model's teacher, cached as its best pieces: students learn as if it ran beside them, from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data.blocks import load_blocks, save_blocks
from tasks.errors import DataError, ParamsError
from tasks.files import file_sha256, read_json, write_json
from tasks.training.top_k import IDS_FILE, CachedTopK
from tests.integration.trainings import language_model, losses

NEARLY_ALL = 257  # of the 258 pieces of the tiny Llama: the rest is one piece, so nothing is lost
CACHE = {"top_k": NEARLY_ALL, "tokens": 1600}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taught(folder: Path, cache: dict[str, int] | None) -> tuple[Path, Callable[..., Any]]:
    """Return the teacher and the training of a student with this cache, in `folder`."""
    teach, learning = language_model(folder, cache=cache)
    if not Path("teacher").exists():
        teach(out=Path("teacher"))
    return Path("teacher/model"), learning(Path("teacher/model"))


def test_a_student_of_the_cache_learns_what_one_beside_its_teacher_does(folder: Path) -> None:
    _, beside = taught(folder, None)
    beside(out=Path("beside"))
    Path("logits").rename("logits_none")
    _, cached = taught(folder, CACHE)
    cached(out=Path("cached"))
    assert np.load(Path("logits") / IDS_FILE).shape == (40, 31, NEARLY_ALL), "all blocks there are, fewer than asked for"
    np.testing.assert_allclose(losses(Path("cached")), losses(Path("beside")), rtol=2e-3)  # shares are cached as float16


def test_fewer_pieces_teach_nearly_the_same(folder: Path) -> None:
    _, beside = taught(folder, None)
    beside(out=Path("beside"))
    Path("logits").rename("logits_none")
    _, cached = taught(folder, {"top_k": 128, "tokens": 1600})
    cached(out=Path("cached"))
    one, two = losses(Path("beside")), losses(Path("cached"))
    assert two[-1] < 0.7 * two[0], "nothing was learnt"
    assert all(fewer <= whole * 1.02 for fewer, whole in zip(two, one, strict=True))


@pytest.mark.parametrize("change", ["other blocks", "fewer pieces", "no cache", "other teacher"])
def test_a_cache_of_something_else_is_refused(folder: Path, change: str) -> None:
    _, learn = taught(folder, CACHE)
    fingerprint = Path("logits/fingerprint.json")
    if change == "other blocks":
        blocks = np.array(load_blocks(folder / "tokens", "train"))
        save_blocks(blocks[::-1].copy(), folder / "tokens", "train")
    elif change == "fewer pieces":
        known = read_json(fingerprint)
        write_json(fingerprint, {**known, "top_k": {**known["top_k"], "top_k": 128}})
    elif change == "no cache":
        known = read_json(fingerprint)
        write_json(fingerprint, {key: value for key, value in known.items() if key != "top_k"})
    else:
        write_json(fingerprint, {**read_json(fingerprint), "teacher_sha256": "0" * 64})
    with pytest.raises(DataError, match="dvc repro teacher_logits"):
        learn(out=Path("student"))


def test_a_block_that_is_not_cached_is_named(folder: Path) -> None:
    taught(folder, CACHE)
    cached = CachedTopK(Path("logits"), folder / "tokens/train.npy", NEARLY_ALL)
    cached.check([np.arange(40)])
    with pytest.raises(DataError, match="training block 40 and 1 others are not cached"):
        cached.check([np.arange(30), np.arange(35, 42)])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"cache": {"top_k": 64, "tokens": 1600}}, "distill.cache.top_k"),
        ({"cache": {"top_k": 128, "tokens": 1599}}, "rounds.r1.train_tokens: 1600 is more than the 1599"),
        ({"cache": CACHE, "temperature": 2.0}, "keeps probabilities at temperature 1.0"),
    ],
)
def test_what_cannot_be_cached_is_refused_at_the_start(folder: Path, section: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        language_model(folder, **section)


def test_the_cache_says_whose_it_is(folder: Path) -> None:
    teacher, _ = taught(folder, CACHE)
    known = read_json(Path("logits/fingerprint.json"))
    assert known["teacher_sha256"] == file_sha256(teacher / "model.safetensors")
    assert known["top_k"] == {"top_k": NEARLY_ALL, "blocks_sha256": file_sha256(folder / "tokens/train.npy")}
