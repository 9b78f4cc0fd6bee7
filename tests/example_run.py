"""A made-up run whose files keep to docs/artifacts.md: every number follows from its predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.artifacts import AS_WRITTEN, NO_LABEL, SetQuality
from tasks.files import read_json, write_json
from tasks.measuring.quality import Draws, interval_of_mean, measure_slices
from tasks.measuring.slices import masks_of
from tasks.measuring.unlabelled import calibrating_temperature, measure_unlike, unlike
from tests.quality_builder import quality, quality_set, rivals_quality

ROWS = {"test": 964, "imdb": 300, "validation": 380, "test_typos": 964}
# name -> (share right by set, parameters, of them in embeddings, bytes, FLOPs, milliseconds at batch 1 and 32)
MODELS: dict[str, tuple[dict[str, float], int, int, float, tuple[float, float]]] = {
    "teacher": (
        {"test": 0.86, "imdb": 0.83, "validation": 0.87, "test_typos": 0.83},
        22_713_986,
        11_917_056,
        1.4e9,
        (16.3, 310.0),
    ),
    "r1": ({"test": 0.86, "imdb": 0.82, "validation": 0.865, "test_typos": 0.82}, 11_402_114, 6_340_608, 6.6e8, (8.1, 150.0)),
    "r2": ({"test": 0.865, "imdb": 0.80, "validation": 0.86, "test_typos": 0.82}, 5_302_786, 3_203_072, 2.8e8, (4.0, 70.0)),
    "r3": ({"test": 0.865, "imdb": 0.77, "validation": 0.85, "test_typos": 0.81}, 2_861_570, 1_635_072, 1.6e8, (1.9, 31.0)),
}
TFIDF = {"test": 0.78, "imdb": 0.79, "validation": 0.79, "test_typos": 0.75}
STRESS = {"stress_posts": 600, "stress_business": 600, "stress_sport": 600, "stress_talk": 600}
CHANGED = "changed_validation"
KINDS = ("handles", "emails", "links")
FROM_TEACHER = {"teacher": 0.0, "r1": 0.05, "r2": 0.1, "r3": 0.2}  # logits by which each answers otherwise elsewhere
PARENTS = {"r1": "teacher", "r2": "r1", "r3": "r2"}
SLICES = ["class:negative", "class:positive", "length:short", "length:long", "tokens:rare", "negation", "source:home"]


def build_run(folder: Path) -> Path:
    """Write the artifacts of a run with a teacher and rounds r1 to r3 below `folder` and return it."""
    for name, (right, params, embeddings, flops, latency) in MODELS.items():
        place = folder / "rounds" / name
        _evaluate(place / "evaluated", name, right, has_agreement=True)
        _elsewhere(place / "evaluated", name)
        _cost(place / "evaluated" / "cost.json", name, params, embeddings, flops, latency)
        _train(place / "trained", right["validation"], len(name))
        write_json(
            place / "exported" / "parity.json",
            {
                "rows": 64,
                "load_back_max_difference": 0.0,
                "golden_max_difference": 1.2e-7,
                "onnx_max_difference": 2.1e-6,
                "onnx_int8_max_difference": 0.3,
                "onnx_int8_agreement": 0.98,
                "atol": 0.0001,
            },
        )
    _evaluate(folder / "baselines", "tfidf_logistic", TFIDF, has_agreement=False)
    _data(folder / "data")
    write_json(
        folder / "validation" / "summary.json",
        {
            "file": "reviews.csv",
            "sha256": "ab" * 32,
            "success": True,
            "problems": [],
            "expectations": [
                {
                    "suite": "file",
                    "name": name,
                    "expectation": "expect_column_to_exist",
                    "arguments": {"column": "text"},
                    "success": True,
                    "observed": {},
                }
                for name in ("column_text", "one_set_a_text", "near_duplicates_held_out")
            ],
            "sets": {
                "train": {"rows": 6539, "classes": {"negative": 3253, "positive": 3286}, "sources": ["home"]},
                "transfer": {"rows": 30000, "classes": {}, "sources": ["away"]},
            },
        },
    )
    for minute, stage in enumerate(["fetch", "teacher", "distill@r1", "distill@r9", "evaluate@r3", "report"]):
        _receipt(folder / "receipts" / f"{stage}.json", stage, minute)
    return folder


def gate_arguments(artifacts: Path, name: str) -> list[str]:
    """Return the command line of the gate of a round, as dvc.yaml has it."""
    rounds = artifacts / "rounds"
    return [
        "gate",
        "--round",
        name,
        "--evaluated",
        str(rounds / name / "evaluated"),
        "--exported",
        str(rounds / name / "exported"),
        "--teacher",
        str(rounds / "teacher/evaluated"),
        "--parent",
        str(rounds / PARENTS[name] / "evaluated"),
        "--baselines",
        str(artifacts / "baselines"),
        "--validation",
        str(artifacts / "validation/summary.json"),
        "--data",
        str(artifacts / "data/summary.json"),
        "--sets",
        str(artifacts / "data/sets"),
        "--out",
        str(rounds / name / "verdict.json"),
    ]


def _data(folder: Path) -> None:
    """Write the ids of what was learnt from, and the summary of the prepared sets."""
    sets = {name: {"rows": len(_rows(name)[0]), "rows_sha256": _ids_sha256(_rows(name)[0])} for name in ROWS}
    sets["train"] = {"rows": 6539, "tokens": 177_312}
    unlabelled = {name: _unlabelled_rows(name)[0] for name in (*STRESS, CHANGED)}
    sets |= {name: {"rows": len(ids), "rows_sha256": _ids_sha256(ids)} for name, ids in unlabelled.items()}
    forms = {name: {"handle": share, "digit": 0.25} for name, share in (("transfer", 0.2), ("test", 0.0), ("stress_posts", 0.4))}
    write_json(folder / "summary.json", {"file": "reviews.csv", "sha256": "ab" * 32, "sets": sets, "forms": forms})
    (folder / "sets").mkdir()
    for name, ids in unlabelled.items():
        texts = [f"text <{place}> of {name}" for place in range(len(ids))]
        pd.DataFrame({"row_id": ids, "text": texts}).to_parquet(folder / "sets" / f"{name}.parquet", index=False)
    for name in ("train", "transfer", "calibration"):
        ids = [hashlib.sha256(f"{name}{i}".encode()).hexdigest()[:16] for i in range(50)]
        pd.DataFrame({"row_id": ids}).to_parquet(folder / "sets" / f"{name}.parquet", index=False)


def _ids_sha256(ids: Iterable[str]) -> str:
    return hashlib.sha256("".join(ids).encode()).hexdigest()


def _rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(repr(key).encode()).hexdigest()[:8], 16))


def _rows(set_name: str) -> tuple[list[str], Any, list[list[str]]]:
    rng, count = _rng("rows", set_name), ROWS[set_name]
    ids = sorted(hashlib.sha256(f"{set_name}{i}".encode()).hexdigest()[:16] for i in range(count))
    labels = rng.integers(0, 2, count)
    slices = [
        [
            "class:positive" if label else "class:negative",
            "source:home",
            "length:short" if rng.random() < 0.4 else "length:long",
            *[name for name in ("tokens:rare", "negation") if rng.random() < 0.15],
        ]
        for label in labels
    ]
    return ids, labels, slices


def predictions(who: str, set_name: str, share_right: float) -> pd.DataFrame:
    """Return predictions of a model that gets about `share_right` right; hard rows are hard for every model."""
    ids, labels, slices = _rows(set_name)
    hardness = _rng("hard", set_name).random(len(ids))
    margin = (share_right - hardness) * 6 + _rng(who, set_name).normal(0, 0.6, len(ids))
    logits = np.where((labels == 1)[:, None], [[-0.5, 0.5]], [[0.5, -0.5]]) * margin[:, None]
    logits = logits.astype(np.float32)
    frame = pd.DataFrame({"row_id": ids, "label": labels, "prediction": logits.argmax(axis=1)})
    return frame.assign(logit_0=logits[:, 0], logit_1=logits[:, 1], slices=slices)


def _evaluate(place: Path, who: str, right: dict[str, float], *, has_agreement: bool) -> None:
    sets = {}
    folder = place / "predictions" / (who if who == "tfidf_logistic" else "")
    folder.mkdir(parents=True)
    for name, share_right in right.items():
        frame = predictions(who, name, share_right)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        sets[name] = described(frame, name if has_agreement else None)
        if has_agreement and name == "test":
            sets[name]["variants"] = {"onnx_int8": {"accuracy": _int8(frame)}}
    is_rival, digest = who == "tfidf_logistic", hashlib.sha256(who.encode()).hexdigest()
    write_json(place / "quality.json", rivals_quality(who, sets) if is_rival else quality(who, sets, digest))


def _unlabelled_rows(name: str) -> tuple[list[str], list[list[str]]]:
    ids = [hashlib.sha256(f"{name}{i}".encode()).hexdigest()[:16] for i in range(STRESS.get(name, 200))]
    if name != CHANGED:
        return ids, [["teacher:positive" if i % 2 else "teacher:negative"] for i in range(len(ids))]
    slices = [[AS_WRITTEN]] * len(ids) + [[f"change:{kind}"] for kind in KINDS for _ in ids]
    return [*ids, *(f"{row}:{kind}" for kind in KINDS for row in ids)], slices


def unlabelled_predictions(who: str, name: str) -> pd.DataFrame:
    """Return what a model says of a set without labels: what the teacher says, and a little noise."""
    ids, slices = _unlabelled_rows(name)
    margin = _rng("elsewhere", name).normal(0, 2.0, len(ids)) + _rng(who, name).normal(0, 1.0, len(ids)) * FROM_TEACHER[who]
    logits = np.stack([-margin / 2.0, margin / 2.0], axis=1).astype(np.float32)
    frame = pd.DataFrame({"row_id": ids, "label": NO_LABEL, "prediction": logits.argmax(axis=1)})
    return frame.assign(logit_0=logits[:, 0], logit_1=logits[:, 1], slices=slices)


def _elsewhere(place: Path, who: str) -> None:
    """Write the predictions of a model on the sets without labels, and what its quality.json says of them."""
    validation = predictions("teacher", "validation", MODELS["teacher"][0]["validation"])
    columns, entries = ["logit_0", "logit_1"], {}
    temperature = calibrating_temperature(validation[columns].to_numpy(), validation["label"].to_numpy())
    for name in (*STRESS, CHANGED):
        frame, teacher = unlabelled_predictions(who, name), unlabelled_predictions("teacher", name)
        frame.to_parquet(place / "predictions" / f"{name}.parquet", index=False)
        ids, names = frame["row_id"].tolist(), sorted({part for row in frame["slices"] for part in row})
        copies = ids if name == CHANGED else ()
        compared = unlike(frame[columns].to_numpy(), teacher[columns].to_numpy(), temperature, copies)
        masks = masks_of(frame["slices"], names if copies else ["overall", *names])
        slices = measure_unlike(compared, masks, Draws(100, 0.95, 0))
        pieces = {"pieces_lost": 0.1 * FROM_TEACHER[who], "tokens_ratio": 1.0 + 0.1 * FROM_TEACHER[who]}
        entries[name] = {"rows": len(ids), "rows_sha256": _ids_sha256(ids), "slices": slices, "pieces": pieces}
    content = read_json(place / "quality.json")
    write_json(place / "quality.json", {**content, "unlabelled": entries})


def described(frame: pd.DataFrame, agree_on: str | None) -> SetQuality:
    """Return one set of quality.json, from predictions; `agree_on` names the set to compare with the teacher on."""
    logits, labels = frame[["logit_0", "logit_1"]].to_numpy(), frame["label"].to_numpy()
    masks = {
        name: np.array([name == "overall" or name in row for row in frame["slices"]])
        for name in ("overall", *SLICES, "length:medium")
    }
    teacher = predictions("teacher", agree_on, MODELS["teacher"][0][agree_on])["prediction"] if agree_on else None
    slices = measure_slices(labels, logits, None if teacher is None else teacher.to_numpy(), masks, 15, Draws(100, 0.95, 0))
    return quality_set(slices, len(frame), _ids_sha256(frame["row_id"]))


def _int8(frame: pd.DataFrame) -> dict[str, float]:
    return interval_of_mean((frame["label"] == frame["prediction"]).to_numpy()[4:], Draws(100, 0.95, 0))


def _cost(path: Path, who: str, params: int, embeddings: int, flops: float, latency: tuple[float, float]) -> None:
    teacher = MODELS["teacher"][4]
    speed = {"torch": 1.0, "onnx": 0.45, "onnx_int8": 0.2}
    write_json(
        path,
        {
            "round": who,
            "params_total": params,
            "params_non_embedding": params - embeddings,
            "size_bytes": 4 * params,
            "size_bytes_onnx": 4 * params + 90_000,
            "size_bytes_onnx_int8": params + 120_000,
            "flops_per_example": int(flops),
            "flops_tokens": 32,
            "peak_memory_bytes": 900_000_000,
            "threads": 1,
            "latency": {
                kind: {
                    batch: {
                        "latency_ms_p50": mine * factor,
                        "latency_ms_p95": mine * factor * 1.1,
                        "teacher_latency_ms_p50": theirs * factor,
                        "teacher_latency_ms_p95": theirs * factor * 1.1,
                        "ratio_p50": mine / theirs,
                    }
                    for batch, mine, theirs in zip(("1", "32"), latency, teacher, strict=True)
                }
                for kind, factor in speed.items()
            },
        },
    )


def _train(place: Path, best: float, seed: int) -> None:
    rng, lines = np.random.default_rng(seed), []
    for step in range(4, 401, 4):
        loss = 0.7 * np.exp(-step / 120) + 0.12 + rng.normal(0, 0.02)
        lines.append(f'{{"learning_rate": 0.0001, "loss": {loss:.4f}, "step": {step}}}\n')
        if step % 100 == 0:
            accuracy = best - 0.08 * (4 - step / 100) ** 1.5 / 5
            lines.append(
                f'{{"checkpoint": "step-{step:06d}", "step": {step}, "validation_accuracy": {accuracy:.4f}, '
                f'"validation_nll_nats_per_example": 0.4}}\n'
            )
    place.mkdir(parents=True)
    (place / "steps.jsonl").write_text("".join(lines), encoding="utf-8")
    write_json(place / "summary.json", {"steps": 400, "best_checkpoint": "step-000400", "best_validation_accuracy": best})


def _receipt(path: Path, stage: str, minute: int) -> None:
    write_json(
        path,
        {
            "stage": stage,
            "command": [stage],
            "inputs": {},
            "outputs": {},
            "params": {},
            "seed": 0,
            "git": {"commit": "0123456789abcdef" * 2 + "01234567", "dirty": False, "diff_sha256": None},
            "environment": {
                "python": "3.11.7",
                "platform": "Linux",
                "packages_sha256": "cd" * 32,
                "packages": {"torch": "2.13.0", "numpy": "2.4.0"},
            },
            "threads": 2,
            "device": "cpu",
            "precision": "fp32",
            "started_at": f"2026-11-23T04:{minute:02d}:00Z",
            "startup_seconds": 2.5,
            "compute_seconds": 61.25,
            "peak_memory_bytes": 1_400_000_000,
            "facts": {},
        },
    )
