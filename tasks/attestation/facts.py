"""The facts of one exported model, as plain values: every format of an export is written from these and from nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tasks.artifacts import FETCHED_DATA, FETCHED_TEACHER, SECOND, SETS, TEACHER, Digest, RoundPaths
from tasks.data.sources import texts_wanted
from tasks.lineage.chain import Receipt, Receipts, files_of, producers, written

URN: Final = "urn:compactlm"


@dataclass(frozen=True)
class Facts:
    """One registered version: what made it (receipts by stage), how it was judged, and the files of its export."""

    name: str
    version: int
    round: str
    license: str | None  # SPDX expression that the publisher states
    repository: str | None  # public address of the code
    root: str  # Merkle root of the run's receipts
    recorded: Mapping[str, bytes]  # the receipts of the run as they were written
    receipts: Receipts  # the same, parsed
    stages: Sequence[str]  # those behind this model, in the order in which they can run
    files: Mapping[str, Digest]  # name in the export -> sha256 and size_bytes of the model's files
    config: Mapping[str, Any]  # config.json
    quality: Mapping[str, Any]
    teacher_quality: Mapping[str, Any]
    cost: Mapping[str, Any]
    parity: Mapping[str, Any]
    verdict: Mapping[str, Any]
    decisions: Sequence[Mapping[str, Any]]  # those of the log about these weights
    undecided: Sequence[Mapping[str, Any]]  # checks of the audit that are UNKNOWN
    num_passed: int  # checks of the audit that pass

    @property
    def judged(self) -> Receipt:
        """Return the receipt of the gate of this model."""
        return self.receipts[f"gate@{self.round}"]

    @property
    def params(self) -> Mapping[str, Any]:
        """Return params.yaml as the gate of this model read it."""
        return self.judged["params"]

    @property
    def labels(self) -> list[str]:
        """Return the names of the classes in order of their numbers."""
        labels = self.params["data"]["labels"]
        return [str(labels[key]) for key in sorted(labels, key=int)]

    @property
    def of_pairs(self) -> bool:
        """Return whether the model reads pairs of texts."""
        return self.params["data"]["columns"].get(SECOND) is not None

    @property
    def commit(self) -> str | None:
        """Return the commit at which the model was judged."""
        return self.judged["git"]["commit"]

    def behind(self) -> list[tuple[str, Receipt]]:
        """Return (stage, receipt) of the stages behind this model."""
        return [(stage, self.receipts[stage]) for stage in self.stages]

    def span(self) -> tuple[str, str]:
        """Return when the first of the stages behind this model began and the last one ended."""
        receipts = [receipt for _, receipt in self.behind()]
        return min(map(began, receipts)), max(map(ended, receipts))


@dataclass(frozen=True)
class Source:
    """Data, texts or a teacher from outside: what params.yaml calls it, its package URL if it has one, and its files."""

    role: str
    text: str
    purl: str | None
    name: str
    files: Mapping[str, str]  # name -> sha256


@dataclass(frozen=True)
class Ancestor:
    """A model from which another one was made: its name, the digest of its weights, and the stage that made it."""

    name: str
    sha256: str
    stage: str


def exported_files(receipts: Receipts, name: str) -> dict[str, str]:
    """Return name in the export -> path of the run's file: the model as the Hub lays it out, and the evidence."""
    paths = RoundPaths(Path(), name)
    model, exported = f"{paths.model.as_posix()}/", f"{paths.exported.as_posix()}/"
    trained, onnx = files_of(receipts[f"distill@{name}"], "outputs"), files_of(receipts[f"export@{name}"], "outputs")
    evidence = {
        "quality": paths.quality,
        "cost": paths.cost,
        "parity": paths.exported / "parity.json",
        "verdict": paths.verdict,
        "teacher_quality": RoundPaths(Path(), TEACHER).quality,
    }
    return {
        **{path.removeprefix(model): path for path in trained if path.startswith(model)},
        **{f"onnx/{path.removeprefix(exported)}": path for path in onnx if path.endswith(".onnx")},
        **{f"evidence/{kind}.json": path.as_posix() for kind, path in evidence.items()},
    }


def sources(facts: Facts) -> list[Source]:
    """Return the data and the teacher that came from outside, with the digests that `fetch` recorded.

    Texts without labels have roles of their own: `stress/NAME`, `broad/NAME`.
    """
    fetch = facts.receipts["fetch"]
    data, packages = fetch["params"]["data"], fetch["environment"].get("packages", {})
    others = {role: str(entry["source"]) for role, (_, entry) in texts_wanted({"stress": None, **data}).items()}
    texts = {"data": data["source"], "teacher": fetch["params"]["teacher"]["model"], **others}
    folders = {"data": f"{FETCHED_DATA}/", "teacher": f"{FETCHED_TEACHER}/"}
    folders |= {role: f"{FETCHED_DATA}/{role}/" for role in others}
    found = {role: _below(fetch, folders[role]) for role in texts}
    found["data"] = {
        name: sha256 for name, sha256 in found["data"].items() if not name.startswith(tuple(f"{role}/" for role in others))
    }
    return [Source(role, text, package_url(text, packages), hub_name(text), found[role]) for role, text in texts.items()]


def _below(receipt: Receipt, folder: str) -> dict[str, str]:
    """Return name -> sha256 of the files that a stage wrote into a folder."""
    files = files_of(receipt, "outputs").items()
    return {path.removeprefix(folder): file["sha256"] for path, file in files if path.startswith(folder)}


def package_url(source: str, packages: Mapping[str, str]) -> str | None:
    """Return the purl of a source of params.yaml, None for a folder of somebody's machine or an unknown package.

    `packages`: name -> version of what was installed when the source was read. Source: the package-url specification.
    """
    kind, _, place = source.partition(":")
    if kind == "hub":
        name, _, revision = place.partition("@")
        return f"pkg:huggingface/{quote(name)}@{quote(revision)}"
    package, _, path = place.partition("/")
    name = package.replace("_", "-").lower()
    if kind != "pkg" or name not in packages:
        return None
    return f"pkg:pypi/{name}@{quote(packages[name])}" + (f"#{quote(path)}" if path else "")


def hub_name(source: str) -> str:
    """Return a source under a name that the Hub's model cards take: ORG/NAME, or a package's or folder's own name."""
    kind, _, place = source.partition(":")
    if kind == "hub":
        return place.partition("@")[0]
    return place.partition("/")[0].replace("_", "-") if kind == "pkg" else place.rstrip("/").rpartition("/")[2]


def ancestry(facts: Facts) -> list[Ancestor]:
    """Return the models before this one, nearest first: the rounds it was cut from, then the teacher it learnt from."""
    files, writers = written(facts.receipts), producers(facts.receipts)
    models, name = [], facts.round
    while name != TEACHER:
        name = str(facts.params["rounds"][name]["parent"])
        weights = RoundPaths(Path(), name).weights.as_posix()
        models.append(Ancestor(name, files[weights]["sha256"], writers[weights]))
    return models


def data_sets(facts: Facts) -> dict[str, str]:
    """Return name of each prepared set -> sha256 of its rows."""
    sets = _below(facts.receipts["prepare"], f"{SETS}/")
    return {name.removesuffix(".parquet"): sha256 for name, sha256 in sets.items()}


def packages(facts: Facts) -> list[tuple[str, str]]:
    """Return (name, version) of every package that was installed while a stage behind this model ran."""
    return sorted({pair for _, receipt in facts.behind() for pair in receipt["environment"].get("packages", {}).items()})


def began(receipt: Receipt) -> str:
    """Return when a stage's work began, UTC, to the second."""
    return receipt["started_at"]


def ended(receipt: Receipt) -> str:
    """Return when a stage's work ended, UTC, to the second."""
    end = datetime.fromisoformat(began(receipt)) + timedelta(seconds=receipt["compute_seconds"])
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def stable_uuid(*parts: object) -> str:
    """Return a UUID that follows from its parts, so that the same model exported twice has the same ones (RFC 9562, v5)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, ":".join((URN, *map(str, parts)))))


def public_address(remote: str) -> str | None:
    """Return the address of a Git remote as https without name and password, None for one that only this machine has."""
    if remote.startswith(("https://", "http://")):
        scheme, _, rest = remote.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    if remote.startswith("ssh://"):
        host, _, path = remote.removeprefix("ssh://").partition("/")
        return f"https://{host.rpartition('@')[2].partition(':')[0]}/{path}"
    user, at, rest = remote.partition("@")
    host, colon, path = rest.partition(":")
    return f"https://{host}/{path}" if at and colon and "/" not in user else None
