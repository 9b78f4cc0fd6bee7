"""Everything that can be known in two seconds, looked at before a run: params, teacher, data and machine, all faults at once.

What is heavy (torch, DVC, MLflow, Prefect) is not imported here, and a fault in one place hides none in another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tasks.data.gguf_header import check_gguf
from tasks.data.look import documents_faults, table_faults
from tasks.data.sources import UNLABELLED, WEIGHTS, decoder_files, locate, model_files
from tasks.data.unlabelled import text_faults
from tasks.errors import DataError, Faults, ParamsError, ResourceError, SourceError
from tasks.models.folder import TeacherWanted, teacher_faults
from tasks.params.base import CAUSAL_LM, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.file import check_params, parse_yaml
from tasks.params.unlabelled import Texts
from tasks.running.pooled import pool_faults
from tasks.running.preflight import check_disk, check_fit, check_new
from tasks.running.surroundings import remote_faults, surroundings_faults, surroundings_remarks

TEACHER: Final = "teacher.model"
NEEDS_GGUF: Final = (
    "params.yaml: teacher.model: reading a .gguf file needs the package gguf; "
    "install it with the extra: pip install 'compactlm[decoder]'"
)
TEXTS: Final = ("data.stress.sets", "data.transfer.broad")
UNPACKED: Final = 8  # bytes of fp32 for each of a .gguf file's, at four bits a weight


@dataclass
class Look:
    """What was seen: the faults, the params unless they have some, remarks that stop nothing, and what is still to download."""

    faults: Faults = field(default_factory=Faults)
    params: Params | None = None
    remarks: list[str] = field(default_factory=list)
    to_download: list[str] = field(default_factory=list)

    def checked(self) -> Params:
        """Return the params; raise all faults as one UserError if there are any."""
        self.faults.refuse()
        assert self.params is not None, "params without a fault are params"
        return self.params


def look(workspace: Path, text: str, name: str = "params.yaml", *, download: bool = False) -> Look:
    """Return what is wrong with a run of the params `text`, which messages call `name`.

    A `hub:` source is looked at only with `download`, since that may take minutes.
    """
    seen = Look()
    with ThreadPoolExecutor(1) as beside:  # waits for servers, while this thread reads files
        values: Any = None
        with seen.faults.gathered():
            values = parse_yaml(text, name)
        model = _at(values, "registry.model_name")
        surroundings = beside.submit(surroundings_faults, workspace, os.environ, model if isinstance(model, str) else None)
        with seen.faults.gathered():
            if not seen.faults.lines:
                seen.params = check_params(values, name)
        teacher: Path | None = None
        weights_bytes = 0
        for key, source in _sources(values):
            if source.startswith("hub:") and not download:
                seen.to_download.append(source)
                continue
            with seen.faults.gathered():
                place = locate(source, key)
                if key == TEACHER:
                    weights_bytes = _weights_bytes(place)
                    teacher = _teacher_folder(values, place, seen.faults)
                else:
                    seen.faults.add(_data_faults(values, place, key), DataError)
        with seen.faults.gathered():
            if seen.params is not None and teacher is not None:
                check_fit(seen.params, teacher)
            elif isinstance(seen.params, CausalLMParams) and seen.params.teacher.new is not None:
                check_new(seen.params)
        with seen.faults.gathered():
            check_disk(weights_bytes, workspace)
        seen.faults.add(surroundings.result(), ResourceError)
        if seen.params is not None and (remote := seen.params.promotion.remote) is not None:
            seen.faults.add(remote_faults(workspace, remote), ParamsError)
        if seen.params is not None:
            seen.faults.add(pool_faults(workspace, seen.params.runtime, os.environ), ParamsError)
    seen.remarks = surroundings_remarks(workspace)
    return seen


def _sources(values: Any) -> Iterator[tuple[str, str]]:
    """Yield key and source of what params name, where they can be read, whatever else is wrong with them."""
    keys = ["data.source", TEACHER]
    sets = _at(values, "data.evaluation_sets") if _at(values, "task") == CAUSAL_LM else None
    keys += [f"data.evaluation_sets.{name}.source" for name in sets or {}]
    for section in TEXTS:
        texts = _at(values, section)
        keys += [f"{section}.{name}.source" for name in texts] if isinstance(texts, Mapping) else []
    for key in keys:
        source = _at(values, key)
        if isinstance(source, str) and source.partition(":")[0] in ("pkg", "path", "hub"):
            yield key, source


def _at(values: Any, key: str) -> Any:
    """Return the value at a dotted key of what a YAML file holds; None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _teacher_folder(values: Any, place: Path, faults: Faults) -> Path | None:
    """Return the folder of a teacher in which nothing is wrong, after its faults were gathered; None of one in a single file."""
    task, before = str(_at(values, "task")), len(faults.lines)
    if task == CAUSAL_LM and decoder_files(place)[0].suffix == ".gguf":
        if find_spec("gguf") is None:
            faults.add([NEEDS_GGUF], SourceError)
        check_gguf(decoder_files(place)[0])
        return None  # its shapes are looked at before `teacher` works: reading them here would take every run seconds
    model_files(place)
    faults.add(teacher_faults(place, task, wanted_of(values)), SourceError)
    return place if len(faults.lines) == before else None


def wanted_of(values: Any) -> TeacherWanted:
    """Return what a run asks of its teacher, by the plain values of its params as far as they can be read."""
    labels, epochs = _at(values, "data.labels"), _at(values, "teacher.epochs")
    lengths = {key: _at(values, key) for key in ("data.max_tokens", "data.block_tokens", "evaluate.latency_tokens")}
    return TeacherWanted(
        labels=labels if _are_labels(labels) else None,
        epochs=epochs if isinstance(epochs, int) else None,
        tokens={key: length for key, length in lengths.items() if isinstance(length, int)},
    )


def _data_faults(values: Any, place: Path, key: str) -> list[str]:
    """Return what is wrong with the table of a classifier, or the documents of a language model."""
    if key.startswith(UNLABELLED):
        return _text_faults(place, _at(values, key.removesuffix(".source")), key)
    columns, labels = _at(values, key.removesuffix("source") + "columns"), _at(values, "data.labels")
    if isinstance(columns, Mapping):
        named = {role: name for role, name in columns.items() if name is not None}
        if not isinstance(named.get("text"), str) or not all(isinstance(name, str) for name in named.values()):
            return []  # which the schema says
    if _at(values, "task") == CAUSAL_LM:
        return documents_faults(place, key, columns) if columns is None or isinstance(columns, Mapping) else []
    if not isinstance(columns, Mapping) or "label" not in named or not _are_labels(labels):
        return []
    return table_faults(place, key, columns, labels)


def _text_faults(place: Path, entry: Any, key: str) -> list[str]:
    """Return what is wrong with texts without labels, where the schema finds nothing wrong with how they are to be read."""
    try:
        wanted = Texts.model_validate({name: entry[name] for name in entry if name != "about"})
    except ValidationError:
        return []
    return text_faults(place, wanted.model_dump(), key)


def _are_labels(labels: Any) -> bool:
    return isinstance(labels, Mapping) and all(isinstance(x, int) and isinstance(y, str) for x, y in labels.items())


def _weights_bytes(place: Path) -> int:
    """Return the bytes of fp32 that a teacher's files hold, roughly."""
    files = [place] if place.is_file() else [path for path in place.iterdir() if path.suffix in WEIGHTS]
    return sum(path.stat().st_size * (UNPACKED if path.suffix == ".gguf" else 1) for path in files)
