"""BERT large, phase 1, as `../large.py` but fast: see `base.py`.

bertjax train configs/fast/large.py --run-dir runs/large
"""

import runpy
from pathlib import Path

from bertjax.config import Config


def get_config() -> Config:
    return runpy.run_path(str(Path(__file__).with_name("base.py")))["fast"]("large.py", "heads")
