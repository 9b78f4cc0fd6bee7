"""Sources of models and data: `pkg:PACKAGE/path`, `path:...` and `hub:ORG/NAME@REVISION`, pinned by digest.

`sources.lock` holds the sha256 of every source a run used, as dvc.lock does for stages: `compactlm run` refreshes it,
so changed data is noticed, and `fetch` refuses bytes that differ from it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tasks.errors import SourceError
from tasks.files import file_sha256, project_of, read_json, write_json

PICKLED: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
WEIGHTS: Final = (".safetensors", ".gguf")
UNLABELLED: Final = ("data.stress.", "data.transfer.")  # keys of texts that may stand in a file that is no table
MAIN: Final = "documents"  # the folder of the main source below fetched documents; others are called as their sets
TABLES: Final = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")  # in any case; all but Parquet may be compressed by gzip
OTHERS: Final = {  # ending -> what to do with a file that may be data and is not read
    ".xlsx": "save the sheet as .csv (UTF-8)",
    ".xls": "save the sheet as .csv (UTF-8)",
    ".ods": "save the sheet as .csv (UTF-8)",
    ".json": "write one object a line and let the name end in .jsonl, e.g. `jq -c '.[]' rows.json > rows.jsonl`",
    ".arrow": "write it as .parquet",
    ".feather": "write it as .parquet",
    ".zip": "unpack it, or compress the table itself by gzip",
    ".bz2": "unpack it, or compress it by gzip",
    ".xz": "unpack it, or compress it by gzip",
    ".zst": "unpack it, or compress it by gzip",
}
GGUF: Final = b"GGUF"  # how such a file begins
MODEL_FILES: Final = ("*.json", "*.txt", "*.model", "*.safetensors", "chat_template.jinja")
NEEDED: Final = {  # of a model folder -> what to say where it is missing
    "config.json": "config.json is missing; give a Hugging Face model folder",
    "*.safetensors": "no *.safetensors file; only safetensors weights are read",
    "tokenizer.json": "tokenizer.json is missing; save the fast tokenizer with save_pretrained",
}
HUB: Final = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)$")


def locate(source: str, key: str) -> Path:
    """Return the local file or folder of a `pkg:` or `path:` source, downloading a `hub:` one; SourceError if absent.

    `key` is the place in params.yaml, for the message. A relative path is one from the project, wherever one stands in it.
    """
    kind, _, rest = source.partition(":")
    if kind == "hub":
        return _download(rest, key)
    project = project_of(Path()) or Path.cwd()
    written = _inside_package(rest, key) if kind == "pkg" else Path(rest).expanduser()
    place = written if project == Path.cwd() else project / written
    if not place.exists():
        where = "" if written.is_absolute() else f" in {project}, from where a relative path is taken"
        raise SourceError(f"params.yaml: {key}: {source!r}: {rest} does not exist{where}; give a path that does")
    return place


def _inside_package(rest: str, key: str) -> Path:
    package, _, inner = rest.partition("/")
    spec = importlib.util.find_spec(package)  # finds the folder without running the package
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"params.yaml: {key}: 'pkg:{rest}': there is no installed package {package!r}; "
            f"install the distribution that holds it, or use path: or hub:"
        )
    return Path(next(iter(spec.submodule_search_locations))) / inner


def _download(rest: str, key: str) -> Path:
    """Return the snapshot folder of a model or data set repository of the Hugging Face hub at a pinned revision."""
    match = HUB.match(rest)
    if match is None:
        raise SourceError(f"params.yaml: {key}: 'hub:{rest}': write hub:ORG/NAME@REVISION; the revision is needed")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    is_model = key == "teacher.model"
    try:
        folder = snapshot_download(
            match["repository"],
            revision=match["revision"],
            repo_type="model" if is_model else "dataset",
            allow_patterns=list(MODEL_FILES) if is_model else None,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise SourceError(
            f"params.yaml: {key}: 'hub:{rest}' could not be downloaded ({type(error).__name__}); "
            "check the name, the revision, the network and HF_TOKEN"
        ) from error
    return Path(folder)


def model_files(folder: Path, key: str = "teacher.model") -> list[Path]:
    """Return the files of a model folder worth copying; SourceError if it is no safetensors model.

    A pickle can run any code when it is read, so weights in one are refused. Where safetensors lie beside it, such as the
    optimizer's state of a Trainer's folder, it is left out: `pickles_in`.
    """
    where = f"params.yaml: {key}"
    if folder.is_file():
        raise SourceError(f"{where}: {folder.name} is a file; give the folder with config.json and model.safetensors")
    if not any(folder.glob("*.safetensors")) and (pickles := pickles_in(folder)):
        raise SourceError(
            f"{where}: {folder}: {', '.join(pickles)} is a pickle, and reading a pickle can run any code; "
            "only safetensors are read: convert it with model.save_pretrained(..., safe_serialization=True)"
        )
    missing = [f"{where}: {folder}: {otherwise}" for needed, otherwise in NEEDED.items() if not any(folder.glob(needed))]
    if missing:
        raise SourceError("\n".join(missing))
    return sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})


def pickles_in(folder: Path) -> list[str]:
    """Return the names of the pickles in a model folder, which are never read nor copied."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)


def kind_of(path: Path) -> str:
    """Return the ending that says how a file is read, in lower case: `.csv` of `rows.CSV.gz`; '' of no table."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if len(endings) == 2 and endings[1] == ".gz" and endings[0] != ".parquet":
        del endings[1]
    return endings[-1] if endings and endings[-1] in TABLES else ""


def data_file(place: Path, key: str = "data.source") -> Path:
    """Return the one data file at a place; SourceError when it is none that is read, or a folder holds none or several."""
    files = [place] if place.is_file() else _files(place)
    tables = [path for path in files if kind_of(path)]
    if len(tables) == 1:
        return tables[0]
    where, names = f"params.yaml: {key}: {place}", ", ".join(path.name for path in tables[:10])
    if tables:
        raise SourceError(f"{where}: one table is needed; found {len(tables)}: {names}. Name one of them, or join them in one")
    for path in files:
        if path.suffix.lower() in OTHERS:
            raise SourceError(f"{where}: {path.name} is not read; {OTHERS[path.suffix.lower()]}")
    raise SourceError(
        f"{where}: one .csv, .tsv, .parquet, .jsonl or .ndjson file is needed (.gz too, but for Parquet); found none"
    )


def texts_wanted(data: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return folder below the fetched data -> key and entry of each source of unlabelled texts that `data` names."""
    stress, broad = (data["stress"] or {}).get("sets") or {}, data["transfer"].get("broad") or {}
    wanted = {f"stress/{name}": (f"data.stress.sets.{name}.source", entry) for name, entry in stress.items()}
    return wanted | {f"broad/{name}": (f"data.transfer.broad.{name}.source", entry) for name, entry in broad.items()}


def unlabelled_files(place: Path) -> dict[str, Path]:
    """Return relative name -> path of the files of texts at a place: the file, or of a folder its .txt files, or all it has."""
    if place.is_file():
        return {place.name: place}
    only_text = is_text_folder(place)
    files = [path for path in _files(place) if not only_text or path.suffix.lower() == ".txt"]
    return {path.relative_to(place).as_posix(): path for path in files}


def rows_file(fetched: Path) -> Path:
    """Return the table of rows that `fetch` left; other texts lie in folders beside it."""
    return next(path for path in sorted(fetched.iterdir()) if path.is_file() and kind_of(path))


def _files(place: Path) -> list[Path]:
    """Return the files below a folder; the `._` shadows that macOS writes on foreign disks are none."""
    return sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("._"))


def is_text_folder(place: Path) -> bool:
    """Return whether a place is a folder with .txt files, each of them a document, and without a table."""
    files = _files(place) if place.is_dir() else []
    return any(path.suffix.lower() == ".txt" for path in files) and not any(kind_of(path) for path in files)


def text_files(place: Path, key: str) -> dict[str, Path]:
    """Return relative name -> path of the files that hold documents: one table, or every .txt file of a folder."""
    if is_text_folder(place):
        return {path.relative_to(place).as_posix(): path for path in _files(place) if path.suffix.lower() == ".txt"}
    file = data_file(place, key)
    return {file.name: file}


def decoder_files(place: Path, key: str = "teacher.model") -> list[Path]:
    """Return the files of a language model worth copying: one .gguf file, or those of a model folder."""
    if place.suffix != ".gguf":
        return model_files(place, key)
    with place.open("rb") as file:
        if file.read(len(GGUF)) != GGUF:
            raise SourceError(
                f"params.yaml: {key}: {place}: {place.stat().st_size:,} bytes that do not begin as GGUF; copy it again, from Git "
                "LFS with: git lfs pull"
            )
    return [place]


def source_digest(source: str, key: str) -> str:
    """Return the sha256 over what `fetch` would copy of a source: names and bytes, of one table the bytes alone."""
    place, is_data = locate(source, key), key.startswith("data.")
    if is_data and key.startswith(UNLABELLED):
        files = unlabelled_files(place)
    elif is_data and not is_text_folder(place):
        return file_sha256(data_file(place, key))
    else:
        files = text_files(place, key) if is_data else {file.name: file for file in decoder_files(place)}
    listing = {name: file_sha256(file) for name, file in files.items()}
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def is_locked(sources: dict[str, str], lock: Path) -> bool:
    """Return whether the lock holds these sources (key -> source) as they are now."""
    return not _changes(sources, lock)[1]


def refresh_lock(sources: dict[str, str], lock: Path) -> list[str]:
    """Write the digests of `sources` (key -> source) to the lock; return a line for each that is new or changed."""
    new, changed = _changes(sources, lock)
    if changed:
        write_json(lock, new)
    return changed


def _changes(sources: dict[str, str], lock: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return what a lock of these sources holds now, and a line for each that the lock does not hold so."""
    old = read_json(lock) if lock.exists() else {}
    new = {key: {"source": source, "sha256": source_digest(source, key)} for key, source in sources.items()}
    changed = [
        f"{key}: {entry['source']} {'changed' if old.get(key, {}).get('source') == entry['source'] else 'is new'}"
        for key, entry in new.items()
        if old.get(key) != entry
    ]
    return new, changed


def check_lock(sources: dict[str, str], lock: Path) -> None:
    """Raise SourceError when the lock knows a source and its bytes are other ones now."""
    known = read_json(lock) if lock.exists() else {}
    for key, source in sources.items():
        entry = known.get(key)
        if entry and entry["source"] == source and entry["sha256"] != source_digest(source, key):
            raise SourceError(
                f"{lock.name}: {key}: {source} has other bytes than those locked; "
                "`compactlm run` accepts them and rewrites the lock"
            )
