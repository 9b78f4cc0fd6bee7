"""Sources of models and data: `pkg:PACKAGE/path`, `path:...` and `hub:ORG/NAME@REVISION`, pinned by digest.

`sources.lock` holds the sha256 of every source a run used, as dvc.lock does for stages: `compactlm run` refreshes it,
so changed data is noticed, and `fetch` refuses bytes that differ from it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
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
PATH_ROOTS: Final = "COMPACTLM_PATH_ROOTS"  # of a shared machine: the folders that `path:` may name, as PATH lists folders
SHOWN: Final = 5  # links in a sentence
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
    if kind != "pkg":
        _require_allowed(place, project, source, key)
    if not place.exists():
        where = "" if written.is_absolute() else f" in {project}, from where a relative path is taken"
        raise SourceError(f"params.yaml: {key}: {source!r}: {rest} does not exist{where}; give a path that does")
    if kind != "pkg" and place.is_dir():  # what is installed is trusted, and may be links into the installer's cache
        _refuse_leaving_links(place, key)
    return place


def _require_allowed(place: Path, project: Path, source: str, key: str) -> None:
    """Raise SourceError for a place outside of the project and of the folders in PATH_ROOTS, where that is set."""
    given = os.environ.get(PATH_ROOTS)
    if given is None:
        return
    roots = [root for root in given.split(os.pathsep) if root]
    if not any(place.resolve().is_relative_to(Path(root).resolve()) for root in (str(project), *roots)):
        allowed = ", ".join(["the project", *roots])
        raise SourceError(
            f"params.yaml: {key}: {source!r}: is, its links followed, in none of the folders that this machine allows; allowed: "
            f"{allowed} ({PATH_ROOTS})"
        )


def _refuse_leaving_links(folder: Path, key: str) -> None:
    """Raise SourceError for links in a folder, among the files that a run would copy, that lead out of it.

    The hub's cache keeps the files of a snapshot in `blobs` beside its snapshots, and links to them.
    """
    home = folder.resolve()
    homes = [home, *([home.parent.with_name("blobs")] if home.parent.name == "snapshots" else ())]
    read = _copied(folder) if key == "teacher.model" else [path for path in _files(folder) if _may_be_data(path)]
    leaving = [path for path in read if path.is_symlink() and not any(path.resolve().is_relative_to(one) for one in homes)]
    if leaving:
        named = ", ".join(f"{path.relative_to(folder)} -> {path.resolve()}" for path in leaving[:SHOWN])
        more = f" and {len(leaving) - SHOWN} more" if len(leaving) > SHOWN else ""
        raise SourceError(
            f"params.yaml: {key}: {folder}: links that lead out of the folder: {named}{more}; a run copies what it reads to its "
            "cache, and shares it: put the files themselves there"
        )


def _copied(folder: Path) -> list[Path]:
    """Return the files of a model folder that a run copies, whatever else it lacks."""
    return sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})


def _may_be_data(path: Path) -> bool:
    return bool(kind_of(path)) or path.suffix.lower() == ".txt"


def _inside_package(rest: str, key: str) -> Path:
    package, _, inner = rest.partition("/")
    # It finds the folder without running the package; of one inside another it would run the outer one.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            f"params.yaml: {key}: 'pkg:{rest}': there is no installed package {package!r}; "
            f"install the distribution that holds it, or use path: or hub:"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not Path(os.path.normpath(folder / inner)).is_relative_to(folder):
        raise SourceError(f"params.yaml: {key}: 'pkg:{rest}': leads out of the package; a file elsewhere is named by path:")
    return folder / inner


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
    return _copied(folder)


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
    stress, broad = (data.get("stress") or {}).get("sets") or {}, (data.get("transfer") or {}).get("broad") or {}
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
    old = _locked(lock)
    new = {key: {"source": source, "sha256": source_digest(source, key)} for key, source in sources.items()}
    changed = [
        f"{key}: {entry['source']} {'changed' if old.get(key, {}).get('source') == entry['source'] else 'is new'}"
        for key, entry in new.items()
        if old.get(key) != entry
    ]
    return new, changed


def _locked(lock: Path) -> dict[str, dict[str, str]]:
    """Return what a lock holds, nothing of one that is not there; SourceError where it is none."""
    advice = f"`git checkout {lock.name}` brings back the committed one; or remove it, and a run writes it"
    try:
        known = read_json(lock) if lock.exists() else {}
    except ValueError as error:
        raise SourceError(f"{lock}: cannot be read: {error}; {advice}") from None
    entries = known.values() if isinstance(known, dict) else [None]
    if not all(isinstance(entry, dict) and {"source", "sha256"} <= entry.keys() for entry in entries):
        raise SourceError(f"{lock}: holds no source and sha256 by key; {advice}")
    return dict(known)


def check_lock(sources: dict[str, str], lock: Path) -> None:
    """Raise SourceError when the lock knows a source and its bytes are other ones now."""
    known = _locked(lock)
    for key, source in sources.items():
        entry = known.get(key)
        if entry and entry["source"] == source and entry["sha256"] != source_digest(source, key):
            raise SourceError(
                f"{lock.name}: {key}: {source} has other bytes than those locked; "
                "`compactlm run` accepts them and rewrites the lock"
            )
