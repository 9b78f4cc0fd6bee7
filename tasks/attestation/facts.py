"""The facts of one exported model, as plain values: every format of an export is written from these and from nothing else."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from tasks.lineage.chain import Receipt, Receipts, files_of

ROUNDS: Final = "artifacts/rounds"
WEIGHTS: Final = "trained/model/model.safetensors"
TEACHER: Final = "teacher"
URN: Final = "urn:compactlm"
SETS: Final = "artifacts/data/sets/"
FETCHED: Final = (("data", "artifacts/fetched/data"), ("teacher", "artifacts/fetched/teacher"))


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
    files: Mapping[str, Mapping[str, Any]]  # name in the export -> sha256 and size_bytes of the model's files
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
    def params(self) -> Mapping[str, Any]:
        """Return params.yaml as the gate of this model read it."""
        found: Mapping[str, Any] = self.receipts[f"gate@{self.round}"]["params"]
        return found

    @property
    def labels(self) -> list[str]:
        """Return the names of the classes in order of their numbers."""
        labels = self.params["data"]["labels"]
        return [str(labels[key]) for key in sorted(labels, key=int)]

    @property
    def commit(self) -> str | None:
        """Return the commit at which the model was judged."""
        found: str | None = self.receipts[f"gate@{self.round}"]["git"]["commit"]
        return found

    def behind(self) -> list[tuple[str, Receipt]]:
        """Return (stage, receipt) of the stages behind this model."""
        return [(stage, self.receipts[stage]) for stage in self.stages]


@dataclass(frozen=True)
class Source:
    """Data or a teacher from outside: what params.yaml calls it, its package URL if it has one, and its files."""

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
    found = {}
    model, exported = f"{ROUNDS}/{name}/trained/model/", f"{ROUNDS}/{name}/exported/"
    for path in files_of(receipts[f"distill@{name}"], "outputs"):
        if path.startswith(model):
            found[path.removeprefix(model)] = path
    for path in files_of(receipts[f"export@{name}"], "outputs"):
        if path.endswith(".onnx"):
            found[f"onnx/{path.removeprefix(exported)}"] = path
    evaluated = f"{ROUNDS}/{name}/evaluated"
    return found | {
        "evidence/quality.json": f"{evaluated}/quality.json",
        "evidence/cost.json": f"{evaluated}/cost.json",
        "evidence/parity.json": f"{exported}parity.json",
        "evidence/verdict.json": f"{ROUNDS}/{name}/verdict.json",
        "evidence/teacher_quality.json": f"{ROUNDS}/{TEACHER}/evaluated/quality.json",
    }


def sources(facts: Facts) -> list[Source]:
    """Return the data and the teacher that came from outside, with the digests that `fetch` recorded."""
    fetch = facts.receipts["fetch"]
    texts = {"data": fetch["params"]["data"]["source"], "teacher": fetch["params"]["teacher"]["model"]}
    packages = fetch["environment"].get("packages", {})
    found = []
    for role, folder in FETCHED:
        files = {
            path.removeprefix(f"{folder}/"): one["sha256"]
            for path, one in files_of(fetch, "outputs").items()
            if path.startswith(f"{folder}/")
        }
        found.append(Source(role, texts[role], package_url(texts[role], packages), hub_name(texts[role]), files))
    return found


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
    wrote = {
        path: (one["sha256"], stage)
        for stage, receipt in facts.receipts.items()
        for path, one in files_of(receipt, "outputs").items()
    }
    found, name = [], facts.round
    while name != TEACHER:
        name = str(facts.params["rounds"][name]["parent"])
        found.append(Ancestor(name, *wrote[f"{ROUNDS}/{name}/{WEIGHTS}"]))
    return found


def data_sets(facts: Facts) -> dict[str, str]:
    """Return name of each prepared set -> sha256 of its rows."""
    return {
        path.removeprefix(SETS).removesuffix(".parquet"): one["sha256"]
        for path, one in files_of(facts.receipts["prepare"], "outputs").items()
        if path.startswith(SETS)
    }


def packages(facts: Facts) -> list[tuple[str, str]]:
    """Return (name, version) of every package that was installed while a stage behind this model ran."""
    return sorted(
        {pair for _, receipt in facts.behind() for pair in receipt["environment"].get("packages", {}).items()}
    )


def began(receipt: Receipt) -> str:
    """Return when a stage's work began, UTC, to the second."""
    return str(receipt["started_at"])


def ended(receipt: Receipt) -> str:
    """Return when a stage's work ended, UTC, to the second."""
    end = datetime.fromisoformat(began(receipt)) + timedelta(seconds=receipt["compute_seconds"])
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def digest_of(content: bytes) -> str:
    """Return the sha256 of bytes in hex."""
    return hashlib.sha256(content).hexdigest()


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
