"""Tokens that a folder of `transformers` registers, as its files list them.

They are kept in five files and fields. They are read here in the order in which version 5 adds
them to the engine, since of a token that is registered twice one form counts.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath
from tokenizers import AddedToken

from bertjax.data.tokenizers.given.named_tokens import MAP_FILE, named_tokens
from bertjax.data.tokenizers.given.token_json import Listed, json_of, token_of
from bertjax.data.tokenizers.vocabulary import ENGINE_FILE, ROLES, SETTINGS_FILE
from bertjax.errors import check, mismatch
from bertjax.storage import Json, read_json_if_there

ADDED_FILE = "added_tokens.json"


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
    named = named_tokens(path, settings, _marked(path, settings))
    if "added_tokens_decoder" in settings:
        with_ids = tokens_by_id(path, settings["added_tokens_decoder"])
    else:
        # These files count only where the settings have no list with ids.
        with_ids = [*_of_added_file(path, named.special), *in_engine]
    in_place = {each.token.content: each for each in in_engine} if engine_first else {}
    by_content = in_place | {each.token.content: each for each in _by_id(with_ids)}
    by_content |= _new_forms(named.tokens, by_content)
    for content in named.fields:
        # A token that the engine has in this form is not added again.
        if not _is_same(in_place.get(content), by_content[content]):
            by_content[content].token.special = True
    by_content.pop("", None)
    if settings.get("split_special_tokens") is not True:
        return list(by_content.values())
    _check_one_kind(path, [*with_ids, *named.tokens, *by_content.values()])
    return [each._replace(is_found=not each.token.special) for each in by_content.values()]


def _check_one_kind(path: epath.Path, listed: Sequence[Listed]) -> None:
    """Refuse a token that is both special and not where text that spells special ones is divided.

    Whether it is found then depends on the order in which a program adds its forms.
    """
    special = {each.token.content for each in listed if each.token.special}
    for each in listed:
        content = each.token.content
        check(
            each.token.special or content not in special,
            where=f"{path / SETTINGS_FILE}: split_special_tokens",
            found=f"the token {content!r}, which is special in one place and not in another",
            expected="it special in all places, or in none",
        )


def _new_forms(named: Sequence[Listed], known: Collection[str]) -> dict[str, Listed]:
    """The tokens that are not `known`, each in its last form; a form does not count twice."""
    last: dict[str, Listed] = {}
    seen: list[dict[str, Any]] = []
    for each in named:
        form = json_of(each.token)
        if each.token.content not in known and form not in seen:
            seen.append(form)
            last[each.token.content] = each
    return last


def _is_same(one: Listed | None, other: Listed) -> bool:
    return one is not None and json_of(one.token) == json_of(other.token)


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
        listed.append(Listed(where, token_of(where, token), token.get("id", -1)))
    return listed


def check_roles(path: epath.Path, settings: Json, pieces: Sequence[str]) -> None:
    """Refuse a folder that names other special tokens than `pieces`, which are those of `ROLES`."""
    marked = _marked(path, settings)
    for role, piece in zip(ROLES, pieces, strict=True):
        key = f"{role}_token"
        for file, values in ((MAP_FILE, marked), (SETTINGS_FILE, settings)):
            if values.get(key) is None:
                continue
            name = token_of(f"{path / file}: {key}", values[key]).content
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


def tokens_by_id(path: epath.Path, decoder: object) -> list[Listed]:
    """Return the tokens of `added_tokens_decoder` in `tokenizer_config.json`, by their ids."""
    where = f"{path / SETTINGS_FILE}: added_tokens_decoder"
    decoder = decoder or {}
    if not isinstance(decoder, Mapping):
        raise mismatch(where=where, found=repr(decoder)[:80], expected="an object")
    listed = [Listed(where, token_of(where, token), _number(i)) for i, token in decoder.items()]
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
