"""BERT base, phase 2, as `../base_phase2.py` but fast: see `base.py`.

bertjax train configs/fast/base_phase2.py --init-from runs/base --run-dir runs/base512
"""

import runpy
from pathlib import Path

from bertjax.config import Config


def get_config() -> Config:
    return runpy.run_path(str(Path(__file__).with_name("base.py")))["fast"](
        "base_phase2.py", "dots"
    )
