"""BERT large, phase 1, made fast on TPUs: `large` with the settings of `fast/base`.

bertjax train fast/large --run-dir runs/large
"""

from bertjax.config import Config
from bertjax.presets import large
from bertjax.presets.fast.base import fast


def get_config() -> Config:
    return fast(large.get_config(), "heads")
