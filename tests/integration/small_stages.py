"""Stages that write the files of docs/artifacts.md in milliseconds; the standard library alone, so that they start at once.

A file `misbehave.json` in the workspace ({"stage": ..., "how": "refuse" | "crash" | "wait" | "hold"}) makes one of them go wrong,
or hold on until the file is gone; it is no dependency, so taking it away does not change what is up to date.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from quality_builder import interval, quality, quality_set, rivals_quality  # conftest.py lays it beside this file

ART = Path("artifacts")
ROUNDS = ("r1", "r2", "r3")


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def train(stage: str, out: Path, salt: str, source: Path) -> None:
    scratch = Path(".compactlm/scratch") / stage
    scratch.mkdir(parents=True, exist_ok=True)
    lines = [{"step": 10 * i, "loss": 1.0 / i, "learning_rate": 1e-4} for i in range(1, 5)]
    lines += [
        {"step": s, "validation_accuracy": 0.7 + s / 1000, "validation_nll_nats_per_example": 0.5, "checkpoint": f"step-{s:06d}"}
        for s in (20, 40)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (scratch / "steps.jsonl").write_text(text[: len(text) // 2], encoding="utf-8")
    sys.stderr.write(f"progress: {stage} 20/40 steps 50%\n")
    misbehave(stage, "in the middle")
    shutil.copytree(source, out / "model")
    config = json.loads((out / "model/config.json").read_text())
    write(out / "model/config.json", {**config, "salt": salt})
    weights = (source / "model.safetensors").read_bytes()
    # A safetensors file ends with numbers; changing the last byte gives each round weights of its own.
    (out / "model/model.safetensors").write_bytes(weights[:-4] + hashlib.sha256(salt.encode()).digest()[:2] + weights[-2:])
    checkpoints = []
    for step in (20, 40):
        name = f"step-{step:06d}"
        place = out / "checkpoints" / name / "model.safetensors"
        place.parent.mkdir(parents=True)
        place.write_bytes(f"{salt} {step}".encode())
        checkpoints.append(
            {
                "name": name,
                "step": step,
                "sha256": sha256(place),
                "size_bytes": 1,
                "validation_accuracy": 0.7 + step / 1000,
                "validation_nll_nats_per_example": 0.5,
                "learnt_kl_nats_per_example": 0.05,
            }
        )
    (out / "steps.jsonl").write_text(text, encoding="utf-8")
    write(
        out / "summary.json",
        {
            "steps": 40,
            "best_checkpoint": "step-000040",
            "best_validation_accuracy": 0.74,
            "checkpoints": checkpoints,
            "tokens": 1000,
            "model_sha256": sha256(out / "model/model.safetensors"),
        },
    )
    shutil.rmtree(scratch)


def evaluate(name: str, trained: Path) -> None:
    out = ART / "rounds" / name / "evaluated"
    size = {"teacher": 1000, "r1": 500, "r2": 250, "r3": 120}[name]
    overall = {"support": 64, "accuracy": interval(0.8), "macro_f1": interval(0.79), "agreement": interval(0.9)}
    slices = {"overall": overall, "class:negative": {"support": 30, "accuracy": interval(0.75)}, "length:long": {"support": 0}}
    sets = dict.fromkeys(("test", "validation", "imdb"), quality_set(slices, onnx_int8={"accuracy": interval(0.79)}))
    write(out / "quality.json", quality(name, sets, sha256(trained / "model/model.safetensors")))
    times = {
        "latency_ms_p50": 2.0,
        "latency_ms_p95": 2.5,
        "teacher_latency_ms_p50": 16.0,
        "teacher_latency_ms_p95": 17.0,
        "ratio_p50": 0.125,
    }
    latency = {form: {"1": times, "32": times} for form in ("torch", "onnx", "onnx_int8")}
    write(
        out / "cost.json",
        {
            "round": name,
            "params_total": size,
            "params_non_embedding": size // 2,
            "size_bytes": size * 4,
            "size_bytes_onnx": size * 4,
            "size_bytes_onnx_int8": size,
            "flops_per_example": size * 9,
            "flops_tokens": 32,
            "peak_memory_bytes": 1,
            "threads": 1,
            "latency": latency,
        },
    )
    (out / "predictions").mkdir()
    (out / "predictions" / "test.parquet").write_bytes(b"rows")


def misbehave(stage: str, when: str) -> None:
    place = Path("misbehave.json")
    plan = json.loads(place.read_text()) if place.exists() else {}
    if plan.get("stage") != stage or plan.get("when", "at once") != when:
        return
    if plan["how"] == "refuse":
        words = {"stage": stage, "kind": "DataError", "message": "data.csv: column 'text' is missing"}
        Path(os.environ["COMPACTLM_ERROR_FILE"]).write_text(json.dumps(words))
        sys.exit(2)
    if plan["how"] == "hold":
        Path("waiting").write_text(str(os.getpid()))
        while place.exists():
            time.sleep(0.05)
        return
    if plan["how"] == "wait":
        Path("waiting").write_text(str(os.getpid()))
        time.sleep(600)
    sys.exit("ValueError: this stage has a fault")


def run(stage: str) -> None:
    verb, _, key = stage.partition("@")
    folder = ART / "rounds" / key
    trained = ART / "rounds" / (key or "teacher") / "trained"
    if stage == "fetch":
        write(ART / "fetched/data/rows.json", 1)
    elif stage == "prepare":
        (ART / "data/sets").mkdir(parents=True)
        for name in ("train", "validation", "test", "transfer", "imdb"):
            (ART / f"data/sets/{name}.parquet").write_bytes(name.encode())
    elif stage == "teacher":
        train(stage, trained, "teacher", Path("seed_model"))
    elif stage == "baselines":
        sets = {"test": quality_set({"overall": {"support": 64, "accuracy": interval(0.7)}})}
        write(ART / "baselines/quality.json", rivals_quality("tfidf_logistic", sets))
    elif verb == "prune":
        write(folder / "pruned/plan.json", {"round": key, "params_sha256": sha256(Path("params.yaml"))})
    elif verb == "distill":
        train(stage, folder / "trained", key + Path("params.yaml").read_text()[-1:], Path("seed_model"))
    elif verb in ("export", "export_teacher"):
        out = ART / "rounds" / (key or "teacher") / "exported"
        out.mkdir(parents=True)
        (out / "model.onnx").write_bytes(f"onnx {key}".encode())
        (out / "model.int8.onnx").write_bytes(b"int8")
        write(out / "parity.json", {"rows": 64, "load_back_max_difference": 0.0, "onnx_max_difference": 1e-6})
    elif verb in ("evaluate", "evaluate_teacher"):
        evaluate(key or "teacher", trained)
    elif verb == "gate":
        verdict = "fail" if key == "r3" else "pass"
        write(
            folder / "verdict.json",
            {
                "round": key,
                "verdict": verdict,
                "rules": [{"metric": "accuracy", "severity": "block", "result": verdict, "sentence": "as the test wants"}],
            },
        )
    elif stage == "select":
        write(ART / "selection.json", {"selected": "r2", "candidates": [], "num_candidates": 3, "rule": "smallest"})
    else:
        (ART / "report.html").write_text("<h1>report</h1>", encoding="utf-8")
    write(
        ART / "receipts" / f"{stage}.json",
        {"stage": stage, "started_at": "2026-01-01T00:00:00Z", "outputs": {}, "startup_seconds": 0.1, "compute_seconds": 0.5},
    )


sys.stderr.write(f"small stage {sys.argv[1]}\n")
misbehave(sys.argv[1], "at once")
run(sys.argv[1])
