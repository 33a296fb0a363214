"""Special tokens that a `tokenizer.json` puts around texts, against those of the rows here."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tokenizers import Encoding
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.declared.engines import engine_errors
from bertjax.data.tokenizers.declared.roles import name_of
from bertjax.data.tokenizers.vocabulary import bert_post_processor
from bertjax.errors import check, mismatch
from bertjax.storage import Json

Form = Literal["none", "part", "bert", "flat", "roberta", "pairs"]
"""The inputs that a file makes. Those of the rows here:

bert: [CLS] A [SEP], and [CLS] A [SEP] B [SEP] with the segments 0 and 1. flat: the same with one
segment, for models that have no others. roberta: <s> A </s>, and <s> A </s></s> B </s>.

Others, in whose place the rows here have those of BERT. none: no special tokens. part: only the one
before each text, or only the one after it. pairs: [CLS] A [SEP], but another pair of the same
tokens."""
_REPLACED: Mapping[Form, str] = {"none": "one text", "part": "one text", "pairs": "two texts"}

log = logging.getLogger("bertjax")


def form_of(content: Content, engine: Engine, has_segments: bool = True) -> Form:
    """Return the form of the inputs that a file declares; `UserError` for any other.

    `engine` is that of the whole content. `has_segments`: programs give a model the segments.
    """
    cls, sep = (content.ids[content.roles[role]] for role in ("cls", "sep"))
    a, b, one, two = _encoded(content, engine)
    if one.ids == a and two.ids == a + b:
        return "none"
    first = [cls, *a, sep]
    if one.ids == first and not any(one.type_ids):
        segments = [0] * len(first) + [1] * (len(b) + 1)
        is_flat = not any(two.type_ids)
        if two.ids == [*first, *b, sep] and two.type_ids == segments:
            return "bert"
        if two.ids == [*first, *b, sep] and is_flat and not has_segments:
            return "flat"
        if two.ids == [*first, sep, *b, sep] and is_flat:
            return "roberta"
        if two.ids == [*first, cls, *b, sep]:
            return "pairs"
    if one.ids == [cls, *a] and two.ids in ([cls, *a, *b], [cls, *a, cls, *b]):
        return "part"
    if one.ids == [*a, sep] and two.ids == [*a, sep, *b, sep]:
        return "part"
    raise mismatch(
        where=f"{content.file}: post_processor",
        found=f"{_shown(one)} for one text and {_shown(two)} for two",
        expected=(
            "[CLS] A [SEP] and [CLS] A [SEP] B [SEP] with the segments 0 and 1, or <s> A </s> and "
            "<s> A </s></s> B </s>, or none"
        ),
    )


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
    _, _, one, two = _encoded(content, engine)
    found = "none" if form == "none" else _shown(two if form == "pairs" else one)
    cls, sep = content.roles["cls"], content.roles["sep"]
    log.warning(
        "%s: post_processor: found %s for %s; inputs are %s A %s and %s A %s B %s, here and in "
        "what is exported",
        content.file,
        found,
        _REPLACED[form],
        *(cls, sep, cls, sep, sep),
    )


def check_added_ends(content: Content, engine: Engine, where: object, settings: Json) -> None:
    """Refuse settings that add other tokens around a text than the file's post-processor.

    Version 5 of `transformers` follows `add_bos_token` and `add_eos_token` where one of them is
    there, version 4 the file.
    """
    if not {"add_bos_token", "add_eos_token"} & set(settings):
        return
    a, _, one, _ = _encoded(content, engine)
    ends: list[list[int]] = []
    for role in ("bos", "eos"):
        i = content.ids.get(name_of(settings.get(f"{role}_token")))
        is_added = settings.get(f"add_{role}_token") is True and i is not None
        ends.append([i] if is_added and i is not None else [])
    expected = [*ends[0], *a, *ends[1]]
    check(
        one.ids == expected,
        where=f"{where}: add_bos_token and add_eos_token",
        found=f"{settings.get('add_bos_token', False)} and {settings.get('add_eos_token', False)}",
        expected=f"those of the post_processor beside it, which makes {_shown(one)}",
    )


def _encoded(content: Content, engine: Engine) -> tuple[list[int], list[int], Encoding, Encoding]:
    """The ids of the texts a and b alone, and the inputs of a and of both."""
    with engine_errors(content.file):
        a, b = (engine.encode(text, add_special_tokens=False).ids for text in "ab")
        return a, b, engine.encode("a"), engine.encode("a", "b")


def _shown(encoding: Encoding) -> str:
    segments: Sequence[int] = encoding.type_ids
    return " ".join(encoding.tokens) + f" (segments {segments})"
