"""Tokens that the settings beside a `tokenizer.json` add to it, as `transformers` adds them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from bertjax.data.tokenizers.vocabulary import SETTINGS_FILE
from bertjax.errors import check
from bertjax.storage import read_json

MAP_FILE, ADDED_FILE = "special_tokens_map.json", "added_tokens.json"
DECODER = "added_tokens_decoder"
EXTRA = ("additional_special_tokens", "extra_special_tokens")
# `transformers` adds those that are missing in this order, and before other roles.
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Added(NamedTuple):
    """A token that the settings add."""

    content: str
    id: int | None
    """Its id, where the settings say it."""
    flags: dict[str, bool]
    """How it is found in text, by the names of a `tokenizer.json`."""


def settings_beside(folder: epath.Path) -> dict[str, Any]:
    """Return the settings of a folder, with those that earlier versions kept in other files."""
    settings = _read_if_there(folder / SETTINGS_FILE)
    # Newer settings have the field, and then the other files are not read.
    if DECODER in settings:
        return settings
    named = _read_if_there(folder / MAP_FILE)
    # `transformers` 5 overlooks the older field of the map here.
    extra = _extra(settings) + _extra({EXTRA[1]: named.get(EXTRA[1])})
    settings |= named
    roles = [settings.get(f"{role}_token") for role in _ROLES]
    names = {content_of(token) for token in roles + extra}
    decoder = {}
    for name, i in _read_if_there(folder / ADDED_FILE).items():
        special = name in names
        decoder[str(i)] = {"content": name, "normalized": not special, "special": special}
    return settings | {DECODER: decoder} if decoder else settings


def added_by_settings(settings: Mapping[str, Any]) -> list[Added]:
    """Return the tokens of the settings in the order in which `transformers` adds them."""
    decoder = settings.get(DECODER) or {}
    check(
        isinstance(decoder, dict),
        where=f"{SETTINGS_FILE}: {DECODER}",
        found=repr(decoder)[:80],
        expected="an object",
    )
    added = [Added(content_of(t), _number(i), _flags(t)) for i, t in decoder.items()]
    added.sort(key=lambda token: token.id or 0)
    keys = [f"{role}_token" for role in _ROLES]
    keys += [key for key in settings if key.endswith("_token") and key not in keys]
    registered = [settings.get(key) for key in keys] + _extra(settings)
    for token in registered:
        flags = {**_flags(token), "special": True}
        added.append(Added(content_of(token), None, flags))
    return [token for token in added if token.content]


def content_of(token: object) -> str:
    """Return the text of a token, given as a text or as an object; empty where it has none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _extra(settings: Mapping[str, Any]) -> list[Any]:
    extra: list[Any] = []
    for key in EXTRA:
        value = settings.get(key)
        if isinstance(value, dict):
            value = list(value.values())
        extra += value if isinstance(value, list) else []
    return extra


def _flags(token: object) -> dict[str, bool]:
    given = token if isinstance(token, dict) else {}
    return {name: given.get(name, False) is True for name in _FLAGS}


def _number(text: str) -> int:
    """The id that a key spells; -1, which is no id, for a key that is no number."""
    # At most 9 digits, because `int` raises another error for more than 4,300 digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _read_if_there(path: epath.Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}
