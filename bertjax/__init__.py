"""Pretrain BERT-class encoders in JAX.

The names below load on first use, so that `import bertjax` is quick; none brings TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bertjax.config import Config, ModelConfig
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.interop.exports import export_model
    from bertjax.interop.imports import import_model
    from bertjax.model.functional import Encoded, encode, init, mlm_logits, nsp_logits, pool
    from bertjax.tasks.features import embed
    from bertjax.train.models import load_model
    from bertjax.train.objectives import pretraining_loss

_HOMES = {
    "bertjax.model.functional": ("Encoded", "encode", "init", "mlm_logits", "nsp_logits", "pool"),
    "bertjax.train.objectives": ("pretraining_loss",),
    "bertjax.train.models": ("load_model",),
    "bertjax.tasks.features": ("embed",),
    "bertjax.interop.imports": ("import_model",),
    "bertjax.interop.exports": ("export_model",),
}

__all__ = [
    "Config",
    "Encoded",
    "ModelConfig",
    "UserError",
    "embed",
    "encode",
    "export_model",
    "import_model",
    "init",
    "load_model",
    "mlm_logits",
    "nsp_logits",
    "pool",
    "pretraining_loss",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
