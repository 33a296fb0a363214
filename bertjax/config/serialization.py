"""A configuration as plain values and back, and from a file."""

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from bertjax.config.model import Remat
from bertjax.config.run import Config
from bertjax.errors import UserError, check

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain nested dicts, lists and numbers, for JSON."""
    return {
        f.name: to_dict(value)
        if dataclasses.is_dataclass(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for f in dataclasses.fields(config)
        for value in [getattr(config, f.name)]
    }


def from_dict(kind: type[T], values: dict[str, Any], where: str = "config") -> T:
    """The inverse of `to_dict`; unknown fields and wrong types raise `UserError`, missing ones take
    the default.
    """
    check(isinstance(values, dict), where=where, found=repr(values), expected="an object")
    known = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for name, value in values.items():
        check(
            name in known,
            where=where,
            found=f"the field {name!r}",
            expected=f"one of {', '.join(known)}",
        )
        hint = known[name]
        if hint == Remat and isinstance(
            value, bool
        ):  # as it was written before there were several policies
            value = "full" if value else "none"
        if dataclasses.is_dataclass(hint):
            made[name] = from_dict(typing.cast(type, hint), value, f"{where}.{name}")
        else:
            made[name] = _value(hint, value, f"{where}.{name}")
    return kind(**made)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        check(
            value in typing.get_args(hint),
            where=where,
            found=repr(value),
            expected=f"one of {', '.join(typing.get_args(hint))}",
        )
        return value
    if origin is tuple:
        check(isinstance(value, list | tuple), where=where, found=repr(value), expected="a list")
        return tuple(_value(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        check(
            abs(value) < 2**63,
            where=where,
            found=f"an integer of {value.bit_length()} bits",
            expected="a smaller one",
        )
        return float(value)
    good = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    check(good, where=where, found=repr(value), expected=f"a value of type {hint.__name__}")
    return value


def load_config(path: str) -> Config:
    """The configuration that the Python file at `path` builds with its `get_config()`.

    Raises `UserError` when the file is missing, cannot be run, or gives no `Config`.
    """
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
