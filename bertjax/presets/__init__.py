"""Presets: complete configurations, a module each with a function `get_config() -> Config`.

In a checkout the modules are the files of the folder `configs/`. The wheel has that folder as this
package, so this file is not in it (`pyproject.toml`, `package-dir`).
"""

from pathlib import Path

__path__ = [str(Path(__file__).parents[2] / "configs")]
