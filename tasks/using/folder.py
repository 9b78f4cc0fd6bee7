"""A model as a folder in the Hugging Face Hub's layout: config, weights, tokenizer, ONNX beside, and a card.

Source of the card's front matter: the Hub's model card specification (modelcard.md).
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from tasks.data.sources import model_files
from tasks.errors import SourceError, UserError
from tasks.progress import visible
from tasks.report.markdown import code
from tasks.report.use import snippets
from tasks.using.classifier import labels_of
from tasks.using.model import ONNX_FOLDER, Found, longest_text

CARD: Final = "README.md"
SUMS: Final = "SHA256SUMS"  # a folder that has it was written by `compactlm export`, and is whole as it is
FRONT_MATTER: Final = "---\n"
FILE_MODE, FOLDER_MODE = 0o644, 0o755


def lay_out(found: Found, license_: str | None, folder: Path) -> None:
    """Write a model into a new folder; its own card stays, and where there is none one is written."""
    own = found.folder / CARD
    has_card = own.is_file() and own.read_text(encoding="utf-8", errors="replace").startswith(FRONT_MATTER)
    if has_card and license_ is not None:
        raise UserError(f"--license {license_}: {own} is a card already, which says the license; change it there")
    if (found.folder / SUMS).is_file() and has_card:
        shutil.copytree(found.folder, folder)
        return
    try:
        files = model_files(found.folder)
    except SourceError as error:
        raise UserError(f"{found.words}: {str(error).removeprefix('params.yaml: teacher.model: ')}") from None
    (folder / ONNX_FOLDER).mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
    for file in found.files.values():
        shutil.copyfile(file, folder / ONNX_FOLDER / file.name)
    if not found.files:
        (folder / ONNX_FOLDER).rmdir()
    if has_card:
        shutil.copyfile(own, folder / CARD)
    else:
        (folder / CARD).write_text(card(found, license_), encoding="utf-8")


def card(found: Found, license_: str | None) -> str:
    """Return a card of what the files tell: labels, length, and code that runs it."""
    head: dict[str, Any] = {
        "license": visible(license_.lower()) if license_ else "unknown",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["compactlm", visible(str(found.config.get("model_type", "")))],
    }
    yaml, text = YAML(), io.StringIO()
    yaml.width = 1000
    yaml.dump(head, text)
    labels = ", ".join(code(label) for label in labels_of(found.config))
    cut = longest_text(found)
    lines = [f"{FRONT_MATTER}{text.getvalue()}---\n", f"# {code(Path(found.words).name)}\n", f"Sorts a text into {labels}."]
    lines += [
        f"A text is cut at {cut} tokens." if cut else "",
        "Nothing is recorded here of how it was made or how good it is.\n",
    ]
    for snippet in snippets(".", f"{ONNX_FOLDER}/model.onnx", ".", of_pairs=False):
        if found.files or ONNX_FOLDER not in snippet.code:
            lines.append(f"{snippet.title}:\n\n```{snippet.language}\n{snippet.code}```\n")
    return "\n".join(line for line in lines if line)


def make_readable(folder: Path) -> None:
    """Let everybody read a folder: modes 0644 of files and 0755 of folders."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)


def require_free(folder: Path) -> None:
    """Raise UserError unless a folder is new or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: there is something already, and nothing is written over; name a new or an empty folder")
