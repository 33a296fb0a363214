"""Pretrain BERT-class encoders in JAX.

The names below load on first use, so that `import bertjax` is quick; none brings TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bertjax.config import Config, ModelConfig
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.inference.embed import embed
    from bertjax.interop.export_model import export_model
    from bertjax.interop.import_model import import_model
    from bertjax.model.functional import Encoded, encode, init, mlm_logits, nsp_logits, pool
    from bertjax.training.pretraining_loss import pretraining_loss
    from bertjax.training.saved_model import load_model

__version__ = "0.1.0"

_HOMES = {
    "bertjax.model.functional": ("Encoded", "encode", "init", "mlm_logits", "nsp_logits", "pool"),
    "bertjax.training.pretraining_loss": ("pretraining_loss",),
    "bertjax.training.saved_model": ("load_model",),
    "bertjax.inference.embed": ("embed",),
    "bertjax.interop.import_model": ("import_model",),
    "bertjax.interop.export_model": ("export_model",),
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
