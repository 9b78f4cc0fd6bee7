"""The registered models as rows a person or a program can choose from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tasks.errors import UserError
from tasks.files import read_json
from tasks.registry.reading import Reader, own_tags
from tasks.registry.records import RANDOM_INIT, latency, overall

# Classifiers have an ONNX form and cost FLOPs an example, language models FLOPs a token.
COSTS: Final = (
    "params_total",
    "params_non_embedding",
    "size_bytes",
    "size_bytes_onnx",
    "size_bytes_onnx_int8",
    "flops_per_example",
    "flops_per_token",
)
OF_TAGS: Final = ("round", "parent", "model_sha256", "model_id", "run_id")


def list_models(tracker: Reader, name: str | None = None, *, fetch: bool = True) -> list[dict[str, Any]]:
    """Return one row a registered version, oldest first: where it is, what it costs, how good it is, how it was judged.

    Of one model name, or of all in the store. `fetch`: bring weights to this machine that are kept elsewhere; without, the
    paths of these are empty.
    """
    return [row | _measured(tracker, tags, fetch) for row, tags in _rows(tracker, name)]


def list_others(tracker: Reader, name: str) -> list[dict[str, Any]]:
    """Return one row a version of every other model of the store: what its tags say, since its files are another project's."""
    rows = []
    for row, tags in _rows(tracker, None):
        if row["name"] != name:
            costs = {key: int(tags[key]) for key in ("params_total", "size_bytes") if tags.get(key, "").isdecimal()}
            rows.append(row | costs | {"verdict": {"verdict": tags.get("verdict", "")}})
    return rows


def _rows(tracker: Reader, name: str | None) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield what the registry itself says of each version, and our tags of it."""
    versions = tracker.versions(name)
    aliases = {each: tracker.aliases(each) for each in {entry.name for entry in versions}}
    for entry in versions:
        tags = own_tags(entry.tags)
        pointing = sorted(alias for alias, number in aliases[entry.name].items() if number == entry.version)
        row = {"name": entry.name, "version": int(entry.version), "aliases": pointing}
        yield row | {key: tags.get(key, "") for key in OF_TAGS}, tags


def _measured(tracker: Reader, tags: Mapping[str, str], fetch: bool) -> dict[str, Any]:
    return _files(tracker, tags["model_id"], fetch) | _evidence(tracker, tags["run_id"], tags["teacher_run_id"])


def _files(tracker: Reader, model_id: str, fetch: bool) -> dict[str, str]:
    folder = tracker.local_model(model_id) if fetch else tracker.model_here(model_id)
    if folder is None:
        return {"path": "", "onnx_path": ""}
    # MLflow names each artifact folder after the folder it was given.
    onnx = folder / "artifacts" / "model.onnx"
    return {"path": str(folder / "artifacts" / "model"), "onnx_path": str(onnx) if onnx.exists() else ""}


def _evidence(tracker: Reader, run_id: str, teacher_run_id: str) -> dict[str, Any]:
    cost = _read(tracker, run_id, "cost.json")
    verdict = _read(tracker, run_id, "verdict.json")
    random_init = tracker.local_file(run_id, f"{RANDOM_INIT}/quality.json")
    return {
        **{key: cost[key] for key in COSTS if key in cost},
        "sparsity": cost.get("sparsity"),
        "latency_ms_p50": latency(cost, "latency_ms_p50"),
        "latency_ms_p95": latency(cost, "latency_ms_p95"),
        "metrics": overall(_read(tracker, run_id, "quality.json")),
        "teacher_metrics": overall(_read(tracker, teacher_run_id, "quality.json")),
        "random_init": overall(read_json(random_init)) if random_init else None,
        "verdict": {"verdict": verdict["verdict"], "rules": verdict["rules"]},
    }


def _read(tracker: Reader, run_id: str, name: str) -> Any:
    path = tracker.local_file(run_id, f"evidence/{name}")
    if path is None:
        raise UserError(
            f"MLflow: run {run_id} has no file evidence/{name}: the files of its store are gone, or in part; take the rest of it "
            "away (.compactlm/mlflow, or the experiment on the server), and `compactlm publish --rebuild` makes all of it again"
        )
    return read_json(path)
