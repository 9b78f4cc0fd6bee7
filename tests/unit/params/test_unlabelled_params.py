"""Keys of texts without labels: what is refused, in words, and what older records did without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ParamsError
from tasks.params.classification import ClassificationParams
from tasks.params.file import check_params, read_yaml
from tasks.params.gates import rule_of
from tasks.params.recorded import recorded_params

ROOT = Path(__file__).parents[3]
ASKED = {"metric": "agreement", "set": "stress_*", "min": 0.8, "min_support": 100}
GAP = {"metric": "response_gap", "set": "changed_validation", "slices": "change:*", "max": 0.2, "min_support": 100}


PRACTISED = ["handles", "retweet", "links", "hashtags", "emoticons", "end_marks", "entities", "numbers", "typos"]
GLOSSES = {"source": "path:glosses.txt", "pattern": "^(.+)$", "rows": 30_000}


def values() -> dict[str, Any]:
    """Return params.yaml with text of other subjects to learn from, and dressed rows."""
    found: dict[str, Any] = read_yaml(ROOT / "params.yaml")
    transfer = {"rows": 54_000, "spliced_rows": 40_000, "broad": {"glosses": GLOSSES}}
    found["data"]["transfer"] |= {**transfer, "surface": {"share": 0.35, "kinds": PRACTISED}}
    return found


def put(content: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    place: Any = content
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[int(last) if isinstance(place, list) else last] = value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.stress.sets.posts.pattern", "(", "'(' is no regular expression: missing ), unterminated"),
        ("data.stress.sets.talk.pattern", "a(b)(c)", "'a(b)(c)' has 2 groups; put the one part that is the text into round"),
        ("data.stress.sets.posts.column", "text", "column and words: a source is read in one way; give one of them"),
        ("data.stress.sets.posts.about", "", "data.stress.sets.posts.about: got ''"),
        ("data.stress.sets.posts.lines", 3, "data.stress.sets.posts.lines: unknown key"),
        ("data.stress.changed.kinds", ["handels"], "'handels' is not one of capitals, negation"),
        ("data.stress.changed.kinds", ["handels"], "did you mean 'handles'?"),
        ("data.stress.changed.of", "tset", "stress.changed.of: 'tset' is not one of validation, test, imdb, test_typos; did you"),
        ("data.transfer.surface.kinds", [], "data.transfer.surface.kinds"),
        ("data.transfer.surface.share", 0.0, "data.transfer.surface.share: got 0.0"),
        ("data.evaluation_sets.stress_posts", {"sources": ["imdb"], "rows": 9}, "is the name of a set that `stress`"),
        ("prune.vocabulary_prior", 1.0, "prune.vocabulary_prior: got 1.0"),
        ("gates.0", {**ASKED, "metric": "accuracy"}, "gates.0.set: stress_* has no labels, so accuracy is not measured"),
        (
            "gates.0",
            {**ASKED, "set": "test", "metric": "kl_nats_per_example", "min": None, "max": 1.0},
            "name one of stress_posts",
        ),
        ("gates.0", {**ASKED, "set": "imdb*"}, "a `set` with a star is of sets without labels, stress_*"),
        ("gates.0", {**ASKED, "min_support": None}, "and needs `min_support`"),
        ("gates.0", {**ASKED, "set": "stress_post"}, "gates.0.set: 'stress_post' is not one of validation, test, imdb"),
        ("gates.0", {**ASKED, "confidence": 0.9, "test": "mcnemar"}, "have exact bounds and take no `test`"),
        ("gates.0", {**ASKED, "confidence": 0.9, "min": None, "max": 0.9}, "with `confidence` agreement takes min alone"),
        ("gates.0", {**ASKED, "set": "changed_validation"}, 'are copies of each other; give slices: "change:*"'),
        ("gates.0", {**GAP, "slices": None}, 'response_gap is of a kind of change: give slices: "change:*"'),
        ("gates.0", {**GAP, "set": "stress_posts"}, "response_gap is of changed copies, and stress_posts has none"),
        ("gates.0", {**GAP, "confidence": 0.9, "test": "mcnemar"}, "response_gap is shown by test: paired_bootstrap and max"),
        ("gates.0", {**GAP, "prove": "kept"}, "`prove` says what has to be shown; without `confidence` it changes nothing"),
        ("promotion.gates.0", ASKED, "promotion.gates: a `set` with a star is asked in gates; here name each set"),
    ],
)
def test_what_does_not_belong_is_refused_in_words(key: str, value: Any, words: str) -> None:
    content = values()
    put(content, key, value)
    with pytest.raises(ParamsError) as refusal:
        check_params(content, "params.yaml")
    assert words in str(refusal.value)


def test_what_is_learnt_from_is_no_stress_set() -> None:
    content = values()
    content["data"]["stress"]["sets"]["talk"]["source"] = content["data"]["transfer"]["broad"]["glosses"]["source"]
    with pytest.raises(ParamsError, match="is learnt from too; what is learnt measures nothing"):
        check_params(content, "params.yaml")


def test_the_sources_are_pinned_and_the_sets_named() -> None:
    params = check_params(values(), "params.yaml")
    assert isinstance(params, ClassificationParams)
    assert params.unlabelled_sets() == ["stress_posts", "stress_business", "stress_sport", "stress_talk", "changed_validation"]
    assert "stress_posts" not in params.measured_sets()
    keys = {"data.stress.sets.posts.source", "data.transfer.broad.glosses.source", "data.source", "teacher.model"}
    assert keys < set(params.sources())
    assert params.data.transfer.all_rows == 124_000
    practised = set(params.data.transfer.surface.kinds) if params.data.transfer.surface else set()
    asked = set(params.data.stress.changed.kinds) if params.data.stress and params.data.stress.changed else set()
    assert asked - practised == {"emails", "titles", "names", "negation"}  # the gate must not measure the practice alone


def test_a_rule_with_a_star_is_a_family_over_sets_and_slices() -> None:
    gates = check_params(values(), "params.yaml").gates
    [rule] = [rule_of(gate) for gate in gates if gate.metric == "prior_gap"]
    names = {"stress_b": ["overall", "length:short"], "stress_a": ["overall"], "changed_validation": ["change:links"], "test": []}
    parts = rule.parts(names)  # type: ignore[union-attr]
    assert [(part.set, part.slice) for part in parts] == [("stress_a", "overall"), ("stress_b", "overall")]


def test_a_record_of_before_these_keys_knew_none_of_them() -> None:
    content = values()
    content["data"]["stress"] = None
    content["prune"]["vocabulary_prior"] = None
    content["report"] = {"examples": 0}
    for where in ("broad", "surface"):
        del content["data"]["transfer"][where]
    content["gates"] = [gate for gate in content["gates"] if not str(gate.get("set")).startswith(("stress", "changed"))]
    expected = recorded_params(content)
    del content["data"]["stress"], content["prune"]["vocabulary_prior"], content["report"]
    assert recorded_params(content) == expected
