"""Tokens that a folder of `transformers` registers, as its files list them.

They are kept in five files and fields. They are read here in the order in which version 5 adds
them to the engine, since of a token that is registered twice one form counts.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from tokenizers import AddedToken

from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, ROLES, SETTINGS_FILE, check_bool
from bertjax.errors import check, mismatch
from bertjax.storage import Json, read_json_if_there

ADDED_FILE, MAP_FILE = "added_tokens.json", "special_tokens_map.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_ADDITIONAL, _EXTRA = "additional_special_tokens", "extra_special_tokens"
_SURROGATE = re.compile("[\ud800-\udfff]")


class Listed(NamedTuple):
    """A token as a file lists it."""

    where: str
    """The file and field, for errors."""
    token: AddedToken
    id: Any
    """The id that the file gives it, of any type; None: the file gives none."""

    def may_have(self, i: int) -> bool:
        """Return whether the file gives the token this id, or none."""
        # `isinstance` would take JSON's true for the id 1.
        return self.id is None or (type(self.id) is int and self.id == i)


def listed_tokens(
    path: epath.Path, settings: Json, engine: Json, engine_first: bool
) -> list[Listed]:
    """Return the registered tokens of a folder, the special ones included, each once.

    Args:
        settings: of `tokenizer_config.json`.
        engine: of `tokenizer.json`.
        engine_first: True for the general classes of `transformers`, which take the engine with its
            tokens as it is; BERT's and RoBERTa's build another one.

    Raises `UserError` naming the file and field of what is no token.
    """
    in_engine = engine_tokens(path, engine)
    by_content: dict[str, Listed] = {}
    if engine_first:
        by_content |= {listed.token.content: listed for listed in in_engine}
    if "added_tokens_decoder" in settings:
        named = _named(path, _merged(settings, {}))
        with_ids = tokens_by_id(path, settings["added_tokens_decoder"])
    else:
        # These files count only where the settings have no list with ids.
        marked = _marked(path, settings)
        named = _named(path, _merged(settings, marked))
        # Version 5 overlooks the older list of the map where it reads the tokens without flags.
        marked = {key: value for key, value in marked.items() if key != _ADDITIONAL}
        special = {listed.token.content for listed in _named(path, _merged(settings, marked))}
        with_ids = [*_of_added_file(path, special), *in_engine]
    for listed in _by_id(with_ids):
        by_content[listed.token.content] = listed
    for listed in named:
        by_content.setdefault(listed.token.content, listed)
    by_content.pop("", None)
    if settings.get("split_special_tokens") is True:
        return [listed for listed in by_content.values() if not listed.token.special]
    return list(by_content.values())


def is_saved_by_others(path: epath.Path, settings: Json) -> bool:
    """Return whether `transformers` saved a folder that bertjax had made, and kept its fields.

    Tokens may have been added since. Version 5 adds a field of its own, version 4 a file.
    """
    return "backend" in settings or (path / MAP_FILE).exists()


def all_settings(path: epath.Path, settings: Json) -> Json:
    """Return the settings with those that earlier versions kept in `special_tokens_map.json`."""
    return {**settings, **_marked(path, settings)}


def engine_tokens(path: epath.Path, engine: Json) -> list[Listed]:
    """Return the added tokens of a `tokenizer.json` of the folder `path`."""
    where = f"{path / ENGINE_FILE}: added_tokens"
    tokens = engine.get("added_tokens") or []
    check(isinstance(tokens, list), where=where, found=repr(tokens)[:80], expected="a list")
    listed = []
    for token in tokens:
        check(isinstance(token, Mapping), where=where, found=repr(token)[:80], expected="an object")
        # A token without an id is none that the file numbers: -1 is no entry's.
        listed.append(Listed(where, _token(where, token), token.get("id", -1)))
    return listed


def check_roles(path: epath.Path, settings: Json, pieces: Sequence[str]) -> None:
    """Refuse a folder that names other special tokens than `pieces`, which are those of `ROLES`."""
    marked = _marked(path, settings)
    for role, piece in zip(ROLES, pieces, strict=True):
        key = f"{role}_token"
        for file, values in ((MAP_FILE, marked), (SETTINGS_FILE, settings)):
            if values.get(key) is None:
                continue
            name = _token(f"{path / file}: {key}", values[key]).content
            check(
                name == piece,
                where=f"{path / file}: {key}",
                found=repr(name),
                expected=repr(piece),
            )
            break


def _marked(path: epath.Path, settings: Json) -> Json:
    """The object in `special_tokens_map.json`; empty where the settings have a list with ids.

    As in `transformers`, the file does not count then.
    """
    return {} if "added_tokens_decoder" in settings else read_json_if_there(path / MAP_FILE)


def _token(where: str, value: object) -> AddedToken:
    """The token that a JSON value stands for: its text, or an object with flags."""
    content = value.get("content") if isinstance(value, Mapping) else value
    # JSON can spell half of a surrogate pair, which is no text.
    if not isinstance(content, str) or _SURROGATE.search(content):
        raise mismatch(where=where, found=repr(value)[:80], expected="a token's text or object")
    if not isinstance(value, Mapping):
        return AddedToken(content, special=True)
    flags = {name: value[name] for name in FLAGS if name in value}
    for name, flag in flags.items():
        check_bool(f"{where}: {name}", flag)
    # Without "normalized" in the file a special token is found in the text as it is written.
    return AddedToken(content, **flags)


def json_of(token: AddedToken) -> dict[str, Any]:
    """Return a token as JSON files have it: its content and flags."""
    return {"content": token.content, **{name: getattr(token, name) for name in FLAGS}}


def _as_special(value: object) -> object:
    return {**value, "special": True} if isinstance(value, Mapping) else value


def _merged(settings: Json, marked: Json) -> dict[str, Any]:
    """The fields of both files that name tokens; those of `special_tokens_map.json` count first.

    Version 5 calls the list of further tokens "extra". It takes the list of the older name where
    the newer one is missing or, in the settings, empty.
    """
    merged = dict(settings)
    if _ADDITIONAL in merged and not merged.get(_EXTRA):
        merged[_EXTRA] = merged.pop(_ADDITIONAL)
    own = merged.get(_EXTRA)
    merged |= {key: _as_special(value) for key, value in marked.items()}
    if isinstance(own, list) and isinstance(marked.get(_EXTRA), list):
        merged[_EXTRA] = [*own, *marked[_EXTRA]]
    if _EXTRA not in merged and _ADDITIONAL in merged:
        merged[_EXTRA] = merged.pop(_ADDITIONAL)
    return merged


def _named(path: epath.Path, values: Json) -> list[Listed]:
    """The tokens without ids: `NAME_token`, and those in lists of special tokens."""
    listed: list[Listed] = []
    for key, value in values.items():
        where = f"{path / SETTINGS_FILE} or {MAP_FILE}: {key}"
        if key.endswith("_token") and isinstance(value, (str, Mapping)):
            listed.append(Listed(where, _token(where, value), None))
    for key in (_EXTRA, "model_specific_special_tokens"):
        where = f"{path / SETTINGS_FILE} or {MAP_FILE}: {key}"
        tokens = values.get(key) or []
        if isinstance(tokens, Mapping):
            tokens = list(tokens.values())
        check(isinstance(tokens, list), where=where, found=repr(tokens)[:80], expected="a list")
        listed += [Listed(where, _token(where, _as_special(token)), None) for token in tokens]
    return listed


def tokens_by_id(path: epath.Path, decoder: object) -> list[Listed]:
    """Return the tokens of `added_tokens_decoder` in `tokenizer_config.json`, by their ids."""
    where = f"{path / SETTINGS_FILE}: added_tokens_decoder"
    decoder = decoder or {}
    if not isinstance(decoder, Mapping):
        raise mismatch(where=where, found=repr(decoder)[:80], expected="an object")
    listed = [Listed(where, _token(where, token), _number(i)) for i, token in decoder.items()]
    return _by_id(listed)


def _of_added_file(path: epath.Path, special: Collection[str]) -> list[Listed]:
    """The tokens of `added_tokens.json`, without flags; other files name the `special` ones."""
    listed = []
    for content, i in read_json_if_there(path / ADDED_FILE).items():
        is_special = content in special
        token = AddedToken(content, normalized=not is_special, special=is_special)
        listed.append(Listed(str(path / ADDED_FILE), token, i))
    return listed


def _by_id(listed: Sequence[Listed]) -> list[Listed]:
    """The tokens in the order of their ids; ids that are no numbers come first."""
    return sorted(listed, key=lambda token: token.id if type(token.id) is int else -1)


def _number(text: str) -> int | str:
    """The id that a key spells; a key that is no number is returned unchanged."""
    # At most 9 digits, because `int` raises another error for more than 4,300 digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
