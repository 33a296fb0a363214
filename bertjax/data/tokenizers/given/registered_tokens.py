"""Registered tokens: entries that text keeps whole, as `<user>` or `[unused1]`.

`transformers` keeps them in five files and fields. They are read here in the order in which its
version 5 adds them to the engine, since of a token that is registered twice one form counts.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, ROLES, SETTINGS_FILE, check_bool
from bertjax.errors import check, mismatch
from bertjax.storage import read_json

ADDED_FILE, MAP_FILE = "added_tokens.json", "special_tokens_map.json"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_ADDITIONAL, _EXTRA = "additional_special_tokens", "extra_special_tokens"
Json = Mapping[str, Any]


class Listed(NamedTuple):
    """A token as a file lists it."""

    where: str
    """The file and field, for errors."""
    token: AddedToken
    id: Any
    """The id that the file gives it, of any type; None: the file gives none."""


class Kept(NamedTuple):
    """Tokens that text keeps whole."""

    tokens: list[AddedToken]
    new: list[str]
    """Those which become entries, in the order of their ids."""


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
        with_ids = _of_decoder(path, settings["added_tokens_decoder"])
    else:
        # These files count only where the settings have no list with ids.
        marked = _read_if_there(path / MAP_FILE)
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


def kept_whole(
    listed: Sequence[Listed], ids: Mapping[str, int], roles: Collection[str], room: int
) -> Kept:
    """Return what a vocabulary (`ids` by entry) has to keep whole of the listed tokens.

    A token that is no entry becomes one: as in `transformers`, its id is the next one. `room` is
    the number of ids that the model has (0: not known). The special tokens `roles` are left out,
    since text never becomes one. Raises `UserError` naming a token that has another id than its
    file says, or none that the model has.
    """
    kept, new = [], []
    for where, token, i in listed:
        content = token.content
        if content in roles and content not in ids:
            # The tokenizer itself names what it lacks.
            continue
        size = len(ids) + len(new)
        own = ids.get(content, size)
        # `isinstance` would take JSON's true for the id 1.
        as_listed = i is None or (type(i) is int and i == own)
        fits = content in ids or room == 0 or own < room
        check(
            as_listed and fits,
            where=where,
            found=f"the token {content!r}{_of_id(i)} added to a vocabulary of {size}",
            expected=f"the id {own}" if fits else f"none, for a model of {room} ids",
        )
        if content not in ids:
            new.append(content)
        if content not in roles:
            kept.append(token)
    return Kept(kept, new)


def check_roles(path: epath.Path, settings: Json, pieces: Sequence[str]) -> None:
    """Refuse a folder that names other special tokens than `pieces`, which are those of `ROLES`."""
    marked = {} if "added_tokens_decoder" in settings else _read_if_there(path / MAP_FILE)
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


def saved_tokens(path: epath.Path, settings: Json) -> list[AddedToken]:
    """Return the tokens that `registered_settings` wrote to the file `path`."""
    listed = _by_id(_of_decoder(path.parent, settings.get("added_tokens_decoder")))
    return [listed.token for listed in listed]


def add_registered(
    engine: Engine, path: object, registered: Sequence[AddedToken], special: Sequence[str]
) -> None:
    """Make `engine` keep tokens whole; `UserError` for one that is no entry, or is special."""
    for token in registered:
        check(
            engine.token_to_id(token.content) is not None and token.content not in special,
            where=str(path),
            found=f"the registered token {token.content!r}",
            expected="an entry of the vocabulary, and no special token",
        )
    check_distinct(engine, path, registered)
    engine.add_tokens(list(registered))


def check_distinct(engine: Engine, path: object, registered: Iterable[AddedToken]) -> None:
    """Refuse two tokens that are one text where they are looked for, as `<A>` and `<a>` uncased.

    The package `tokenizers` takes either of them, in the order of a hash map: another one in each
    process. Tokens that are not normalized are looked for in the text as it is written.
    """
    seen: dict[str, str] = {}
    for token in registered:
        if not token.normalized:
            continue
        normalizer = engine.normalizer
        form = normalizer.normalize_str(token.content) if normalizer else token.content
        check(
            form not in seen,
            where=str(path),
            found=f"the registered tokens {seen.get(form)!r} and {token.content!r}, both {form!r}"
            " in normalized text",
            expected="one of them, for programs take either at random",
        )
        seen[form] = token.content


def registered_settings(engine: Engine, registered: Sequence[AddedToken]) -> dict[str, Any]:
    """Return the fields of `tokenizer_config.json` for tokens of `engine`; none without tokens."""
    if not registered:
        return {}
    decoder = {}
    for token in registered:
        flags = {name: getattr(token, name) for name in FLAGS}
        decoder[str(engine.token_to_id(token.content))] = {"content": token.content, **flags}
    special = [token.content for token in registered if token.special]
    return {"added_tokens_decoder": decoder, "additional_special_tokens": special}


def registered_text(registered: Sequence[AddedToken]) -> str:
    """Return a text of the tokens for the fingerprint; "" without tokens, as before there were."""
    lines = []
    for token in registered:
        flags = "".join("ny"[getattr(token, name)] for name in FLAGS)
        lines.append(f" registered {token.content!r} {flags}")
    # The order changes nothing: the engine takes the longest token at the first place.
    return "".join(sorted(lines))


def has_space(text: str) -> bool:
    """Return whether a text has white space in it."""
    return any(character.isspace() for character in text)


def _read_if_there(path: epath.Path) -> Json:
    return read_json(path) if path.exists() else {}


def _token(where: str, value: object) -> AddedToken:
    """The token that a JSON value stands for: its text, or an object with flags."""
    if isinstance(value, str):
        return AddedToken(value, special=True)
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
        raise mismatch(where=where, found=repr(value)[:80], expected="a token's text or object")
    flags = {name: value[name] for name in FLAGS if name in value}
    for name, flag in flags.items():
        check_bool(f"{where}: {name}", flag)
    # Without "normalized" in the file a special token is found in the text as it is written.
    return AddedToken(value["content"], **flags)


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
    found: list[Listed] = []
    for key, value in values.items():
        where = f"{path / SETTINGS_FILE} or {MAP_FILE}: {key}"
        if key.endswith("_token") and isinstance(value, (str, Mapping)):
            found.append(Listed(where, _token(where, value), None))
    for key in (_EXTRA, "model_specific_special_tokens"):
        where = f"{path / SETTINGS_FILE} or {MAP_FILE}: {key}"
        tokens = values.get(key) or []
        if isinstance(tokens, Mapping):
            tokens = list(tokens.values())
        check(isinstance(tokens, list), where=where, found=repr(tokens)[:80], expected="a list")
        found += [Listed(where, _token(where, _as_special(token)), None) for token in tokens]
    return found


def _of_decoder(path: epath.Path, decoder: object) -> list[Listed]:
    where = f"{path / SETTINGS_FILE}: added_tokens_decoder"
    decoder = decoder or {}
    if not isinstance(decoder, Mapping):
        raise mismatch(where=where, found=repr(decoder)[:80], expected="an object")
    return [Listed(where, _token(where, token), _number(i)) for i, token in decoder.items()]


def _of_added_file(path: epath.Path, special: Collection[str]) -> list[Listed]:
    """The tokens of `added_tokens.json`, without flags; other files name the `special` ones."""
    listed = []
    for content, i in _read_if_there(path / ADDED_FILE).items():
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


def _of_id(i: object) -> str:
    return "" if i is None else f" of id {str(i)[:20]}"
