"""How a classifier is used, as code to paste: the same on the card of an exported folder and in the report."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from markupsafe import Markup

from tasks.artifacts import RoundPaths
from tasks.report.parts import filled
from tasks.report.story import Story

TEXT: Final = "a fine, moving film"
PAIR: Final = ("two men play chess", "people are indoors")
TRANSFORMERS: Final = """from transformers import pipeline

classify = pipeline("text-classification", model="{folder}", truncation=True)
print(classify({asked}))
"""
# The length is what stock pipelines cut at; models that compute positions may name none.
RUNTIME: Final = """import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path("{folder}")
config, settings = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(int(min(settings.get("model_max_length", 10**6), 10**6)))
session = onnxruntime.InferenceSession("{onnx}")

tokens = tokenizer.encode({given})
given = {{"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}}
wanted = [each.name for each in session.get_inputs()]
[[logits]] = session.run(["logits"], {{name: np.array([given[name]]) for name in wanted}})
scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print({{config["id2label"][str(number)]: float(score) for number, score in enumerate(scores)}})
"""
PREDICT: Final = """echo "{text}" | compactlm predict {name} -
"""


class Snippet(NamedTuple):
    """Code for one library or command, what it is, and its language."""

    title: str
    language: str
    code: str


def snippets(folder: str, onnx: str, name: str, of_pairs: bool) -> list[Snippet]:
    """Return code that answers a text, or a pair, with a model: its folder, its ONNX file, and what `compactlm predict` calls it.

    That command takes no pairs.
    """
    first, second = PAIR
    asked, given = f'"{TEXT}"', f'"{TEXT}"'
    if of_pairs:
        asked, given = f'{{"text": "{first}", "text_pair": "{second}"}}', f'"{first}", "{second}"'
    values = {"folder": folder, "onnx": onnx, "name": name, "text": TEXT, "asked": asked, "given": given}
    found = [
        Snippet("transformers", "python", TRANSFORMERS.format(**values)),
        Snippet("ONNX Runtime, without torch", "python", RUNTIME.format(**values)),
    ]
    return found if of_pairs else [*found, Snippet("compactlm, for whole files too", "sh", PREDICT.format(**values))]


def section(story: Story, of_pairs: bool) -> Markup:
    """Return how the selected round is used, in the folder of the project; nothing where none was selected."""
    if story.selection["selected"] is None:
        return Markup()
    paths = RoundPaths(Path(), story.focus)
    code = snippets(paths.model.as_posix(), (paths.exported / "model.onnx").as_posix(), story.focus, of_pairs)
    return filled("use.html.j2", round=story.focus, snippets=code)
