"""Special tokens by their roles: as the settings name them, or the template of inputs, or as usual.

Files that were made for decoders have `bos_token` and `eos_token` in place of `[CLS]` and `[SEP]`.
Often they have no token for unknown text, since every byte is an entry, and pad with the token that
ends a text.
"""

from collections.abc import Mapping, Sequence

from bertjax.data.tokenizers.vocabulary import (
    ALBERT_TOKENS,
    ROBERTA_TOKENS,
    ROLES,
    SPECIAL_TOKENS,
)
from bertjax.errors import check
from bertjax.storage import Json


def named_roles(
    file: str, ids: Mapping[str, int], settings: Json, unknown: str | None, post_processor: Json
) -> dict[str, str]:
    """Return the name of each role's token, in the order of `ROLES`.

    That is the name in the settings, and else the usual one. `bos_token` and `eos_token` may stand
    in for `cls_token` and `sep_token`: where there is a choice, the one counts that the template
    puts around a text. `unknown` is the model's own token for unknown text. Where it has none, no
    token need have this role, and one that has another role has not. Raises `UserError` for a token
    that is missing, and for one with two roles, except that one token may begin and end a text,
    where the template says so, and that padding may be `bos_token` or `eos_token`.
    """
    given = {role: name_of(settings.get(f"{role}_token")) for role in (*ROLES, "bos", "eos")}
    usual = _usual(ids, given)
    first, last = _around_text(post_processor)
    roles = {role: given[role] or usual[role] for role in ROLES}
    roles["cls"] = _at_end(ids, first, given["cls"], usual["cls"], given["bos"])
    roles["sep"] = _at_end(ids, last, given["sep"], usual["sep"], given["eos"])
    if unknown is None and not _stands_for_unknown(ids, given, roles):
        del roles["unk"]
    _check_roles(file, ids, roles, given, may_be_one=first == last != "")
    return roles


def name_of(token: object) -> str:
    """Return the text of a token, given as a text or an object; empty where there is none."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else ""


def _usual(ids: Mapping[str, int], given: Mapping[str, str]) -> dict[str, str]:
    """The set of usual names of which least is missing, where the settings give none."""

    def missing(names: Sequence[str]) -> int:
        pairs = zip(ROLES, names, strict=True)
        return sum(not given[role] and name not in ids for role, name in pairs)

    names = min((SPECIAL_TOKENS, ROBERTA_TOKENS, ALBERT_TOKENS), key=missing)
    return dict(zip(ROLES, names, strict=True))


def _at_end(ids: Mapping[str, int], seen: str, own: str, usual: str, stand_in: str) -> str:
    """The token at an end of a text, where the template has `seen`."""
    if stand_in and stand_in == seen:
        return stand_in
    if own or usual in ids or stand_in not in ids:
        return own or usual
    return stand_in


def _stands_for_unknown(
    ids: Mapping[str, int], given: Mapping[str, str], roles: Mapping[str, str]
) -> bool:
    """Return whether a token stands for unknown text, of a model that does not name one."""
    if not given["unk"]:
        return roles["unk"] in ids
    others = [given["bos"], given["eos"], *(roles[role] for role in ROLES if role != "unk")]
    return given["unk"] not in others


def _check_roles(
    file: str,
    ids: Mapping[str, int],
    roles: Mapping[str, str],
    given: Mapping[str, str],
    may_be_one: bool,
) -> None:
    """Refuse tokens that are missing; `may_be_one`: the same token may begin and end a text."""
    for role, name in roles.items():
        check(
            name in ids,
            where=file,
            found=f"no {name} among {len(ids)} entries",
            expected=f"one, or the name of the special token in {role}_token",
        )
    ends = [roles["cls"]] if may_be_one else [roles["cls"], roles["sep"]]
    padding = [] if roles["pad"] in (given["bos"], given["eos"]) else [roles["pad"]]
    others = [name for role, name in roles.items() if role in ("unk", "mask")]
    tokens = [*ends, *padding, *others]
    # Even where it may be that of an end, it is not the mask.
    is_mask = roles["mask"] in (roles["pad"], roles["sep"])
    check(
        len(set(tokens)) == len(tokens) and not is_mask,
        where=file,
        found="the special tokens " + " ".join(roles.values()),
        expected="another token for each of " + ", ".join(ROLES),
    )


def _around_text(post_processor: Json) -> tuple[str, str]:
    """The tokens directly before and after a text; empty where there is none.

    The file is opened later, so what is no post-processor need not be refused here.
    """
    steps = [post_processor]
    if isinstance(post_processor.get("processors"), list):
        steps = [step for step in post_processor["processors"] if isinstance(step, Mapping)]
    for step in steps:
        if isinstance(step.get("single"), list):
            return _around_sequence(step["single"])
        if "cls" in step and "sep" in step:
            return _first_text(step["cls"]), _first_text(step["sep"])
    return "", ""


def _around_sequence(template: Sequence[object]) -> tuple[str, str]:
    pieces = [piece for piece in template if isinstance(piece, Mapping)]
    place = next((i for i, piece in enumerate(pieces) if "Sequence" in piece), len(pieces))
    before, after = pieces[:place], pieces[place + 1 :]
    return _special_in(before[-1:]), _special_in(after[:1])


def _special_in(pieces: Sequence[Mapping[str, object]]) -> str:
    for piece in pieces:
        values = piece.get("SpecialToken")
        if isinstance(values, Mapping):
            return name_of(values.get("id"))
    return ""


def _first_text(values: object) -> str:
    return name_of(values[0]) if isinstance(values, list) and values else ""
