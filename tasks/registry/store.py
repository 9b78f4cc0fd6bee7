"""What MLflow's store says, as plain records: read by SQL from a SQLite file with a known schema, else by MLflow's client.

Importing MLflow takes seconds, and who only looks does not need it. All writing is left to MLflow (`tasks.registry.tracking`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlparse

SQLITE: Final = "sqlite:///"
SCHEMA: Final = "dc11669786a5"  # of MLflow 3.17; a store of another one is read by MLflow itself
STATUSES: Final = ("UNSPECIFIED", "PENDING", "READY", "FAILED")  # of a logged model, by MLflow's numbers
WAIT_SECONDS: Final = 60.0  # for one who writes
AT_ONCE: Final = 8  # requests on their way to a server; a database is asked by one thread
OWN: Final = ".compactlm/mlflow"  # the store of a workspace
STORED: Final = f"{OWN}/artifacts"  # where it keeps files
# table -> its column with the absolute address of files
ADDRESSES: Final = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


@dataclass(frozen=True)
class Run:
    """A run; `metrics` are the names of those it has."""

    run_id: str
    status: str
    artifact_uri: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence[str]


@dataclass(frozen=True)
class LoggedModel:
    """A logged model, servable when its status is READY."""

    model_id: str
    status: str
    artifact_location: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model."""

    name: str
    version: str
    source: str
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model: alias -> version number, and its tags; both empty where there is no such model."""

    aliases: Mapping[str, str]
    tags: Mapping[str, str]


class ClientStore:
    """Any store, asked through MLflow's client; `tags` are looked for with their whole names and values."""

    def __init__(self, client: Any, at_once: int = 1) -> None:
        self._client, self._at_once = client, at_once

    def experiment(self, name: str) -> str | None:
        """Return the id of an experiment, None when there is none."""
        entry = self._client.get_experiment_by_name(name)
        return entry and str(entry.experiment_id)

    def experiments(self) -> list[str]:
        """Return the ids of all experiments."""
        return [str(entry.experiment_id) for entry in self._client.search_experiments()]

    def runs(self, experiments: Sequence[str], tags: Mapping[str, str]) -> list[Run]:
        """Return the runs with all these tags, newest first."""
        words = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return [_run(entry) for entry in self._client.search_runs(list(experiments), words)]

    def run(self, run_id: str) -> Run | None:
        """Return a run, None when there is none."""
        try:
            return _run(self._client.get_run(run_id))
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def points(self, run_id: str, metrics: Iterable[str]) -> dict[str, list[tuple[float, int]]]:
        """Return metric -> its points (value, step), in the order in which they came."""
        wanted = [*metrics]
        if not wanted:
            return {}
        # MLflow tells the history of one metric a request, and a run has hundreds: most of that is waiting.
        with ThreadPoolExecutor(self._at_once) as several:
            histories = several.map(lambda key: self._client.get_metric_history(run_id, key), wanted)
            found = [[(point.value, point.step) for point in history] for history in histories]
        return dict(zip(wanted, found, strict=True))

    def models(self, experiment: str, tags: Mapping[str, str]) -> list[LoggedModel]:
        """Return the logged models with all these tags, newest first."""
        words = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        return [_model(entry) for entry in self._client.search_logged_models([experiment], words)]

    def model(self, model_id: str) -> LoggedModel:
        """Return a logged model."""
        return _model(self._client.get_logged_model(model_id))

    def versions(self, name: str | None) -> list[RegisteredVersion]:
        """Return the versions of a registered model, or of all."""
        return [
            RegisteredVersion(entry.name, str(entry.version), entry.source, entry.run_id or "", dict(entry.tags))
            for entry in self._client.search_model_versions(f"name = '{name}'" if name else None)
        ]

    def registered(self, name: str) -> RegisteredModel:
        """Return a registered model."""
        for entry in self._client.search_registered_models(f"name = '{name}'"):
            aliases = {alias: str(version) for alias, version in entry.aliases.items()}
            return RegisteredModel(aliases, dict(entry.tags))
        return RegisteredModel({}, {})


def _run(entry: Any) -> Run:
    info, data = entry.info, entry.data
    return Run(info.run_id, info.status, info.artifact_uri, dict(data.tags), dict(data.params), list(data.metrics))


def _model(entry: Any) -> LoggedModel:
    return LoggedModel(entry.model_id, str(entry.status), entry.artifact_location, dict(entry.tags))


class SqliteStore:
    """A store in a SQLite file, asked the same."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __del__(self) -> None:
        self._connection.close()

    def rows(self, query: str, *values: object) -> list[Any]:
        """Return the rows that a query gives."""
        return self._connection.execute(query, values).fetchall()

    def experiment(self, name: str) -> str | None:
        rows = self.rows("SELECT experiment_id FROM experiments WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def experiments(self) -> list[str]:
        return [str(number) for (number,) in self.rows("SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active'")]

    def runs(self, experiments: Sequence[str], tags: Mapping[str, str]) -> list[Run]:
        places = ", ".join("?" * len(experiments))
        words = " AND EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = ? AND t.value = ?)"
        query = f"SELECT run_uuid FROM runs r WHERE lifecycle_stage = 'active' AND experiment_id IN ({places})"
        query += words * len(tags) + " ORDER BY start_time DESC, run_uuid"
        ids = [run_id for (run_id,) in self.rows(query, *map(int, experiments), *_flat(tags))]
        return [run for run_id in ids if (run := self.run(run_id)) is not None]

    def run(self, run_id: str) -> Run | None:
        rows = self.rows("SELECT status, artifact_uri FROM runs WHERE run_uuid = ?", run_id)
        if not rows:
            return None
        tags, params = (dict(self.rows(f"SELECT key, value FROM {of} WHERE run_uuid = ?", run_id)) for of in ("tags", "params"))
        names = [key for (key,) in self.rows("SELECT key FROM latest_metrics WHERE run_uuid = ?", run_id)]
        status, place = rows[0]
        return Run(run_id, status, place, tags, params, names)

    def points(self, run_id: str, metrics: Iterable[str]) -> dict[str, list[tuple[float, int]]]:
        points: dict[str, list[tuple[float, int]]] = {metric: [] for metric in metrics}
        query = "SELECT key, value, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, value"
        for key, value, step, is_nan in self.rows(query, run_id):
            if key in points:
                points[key].append((float("nan") if is_nan else value, step))
        return points

    def models(self, experiment: str, tags: Mapping[str, str]) -> list[LoggedModel]:
        query = "SELECT model_id FROM logged_models m WHERE lifecycle_stage = 'active' AND experiment_id = ?"
        words = " AND EXISTS (SELECT 1 FROM logged_model_tags t"
        words += " WHERE t.model_id = m.model_id AND t.tag_key = ? AND t.tag_value = ?)"
        query += words * len(tags) + " ORDER BY creation_timestamp_ms DESC, model_id"
        return [self.model(model_id) for (model_id,) in self.rows(query, int(experiment), *_flat(tags))]

    def model(self, model_id: str) -> LoggedModel:
        query = "SELECT status, artifact_location FROM logged_models WHERE model_id = ? AND lifecycle_stage = 'active'"
        rows = self.rows(query, model_id)
        if not rows:
            raise LookupError(f"MLflow has no model {model_id}")
        tags = self.rows("SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = ?", model_id)
        status, place = rows[0]
        return LoggedModel(model_id, STATUSES[status], place, dict(tags))

    def versions(self, name: str | None) -> list[RegisteredVersion]:
        query = "SELECT name, version, source, run_id FROM model_versions WHERE current_stage != 'Deleted_Internal'"
        rows = self.rows(query) if name is None else self.rows(query + " AND name = ?", name)
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for model, version, key, value in self.rows("SELECT name, version, key, value FROM model_version_tags"):
            tags.setdefault((model, version), {})[key] = value
        return [
            RegisteredVersion(model, str(version), source, run_id or "", tags.get((model, version), {}))
            for model, version, source, run_id in rows
        ]

    def registered(self, name: str) -> RegisteredModel:
        aliases = self.rows("SELECT alias, version FROM registered_model_aliases WHERE name = ?", name)
        tags = self.rows("SELECT key, value FROM registered_model_tags WHERE name = ?", name)
        return RegisteredModel({alias: str(version) for alias, version in aliases}, dict(tags))


def sqlite_uri(path: Path) -> str:
    """Return the address of a database file: its path, quoted where the path has a `?`, at which an address would end."""
    place = str(path.absolute())
    return f"{SQLITE}file:{quote(place, safe='')}?uri=true" if "?" in place else SQLITE + place


def sqlite_path(uri: str) -> Path | None:
    """Return the database file at an address, None of another kind of store."""
    if not uri.startswith(SQLITE):
        return None
    place, _, options = uri.removeprefix(SQLITE).partition("?")
    return Path(unquote(place.removeprefix("file:")) if "uri=true" in options else place)


def files_beside(database: Path) -> Path:
    """Return where the store of a workspace keeps its files: beside its database."""
    return database.absolute().parent / "artifacts"


def is_a_workspaces(database: Path) -> bool:
    """Return whether a database file is the store of some workspace, by where it is."""
    return database.absolute().as_posix().endswith(f"/{OWN}/{database.name}")


def follow_folder(database: Path) -> None:
    """Let the store of a workspace that was moved or copied name its own files: MLflow records whole paths."""
    if not is_a_workspaces(database):
        return
    project = database.absolute().parents[2]
    with suppress(sqlite3.DatabaseError), closing(_connect(database)) as connection, connection:
        recorded = connection.execute(
            "SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%'"
        ).fetchall()
        for old in {_project_of(address) for (address,) in recorded}:
            if old is None or (old.exists() and old.samefile(project)):
                continue  # by whatever links each leads there
            for table, column in ADDRESSES.items():
                rows = connection.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
                moved = [(_replanted(address, old, project), address) for (address,) in rows]
                connection.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", moved)


def _project_of(address: str) -> Path | None:
    """Return the project whose store keeps files at an address; None for files elsewhere."""
    before, stored, _ = address.rpartition(f"/{STORED}")
    return Path(unquote(urlparse(before).path)) if stored else None


def _replanted(address: str, old: Path, new: Path) -> str:
    """Return an address or path below a folder as one below another; those that lie elsewhere stay."""
    for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
        if address.startswith(f"{before}/"):
            return after + address.removeprefix(before)
    return address


def _connect(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?mode=rw"  # it may have to roll back what a kill has left
    # Whoever shares a store between threads lets them take turns.
    return sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS, check_same_thread=False)


def _flat(pairs: Mapping[str, str]) -> list[str]:
    return [word for pair in pairs.items() for word in pair]


def open_sqlite(path: Path) -> SqliteStore | None:
    """Return the store in a file, None unless it is MLflow's in the schema that is known here."""
    try:
        store = SqliteStore(_connect(path))
        return store if store.rows("SELECT version_num FROM alembic_version") == [(SCHEMA,)] else None
    except sqlite3.DatabaseError:
        return None


Store = ClientStore | SqliteStore
