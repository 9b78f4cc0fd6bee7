"""The one door to MLflow: small operations that find before they make, so doing them twice adds nothing.

What is recorded, and when, is decided in `tasks.registry.publish`; `import mlflow` costs seconds and happens on first use.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlparse

from tasks.files import digest
from tasks.registry.records import DataSet

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

PREFIX: Final = "compactlm."
FILES_SHA256: Final = "files_sha256"  # tag of a logged model: the digest of the folder of its files
STORED: Final = ".compactlm/mlflow/artifacts"  # where the store of a workspace keeps files
MAX_BATCH: Final = 900  # MLflow takes 1,000 items a batch; params are limited to 100
REQUIREMENTS: Final = ("mlflow", "transformers", "torch", "tokenizers", "safetensors", "pandas")

Point = tuple[str, float, int]  # metric, value, step


def default_uri(workspace: Path) -> str:
    """Return the tracking store: MLFLOW_TRACKING_URI, else a SQLite file below the workspace's `.compactlm`."""
    return (
        os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(workspace / '.compactlm/mlflow/mlflow.db').absolute()}"
    )


def store_exists(workspace: Path) -> bool:
    """Return whether there is something to read; a store of our own is made by the first run only."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (workspace / ".compactlm/mlflow/mlflow.db").exists()


def preload() -> None:
    """Import MLflow now, so that its first use does not wait for it."""
    import mlflow  # noqa: F401


class Tracker:
    """One experiment of one MLflow store; without an experiment it is for reading what the registry leads to.

    With `keep_runs` each run is asked for once: for one who changes nothing and works under the lock of the workspace.
    """

    def __init__(self, workspace: Path, experiment: str | None = None, keep_runs: bool = False) -> None:
        import mlflow

        self.workspace = workspace
        self.uri = default_uri(workspace)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            (workspace / ".compactlm/mlflow").mkdir(parents=True, exist_ok=True)
        self.client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI"))
        self.experiment_id = self._experiment(experiment) if experiment else ""
        self._run = cache(self.client.get_run) if keep_runs else self.client.get_run

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # A server decides itself where artifacts go; the store of the workspace keeps them beside its database.
        local = not os.environ.get("MLFLOW_TRACKING_URI")
        place = (self.workspace / STORED).absolute().as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=place))

    # Runs

    def find_run(self, tags: Mapping[str, str], without: str | None = None) -> str | None:
        """Return the id of the newest run with all `tags` (names without our prefix) and no tag `without`."""
        words = [f"tags.`{PREFIX}{key}` = '{value}'" for key, value in tags.items()]
        for run in self.client.search_runs([self.experiment_id], " and ".join(words), max_results=100):
            if without is None or PREFIX + without not in run.data.tags:
                return str(run.info.run_id)
        return None

    def find_runs(self, tags: Mapping[str, str]) -> list[str]:
        """Return the ids of all runs with all `tags`, of every experiment, newest first."""
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        words = [f"tags.`{PREFIX}{key}` = '{value}'" for key, value in tags.items()]
        return [str(run.info.run_id) for run in self.client.search_runs(experiments, " and ".join(words))]

    def create_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Return the id of a new run that is under way."""
        all_tags = {PREFIX + key: value for key, value in tags.items()}
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment_id, run_name=name, tags=all_tags)
        return str(run.info.run_id)

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Return our tags of a run, without the prefix."""
        tags = self._run(run_id).data.tags
        return {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}

    def set_status(self, run_id: str, status: str) -> None:
        """Set RUNNING, FINISHED, FAILED or KILLED, unless it stands so already."""
        if self._run(run_id).info.status == status:
            return
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set our tags of a run."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(PREFIX + key, value) for key, value in tags.items()])

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Record params; the same ones again change nothing."""
        from mlflow.entities import Param

        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), 100):
            self.client.log_batch(run_id, params=items[start : start + 100])

    def steps_of(self, run_id: str, keys: Iterable[str]) -> set[tuple[str, int]]:
        """Return (metric, step) of every point a run has of these metrics."""
        known = self._run(run_id).data.metrics
        return {(k, p.step) for k in keys if k in known for p in self.client.get_metric_history(run_id, k)}

    def log_points(self, run_id: str, points: Sequence[Point], model_id: str | None = None) -> None:
        """Record points; those of which the run has the metric at the step already are left out."""
        from mlflow.entities import Metric

        known = self.steps_of(run_id, {key for key, _, _ in points})
        now = int(time.time() * 1000)
        new = [Metric(key, v, now, step, model_id=model_id) for key, v, step in points if (key, step) not in known]
        for start in range(0, len(new), MAX_BATCH):
            self.client.log_batch(run_id, metrics=new[start : start + MAX_BATCH])

    def log_files(self, run_id: str, paths: Iterable[Path], folder: str | None = None) -> None:
        """Record copies of small files with a run, replacing earlier copies."""
        for path in paths:
            self.client.log_artifact(run_id, str(path), folder)

    def log_datasets(self, run_id: str, datasets: Iterable[DataSet]) -> None:
        """Record which sets of rows a run used, by our own digests."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        inputs = []
        for item in datasets:
            source = CodeDatasetSource({"dvc_path": item.path})
            entity = MetaDataset(source, item.name, item.digest)._to_mlflow_entity()
            inputs.append(DatasetInput(entity, [InputTag("mlflow.data.context", item.context)]))
        self.client.log_inputs(run_id, datasets=inputs)

    # Models

    def find_models(self, tags: Mapping[str, str]) -> list[Any]:
        """Return the logged models with all `tags` (names without our prefix), finished or not."""
        words = [f"tags.`{PREFIX}{key}` = '{value}'" for key, value in tags.items()]
        return list(self.client.search_logged_models([self.experiment_id], " AND ".join(words)))

    def ensure_pointer(self, name: str, run_id: str, key: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Return the id of the logged model with the tags `key`, made without bytes of its own when there is none."""
        found = self.find_models(key)
        every = {PREFIX + k: v for k, v in {**key, **tags}.items()} | {"mlflow.model.isExternal": "true"}
        if found:
            if {**found[0].tags, **every} != found[0].tags:
                self.client.set_logged_model_tags(found[0].model_id, every)
            return str(found[0].model_id)
        made = self.client.create_logged_model(
            self.experiment_id, name=name, source_run_id=run_id, tags=every, model_type="checkpoint"
        )
        self.client.finalize_logged_model(made.model_id, "READY")
        return str(made.model_id)

    def ensure_model(
        self, name: str, run_id: str, key: Mapping[str, str], tags: Mapping[str, str], model: Path, onnx: Path | None
    ) -> str:
        """Return the id of the servable model with the tags `key`, uploading it when it is not there whole."""
        found = self.find_models(key)
        every = {PREFIX + k: v for k, v in {**key, **tags}.items()}
        if found and str(found[0].status) == "READY":
            if {**found[0].tags, **every} != found[0].tags:
                self.client.set_logged_model_tags(found[0].model_id, every)
            return str(found[0].model_id)
        entry = (
            found[0]
            if found
            else self.client.create_logged_model(
                self.experiment_id, name=name, source_run_id=run_id, tags=every, model_type="student"
            )
        )
        # The partial copy is made beside the workspace's stores: /tmp may be small.
        with tempfile.TemporaryDirectory(dir=self.workspace / ".compactlm") as folder:
            _save_servable(Path(folder) / "model", model, onnx)
            # MLflow keeps no digest of what it stores; this one covers the code it will run to serve the model, too.
            manifest = {PREFIX + FILES_SHA256: digest(Path(folder) / "model")["sha256"]}
            self.client.set_logged_model_tags(entry.model_id, manifest)
            self.client.log_model_artifacts(entry.model_id, str(Path(folder) / "model"))
        self.client.finalize_logged_model(entry.model_id, "READY")
        return str(entry.model_id)

    def _on_this_machine(self, uri: str) -> Path | None:
        """Return the folder of stored files, None when another machine keeps them; also after the workspace was moved."""
        place = urlparse(uri)
        if place.scheme not in ("", "file"):
            return None
        path = Path(unquote(place.path))
        _, ours, name = str(path).partition(f"/{STORED}/")
        return path if path.exists() or not ours else self.workspace / STORED / name

    def local_model(self, model_id: str) -> Path:
        """Return a local folder with a logged model's files, fetching them once when they are kept elsewhere."""
        place = self._on_this_machine(self.client.get_logged_model(model_id).artifact_location)
        if place is not None:
            return place
        import mlflow

        folder = self.workspace / ".compactlm" / "models" / model_id
        if not (folder / "MLmodel").exists():
            mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=str(folder), tracking_uri=self.uri)
        return folder

    def local_file(self, run_id: str, name: str) -> Path | None:
        """Return a local path of a run's recorded file, fetching it when kept elsewhere; None when there is none."""
        place = self._on_this_machine(self._run(run_id).info.artifact_uri)
        if place is not None:
            return place / name if (place / name).exists() else None
        if not any(item.path == name for item in self.client.list_artifacts(run_id, str(Path(name).parent))):
            return None
        folder = self.workspace / ".compactlm" / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(run_id, name, str(folder)))

    # Reading, for audits: bytes are fetched anew, never taken from an earlier download

    def parent_of(self, run_id: str) -> str | None:
        """Return the id of the run's parent run."""
        parent = self._run(run_id).data.tags.get("mlflow.parentRunId")
        return str(parent) if parent else None

    def has_run(self, run_id: str) -> bool:
        """Return whether there is such a run."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def run_params(self, run_id: str) -> dict[str, str]:
        """Return the params of a run."""
        return dict(self._run(run_id).data.params)

    def run_points(self, run_id: str) -> dict[str, list[tuple[float, int]]]:
        """Return metric -> its points (value, step), in the order in which they came."""
        names = self._run(run_id).data.metrics
        return {key: [(p.value, p.step) for p in self.client.get_metric_history(run_id, key)] for key in names}

    def model_tags(self, model_id: str) -> dict[str, str]:
        """Return our tags of a logged model, without the prefix."""
        tags = self.client.get_logged_model(model_id).tags
        return {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}

    def run_files(self, run_id: str, name: str, into: Path) -> Path | None:
        """Return where a run's recorded file or folder is, copied below `into` when kept elsewhere; None if there is none."""
        place = self._on_this_machine(self._run(run_id).info.artifact_uri)
        if place is not None:
            return place / name if (place / name).exists() else None
        above = name.rpartition("/")[0] or None
        if name not in {item.path for item in self.client.list_artifacts(run_id, above)}:
            return None
        folder = into / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        return Path(self.client.download_artifacts(run_id, name, str(folder)))

    def model_files(self, model_id: str, into: Path) -> Path | None:
        """Return the folder of a logged model's files, copied below `into` when kept elsewhere; None if it has none."""
        place = self._on_this_machine(self.client.get_logged_model(model_id).artifact_location)
        if place is not None:
            return place if place.exists() else None
        import mlflow

        folder = into / "models" / model_id
        mlflow.artifacts.download_artifacts(f"models:/{model_id}", dst_path=str(folder), tracking_uri=self.uri)
        return folder

    # Registry

    def all_versions(self, name: str) -> list[Any]:
        """Return every version of a registered model, also those that this project did not register."""
        return sorted(self.client.search_model_versions(f"name = '{name}'"), key=lambda entry: int(entry.version))

    def versions(self, name: str | None = None) -> list[Any]:
        """Return the versions this project registered, oldest first, of one model name or of all."""
        found = self.client.search_model_versions(f"name = '{name}'" if name else None)
        ours = [entry for entry in found if PREFIX + "model_sha256" in entry.tags]
        return sorted(ours, key=lambda entry: (entry.name, int(entry.version)))

    def numbers(self, name: str) -> dict[str, str]:
        """Return sha256 of the weights -> version number of the versions this project registered."""
        return {entry.tags[PREFIX + "model_sha256"]: str(entry.version) for entry in self.versions(name)}

    def ensure_version(
        self, name: str, model_id: str, run_id: str, tags: Mapping[str, str], number: str | None = None
    ) -> str:
        """Return the version number of the model with tag model_sha256, registered when new; tags are brought up to date.

        A new one gets the next number, or `number`: those before it that are not taken then stay free for good.
        """
        every = {PREFIX + key: value for key, value in tags.items()}
        for entry in self.versions(name):
            if entry.tags[PREFIX + "model_sha256"] == tags["model_sha256"]:
                for key, value in every.items():
                    if entry.tags.get(key) != value:
                        self.client.set_model_version_tag(name, entry.version, key, value)
                return str(entry.version)
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        with self._as_default():
            while True:
                made = self.client.create_model_version(name, f"models:/{model_id}", run_id=run_id, tags=every)
                if number is None or int(made.version) >= int(number):
                    return str(made.version)
                self.client.delete_model_version(name, made.version)  # MLflow counts on from it

    def leave_free(self, name: str, number: int) -> None:
        """Let no version to come have `number` or one before it, by registering and taking away again."""
        last = self.versions(name)[-1]
        with self._as_default():
            while int(self.client.create_model_version(name, last.source, run_id=last.run_id).version) < number:
                pass
        for entry in self.all_versions(name):
            if int(entry.version) > int(last.version):
                self.client.delete_model_version(name, entry.version)

    @contextmanager
    def _as_default(self) -> Iterator[None]:
        """Make our store MLflow's default for a moment: its registry looks a source up there, not in its own store."""
        import mlflow

        if os.environ.get("MLFLOW_TRACKING_URI"):
            yield  # then ours is the default already
            return
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # which also takes back the environment variable it had set

    def aliases(self, name: str) -> dict[str, str]:
        """Return alias -> version number of a registered model."""
        found = self.client.search_registered_models(f"name = '{name}'")
        return {alias: str(number) for alias, number in found[0].aliases.items()} if found else {}

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """Point an alias at a version, unless it does already."""
        if self.aliases(name).get(alias) != number:
            self.client.set_registered_model_alias(name, alias, number)

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        self.client.delete_registered_model_alias(name, alias)

    def model_tag(self, name: str, key: str) -> str | None:
        """Return one of our tags of a registered model."""
        found = self.client.search_registered_models(f"name = '{name}'")
        return found[0].tags.get(PREFIX + key) if found else None

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set one of our tags of a registered model."""
        self.client.set_registered_model_tag(name, PREFIX + key, value)

    def set_description(self, name: str, number: str, text: str) -> None:
        """Set what the page of a version says about it, unless it does already."""
        if self.client.get_model_version(name, number).description != text:
            self.client.update_model_version(name, number, text)

    def ensure_webhook(self, name: str, url: str, events: list[str], secret: str) -> None:
        """Let the MLflow server send signed events to an address; an earlier webhook of this name is replaced."""
        for page in self.client.list_webhooks():
            if page.name == name:
                self.client.delete_webhook(page.webhook_id)
        self.client.create_webhook(name, url, events, secret=secret)


def _save_servable(folder: Path, model: Path, onnx: Path | None) -> None:
    """Write an MLflow model folder: code as text, safetensors and ONNX, nothing pickled.

    A model without ONNX is a language model, and is served as one.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    # One column without a name, so that a plain list of texts is a valid input; it must equal what MLflow infers from
    # the types of `TextClassifier.predict`, and for a data frame MLflow infers that it may hold anything.
    signature = ModelSignature(inputs=Schema([ColSpec("string")]), outputs=Schema([ColSpec(AnyType())]))
    with warnings.catch_warnings():
        # It warns of type hints of its own, and asks for an example to guess what the signature says exactly.
        warnings.filterwarnings("ignore", message=".*(An input example was not|Any type hint is)")
        from mlflow.pyfunc import save_model

        save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("served_model.py" if onnx else "served_generator.py")),
            artifacts={"model": str(model)} | ({"onnx": str(onnx)} if onnx else {}),
            signature=signature,
            pip_requirements=[f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS],
        )
