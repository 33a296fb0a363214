"""Tokens that a folder of `transformers` names without ids: `NAME_token`, and lists of others.

A token that is no entry gets the next id when it is added. So their order decides ids. It is that
of version 5: the attributes of every tokenizer, names of the folder's own, the list of others.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from tokenizers import AddedToken

from bertjax.data.tokenizers.given.token_json import Listed, as_special, token_of
from bertjax.data.tokenizers.vocabulary import SETTINGS_FILE
from bertjax.errors import mismatch
from bertjax.storage import Json

MAP_FILE = "special_tokens_map.json"
_ATTRIBUTES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_ADDITIONAL, _EXTRA = "additional_special_tokens", "extra_special_tokens"
_OWN = "model_specific_special_tokens"


class Named(NamedTuple):
    """The tokens that a folder names without ids."""

    tokens: list[Listed]
    """In the order in which they are added."""
    fields: set[str]
    """The contents of those which have a field of their own: they are special, whatever a file that
    gives them an id says."""
    special: set[str]
    """The contents of those which make an entry of `added_tokens.json` special."""


def named_tokens(path: epath.Path, settings: Json, marked: Json) -> Named:
    """Return the tokens that the folder `path` names without ids.

    Args:
        settings: of `tokenizer_config.json`.
        marked: of `special_tokens_map.json`; empty where the file does not count.

    Raises `UserError` naming the file and field of what is no token.
    """
    values = _merged(path, settings, marked)
    attributes = {key: values[key] for key in _ATTRIBUTES if values.get(key) is not None}
    own = _own_fields(values)
    others = _list(path, values, _EXTRA)
    # Version 5 overlooks objects of the settings here, which are no tokens yet.
    texts = [_text(value) for value in [*attributes.values(), *others]]
    special = {text for text in texts if text is not None}
    if _EXTRA not in values:
        others = _list(path, values, _ADDITIONAL)
    tokens = [_listed(path, key, value) for key, value in (attributes | own).items()]
    fields = {listed.token.content for listed in tokens}
    tokens += [_listed(path, _EXTRA, value) for value in others]
    return Named(tokens, fields, special)


def _merged(path: epath.Path, settings: Json, marked: Json) -> dict[str, Any]:
    """The fields of both files; those of `special_tokens_map.json` count first.

    The tokens of own names that are texts are those of the field `_OWN`. Objects of the map are
    tokens already.
    """
    values = dict(settings)
    # Version 5 has a new name for the list of other tokens.
    if _ADDITIONAL in values and not values.get(_EXTRA):
        values[_EXTRA] = values.pop(_ADDITIONAL)
    texts = {key: values.pop(key) for key in settings if _is_own(key, settings[key], str)}
    if isinstance(values.get(_EXTRA), Mapping):
        texts |= values.pop(_EXTRA)
    if texts:
        values[_OWN] = texts
    for key, value in marked.items():
        if key == _EXTRA and isinstance(value, list):
            value = [*_list(path, values, _EXTRA), *(_marked_token(path, key, v) for v in value)]
        elif key != _EXTRA and isinstance(value, Mapping):
            value = _marked_token(path, key, value)
        values[key] = value
    if isinstance(values.get(_EXTRA), Mapping):
        values[_OWN] = {**_object(path, values), **values.pop(_EXTRA)}
    values[_OWN] = _object(path, values)
    return values


def _own_fields(values: Json) -> dict[str, Any]:
    """The tokens of own names: those that are objects come before those that are texts.

    An object is a token only where it says so, by its `__type`, or is one of the map.
    """
    own: dict[str, Any] = {}
    for key, value in values.items():
        is_object = isinstance(value, Mapping) and value.get("__type") == "AddedToken"
        if _is_own(key, value, (str, AddedToken)) or (is_object and _is_own(key, value, Mapping)):
            own[key] = value
    return own | values[_OWN]


def _is_own(key: str, value: object, kinds: type | tuple[type, ...]) -> bool:
    is_name = key.endswith("_token") and key not in _ATTRIBUTES
    return is_name and isinstance(value, kinds)


def _text(value: object) -> str | None:
    """The text of a token; None for an object of JSON."""
    if isinstance(value, AddedToken):
        return value.content
    return value if isinstance(value, str) else None


def _list(path: epath.Path, values: Json, key: str) -> Sequence[Any]:
    tokens = values.get(key) or []
    if not isinstance(tokens, list):
        raise mismatch(where=_where(path, key), found=repr(tokens)[:80], expected="a list")
    return tokens


def _object(path: epath.Path, values: Json) -> Json:
    """The tokens of the field `_OWN`, by their names."""
    tokens = values.get(_OWN) or {}
    if not isinstance(tokens, Mapping):
        raise mismatch(where=_where(path, _OWN), found=repr(tokens)[:80], expected="an object")
    return tokens


def _marked_token(path: epath.Path, key: str, value: object) -> object:
    """The token of an object in the map, which is special; a text stays as it is."""
    if not isinstance(value, Mapping):
        return value
    return token_of(f"{path / MAP_FILE}: {key}", as_special(value))


def _listed(path: epath.Path, key: str, value: object) -> Listed:
    where = _where(path, key)
    token = value if isinstance(value, AddedToken) else token_of(where, value)
    return Listed(where, token, None)


def _where(path: epath.Path, key: str) -> str:
    return f"{path / SETTINGS_FILE} or {MAP_FILE}: {key}"
