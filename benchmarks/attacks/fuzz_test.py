"""The fuzz test of the command line (`tests/cli/fuzz/`), whose parts the attacks use."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def fuzz_part(name: str) -> ModuleType:
    """Import a part of the fuzz test of this checkout, whichever bertjax is attacked."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"tests.cli.fuzz.{name}")
    finally:
        # Worker processes take over the path; they must not find another bertjax.
        sys.path.remove(str(ROOT))
