"""Reading half of the door to MLflow: runs, models, versions and their files, without importing MLflow where that is possible."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlparse

from tasks.errors import without_passwords
from tasks.registry.downloads import is_whole, whole_file, whole_folder
from tasks.registry.store import (
    AT_ONCE,
    OWN,
    STORED,
    ClientStore,
    LoggedModel,
    RegisteredVersion,
    Run,
    Store,
    files_beside,
    follow_folder,
    open_sqlite,
    sqlite_path,
    sqlite_uri,
)
from tasks.running.servers import REGISTRY, TRACKING, settle_credentials

PREFIX: Final = "compactlm."  # of the tags that are ours
FILES_SHA256: Final = "files_sha256"  # tag of a logged model: the digest of the folder of its files


def default_uri(workspace: Path) -> str:
    """Return the tracking store: MLFLOW_TRACKING_URI, else a SQLite file below the workspace's `.compactlm`.

    Of a server it has no user and password, which the environment keeps; of a database it may.
    """
    settle_credentials(os.environ)
    return os.environ.get(TRACKING) or sqlite_uri(workspace / OWN / "mlflow.db")


def address_of(path: Path) -> str:
    """Return how MLflow is told where something is: in a plain path it takes `%20`, `#` and `?` for parts of an address."""
    plain = str(path)
    return plain if quote(plain) == plain else path.absolute().as_uri()


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that are ours, without the prefix."""
    return {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}


def marked(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags of ours with the prefix."""
    return {PREFIX + key: value for key, value in tags.items()}


Point = tuple[str, float, int]  # metric, value, step


class Reader(ABC):
    """One experiment of one store. With `keep_runs` each run is asked for once: for one who works under the workspace's lock."""

    def __init__(self, workspace: Path, experiment: str | None, keep_runs: bool) -> None:
        self.workspace, self.uri = workspace, default_uri(workspace)
        self._experiment, self._experiment_id = experiment, ""
        self._places: dict[str, str] = {}
        self._database = sqlite_path(self.uri)
        if self._database is not None and self._database.exists():
            follow_folder(self._database)
        self._run = cache(self._read_run) if keep_runs else self._read_run

    @property
    @abstractmethod
    def client(self) -> Any:
        """MLflow's client."""

    @property
    def shown_uri(self) -> str:
        """The address of the store as people may see it."""
        return without_passwords(self.uri)

    @property
    def experiment_id(self) -> str | None:
        """The id of the experiment; None as long as there is none, and for a reader without one."""
        if not self._experiment_id and self._experiment is not None:
            self._experiment_id = self._store.experiment(self._experiment) or ""
        return self._experiment_id or None

    @abstractmethod
    def files_at(self, place: str) -> Any:
        """Return MLflow's hands on the files at an address: `list_artifacts`, `download_artifacts`, `log_artifacts`.

        By the address, since MLflow's client asks for run and models anew with each file, and adds one of its own to a model.
        """

    def fetch_model(self, model_id: str, folder: Path) -> Path:
        """Return `folder` with the files of a logged model that are kept elsewhere."""
        files = self.files_at(self._store.model(model_id).artifact_location)
        return whole_file(folder, lambda scratch: files.download_artifacts("", str(scratch)))

    @cached_property
    def _store(self) -> Store:
        own = self._database if not os.environ.get(REGISTRY) else None
        return (open_sqlite(own) if own else None) or ClientStore(self.client, AT_ONCE if self.uri.startswith("http") else 1)

    def _read_run(self, run_id: str) -> Run:
        run = self._store.run(run_id)
        if run is None:
            raise LookupError(f"{self.shown_uri}: there is no run {run_id}")
        return run

    # Runs

    def find_run(self, tags: Mapping[str, str], without: str | None = None) -> str | None:
        """Return the id of the newest run with all `tags` (names without our prefix) and no tag `without`."""
        known = self.experiment_id
        for run in self._store.runs([known], marked(tags)) if known else ():
            if without is None or PREFIX + without not in run.tags:
                return run.run_id
        return None

    def find_runs(self, tags: Mapping[str, str]) -> list[str]:
        """Return the ids of all runs with all `tags`, of every experiment, newest first."""
        return [run.run_id for run in self._store.runs(self._store.experiments(), marked(tags))]

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Return our tags of a run, without the prefix."""
        return own_tags(self._run(run_id).tags)

    def parent_of(self, run_id: str) -> str | None:
        """Return the id of the run's parent run."""
        return self._run(run_id).tags.get("mlflow.parentRunId") or None

    def has_run(self, run_id: str | None) -> bool:
        """Return whether there is such a run."""
        return self._store.run(run_id) is not None if run_id else False

    def run_params(self, run_id: str) -> dict[str, str]:
        """Return the params of a run."""
        return dict(self._run(run_id).params)

    def run_points(self, run_id: str) -> dict[str, list[tuple[float, int]]]:
        """Return metric -> its points (value, step), in the order in which they came."""
        return self._store.points(run_id, self._run(run_id).metrics)

    def steps_of(self, run_id: str, keys: Iterable[str]) -> set[tuple[str, int]]:
        """Return (metric, step) of every point a run has of these metrics."""
        known = self._store.points(run_id, {*keys}.intersection(self._run(run_id).metrics))
        return {(key, step) for key, points in known.items() for _, step in points}

    # Models

    def find_models(self, tags: Mapping[str, str]) -> list[LoggedModel]:
        """Return the logged models with all `tags` (names without our prefix), finished or not."""
        known = self.experiment_id
        return self._store.models(known, marked(tags)) if known else []

    def model_tags(self, model_id: str) -> dict[str, str]:
        """Return our tags of a logged model, without the prefix."""
        return own_tags(self._store.model(model_id).tags)

    # Files

    def _on_this_machine(self, uri: str) -> Path | None:
        """Return the folder of stored files, None when another machine keeps them.

        A store of ours has them beside its database, whatever it says: it may have been moved, and be on a read-only disk.
        """
        place = urlparse(uri)
        if place.scheme not in ("", "file"):
            return None
        path = Path(unquote(place.path))
        _, stored, name = str(path).rpartition(f"/{STORED}/")
        if stored and self._database is not None and (own := files_beside(self._database)).exists():
            return own / name
        return path if path.exists() or not stored else self.workspace / STORED / name

    def place_of(self, run_id: str) -> str:
        """Return the address of a run's files, which never changes."""
        if run_id not in self._places:
            self._places[run_id] = self._run(run_id).artifact_uri
        return self._places[run_id]

    def _folder_of_run(self, run_id: str) -> Path | None:
        return self._on_this_machine(self.place_of(run_id))

    def local_model(self, model_id: str) -> Path:
        """Return a local folder with a logged model's files, fetching them once when they are kept elsewhere."""
        if here := self.model_here(model_id):
            return here
        return whole_folder(self._fetched(model_id), self._files_sha256(model_id), partial(self.fetch_model, model_id))

    def model_here(self, model_id: str) -> Path | None:
        """Return the local folder of a logged model's files; None when they are kept elsewhere and were not fetched whole."""
        place = self._on_this_machine(self._store.model(model_id).artifact_location)
        folder = self._fetched(model_id)
        return place or (folder if is_whole(folder, self._files_sha256(model_id)) else None)

    def _fetched(self, model_id: str) -> Path:
        return self.workspace / ".compactlm" / "models" / model_id

    def _files_sha256(self, model_id: str) -> str | None:
        return own_tags(self._store.model(model_id).tags).get(FILES_SHA256)

    def local_file(self, run_id: str, name: str) -> Path | None:
        """Return a local path of a run's recorded file, fetching it when kept elsewhere; None when there is none."""
        return self.run_files(run_id, name, self.workspace / ".compactlm")

    # Reading, for audits: bytes are fetched anew, never taken from an earlier download

    def run_files(self, run_id: str, name: str, into: Path) -> Path | None:
        """Return where a run's recorded file or folder is, copied below `into` when kept elsewhere; None if there is none."""
        place = self._folder_of_run(run_id)
        if place is not None:
            return place / name if (place / name).exists() else None
        above, files = name.rpartition("/")[0] or None, self.files_at(self.place_of(run_id))
        if name not in {item.path for item in files.list_artifacts(above)}:
            return None
        return whole_file(into / "runs" / run_id / name, lambda folder: files.download_artifacts(name, str(folder)))

    def model_files(self, model_id: str, into: Path) -> Path | None:
        """Return the folder of a logged model's files, copied below `into` when kept elsewhere; None if it has none."""
        place = self._on_this_machine(self._store.model(model_id).artifact_location)
        if place is not None:
            return place if place.exists() else None
        return self.fetch_model(model_id, into / "models" / model_id)

    # Registry

    def all_versions(self, name: str | None) -> list[RegisteredVersion]:
        """Return every version of a registered model (of all without a name), also those that this project did not register."""
        return sorted(self._store.versions(name), key=lambda entry: (entry.name, int(entry.version)))

    def versions(self, name: str | None = None) -> list[RegisteredVersion]:
        """Return the versions this project registered, oldest first, of one model name or of all."""
        return [entry for entry in self.all_versions(name) if "model_sha256" in own_tags(entry.tags)]

    def numbers(self, name: str) -> dict[str, str]:
        """Return sha256 of the weights -> version number of the versions this project registered."""
        return {entry.tags[PREFIX + "model_sha256"]: entry.version for entry in self.versions(name)}

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a registered model."""
        return dict(self._store.registered(name).aliases)

    def model_tag(self, name: str, key: str) -> str | None:
        """Return one of our tags of a registered model."""
        return self._store.registered(name).tags.get(PREFIX + key)
