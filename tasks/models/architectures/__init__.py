"""One small file a family: where each prunable axis lives in the weights and in the config.

To add a family, write its file and add it to `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from tasks.errors import SourceError
from tasks.models.architectures import bert

ADAPTERS: Final[dict[str, ModuleType]] = {"bert": bert}


def adapter_of(config: Mapping[str, Any]) -> ModuleType:
    """Return the adapter of a model's config; SourceError naming the supported families otherwise."""
    model_type = str(config.get("model_type"))
    if model_type not in ADAPTERS:
        raise SourceError(
            f"teacher.model: config.json: model_type {model_type!r} is not supported; allowed: {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[model_type]
