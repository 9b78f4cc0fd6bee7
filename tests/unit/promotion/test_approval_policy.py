"""`promotion.approval` in params.yaml: what it may say, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ParamsError, UserError
from tasks.params.file import check_params, read_yaml
from tasks.params.gates import Approval
from tasks.promotion.approvers import policy_of
from tasks.promotion.keys import own_public_key
from tests.signers import make_key

ROOT = Path(__file__).resolve().parents[3]
GOOD = {"quorum": 1, "not_author": True, "ttl_hours": 72, "approvers": "approvers"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quorum": 0}, "promotion.approval.quorum: got 0"),
        ({"quorum": None}, "promotion.approval.quorum: got None"),
        ({"ttl_hours": 0}, "promotion.approval.ttl_hours: got 0"),
        ({"ttl_hours": float("inf")}, "promotion.approval.ttl_hours"),
        ({"ttl_hours": float("nan")}, "promotion.approval.ttl_hours"),
        ({"not_author": "yes"}, "promotion.approval.not_author: got 'yes'"),
        ({"approvers": []}, "allowed: a file's name, or NAME: ssh-ed25519 KEY"),
        ({"approvers": {}}, "allowed: a file's name, or NAME: ssh-ed25519 KEY"),
        ({"approvers": {"ada": 1}}, "allowed: a file's name, or NAME: ssh-ed25519 KEY"),
        ({"quorom": 1}, "promotion.approval.quorom: unknown key; did you mean 'quorum'?"),
    ],
)
def test_a_policy_that_says_nothing_sensible_is_refused(change: dict[str, Any], words: str) -> None:
    values = read_yaml(ROOT / "params.yaml")
    values["promotion"]["approval"] = {**GOOD, **change}
    with pytest.raises(ParamsError) as told:
        check_params(values, "params.yaml")
    assert words in str(told.value)


def test_approvers_are_named_in_place_or_in_a_file(tmp_path: Path) -> None:
    keys = {name: own_public_key(make_key(tmp_path / name)) for name in ("ada", "bob")}
    (tmp_path / "approvers").write_text(f"# two\n\nada {keys['ada']} ada@laptop\nbob   {keys['bob']}\n", encoding="utf-8")
    in_place = policy_of(Approval.model_validate({**GOOD, "approvers": keys}), tmp_path)
    assert policy_of(Approval.model_validate(GOOD), tmp_path) == in_place
    assert in_place == {"quorum": 1, "not_author": True, "ttl_hours": 72.0, "approvers": keys}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "has 0 approvers"),
        ("ada {ada}\n", "has 1 approvers"),
        ("ada {ada}\nbob {ada}\n", "two approvers have the same key"),
        ("ada {ada}\nada {bob}\n", "line 2: ada stands there twice"),
        ("ada {ada}\nbob\n", "bob: '' is not a public ed25519 key"),
        ("ada {ada}\nbob ssh-ed25519 AAAA\n", "is not a public ed25519 key"),
        (None, "there is no such file"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, lines: str | None, words: str) -> None:
    keys = {name: own_public_key(make_key(tmp_path / name)) for name in ("ada", "bob")}
    if lines is not None:
        (tmp_path / "approvers").write_text(lines.format(**keys), encoding="utf-8")
    with pytest.raises(UserError, match=words):
        policy_of(Approval.model_validate({**GOOD, "quorum": 2}), tmp_path)
