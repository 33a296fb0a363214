"""BERT large, phase 2, as `../large_phase2.py` but fast: see `base.py`.

bertjax train configs/fast/large_phase2.py --init-from runs/large --run-dir runs/large512
"""

import runpy
from pathlib import Path

from bertjax.config import Config


def get_config() -> Config:
    return runpy.run_path(str(Path(__file__).with_name("base.py")))["fast"](
        "large_phase2.py", "heads"
    )
