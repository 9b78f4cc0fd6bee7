"""Students that other pruning libraries make of the same teacher, each in a virtual environment of its own.

The environment sees the packages of this one, torch and transformers with them, and adds the rival's package alone. A script
run by its Python prunes the teacher and saves the smaller weights, which are put into a stock model here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.torch import load_file
from torch import nn

from tasks.data.tokens import collate, load_tokens
from tasks.errors import StageError
from tasks.models.checkpoint import classifier_from_config, load_weights, read_config
from tasks.pruning.classification import calibration_labels
from tests.bench.tables.cells import Cell

PACKAGES: Final = {"torch_pruning": "torch-pruning==1.6.1", "textpruner": "textpruner==1.1.post2"}
SCRIPTS: Final = Path(__file__).with_name("rival_scripts")


def student_of(cell: Cell, teacher: Path, tokens: Path, sets: Path, folder: Path) -> Any:
    """Return the classifier that a rival prunes the teacher to, before any recovery."""
    rival, criterion = cell.start.split(":")
    python = environment(rival, folder)
    place = folder / "work" / "rival"
    place.mkdir(parents=True, exist_ok=True)
    calibration = load_tokens(tokens / "calibration")
    ids, mask = collate(calibration, np.arange(len(calibration)))
    np.savez(place / "calibration.npz", ids=ids, mask=mask, labels=calibration_labels(sets))
    wanted = {"criterion": criterion, "teacher": str(teacher), "shape": cell.target, "out": str(place / "out")}
    (place / "wanted.json").write_text(json.dumps(wanted), encoding="utf-8")
    _run([str(python), str(SCRIPTS / f"with_{rival}.py"), str(place)], place)
    return shaped(read_config(teacher), load_file(place / "out" / "model.safetensors"))


def environment(rival: str, folder: Path) -> Path:
    """Return the Python of a rival's environment, made the first time; it needs the package index then."""
    home = folder / f"venv-{rival}"
    python = home / "bin" / "python"
    ready = home / "ready"
    if not ready.exists():
        venv.create(home, with_pip=True, clear=True)
        own = home / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        places = [path for path in sys.path if path.endswith("site-packages")]
        (own / "shared.pth").write_text("\n".join(places) + "\n", encoding="utf-8")
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", PACKAGES[rival]], folder)
        ready.touch()
    return python


def shaped(config: dict[str, Any], weights: dict[str, Any]) -> Any:
    """Return a BERT classifier that holds these weights, whose layers may be narrower than a config can say.

    The size of a head stays, and transformers tells the number of a layer's heads from its weights.
    """
    hidden = weights["bert.embeddings.word_embeddings.weight"].shape[1]
    head_size = config["hidden_size"] // config["num_attention_heads"]
    model = classifier_from_config({**config, "hidden_size": hidden, "num_attention_heads": hidden // head_size})
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module.weight.shape != weights[f"{name}.weight"].shape:
            outputs, inputs = weights[f"{name}.weight"].shape
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, nn.Linear(inputs, outputs))
    load_weights(model, weights)
    return model.eval()


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(command[1], done.stderr)
