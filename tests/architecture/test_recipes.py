"""The recipes of docs/architecture.md, followed in a copy of the code: a toy criterion, a toy loss and a toy family."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CRITERION = '''
def last_first(statistics: Statistics) -> Scores:
    """Return scores that keep what comes last."""
    like = statistics.weight_sums(1)
    return Scores(**{name: torch.arange(1.0, 1 + values.numel()).view(values.shape) for name, values in vars(like).items()})


'''
LOSS = '''
def squared(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Return the mean squared difference of the softened log-probabilities of each row, shape (B,); zero when the two agree."""
    return temperature**2 * (_softened(student_BC, temperature) - _softened(teacher_BC, temperature)).square().mean(dim=-1)


'''
# ELECTRA, for what a real family takes: BERT's layers under other names, with RoBERTa's head.
FAMILY = '''"""ELECTRA: BERT's layers; a dense layer of the classifier is the pooler."""

from __future__ import annotations

from typing import Final

from tasks.models.architectures.bert import EMBEDDINGS, PARTS, TABLES
from tasks.models.architectures.family import USUAL_KEYS, Family
from tasks.models.architectures.layout import Layout, inside, product, sites_after

OUTSIDE: Final = {
    **{f"electra.embeddings.{name}": axes for name, axes in EMBEDDINGS.items()},
    **product("classifier.dense", "pooler", "hidden"),
    **product("classifier.out_proj", None, "pooler"),
}
LAYOUT: Final = Layout("electra.encoder.layer", ("electra.embeddings",), OUTSIDE, inside(PARTS))
FAMILY: Final = Family(
    READS="first",
    keys={**USUAL_KEYS},
    layout=lambda _: LAYOUT,
    parts=PARTS,
    sites=lambda model: sites_after(
        model.electra.embeddings, model.electra.encoder.layer, PARTS, model.classifier.dense, model.classifier.out_proj
    ),
    follows=lambda _config, resized: {**resized, "embedding_size": resized["hidden_size"]},
    tables=TABLES,
    byte_pairs=False,
)
'''
CONFIG = """
CONFIGS["electra"] = {
    **CONFIGS["bert"],
    "model_type": "electra",
    "architectures": ["ElectraForSequenceClassification"],
    "embedding_size": HEADS * HEAD_SIZE,
}
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of code and tests that may be changed."""
    for name in ("flows", "tasks", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "old_run"))
    for name in ("pyproject.toml", "params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")


def steps(title: str) -> list[str]:
    """Return the files that the steps of a recipe name, in order."""
    recipe = GUIDE.split(f"### {title}\n")[1].split("\n### ")[0]
    return re.findall(r"((?:tasks|tests)/[\w/]+\.py)", recipe)


def run(folder: Path, *tests: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_criterion_and_a_loss_by_their_recipes(copied: Path) -> None:
    criteria, _, schema = steps("Add a criterion")
    edit(copied / criteria, "Criterion = Callable[", CRITERION.lstrip("\n") + "Criterion = Callable[")
    edit(copied / criteria, '    "activation": activation,\n', '    "activation": activation,\n    "last_first": last_first,\n')
    edit(copied / schema, 'Criterion = Literal["activation", ', 'Criterion = Literal["activation", "last_first", ')
    losses, schema, *_ = steps("Add a loss")
    edit(copied / losses, "def _softened(", LOSS.lstrip("\n") + "def _softened(")
    edit(copied / losses, '= {"forward_kl": forward_kl, ', '= {"forward_kl": forward_kl, "squared": squared, ')
    edit(copied / schema, 'Loss = Literal["forward_kl", ', 'Loss = Literal["forward_kl", "squared", ')
    said = run(copied, "tests/unit/pruning/test_criteria.py", "tests/unit/training/test_losses.py", "-k", "last_first or squared")
    assert int(re.findall(r"(\d+) passed", said)[0]) >= 5


@pytest.mark.slow
def test_a_family_by_its_recipe(copied: Path) -> None:
    family, entries, configs, tests = steps("Add a family")
    (copied / family.replace("NAME", "electra")).write_text(FAMILY, encoding="utf-8")
    edit(copied / entries, "import bert, distilbert, gpt2", "import bert, distilbert, electra, gpt2")
    edit(copied / entries, '    "bert": bert.FAMILY,\n', '    "bert": bert.FAMILY,\n    "electra": electra.FAMILY,\n')
    with (copied / configs).open("a", encoding="utf-8") as file:
        file.write(CONFIG)
    edit(copied / configs, 'ENCODERS = ("bert", ', 'ENCODERS = ("bert", "electra", ')
    said = run(copied, tests, "-k", "electra and (keeps_everything or pruned_equal or parameters or flops)")
    assert int(re.findall(r"(\d+) passed", said)[0]) >= 4
