"""Trainings of tiny models by the stages of the pipeline, to be done in two ways and compared."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from tasks.data.blocks import save_blocks
from tasks.files import digest, read_json, read_json_lines
from tasks.params.classification import ClassificationParams
from tasks.running.stage import main
from tasks.stages import distill, prune, teacher, teacher_logits
from tests.causal import causal_params, tiny_values, write_decoder
from tests.integration.test_extra_losses_stage import cache

Training = Callable[..., dict[str, Any]]


def losses(trained: Path) -> list[float]:
    return [line["loss"] for line in read_json_lines(trained / "steps.jsonl") if "loss" in line]


def assert_same_training(one: Path, two: Path) -> None:
    """Raise unless both have the same losses at every step, to rounding, and the same files."""
    assert len(losses(one)) > 5
    np.testing.assert_allclose(losses(two), losses(one), rtol=2e-4)
    assert set(digest(two)["files"]) == set(digest(one)["files"])
    first, second = (read_json(trained / "summary.json")["checkpoints"] for trained in (one, two))
    for mine, other in zip(first, second, strict=True):
        numbers = [name for name in mine if name.startswith("validation_")]
        assert numbers
        np.testing.assert_allclose([other[name] for name in numbers], [mine[name] for name in numbers], rtol=1e-3)


def stage(params: ClassificationParams, name: str, *arguments: object) -> int:
    """Run a stage as dvc.yaml does, inside of this process, which starts those that the launcher asks for."""
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params.model_dump(), file)
    return main([name, *map(str, arguments)])


def student_of(params: ClassificationParams, families: Path, folder: Path) -> list[object]:
    """Return the arguments of the stage distill, `--out` left out, for a BERT pruned to 72 pieces."""
    whole, sets, tokens = families / "bert/teacher", families / "sets", folder / "tokens"
    prune.run(
        params,
        round="r1",
        parent=whole,
        tokens=families / "bert/tokens",
        sets=sets,
        teacher=whole,
        out=folder / "pruned",
        planned=folder / "search/planned.json",
        student_tokens=tokens,
    )
    logits = cache(families, params, folder / "logits")
    return [
        "--round",
        "r1",
        "--pruned",
        folder / "pruned",
        "--search",
        folder / "search",
        "--tokens",
        tokens,
        "--sets",
        sets,
        "--logits",
        logits,
        "--teacher",
        whole,
    ]


def language_model(
    workspace: Path, runtime: dict[str, Any] | None = None, accumulate: int = 1, layers: int = 2, **section: Any
) -> tuple[Training, Callable[[Path], Training]]:
    """Return the training of a tiny Llama, and what makes of its folder the training of a student; both take `out`."""
    values = tiny_values(workspace)
    shape = {"vocabulary": 258, "hidden": 32, "heads": 4, "ffn": 24, "layers": layers}
    budget = {"parent": "teacher", "train_tokens": 1600, "learning_rate": 1.0e-2}
    values["teacher"] |= {"model": "path:base", "new": None, "train_tokens": 1600, "batch_blocks": 5}
    values["distill"]["batch_blocks"] = 5
    for name in ("teacher", "distill"):
        values[name]["accumulate"] = accumulate
    values["distill"] |= section
    values["rounds"] = {"r1": {**shape, **budget}}
    values["runtime"] |= runtime or {}
    params = causal_params(values)
    base = workspace / "base"
    if not base.exists():
        write_decoder("llama", base)
    pruned = Path(shutil.copytree(base, workspace / "pruned/model", dirs_exist_ok=True)).parent
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("validation", 6)):
        save_blocks(rng.integers(0, 60, (count, 32)).cumsum(axis=1).astype(np.int32) % 250, workspace / "tokens", name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / file, workspace / "tokens" / file)
    places: dict[str, Any] = {"sets": workspace, "tokens": workspace / "tokens"}
    teach = functools.partial(teacher.run, params, base=base, **places)

    def learning(folder: Path) -> Training:
        if not Path("logits").exists():
            teacher_logits.run(params, teacher=folder, out=Path("logits"), **places)
        return functools.partial(
            distill.run,
            params,
            round="r1",
            pruned=pruned,
            search=workspace / "search",
            logits=Path("logits"),
            teacher=folder,
            **places,
        )

    return teach, learning
