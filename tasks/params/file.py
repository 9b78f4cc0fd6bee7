"""params.yaml as a file: read, checked against the schema of its task, and changed by `--set`.

Every stage checks the whole file before any work, so a typo costs seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final, cast, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent

from tasks.errors import ParamsError
from tasks.params.base import CAUSAL_LM, CLASSIFICATION, Params
from tasks.params.causal_lm import CausalLMParams
from tasks.params.classification import ClassificationParams
from tasks.params.override import override
from tasks.params.parts import did_you_mean, refusal

MOST_LEVELS: Final = 100
MOST_VALUES: Final = 1_000_000
SCHEMAS: Final[Mapping[str, type[Params]]] = {CLASSIFICATION: ClassificationParams, CAUSAL_LM: CausalLMParams}


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as plain Python values; raise ParamsError if it cannot be read."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return the text of a params file, its line ends as they are; raise ParamsError if there is none."""
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, IsADirectoryError):
        raise ParamsError(f"{path}: there is no such file; give another with --params") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None


def parse_yaml(text: str, name: str) -> Any:
    """Return a YAML text as plain Python values; raise ParamsError if it is none."""
    try:
        _require_shallow(text, name)
        value = YAML(typ="safe").load(text)
    except (YAMLError, RecursionError) as error:
        raise ParamsError(f"{name}: not readable as YAML: {' '.join(str(error).split())}") from None
    if "*" in text and _written_out(value) > MOST_VALUES:
        raise ParamsError(f"{name}: its aliases (*NAME) stand for more than {MOST_VALUES:,} values; write out what is meant")
    return value


def _require_shallow(text: str, name: str) -> None:
    """Raise ParamsError for YAML nested so deeply that the library, which goes down by calls in C, would crash the process."""
    margins = (len(line) - len(line.lstrip(" -?")) for line in text.splitlines())
    if text.count("[") + text.count("{") + max(margins, default=0) <= MOST_LEVELS:
        return
    level = 0
    for event in YAML(typ="safe").parse(text):
        level += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if level > MOST_LEVELS:
            raise ParamsError(f"{name}: nested more than {MOST_LEVELS} levels deep, and nothing here is")


def _written_out(value: Any) -> float:
    """Return how many values there are with every alias written out; infinite where one holds itself."""
    counts: dict[int, float] = {}

    def count(part: Any) -> float:
        if not isinstance(part, dict | list):
            return 1
        if id(part) not in counts:
            counts[id(part)] = float("inf")  # until it is known: whoever asks meanwhile is inside of it
            below = part.values() if isinstance(part, dict) else part
            counts[id(part)] = 1 + sum(map(count, below))
        return counts[id(part)]

    return count(value)


def load_params(path: Path) -> Params:
    """Return the validated params of a file; raise ParamsError naming file, key, value and what is allowed."""
    return check_params(read_yaml(path), path.name)


def load_text(text: str, name: str) -> Params:
    """Return the validated params of a YAML text; raise ParamsError as `load_params` does."""
    return check_params(parse_yaml(text, name), name)


def check_params(values: object, file: str) -> Params:
    """Return `values` as the params of their task; raise ParamsError with a line a fault, each starting with the file."""
    task = values.get("task") if isinstance(values, Mapping) else None
    if not isinstance(task, str) or task not in SCHEMAS:
        fault = "missing" if task is None else f"{task!r} is unknown"
        raise ParamsError(f"{file}: task: {fault}; write task: {' or task: '.join(SCHEMAS)}")
    schema = SCHEMAS[task]
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = [line for detail in error.errors() for line in _explain(detail, task).splitlines()]
        lines += _between(schema, values, {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]})
        raise ParamsError("\n".join(f"{file}: {line}" for line in lines)) from None


def _between(schema: type[Params], values: Any, faulty: set[str]) -> list[str]:
    """Return what is wrong between the sections that have no fault of their own: pydantic stops at the `faulty` ones."""
    sections: dict[str, Any] = {
        name: TypeAdapter[Any](cast(Any, field.annotation)).validate_python(values[name], strict=True)
        for name, field in schema.model_fields.items()
        if name not in faulty
    }
    return schema.model_construct(**sections).faults(faulty) if faulty else []


def _explain(detail: Any, task: str) -> str:
    """Return one fault of pydantic's as `key: what is wrong, what is allowed`."""
    key, name = ".".join(str(part) for part in detail["loc"]), str(detail["loc"][-1] if detail["loc"] else "")
    reason = refusal(task, name)
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(detail["loc"][:-1], SCHEMAS[task])
        hint = f"; {reason};" if reason else did_you_mean(name, allowed)
        return f"{key}: unknown key{hint} allowed here: {', '.join(allowed)}"
    if detail["type"] == "none_required" and reason:
        return f"{key}: {reason}"
    if detail["type"] == "missing":
        return f"{key}: missing; every value must be given"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}" if key else str(detail["ctx"]["error"])
    if detail["type"] == "literal_error":
        expected = [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
        hint = did_you_mean(str(detail["input"]), expected)
        return f"{key}: {detail['input']!r} is not one of {', '.join(expected)}{hint}"
    return f"{key}: got {detail['input']!r}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _fields_at(location: tuple[str | int, ...], schema: type[Params]) -> list[str]:
    """Return the keys allowed at a place of the schema, following sections and dictionaries of sections."""
    model: Any = schema
    parts = iter(location)
    for part in parts:
        annotation = model.model_fields[part].annotation
        if NoneType in get_args(annotation):  # a section that may be null
            annotation = get_args(annotation)[0]
        if get_origin(annotation) in (dict, list):
            annotation = get_args(annotation)[-1]
            next(parts, None)  # the name of the entry, which is free
        model = annotation
    return sorted(model.model_fields)


def override_all(text: str, overrides: list[str], file: str) -> str:
    """Return the YAML `text` with `dotted.key=value` overrides applied, each in its place; ParamsError if one has none."""
    parse_yaml(text, file)
    for wanted in overrides:
        text = override(text, wanted, file)
    return text


def apply_overrides(text: str, overrides: list[str], file: str) -> str:
    """Return the same; ParamsError also where it would describe no run."""
    text = override_all(text, overrides, file)
    load_text(text, file)
    return text


def model_name(workspace: Path) -> str:
    """Return the registered model of params.yaml, which may be one that no run could start from."""
    section = read_yaml(workspace / "params.yaml").get("registry") or {}
    return str(section.get("model_name", ""))
