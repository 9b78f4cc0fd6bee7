"""Which files a person means by the name of a model: a folder, a round of the project, or a registered version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tasks.artifacts import TEACHER, RoundPaths
from tasks.errors import UserError
from tasks.files import file_sha256, project_of, read_json
from tasks.models.architectures import FAMILIES, adapter_of
from tasks.models.weight_files import read_object
from tasks.params.file import load_params
from tasks.params.parts import CAUSAL_LM, refusal
from tasks.registry.reading import own_tags
from tasks.registry.selector import find_version
from tasks.registry.tracking import Tracker, store_exists

TORCH: Final = "torch"
ONNX: Final = "onnx"  # forms as cost.json calls them
INT8: Final = "onnx_int8"
ONNX_FILES: Final = {ONNX: "model.onnx", INT8: "model.int8.onnx"}  # as the export writes them, whose code is heavy to import
ONNX_FOLDER: Final = "onnx"  # of an exported folder
CLASSIFIER: Final = "ForSequenceClassification"
LANGUAGE_MODELS: Final = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Found:
    """A model as a person named it: its plain Hugging Face folder, and its ONNX files by form, those that there are.

    `without` says how to get a file that is not there; `column` is how params.yaml calls the column of the texts, `version`
    is MODEL/VERSION of one that is registered.
    """

    words: str
    folder: Path
    files: Mapping[str, Path]
    without: str
    column: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None

    def file(self, form: str) -> Path | None:
        """Return the ONNX file of a form, None for torch; UserError where there is none."""
        if form == TORCH:
            return None
        if form not in self.files:
            raise UserError(f"{self.words}: there is no {ONNX_FILES[form]}; {self.without}")
        return self.files[form]


def find_model(given: str, here: Path) -> Found:
    """Return what a name means for a person who stands in the folder `here`; UserError when it is nothing that gives labels.

    A folder with a config.json comes first, then a round of the project, then what the registry has.
    """
    place, workspace = here / Path(given).expanduser(), project_of(here)
    if (place / "config.json").is_file():
        files = {form: place / ONNX_FOLDER / name for form, name in ONNX_FILES.items()}
        return _checked(Found(given, place, _there(files), f"the folder that `compactlm export` writes has it in {ONNX_FOLDER}/"))
    if workspace is None:
        raise UserError(
            f"{given}: no folder with a config.json, and {here} is in no compactlm project; give the folder of a model, or "
            "change into its project"
        )
    params = load_params(workspace / "params.yaml")
    columns = getattr(getattr(params, "data", None), "columns", None)
    column = getattr(columns, "text", None)
    if getattr(columns, "text_pair", None) is not None:
        raise UserError(f"{given}: params.yaml: data.columns.text_pair: answers to pairs of texts are not given here yet")
    if given == TEACHER or given in params.rounds:
        return _checked(_round(workspace, given, column))
    if not store_exists(workspace):
        rounds = ", ".join([TEACHER, *params.rounds])
        raise UserError(
            f"{given}: no folder with a config.json, none of the rounds {rounds}, and no model is registered yet; "
            "`compactlm run` makes some"
        )
    return _checked(_version(Tracker(workspace, params.registry.model_name), given, params.registry.model_name, column))


def _there(files: Mapping[str, Path]) -> dict[str, Path]:
    return {form: path for form, path in files.items() if path.is_file()}


def _round(workspace: Path, name: str, column: str | None) -> Found:
    paths = RoundPaths(workspace, name)
    if not (paths.model / "config.json").is_file():
        raise UserError(f"{name}: is not trained in {workspace} yet; `compactlm run` makes it, `dvc pull` brings what a team has")
    files = {form: paths.exported / file for form, file in ONNX_FILES.items()}
    return Found(name, paths.model, _there(files), "`compactlm run` makes it, `dvc pull` brings what a team has", column)


def _version(tracker: Tracker, given: str, own_model: str, column: str | None) -> Found:
    """Return the files of a registered version; the registry keeps no int8 file; beside its round's same ONNX file is one."""
    model, number = find_version(tracker, given, own_model)
    tags = own_tags(next(entry.tags for entry in tracker.all_versions(model) if entry.version == number))
    if not tags.get("model_id"):
        raise UserError(f"{model}/{number}: was not registered by compactlm, so its files are not known; give its folder")
    folder = tracker.local_model(tags["model_id"]) / "artifacts"
    files = {ONNX: folder / ONNX_FILES[ONNX]}
    exported = RoundPaths(tracker.workspace, tags.get("round", "")).exported
    if _is_same(exported / ONNX_FILES[ONNX], tags.get("onnx_sha256")):
        files[INT8] = exported / ONNX_FILES[INT8]
    words = f"{model}/{number} ({tags.get('round', '')})"
    without = f"`compactlm export {model}/{number} --out exported` writes it, then `compactlm predict exported`"
    of_own = column if model == own_model else None
    return Found(words, folder / "model", _there(files), without, of_own, version=f"{model}/{number}")


def _is_same(file: Path, sha256: str | None) -> bool:
    return bool(sha256) and file.is_file() and file_sha256(file) == sha256


def _checked(found: Found) -> Found:
    """Return the model with its config; UserError, which says what to do, unless it is a classifier with one label a text."""
    config = read_object(found.folder / "config.json")
    named = config.get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    if any(name.endswith(LANGUAGE_MODELS) for name in architectures):
        raise UserError(f"{found.words}: {refusal(CAUSAL_LM, 'predict')}")
    if architectures and not any(name.endswith(CLASSIFIER) for name in architectures):
        raise UserError(f"{found.words}: is a {architectures[0]}, which gives no labels; give a ...{CLASSIFIER}")
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise UserError(f"{found.words}: config.json: problem_type: {config['problem_type']}; only one label a text is answered")
    return replace(found, config=config)


def longest_text(found: Found) -> int | None:
    """Return how many tokens of a text are read: what stock pipelines cut at, the tokenizer's length or the model's positions."""
    settings_file = found.folder / "tokenizer_config.json"
    settings = read_json(settings_file) if settings_file.is_file() else {}
    lengths = [settings.get("model_max_length"), _positions(found.config)]
    known = [int(length) for length in lengths if isinstance(length, int | float) and 0 < length < 10**9]
    return min(known, default=None)


def _positions(config: Mapping[str, Any]) -> int | None:
    if config.get("model_type") not in FAMILIES:
        return None
    return adapter_of(config).positions(config)
