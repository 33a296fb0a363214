"""Every setting, with its meaning, unit, default and check. Imports neither jax nor TensorFlow.

A configuration is a plain Python file (see `configs/`) with a function
`get_config() -> Config`. `json` round-trips through `to_dict` and `from_dict`.
"""

from bertjax.config.data import DataConfig, TokenizerConfig, TokenizerKind
from bertjax.config.finetune import FinetuneConfig
from bertjax.config.model import Head, ModelConfig, Remat
from bertjax.config.run import Config
from bertjax.config.serialization import from_dict, load_config, to_dict
from bertjax.config.training import MeshConfig, OptimizerConfig, TrainConfig

__all__ = [
    "Config",
    "DataConfig",
    "FinetuneConfig",
    "Head",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Remat",
    "TokenizerConfig",
    "TokenizerKind",
    "TrainConfig",
    "from_dict",
    "load_config",
    "to_dict",
]
