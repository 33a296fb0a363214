"""Registered tokens: entries that text keeps whole, as `<user>` or `[unused1]`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from tokenizers import AddedToken
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.given.class_names import GENERAL_CLASSES
from bertjax.data.tokenizers.given.folder import Folder
from bertjax.data.tokenizers.given.listed_tokens import listed_tokens, tokens_by_id
from bertjax.data.tokenizers.given.token_json import FLAGS, Listed, json_of
from bertjax.data.tokenizers.given.tokenizer_class import declared_class
from bertjax.errors import check


class Kept(NamedTuple):
    """Tokens that text keeps whole."""

    tokens: list[AddedToken]
    new: list[str]
    """Those which become entries, in the order of their ids."""


def kept_whole(
    listed: Sequence[Listed], ids: Mapping[str, int], roles: Collection[str], room: int
) -> Kept:
    """Return what a vocabulary (`ids` by entry) has to keep whole of the listed tokens.

    A token that is no entry becomes one: as in `transformers`, its id is the next one. `room` is
    the number of ids that the model has (0: not known). The special tokens `roles` are left out,
    since text never becomes one. Raises `UserError` naming a token that has another id than its
    file says, or none that the model has.
    """
    kept: list[AddedToken] = []
    new: list[str] = []
    for each in listed:
        content = each.token.content
        if content in roles and content not in ids:
            # The tokenizer itself names what it lacks.
            continue
        size = len(ids) + len(new)
        own = ids.get(content, size)
        fits = content in ids or room == 0 or own < room
        check(
            each.may_have(own) and fits,
            where=each.where,
            found=f"the token {content!r}{_of_id(each.id)} added to a vocabulary of {size}",
            expected=f"the id {own}" if fits else f"none, for a model of {room} ids",
        )
        if content not in ids:
            new.append(content)
        if content not in roles and each.is_found:
            kept.append(each.token)
    return Kept(kept, new)


def kept_of(folder: Folder, entries: Iterable[str], roles: Collection[str]) -> Kept:
    """Return the tokens of a folder that text keeps whole, beside the vocabulary's own `entries`.

    That is `kept_whole` for the classes that build their engine themselves.
    """
    _, name = declared_class(folder)
    listed = listed_tokens(folder.path, folder.settings, folder.engine, name in GENERAL_CLASSES)
    room = folder.model.get("vocab_size")
    ids = {entry: i for i, entry in enumerate(entries)}
    return kept_whole(listed, ids, roles, room if type(room) is int else 0)


def saved_tokens(path: epath.Path, settings: Mapping[str, Any]) -> list[AddedToken]:
    """Return the tokens that `registered_settings` wrote to the file `path`."""
    listed = tokens_by_id(path.parent, settings.get("added_tokens_decoder"))
    return [each.token for each in listed]


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
    decoder = {str(engine.token_to_id(token.content)): json_of(token) for token in registered}
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


def _of_id(i: object) -> str:
    return "" if i is None else f" of id {str(i)[:20]}"
