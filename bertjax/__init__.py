"""Pretrain BERT-class encoders in JAX, fine-tune them, and use them.

The names in `dir(bertjax)` are loaded on first use, so that `import bertjax` is quick. None brings
TensorFlow before it reads prepared shards or TFDS.
"""

import importlib
from typing import TYPE_CHECKING, Any

from bertjax.config import (
    AdaptiveConfig,
    Config,
    DataConfig,
    DistillConfig,
    FinetuneConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    ReplacedConfig,
    TokenizerConfig,
    TrainConfig,
    load_config,
)
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.api.average import average
    from bertjax.api.branch import branch
    from bertjax.api.evaluate import evaluate, predict, predict_texts, saved_config
    from bertjax.api.evaluate_text import evaluate_text
    from bertjax.api.finetune import finetune, sweep
    from bertjax.api.load import load_tokenizer
    from bertjax.api.pretrain import prepare, train
    from bertjax.compression.quantize.quantize import quantize
    from bertjax.compression.static.distill_static import distill_static
    from bertjax.finetuning.sweep_grid import PAPER_GRID, Grid
    from bertjax.inference.bits_per_byte import masked_bits
    from bertjax.inference.embed import embed
    from bertjax.inference.fill_mask import fill_mask
    from bertjax.inference.zero_shot import zero_shot
    from bertjax.interop.export_model import export_checkpoints, export_model
    from bertjax.interop.import_model import import_model
    from bertjax.model.functional import Encoded, encode, init, mlm_logits, nsp_logits, pool
    from bertjax.training.pretraining_loss import pretraining_loss
    from bertjax.training.replay.replayed_step import replay
    from bertjax.training.replay.sightings import find_steps
    from bertjax.training.saved_model import TrainedModel, load_model

__version__ = "0.1.0"

_MODULES = {
    "Encoded": "bertjax.model.functional",
    "Grid": "bertjax.finetuning.sweep_grid",
    "PAPER_GRID": "bertjax.finetuning.sweep_grid",
    "TrainedModel": "bertjax.training.saved_model",
    "average": "bertjax.api.average",
    "branch": "bertjax.api.branch",
    "distill_static": "bertjax.compression.static.distill_static",
    "embed": "bertjax.inference.embed",
    "encode": "bertjax.model.functional",
    "evaluate": "bertjax.api.evaluate",
    "evaluate_text": "bertjax.api.evaluate_text",
    "export_checkpoints": "bertjax.interop.export_model",
    "export_model": "bertjax.interop.export_model",
    "fill_mask": "bertjax.inference.fill_mask",
    "find_steps": "bertjax.training.replay.sightings",
    "finetune": "bertjax.api.finetune",
    "import_model": "bertjax.interop.import_model",
    "init": "bertjax.model.functional",
    "load_model": "bertjax.training.saved_model",
    "load_tokenizer": "bertjax.api.load",
    "masked_bits": "bertjax.inference.bits_per_byte",
    "mlm_logits": "bertjax.model.functional",
    "nsp_logits": "bertjax.model.functional",
    "pool": "bertjax.model.functional",
    "predict": "bertjax.api.evaluate",
    "predict_texts": "bertjax.api.evaluate",
    "prepare": "bertjax.api.pretrain",
    "pretraining_loss": "bertjax.training.pretraining_loss",
    "quantize": "bertjax.compression.quantize.quantize",
    "replay": "bertjax.training.replay.replayed_step",
    "saved_config": "bertjax.api.evaluate",
    "sweep": "bertjax.api.finetune",
    "train": "bertjax.api.pretrain",
    "zero_shot": "bertjax.inference.zero_shot",
}
"""The module of each name that is loaded on first use (PEP 562)."""

__all__ = [
    "PAPER_GRID",
    "AdaptiveConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "Encoded",
    "FinetuneConfig",
    "Grid",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ReplacedConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TrainedModel",
    "UserError",
    "__version__",
    "average",
    "branch",
    "distill_static",
    "embed",
    "encode",
    "evaluate",
    "evaluate_text",
    "export_checkpoints",
    "export_model",
    "fill_mask",
    "find_steps",
    "finetune",
    "import_model",
    "init",
    "load_config",
    "load_model",
    "load_tokenizer",
    "masked_bits",
    "mlm_logits",
    "nsp_logits",
    "pool",
    "predict",
    "predict_texts",
    "prepare",
    "pretraining_loss",
    "quantize",
    "replay",
    "saved_config",
    "sweep",
    "train",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
