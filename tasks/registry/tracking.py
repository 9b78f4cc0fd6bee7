"""The one door to MLflow: small operations that find before they make, so doing them twice adds nothing.

What is recorded, and when, is decided in `tasks.registry.publish`. `import mlflow` costs seconds: it happens when something is
to be written, or kept where it cannot be read otherwise (`tasks.registry.store`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final

from tasks.files import digest, without_links
from tasks.registry.reading import FILES_SHA256, PREFIX, Point, Reader, address_of, marked, own_tags
from tasks.registry.records import DataSet
from tasks.registry.refusals import Client
from tasks.registry.store import OWN, LoggedModel, files_beside, is_a_workspaces
from tasks.running.servers import REGISTRY, TRACKING

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# By default a server that is away is asked for four minutes, each request anew. These are 15 s: enough for a restart of a
# small one, and who is refused longer says so and goes on.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")

MAX_BATCH: Final = 900  # MLflow takes 1,000 metrics a batch
MAX_PARAMS: Final = 100
MAX_PARAM: Final = 6000  # characters that MLflow keeps of one
REQUIREMENTS: Final = ("mlflow", "transformers", "torch", "tokenizers", "safetensors", "pandas")


def store_exists(workspace: Path) -> bool:
    """Return whether there is something to read; a store of our own is made by the first run only."""
    return is_shared() or (workspace / OWN / "mlflow.db").exists()


def is_shared() -> bool:
    """Return whether the store is one that other projects may use as well, not the workspace's own."""
    return bool(os.environ.get(TRACKING))


def preload() -> None:
    """Import MLflow now, so that its first use does not wait for it."""
    import mlflow  # noqa: F401


@dataclass(frozen=True)
class Served:
    """What a servable model is made of: its folder, and its ONNX file unless it is a language model; whether it reads pairs."""

    model: Path
    onnx: Path | None
    pairs: bool = False

    @property
    def program(self) -> str:
        """The name of the file beside this one that loads the model where it is served."""
        return "served_generator.py" if self.onnx is None else "served_pairs.py" if self.pairs else "served_model.py"

    def parts(self) -> dict[str, Path]:
        """Return name -> path of each."""
        return {"model": self.model} | ({"onnx": self.onnx} if self.onnx else {})


class Tracker(Reader):
    """One experiment of one MLflow store; without an experiment it is for what the registry leads to.

    With `keep_runs` each run is asked for once: for one who changes nothing and works under the lock of the workspace.
    """

    def __init__(self, workspace: Path, experiment: str | None = None, keep_runs: bool = False) -> None:
        super().__init__(workspace, experiment, keep_runs)
        if not os.environ.get(TRACKING):
            (workspace / OWN).mkdir(parents=True, exist_ok=True)

    @cached_property
    def client(self) -> Any:
        """MLflow's client, by which everything is written."""
        import mlflow

        return self._guarded(mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=os.environ.get(REGISTRY)))

    def files_at(self, place: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return self._guarded(get_artifact_repository(place, tracking_uri=self.uri))

    def _guarded(self, client: Any) -> Client:
        import mlflow
        import requests

        return Client(client, self.uri, self._experiment, (mlflow.MlflowException, requests.RequestException))

    def _own_experiment(self) -> str:
        """Return the id of the experiment that is written to, made when there is none: reading makes none.

        Who makes an experiment owns it on a server with users, and would keep out whoever records runs.
        """
        assert self._experiment is not None, "a tracker without an experiment is for what the registry leads to"
        known = self.experiment_id
        if known is not None:
            return known
        # A server decides itself where artifacts go; the store of a workspace, ours or not, keeps them beside its database.
        database = self._database
        place = files_beside(database).as_uri() if database is not None and is_a_workspaces(database) else None
        return str(self.client.create_experiment(self._experiment, artifact_location=place))

    # Runs

    def create_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Return the id of a new run that is under way."""
        all_tags = marked(tags)
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self._own_experiment(), run_name=name, tags=all_tags)
        return str(run.info.run_id)

    def set_status(self, run_id: str, status: str) -> None:
        """Set RUNNING, FINISHED, FAILED or KILLED, unless it stands so already."""
        if self._run(run_id).status == status:
            return
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set our tags of a run."""
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in marked(tags).items()])

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Record params; the same ones again change nothing."""
        known = self._run(run_id).params
        kept = {key: _as_kept(value) for key, value in params.items()}
        new = {key: value for key, value in kept.items() if known.get(key) != value}
        if new:
            from mlflow.entities import Param

            items = [Param(key, value) for key, value in new.items()]
            for start in range(0, len(items), MAX_PARAMS):
                self.client.log_batch(run_id, params=items[start : start + MAX_PARAMS])

    def log_points(self, run_id: str, points: Sequence[Point], model_id: str | None = None) -> None:
        """Record points; those of which the run has the metric at the step already are left out."""
        self.log_points_of_models(run_id, [(model_id, point) for point in points])

    def log_points_of_models(self, run_id: str, points: Sequence[tuple[str | None, Point]]) -> None:
        """Record points as `log_points` does, each with the id of the logged model that it was measured on."""
        from mlflow.entities import Metric

        known = self.steps_of(run_id, {key for _, (key, _, _) in points})
        now = int(time.time() * 1000)
        new = [Metric(key, v, now, step, model_id=of) for of, (key, v, step) in points if (key, step) not in known]
        for start in range(0, len(new), MAX_BATCH):
            self.client.log_batch(run_id, metrics=new[start : start + MAX_BATCH])

    def log_files(self, run_id: str, paths: Iterable[Path], folder: str | None = None) -> None:
        """Record copies of small files with a run, replacing earlier copies."""
        with self._scratch() as scratch:
            for path in paths:
                shutil.copyfile(path, scratch / path.name)
            if any(scratch.iterdir()):
                self.files_at(self.place_of(run_id)).log_artifacts(str(scratch), folder)

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

    def ensure_pointer(self, name: str, run_id: str, key: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Return the id of the logged model with the tags `key`, made without bytes of its own when there is none."""
        every = {**marked({**key, **tags}), "mlflow.model.isExternal": "true"}
        known = self.find_models(key)
        if known:
            return self._retagged(known[0], every)
        made = self._create_model(name, run_id, every, "checkpoint")
        self.client.finalize_logged_model(made, "READY")
        return made

    def ensure_model(self, name: str, run_id: str, key: Mapping[str, str], tags: Mapping[str, str], files: Served) -> str:
        """Return the id of the servable model with the tags `key`, uploading it when it is not there whole."""
        every = marked({**key, **tags})
        known = self.find_models(key)
        if known and known[0].status == "READY":
            return self._retagged(known[0], every)
        model_id = known[0].model_id if known else self._create_model(name, run_id, every, "student")
        with self._scratch() as folder:
            _save_servable(folder / "model", files, folder)
            # MLflow keeps no digest of what it stores; this one covers the code it will run to serve the model, too.
            manifest = marked({FILES_SHA256: digest(folder / "model")["sha256"]})
            self.client.set_logged_model_tags(model_id, manifest)
            self.client.log_model_artifacts(model_id, str(folder / "model"))
        self.client.finalize_logged_model(model_id, "READY")
        return model_id

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give an empty folder for partial copies, beside the workspace's stores: /tmp may be small."""
        with tempfile.TemporaryDirectory(dir=self.workspace / ".compactlm") as folder:
            yield Path(folder)

    def _create_model(self, name: str, run_id: str, tags: dict[str, str], kind: str) -> str:
        place = self._own_experiment()
        made = self.client.create_logged_model(place, name=name, source_run_id=run_id, tags=tags, model_type=kind)
        return str(made.model_id)

    def _retagged(self, model: LoggedModel, tags: dict[str, str]) -> str:
        """Return the id of a logged model that has these tags now."""
        if {**model.tags, **tags} != model.tags:
            self.client.set_logged_model_tags(model.model_id, tags)
        return model.model_id

    # Registry

    def ensure_version(self, name: str, model_id: str, run_id: str, tags: Mapping[str, str], number: str | None = None) -> str:
        """Return the version number of the model with tag model_sha256, registered when new; tags are brought up to date.

        A new one gets the next number, or `number`: those before it that are not taken then stay free for good.
        """
        every = marked(tags)
        for entry in self.versions(name):
            if entry.tags[PREFIX + "model_sha256"] == tags["model_sha256"]:
                for key, value in every.items():
                    if entry.tags.get(key) != value:
                        self.client.set_model_version_tag(name, entry.version, key, value)
                return entry.version
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        with self._as_default():
            while True:
                # A server that keeps files itself wants to be told whose they are.
                made = self.client.create_model_version(name, f"models:/{model_id}", run_id, every, model_id=model_id)
                if number is None or int(made.version) >= int(number):
                    return str(made.version)
                self.client.delete_model_version(name, made.version)  # MLflow counts on from it

    def leave_free(self, name: str, number: int) -> None:
        """Let no version to come have `number` or one before it, by registering and taking away again."""
        last = self.versions(name)[-1]
        model_id = own_tags(last.tags)["model_id"]
        with self._as_default():
            made = int(last.version)
            while made < number:
                made = int(self.client.create_model_version(name, last.source, last.run_id or None, model_id=model_id).version)
        for entry in self.all_versions(name):
            if int(entry.version) > int(last.version):
                self.client.delete_model_version(name, entry.version)

    @contextmanager
    def _as_default(self) -> Iterator[None]:
        """Make our store MLflow's default for a moment: its registry looks a source up there, not in its own store."""
        import mlflow

        if os.environ.get(TRACKING):
            yield  # then ours is the default already
            return
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # which also takes back the environment variable it had set

    def take_away(self, versions: Iterable[tuple[str, str]], runs: Collection[str], models: Iterable[str]) -> None:
        """Delete versions (model, number), runs and logged models, those that are still there; records of others forget the runs.

        MLflow counts on, so that no number comes twice. The files of runs and models are left to the caller.
        """
        known = {(entry.name, entry.version) for entry in self.all_versions(None)}
        for name, number in versions:
            if (name, number) in known:
                self.client.delete_model_version(name, number)
        for pipeline in self.find_runs({"kind": "pipeline"}):
            for key, run_id in self.run_tags(pipeline).items():
                if key.startswith("round/") and run_id in runs and pipeline not in runs:
                    self.client.delete_tag(pipeline, PREFIX + key)
        alive = {*self.find_runs({})}
        pointers = [model.model_id for run_id in runs for model in self._models_of(run_id)]
        for model_id in {*models, *pointers}:
            if self._has_model(model_id):
                self.client.delete_logged_model(model_id)
        for run_id in runs:
            if run_id in alive:
                self.client.delete_run(run_id)

    def _models_of(self, run_id: str) -> list[Any]:
        """Return the logged models without bytes of their own that a run has left."""
        found = self.client.search_logged_models(self._store.experiments(), f"source_run_id = '{run_id}'")
        return [model for model in found if model.model_type == "checkpoint"]

    def _has_model(self, model_id: str) -> bool:
        try:
            self._store.model(model_id)
        except LookupError:
            return False
        return True

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """Point an alias at a version, unless it does already."""
        if self.aliases(name).get(alias) != number:
            self.client.set_registered_model_alias(name, alias, number)

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        self.client.delete_registered_model_alias(name, alias)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set one of our tags of a registered model."""
        self.client.set_registered_model_tag(name, PREFIX + key, value)

    def require_update(self, name: str) -> None:
        """Raise RightsError unless our user may change a registered model: who may not leaves no decision about it.

        A server tells by a write alone; this one says the same each time.
        """
        if is_shared():
            self.set_model_tag(name, "decided_here", "yes")

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


def _as_kept(param: str) -> str:
    """Return a param as MLflow can keep it whole: of one that is too long the start, and the digest of all of it."""
    if len(param) <= MAX_PARAM:
        return param
    end = f"... sha256 {hashlib.sha256(param.encode()).hexdigest()}"
    return param[: MAX_PARAM - len(end)] + end


def _save_servable(folder: Path, files: Served, scratch: Path) -> None:
    """Write an MLflow model folder: code as text, safetensors and ONNX, nothing pickled.

    A model without ONNX is a language model, and is served as one; one that reads pairs takes two columns.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    # One column without a name, so that a plain list of texts is a valid input; it must equal what MLflow infers from
    # the types of `TextClassifier.predict`, and for a data frame MLflow infers that it may hold anything.
    inputs = [ColSpec("string", "text"), ColSpec("string", "text_pair")] if files.pairs else [ColSpec("string")]
    signature = ModelSignature(inputs=Schema(inputs), outputs=Schema([ColSpec(AnyType())]))
    with warnings.catch_warnings():
        # It warns of type hints of its own, and asks for an example to guess what the signature says exactly.
        warnings.filterwarnings("ignore", message=".*(An input example was not|Any type hint is)")
        from mlflow.pyfunc import save_model

        save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name(files.program)),
            artifacts={name: address_of(without_links(path, scratch)) for name, path in files.parts().items()},
            signature=signature,
            pip_requirements=[f"{name}=={installed_version(name).partition('+')[0]}" for name in REQUIREMENTS],
        )
