"""Sets on which a student is compared with its teacher without labels.

Texts of other subjects and styles than the task's rows (`stress_NAME`), and changed copies of rows of a set (`changed_SET`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from tasks.artifacts import AS_WRITTEN, STRESS, changed_name
from tasks.data.frames import COLUMNS, NO_LABEL, in_hash_order
from tasks.data.near import near_held
from tasks.data.pairs import joined_texts
from tasks.data.surface import FORMS, changed, form_shares, plain_words
from tasks.errors import DataError

# `stress` is the section data.stress of params.yaml as plain values, or None.
Values = Mapping[str, Any]
MOST_UNEQUAL: Final = 5.0  # times as many texts of a stress set as of the transfer set show a form: then it is said


def text_sets(
    candidates: Mapping[str, Mapping[str, str]], stress: Values, taken: set[str], labelled: Sequence[str], threshold: float
) -> dict[str, pd.DataFrame]:
    """Return each stress set of texts by its name, with the columns `COLUMNS`; `candidates` is name -> row_id -> text.

    A text that is one of the rows in `taken` or nearly equal to a `labelled` one is left out. Raises DataError where too few are
    left.
    """
    sets: dict[str, pd.DataFrame] = {}
    for name, wanted in stress["sets"].items():
        rows = [(row, text, NO_LABEL, name) for row, text in candidates[name].items() if row not in taken]
        frame = in_hash_order(pd.DataFrame(rows, columns=list(COLUMNS)), STRESS + name)
        some = frame.head(wanted["rows"] + wanted["rows"] // 10)  # comparing all would take long, and most are not wanted
        near = near_held(some["text"].tolist(), labelled, threshold)
        kept = some[[place not in near for place in range(len(some))]].head(wanted["rows"])
        if len(kept) < wanted["rows"]:
            raise DataError(
                f"data.stress.sets.{name}.rows: {wanted['rows']} asked; {len(kept)} texts were found that are none of the task's "
                f"own, nor nearly equal to one. Ask for at most {len(kept)}, or give a larger source."
            )
        sets[STRESS + name] = kept.astype({"label": "int64"})
        taken = taken | set(kept["row_id"])
    return sets


def with_changed_set(sets: Mapping[str, pd.DataFrame], stress: Values | None) -> dict[str, pd.DataFrame]:
    """Return the sets of a run and, where `data.stress.changed` asks for it, `changed_<of>`.

    Its rows are those of the set, and of each a copy for every kind of change that finds something to change. `source` is the
    kind; the row_id of a copy is that of the row, a colon and the kind.
    """
    wanted = stress and stress["changed"]
    if not wanted:
        return dict(sets)
    words, rows = plain_words(sets["train"]["text"]), in_hash_order(sets[wanted["of"]], "changed").head(wanted["rows"])
    made: list[tuple[str, str, int, str]] = []
    for row, text in zip(rows["row_id"], rows["text"], strict=True):
        made.append((row, text, NO_LABEL, AS_WRITTEN))
        for kind in wanted["kinds"]:
            other = changed(text, kind, row, words)
            if other != text:
                made.append((f"{row}:{kind}", other, NO_LABEL, kind))
    frame = pd.DataFrame(made, columns=list(COLUMNS)).astype({"label": "int64"})
    return {**sets, changed_name(wanted["of"]): frame.sort_values("row_id", ignore_index=True)}


def forms_of(sets: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, float]]:
    """Return for transfer, test and each stress set of texts the share of its texts that show each form."""
    names = ["transfer", "test", *(name for name in sets if name.startswith(STRESS))]
    return {name: {form: round(share, 6) for form, share in form_shares(joined_texts(sets[name])).items()} for name in names}


def form_lines(shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the table of forms for people, and a line for each form that stress texts show and transfer rows hardly do."""
    lines = [f"{'texts with':24}" + "".join(f"{form.words:>20}" for form in FORMS.values())]
    lines += [f"{name:24}" + "".join(f"{100 * shares[name][form]:18.2f} %" for form in FORMS) for name in shares]
    for name in shares:
        unseen = [
            f"{form.words} ({100 * shares[name][key]:.1f} % against {100 * shares['transfer'][key]:.2f} %)"
            for key, form in FORMS.items()
            if name.startswith(STRESS) and shares[name][key] > max(0.02, MOST_UNEQUAL * shares["transfer"][key])
        ]
        if unseen:
            lines.append(f"{name}: transfer rows hardly show {', '.join(unseen)}; see data.transfer.surface")
    return lines
