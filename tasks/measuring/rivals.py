"""What anyone would try first: bags of words and a linear model. A compressed model below it proves little.

Of pairs it counts the words of each text, those in both, and how much the two share; and the second text alone is a rival too:
what can be guessed without the first is no understanding of both (Gururangan et al., arXiv:1803.02324).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tasks.data.near import similarity
from tasks.data.pairs import Text

PENALTIES: Final = (1.0, 3.0, 10.0, 30.0, 100.0)  # scikit-learn's C; around the best values for TF-IDF of short texts
WORDS: Final = "words"
CHARACTERS: Final = "characters"
Labelled = tuple[Any, NDArray[np.int64]]  # features, a row each, and the classes of the rows
UNSEEN_LOGIT: Final = -50.0  # of a class without a training row: never chosen, and its likelihood stays finite


@dataclass(frozen=True)
class TfidfLogistic:
    """A fitted rival; `penalty` is the C that did best on validation, `validation_accuracy` how well, `of` what it counts."""

    vectorizer: Any
    classifier: Any
    penalty: float
    validation_accuracy: float
    classes: int
    of: str

    def logits(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Return log-probabilities of shape (rows, classes), float32; they serve as logits."""
        return _logits(self.classifier, self.vectorizer.transform(texts), self.classes)


class PairVectorizer:
    """TF-IDF of each text of a pair, the products of the two, and the share of their words that both have."""

    def __init__(self) -> None:
        self._tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)

    def fit_transform(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Learn the words of both texts, and return the features of the pairs, a row each."""
        self._tfidf.fit([text for pair in pairs for text in pair])
        return self.transform(pairs)

    def transform(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Return the features of pairs, a row each."""
        first, second = (self._tfidf.transform(texts) for texts in zip(*pairs, strict=True))
        shared = sparse.csr_matrix([[similarity(*pair)] for pair in pairs])
        return sparse.hstack([first, second, first.multiply(second), shared], format="csr")


def fit_pairs_logistic(
    pairs: Sequence[tuple[str, str]],
    labels: NDArray[np.int64],
    validation_pairs: Sequence[tuple[str, str]],
    validation_labels: NDArray[np.int64],
    classes: int,
) -> TfidfLogistic:
    """Return logistic regression on the features of `PairVectorizer`, C chosen on validation; the smaller of a tie."""
    vectorizer = PairVectorizer()
    train = vectorizer.fit_transform(pairs)
    return _best(vectorizer, (train, labels), (vectorizer.transform(validation_pairs), validation_labels), classes, WORDS)


def fit_tfidf_logistic(
    texts: Sequence[str],
    labels: NDArray[np.int64],
    validation_texts: Sequence[str],
    validation_labels: NDArray[np.int64],
    classes: int,
) -> TfidfLogistic:
    """Return TF-IDF of words and word pairs with logistic regression, C chosen on validation; the smaller of a tie.

    Where no text has a word of two letters (all are emoji, or single signs), characters and pairs of them are counted.
    """
    vectorizer, of = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), WORDS
    find_words = vectorizer.build_tokenizer()
    if not any(find_words(text) for text in texts):
        vectorizer, of = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, analyzer="char"), CHARACTERS
    train = vectorizer.fit_transform(texts)
    return _best(vectorizer, (train, labels), (vectorizer.transform(validation_texts), validation_labels), classes, of)


def _best(vectorizer: Any, train: Labelled, validation: Labelled, classes: int, of: str) -> TfidfLogistic:
    best: TfidfLogistic | None = None
    for penalty in PENALTIES:
        classifier = LogisticRegression(C=penalty, max_iter=1000).fit(*train)
        right = float(np.mean(_logits(classifier, validation[0], classes).argmax(axis=1) == validation[1]))
        if best is None or right > best.validation_accuracy:
            best = TfidfLogistic(vectorizer, classifier, penalty, right, classes, of)
    assert best is not None, "the grid is not empty"
    return best


def _logits(classifier: Any, features: Any, classes: int) -> NDArray[np.float32]:
    logits = np.full((features.shape[0], classes), UNSEEN_LOGIT, dtype=np.float32)
    logits[:, classifier.classes_] = np.maximum(classifier.predict_log_proba(features), UNSEEN_LOGIT)
    return logits
