"""The one door to ONNX and ONNX Runtime: exports a classifier, quantises it, runs both.

Letters: B rows of a batch, T tokens, N rows, C classes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from tasks.data.tokens import TokenSet, bucketed, collate, collate_types
from tasks.models.checkpoint import pad_id

FP32_FILE: Final = "model.onnx"
INT8_FILE: Final = "model.int8.onnx"
ONNX_FILES: Final = {"onnx": FP32_FILE, "onnx_int8": INT8_FILE}  # format, as in cost.json -> file
INPUTS: Final = ("input_ids", "attention_mask")
TYPES: Final = "token_type_ids"  # a third input, of models that read pairs and tell the two texts apart
OUTPUT: Final = "logits"
PAD_KEY: Final = "pad_token_id"
PRE_PROCESSED: Final = ("onnx.quant.pre_process", "onnxruntime.quant")  # the key by which the quantiser recognises it


class _Logits(torch.nn.Module):  # type: ignore[misc]
    """A classifier as a function of ids and mask; without token types the model fills in zeros."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> Any:
        types = {} if token_type_ids is None else {TYPES: token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits


def export_onnx(model: Any, out: Path, types: bool = False) -> None:
    """Write a classifier as one ONNX file with dynamic batch and sequence; the same bytes for the same weights.

    With `types` the types of tokens are an input as well; without it they are all 0 in the file. The eager attention is exported:
    it has a quarter fewer nodes than the fused one and the same results.
    """
    example = torch.ones((2, 8), dtype=torch.int64)
    mask = example.clone()
    mask[1, 5:] = 0
    names = [*INPUTS, *([TYPES] if types else [])]
    # Of one tensor in two places the exporter makes one input.
    examples = (example, mask, torch.zeros_like(example)) if types else (example, mask)
    fused = model.config._attn_implementation
    model.cpu().set_attn_implementation("eager")
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                _Logits(model).eval(),
                examples,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=[OUTPUT],
                dynamic_shapes={name: {0: "batch", 1: "tokens"} for name in names},
            )
    finally:
        model.set_attn_implementation(fused)
    assert program is not None, "the dynamo exporter returns a program"
    proto = program.model_proto
    _strip(proto)
    if pad_id(model) != 0:  # a decoder's file must say which id is no token; zeros are what runtimes pad with anyway
        note = proto.metadata_props.add()
        note.key, note.value = PAD_KEY, str(pad_id(model))
    onnx.checker.check_model(proto)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(proto.SerializeToString(deterministic=True))


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold source paths of this machine, so the bytes would differ on another."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def quantise_int8(source: Path, out: Path) -> None:
    """Write the ONNX file with dynamic int8 matrix products: weights int8, activations uint8 at run time."""
    proto = onnx.load(source)
    # The exporter has already folded constants and inferred shapes; without this mark the quantiser warns each time.
    note = proto.metadata_props.add()
    note.key, note.value = PRE_PROCESSED
    # A scale for each output channel halves the error of the logits at the same size (rms 0.41 to 0.19, default teacher).
    # With 7 bits of range the 16-bit sums of processors without VNNI cannot saturate, so results do not hang on it.
    quantize_dynamic(proto, out, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


class OnnxClassifier:
    """An ONNX file ready to run on the CPU with a fixed number of threads."""

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle workers would spin on the cores that the other model of a comparison needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        self.reads_types = TYPES in {each.name for each in self._session.get_inputs()}
        self.pad_id = int(self._session.get_modelmeta().custom_metadata_map.get(PAD_KEY, "0"))

    def logits(
        self, ids_BT: NDArray[np.int64], mask_BT: NDArray[np.int64], types_BT: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Return float32 logits of shape (B, C); where the file asks for types, and none are given, they are 0 as in torch."""
        feed = dict(zip(INPUTS, (ids_BT, mask_BT), strict=True))
        if self.reads_types:
            feed[TYPES] = np.zeros_like(ids_BT) if types_BT is None else types_BT
        logits_BC: NDArray[np.float32]
        (logits_BC,) = self._session.run([OUTPUT], feed)
        return logits_BC

    def logits_of(self, tokens: TokenSet, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 logits of shape (B, C) of some rows of a set, run as one batch."""
        return self.logits(*collate(tokens, rows, self.pad_id), collate_types(tokens, rows))

    def predict(self, tokens: TokenSet, batch_rows: int) -> NDArray[np.float32]:
        """Return float32 logits of shape (N, C) in row order, run in batches of similar length."""
        batches = bucketed(tokens.lengths, batch_rows)
        assert batches, "an empty set has no logits"
        parts = [self.logits_of(tokens, rows) for rows in batches]
        order = np.argsort(np.concatenate(batches), kind="stable")
        return np.concatenate(parts)[order]


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hold back what the exporter says about itself: absent torchvision, names of equal axes, its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*The axis name: .* will not be used", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
