"""BERT large, phase 2, made fast on TPUs: `large_phase2` with the settings of `fast/base`.

bertjax train fast/large_phase2 --init-from runs/large --run-dir runs/large512
"""

from bertjax.config import Config
from bertjax.presets import large_phase2
from bertjax.presets.fast.base import fast


def get_config() -> Config:
    return fast(large_phase2.get_config(), "heads")
