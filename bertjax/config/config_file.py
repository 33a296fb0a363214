"""Configurations from Python files: presets by name, other files by path."""

import os
import types
from pathlib import Path

from bertjax.config.run import Config
from bertjax.errors import UserError, check, nearest


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted, such as `base` and `fast/base`."""
    folder = _presets_folder()
    names = []
    for path in folder.rglob("*.py"):
        if path.name != "__init__.py":
            names.append(path.relative_to(folder).with_suffix("").as_posix())
    return tuple(sorted(names))


def load_config(name: str | os.PathLike[str]) -> Config:
    """Return the configuration that the function `get_config()` of a preset or file returns.

    `name` is the path of a Python file, the name of a preset (`tiny`, `fast/base`), or the last
    part of a preset's name if no other preset's name ends with it (`paper` for `finetune/paper`).
    If a file and a preset have this name, the file is used.

    Raises `UserError` if there is no such file or preset, if the file cannot be run, or if its
    `get_config()` does not return a `Config`.

    >>> import bertjax
    >>> config = bertjax.load_config("base").replace(train={"batch_size": 512})
    >>> config.model.num_hidden_layers, config.train.batch_size
    (12, 512)
    """
    name = os.fspath(name)
    # A folder may have the name of a preset, for example a folder `base` with the runs of `base`.
    if os.path.exists(name) and not os.path.isdir(name):
        return _run(name)
    path = _preset_path(name)
    if path is None:
        names = preset_names()
        raise UserError(
            f"{name}: found no such configuration file or preset, expected a path or one of"
            f" {', '.join(names)}{nearest(name, names)}"
        )
    return _run(str(path))


def _presets_folder() -> Path:
    from bertjax import presets

    return Path(next(iter(presets.__path__)))


def _preset_path(name: str) -> Path | None:
    """The file of a preset; None if no preset or more than one preset fits the name."""
    names = preset_names()
    if name not in names:
        candidates = [preset for preset in names if preset.rpartition("/")[2] == name]
        if len(candidates) != 1:
            return None
        name = candidates[0]
    return _presets_folder() / f"{name}.py"


def _run(path: str) -> Config:
    # The file is not imported as a module: its name need not be a Python name, two files may have
    # the same name, and a file that changed since the last call must be read again.
    module = types.ModuleType("config_file")
    module.__file__ = path
    try:
        with open(path, encoding="utf-8") as file:
            source = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a configuration ({error})") from error
    try:
        exec(compile(source, path, "exec"), module.__dict__)
        config = module.get_config()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        raise UserError(
            f"{path}: is no working configuration ({type(error).__name__}: {error})"
        ) from error
    check(
        isinstance(config, Config),
        where=path,
        found=f"get_config() giving {type(config).__name__}",
        expected="a bertjax Config",
    )
    return config
