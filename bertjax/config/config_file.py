"""Configurations from files: presets by name, other Python or JSON files by path."""

import json
import os
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertjax.config.run import Config
from bertjax.config.serialization import from_dict
from bertjax.errors import UserError, mismatch, nearest, one_line

RECIPES = "recipes"
"""Folder of whole recipes; some are called as presets of other folders are."""


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

    A file is a program and is run: use only files that you trust. A file whose name ends with
    `.json`, such as the `config.json` of a run, is only read.

    `name` is the path of a file, the name of a preset (`tiny`, `fast/base`), or the last
    part of a preset's name if no other preset's name ends with it (`paper` for `finetune/paper`).
    Recipes are named in whole (`recipes/paper`). If a file and a preset have this name, the file is
    used.

    Raises `UserError` if there is no such file or preset, if the file cannot be run, or if its
    `get_config()` does not return a `Config`.

    >>> import bertjax
    >>> config = bertjax.load_config("base").replace(train={"batch_size": 512})
    >>> config.model.num_hidden_layers, config.train.batch_size
    (12, 512)
    """
    name = os.fspath(name)
    if _is_file(name):
        return _parse(name) if name.endswith(".json") else _run(name)
    preset = preset_name(name)
    if preset is None:
        names = preset_names()
        raise UserError(
            f"{name}: found no such configuration file or preset, expected a path or one of"
            f" {', '.join(names)}{nearest(name, names)}"
        )
    return _run(str(_presets_folder() / f"{preset}.py"))


def preset_name(name: str) -> str | None:
    """Return the whole name of the preset that `load_config` takes for `name`.

    None if it takes a file, or if no preset or more than one preset fits the name.
    """
    if _is_file(name):
        return None
    names = preset_names()
    if name in names:
        return name
    ends = [preset.rpartition("/") for preset in names]
    candidates = [
        folder + slash + last for folder, slash, last in ends if last == name and folder != RECIPES
    ]
    return candidates[0] if len(candidates) == 1 else None


def _is_file(name: str) -> bool:
    # A folder may have the name of a preset, for example a folder `base` with the runs of `base`.
    return os.path.exists(name) and not os.path.isdir(name)


def _presets_folder() -> Path:
    from bertjax import presets

    return Path(next(iter(presets.__path__)))


def _read(path: str) -> str:
    # Imported late: most configurations are presets, and the help of each verb imports this module.
    from bertjax.given_files import place_of, read_file

    content = read_file(place_of(path, any_bytes=True), "a configuration")
    try:
        return content.decode("utf-8-sig")
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as a configuration ({error})") from error


def _parse(path: str) -> Config:
    """Return the configuration in a JSON file, such as the `config.json` of a run."""
    try:
        values = json.loads(_read(path))
    # RecursionError: lists in lists, thousands deep.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({one_line(error)})") from error
    return from_dict(Config, values, path)


def _run(path: str) -> Config:
    # The file is not imported as a module: its name need not be a Python name, two files may have
    # the same name, and a file that changed since the last call must be read again.
    module = types.ModuleType("config_file")
    module.__file__ = path
    source = _read(path)
    with _one_line_errors(path):
        exec(compile(source, path, "exec"), module.__dict__)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise mismatch(
            where=path,
            found="no function get_config",
            expected="one that returns a bertjax Config",
        )
    with _one_line_errors(path):
        config = get_config()
    if not isinstance(config, Config):
        raise mismatch(
            where=path,
            found=f"get_config() giving {type(config).__name__}",
            expected="a bertjax Config",
        )
    return config


@contextmanager
def _one_line_errors(path: str) -> Iterator[None]:
    """Turn whatever ends the code of a configuration file into a `UserError` with its line."""
    try:
        yield
    # Also `sys.exit` and `KeyboardInterrupt`: a program that ends with status 0, or without a word,
    # would be taken for one that has done its work.
    except BaseException as error:
        raise UserError(f"{_where(path, error)}: {_reason(error)}") from error


def _where(path: str, error: BaseException) -> str:
    """Return the path, with the line in it at which the error came up, if there is one."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path


def _reason(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    # `sys.exit()` has no text, and the text of some errors has several lines.
    text = one_line(error)
    name = type(error).__name__
    return f"is no working configuration ({name}: {text})" if text else f"ended by {name}"
