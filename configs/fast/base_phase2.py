"""BERT base, phase 2, made fast on TPUs: `base_phase2` with the settings of `fast/base`.

bertjax train fast/base_phase2 --init-from runs/base --run-dir runs/base512
"""

from bertjax.config import Config
from bertjax.presets import base_phase2
from bertjax.presets.fast.base import fast


def get_config() -> Config:
    return fast(base_phase2.get_config(), "dots")
