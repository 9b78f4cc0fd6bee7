"""Where a round may fail: how it answers beside its teacher on text of other subjects and styles, and on changed rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from tasks.report.parts import NOTHING, Cell, Row, Table, interval, percent, share, tables_section
from tasks.report.story import Story, value_of

TITLE: Final = "Where it may fail"
NOTHING_MEASURED: Final = (
    "Nothing of another subject or style was measured: data.stress names no text. How the rounds answer elsewhere is not known."
)
WORDS: Final = {
    "agreement": "answers as the teacher",
    "confident_disagreement": "answers otherwise, and the teacher is sure",
    "prior_gap": "prior gap",
    "expected_drop": "expected drop of accuracy",
    "kl_nats_per_example": "KL from the teacher, nats",
    "probability_loyalty": "probability loyalty",
}
FORMS: Final = {
    "handle": "@",
    "hashtag": "#",
    "link": "link",
    "emoticon": "emoticon",
    "digit": "digit",
    "exclamation": "!",
    "entity": "entity of HTML",
    "capitals": "CAPITALS",
}


def section(story: Story) -> Markup:
    """Return the section; where no set without labels was measured, the sentence that says so."""
    rounds = [name for name, model in story.models.items() if model["quality"].get("unlabelled")]
    if not rounds:
        return tables_section(TITLE, Table(NOTHING_MEASURED, [], []))
    students, sets = [name for name in rounds if name != "teacher"], _sets(story, rounds[0])
    tables = [_texts(story, students, [name for name in sets if not _is_changed(sets[name])])]
    tables += [_changes(story, students, name) for name in sets if _is_changed(sets[name])]
    tables += [_forms(story.data["forms"])] if story.data.get("forms") else []
    if story.elsewhere.examples:
        tables.append(_examples(story))
    return tables_section(TITLE, *tables)


def _sets(story: Story, name: str) -> Mapping[str, Any]:
    return story.models[name]["quality"]["unlabelled"]


def _is_changed(entry: Mapping[str, Any]) -> bool:
    return "overall" not in entry["slices"]


def _found(story: Story, name: str, set_name: str, *keys: str) -> Any:
    return value_of(story.models[name]["quality"], "unlabelled", set_name, *keys)


def _texts(story: Story, rounds: Sequence[str], sets: Sequence[str]) -> Table:
    rows: list[Row] = []
    for set_name in sets:
        about = story.elsewhere.about.get(set_name, "")
        count = _found(story, rounds[0], set_name, "rows")
        rows.append([f"{set_name}, {count:,} texts: {about}" if about else f"{set_name}, {count:,} texts"])
        for metric, words in WORDS.items():
            rows.append([words, *[interval(_found(story, name, set_name, "slices", "overall", metric)) for name in rounds]])
        lost = [percent(_found(story, name, set_name, "pieces", "pieces_lost")) for name in rounds]
        longer = [_found(story, name, set_name, "pieces", "tokens_ratio") for name in rounds]
        rows.append(["tokens whose piece is lost", *lost])
        rows.append(["tokens, teacher's = 1", *[NOTHING if each is None else f"{each:.2f}" for each in longer]])
    caption = (
        "Text of other subjects and styles, without labels: each round beside its teacher. Prior gap: difference of the mean "
        "probability of a class. Expected drop: what of the accuracy is lost if the teacher is right as often as it says."
    )
    return Table(caption, ["", *rounds], rows)


def _changes(story: Story, rounds: Sequence[str], set_name: str) -> Table:
    slices = _found(story, rounds[0], set_name, "slices")
    kinds = [name for name in slices if "response_gap" in slices[name]]
    kinds.sort(key=lambda kind: -max(_gap(story, name, set_name, kind) for name in rounds))
    rows = [
        [
            Cell(kind.removeprefix("change:").replace("_", " "), f"{slices[kind]['support']:,} rows"),
            *[cell for name in rounds for cell in _response(story, name, set_name, kind)],
        ]
        for kind in kinds
    ]
    caption = (
        f"Copies of rows of {set_name.removeprefix('changed_')}, a kind of change at a time. Gap: by how many logits a change "
        "moves a round more than its teacher. Flips: rows of which the change flips the round's answer and not the teacher's."
    )
    return Table(caption, ["", *[f"{name}, {what}" for name in rounds for what in ("gap", "flips")]], rows)


def _gap(story: Story, name: str, set_name: str, kind: str) -> float:
    return float(_found(story, name, set_name, "slices", kind, "response_gap", "value") or 0.0)


def _response(story: Story, name: str, set_name: str, kind: str) -> tuple[str | Cell, str | Cell]:
    gap, flips = (_found(story, name, set_name, "slices", kind, metric) for metric in ("response_gap", "flips"))
    return interval(gap), Cell(percent(flips["value"]), f"at most {percent(flips['high'])}") if flips else NOTHING


def _forms(forms: Mapping[str, Mapping[str, float]]) -> Table:
    names = [name for name in FORMS if any(name in shares for shares in forms.values())]
    rows = [[set_name, *[percent(shares.get(name)) for name in names]] for set_name, shares in forms.items()]
    caption = "Share of texts that show a form. What stress texts show and transfer rows hardly do, no round has learnt to read."
    return Table(caption, ["set", *[FORMS[name] for name in names]], rows)


def _examples(story: Story) -> Table:
    rows: list[Row] = [
        [Cell(each["text"], each["set"]), each["teacher"], each["student"], share(each["margin"])]
        for each in story.elsewhere.examples
    ]
    caption = (
        f"Texts on which {story.focus} and its teacher disagree, first those where the teacher is surest: margin is by how many "
        "logits it prefers its answer to the next. report.examples says how many are shown, 0 none."
    )
    return Table(caption, ["text", "teacher", story.focus, "teacher's margin"], rows, numbers_from=3)
