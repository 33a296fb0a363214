"""Special tokens that a `tokenizer.json` puts around texts: the layout of its rows."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from tokenizers import Encoding
from tokenizers import Tokenizer as Engine

from bertjax.data.row_layout import RowLayout, bert_layout
from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.declared.engines import engine_errors
from bertjax.data.tokenizers.declared.roles import name_of
from bertjax.data.tokenizers.vocabulary import bert_post_processor
from bertjax.errors import check, mismatch
from bertjax.storage import Json

Form = Literal["bert", "flat", "roberta", "own", "none", "end"]
"""The inputs that a file makes.

bert: [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with the segments 0 and 1. flat: the same with one
segment, for models that have no others. roberta: <s> A </s>, and <s> A </s></s> B </s>, where the
rows here have one </s> between the texts. own: one of `_OWN_LAYOUTS`, which the rows here have too.

Others, in whose place the rows here have those of BERT, for a row needs a first token. none: no
special tokens. end: only the one after each text."""
_REPLACED: tuple[Form, ...] = ("none", "end")
_OWN_LAYOUTS: tuple[tuple[str, str, str], ...] = (
    ("cls", "cls", ""),
    ("cls", "", ""),
    ("cls", "sep cls", "sep"),
)
"""Layouts other than BERT's: the roles of the tokens before A, between A and B, and after B."""

log = logging.getLogger("bertjax")


class Inputs(NamedTuple):
    """What a file puts around texts, and the layout of the rows that are made here."""

    form: Form
    layout: RowLayout

    @property
    def gives_segments(self) -> bool:
        """Whether programs give a model the segments of pairs, so that they must be told apart."""
        return self.form not in ("flat", "roberta") and self.layout.first_between is not None


def inputs_of(content: Content, engine: Engine, has_segments: bool = True) -> Inputs:
    """Return the inputs that a file declares; `UserError` for any that rows cannot have.

    `engine` is that of the whole content. `has_segments`: programs give a model the segments.
    """
    cls, sep = (content.ids[content.roles[role]] for role in ("cls", "sep"))
    seen = _encoded(content, engine)
    form = _form_with_ends(cls, sep, seen, has_segments)
    if form:
        return Inputs(form, bert_layout(cls, sep))
    for layout in _own_layouts(content):
        declared = _as_declared(layout, seen, has_segments)
        if declared:
            return Inputs("own", declared)
    raise mismatch(
        where=f"{content.file}: post_processor",
        found=f"{_shown(seen.one)} for one text and {_shown(seen.two)} for two",
        expected=(
            "[CLS] A [SEP] and [CLS] A [SEP] B [SEP] with the segments 0 and 1, or <s> A </s> and "
            "<s> A </s></s> B </s>, or only the token before a text, or none"
        ),
    )


def _form_with_ends(cls: int, sep: int, seen: "_Encoded", has_segments: bool) -> Form | None:
    """The form of inputs for which rows are those of BERT; None for other inputs."""
    a, b, one, two = seen
    if one.ids == a and two.ids == a + b:
        return "none"
    if one.ids == [*a, sep] and two.ids == [*a, sep, *b, sep]:
        return "end"
    first = [cls, *a, sep]
    if one.ids != first or any(one.type_ids):
        return None
    segments = [0] * len(first) + [1] * (len(b) + 1)
    is_flat = not any(two.type_ids)
    if two.ids == [*first, *b, sep] and two.type_ids == segments:
        return "bert"
    if two.ids == [*first, *b, sep] and is_flat and not has_segments:
        return "flat"
    if two.ids == [*first, sep, *b, sep] and is_flat:
        return "roberta"
    return None


def _own_layouts(content: Content) -> Iterator[RowLayout]:
    """Yield each of `_OWN_LAYOUTS` with the ids of a file's tokens."""
    for places in _OWN_LAYOUTS:
        before, between, after = (_ids_of(content, roles) for roles in places)
        yield RowLayout(before, between, after)


def _ids_of(content: Content, roles: str) -> tuple[int, ...]:
    return tuple(content.ids[content.roles[role]] for role in roles.split())


def _as_declared(layout: RowLayout, seen: "_Encoded", has_segments: bool) -> RowLayout | None:
    """The layout with the segments of the file's pairs; None if the file has other inputs."""
    a, b, one, two = seen
    single = [*layout.before, *a, *layout.after]
    second = [*b, *layout.after]
    if one.ids != single or any(one.type_ids):
        return None
    if two.ids != [*layout.before, *a, *layout.between, *second]:
        return None
    if not has_segments or not any(two.type_ids):
        return replace(layout, first_between=None)
    begin = two.type_ids.index(1) if 1 in two.type_ids else 0
    first_between = begin - len(layout.before) - len(a)
    segments = [0] * begin + [1] * (len(two.ids) - begin)
    if two.type_ids != segments or not 0 <= first_between <= len(layout.between):
        return None
    return replace(layout, first_between=first_between)


def uses_segments(settings: Mapping[str, Any]) -> bool:
    """Return whether programs give a model the segments of its tokens; by default they may."""
    names = settings.get("model_input_names")
    return not isinstance(names, list) or "token_type_ids" in names


def export_post_processor(content: Content, form: Form) -> dict[str, Any]:
    """Return the file's post-processor; that of the rows here where it declares other inputs.

    A model that was trained here expects them, also where it is read by another program. `form` is
    that of the file.
    """
    if form not in _REPLACED:
        declared: dict[str, Any] = content.engine["post_processor"]
        return declared
    cls, sep = ((name, content.ids[name]) for name in (content.roles["cls"], content.roles["sep"]))
    processor = bert_post_processor(cls, sep)
    ours: dict[str, Any] = json.loads(processor.__getstate__())
    return ours


def warn_of_other_inputs(content: Content, engine: Engine, form: Form) -> None:
    """Say in one line where a file puts other special tokens around texts than the rows here."""
    if form not in _REPLACED:
        return
    one = _encoded(content, engine).one
    cls, sep = content.roles["cls"], content.roles["sep"]
    log.warning(
        "%s: post_processor: found %s for one text; inputs are %s A %s and %s A %s B %s, here and "
        "in what is exported",
        content.file,
        "none" if form == "none" else _shown(one),
        *(cls, sep, cls, sep, sep),
    )


def check_added_ends(
    content: Content, engine: Engine, form: Form, where: object, settings: Json
) -> None:
    """Refuse settings that add other tokens around texts than the file's post-processor.

    Version 5 of `transformers` follows `add_bos_token` and `add_eos_token` where one of them is
    there, version 4 the file. They add the same tokens to each text of a pair.
    """
    if not {"add_bos_token", "add_eos_token"} & set(settings):
        return
    a, b, one, two = _encoded(content, engine)
    ends: list[list[int]] = []
    for role in ("bos", "eos"):
        i = content.ids.get(name_of(settings.get(f"{role}_token")))
        is_added = settings.get(f"add_{role}_token") is True and i is not None
        ends.append([i] if is_added and i is not None else [])
    expected = [*ends[0], *a, *ends[1]]
    pair = [*expected, *ends[0], *b, *ends[1]]
    # Published files of BERT's form have these settings too; their pairs are the file's.
    pairs_agree = form != "own" or two.ids == pair
    check(
        one.ids == expected and pairs_agree,
        where=f"{where}: add_bos_token and add_eos_token",
        found=f"{settings.get('add_bos_token', False)} and {settings.get('add_eos_token', False)}",
        expected=f"those of the post_processor beside it, which makes {_shown(one)} and "
        f"{_shown(two)}",
    )


class _Encoded(NamedTuple):
    """The ids of the texts a and b alone, and the inputs of a and of both."""

    a: list[int]
    b: list[int]
    one: Encoding
    two: Encoding


def _encoded(content: Content, engine: Engine) -> _Encoded:
    with engine_errors(content.file):
        a, b = (engine.encode(text, add_special_tokens=False).ids for text in "ab")
        return _Encoded(a, b, engine.encode("a"), engine.encode("a", "b"))


def _shown(encoding: Encoding) -> str:
    segments: Sequence[int] = encoding.type_ids
    return " ".join(encoding.tokens) + f" (segments {segments})"
