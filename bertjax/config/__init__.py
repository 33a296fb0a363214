"""Configuration: every setting with its meaning, unit, default and check.

This package imports neither JAX nor TensorFlow. A configuration is a plain Python file with a
function `get_config() -> Config`; `bertjax.presets` has examples. `to_dict` converts a
configuration to values for JSON, and `from_dict` converts them back.
"""

from bertjax.config.config_file import load_config, preset_name, preset_names
from bertjax.config.data import DataConfig, TokenizerConfig, TokenizerKind
from bertjax.config.distill import DistillConfig
from bertjax.config.families import FAMILIES, family
from bertjax.config.finetune import FinetuneConfig
from bertjax.config.model import Head, ModelConfig, Remat
from bertjax.config.objectives.adaptive import AdaptiveConfig
from bertjax.config.objectives.replaced import ReplacedConfig
from bertjax.config.run import Config
from bertjax.config.serialization import from_dict, to_dict, to_flat_dict
from bertjax.config.training import MeshConfig, OptimizerConfig, TrainConfig

__all__ = [
    "FAMILIES",
    "AdaptiveConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "FinetuneConfig",
    "Head",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Remat",
    "ReplacedConfig",
    "TokenizerConfig",
    "TokenizerKind",
    "TrainConfig",
    "family",
    "from_dict",
    "load_config",
    "preset_name",
    "preset_names",
    "to_dict",
    "to_flat_dict",
]
