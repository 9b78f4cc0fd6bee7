"""The rival learns from what there is: words, or signs where there is no word."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.measuring.rivals import CHARACTERS, WORDS, fit_tfidf_logistic


@pytest.mark.parametrize(
    ("good", "bad", "of"),
    [("a fine film", "a dull plot", WORDS), ("😀 ❤️", "😢 👎", CHARACTERS), ("!", "?", CHARACTERS), ("好", "坏", CHARACTERS)],
)
def test_signs_are_counted_where_there_is_no_word(good: str, bad: str, of: str) -> None:
    texts, labels = [good, bad] * 4, np.array([1, 0] * 4)
    rival = fit_tfidf_logistic(texts, labels, texts, labels, 2)
    assert rival.of == of
    assert rival.logits([bad, good]).argmax(axis=1).tolist() == [0, 1]
    assert np.isfinite(rival.logits(["", "never seen"])).all()
