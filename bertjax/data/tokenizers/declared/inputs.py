"""Special tokens that a `tokenizer.json` puts around texts, against those of the rows here."""

import json
from typing import Any, Literal

from tokenizers import Encoding
from tokenizers import Tokenizer as Engine

from bertjax.data.tokenizers.declared.content import Content
from bertjax.data.tokenizers.declared.engines import engine_errors
from bertjax.data.tokenizers.vocabulary import ROLES, bert_post_processor
from bertjax.errors import mismatch

Form = Literal["none", "bert", "roberta"]
"""none: no special tokens. bert: [CLS] A [SEP] B [SEP]. roberta: <s> A </s></s> B </s>."""


def form_of(content: Content, engine: Engine) -> Form:
    """Return the form of the inputs that a file declares; `UserError` for any other.

    `engine` is that of the whole content.
    """
    cls, sep = (content.ids[content.special[ROLES.index(role)]] for role in ("cls", "sep"))
    with engine_errors(content.file):
        a, b = (engine.encode(text, add_special_tokens=False).ids for text in "ab")
        one, two = engine.encode("a"), engine.encode("a", "b")
    if one.ids == a and two.ids == a + b:
        return "none"
    first = [cls, *a, sep]
    if one.ids == first and not any(one.type_ids):
        segments = [0] * len(first) + [1] * (len(b) + 1)
        if two.ids == [*first, *b, sep] and two.type_ids == segments:
            return "bert"
        if two.ids == [*first, sep, *b, sep] and not any(two.type_ids):
            return "roberta"
    raise mismatch(
        where=f"{content.file}: post_processor",
        found=f"{_shown(one)} for one text and {_shown(two)} for two",
        expected=(
            "[CLS] A [SEP] and [CLS] A [SEP] B [SEP] with the segments 0 and 1, or <s> A </s> and "
            "<s> A </s></s> B </s>, or none"
        ),
    )


def export_post_processor(content: Content, form: Form) -> dict[str, Any]:
    """Return the file's post-processor; that of the rows here where it declares no special tokens.

    A model that was trained here expects them, also where it is read by another program. `form` is
    that of the file.
    """
    if form != "none":
        declared: dict[str, Any] = content.engine["post_processor"]
        return declared
    ids = [content.ids[content.special[ROLES.index(role)]] for role in ("cls", "sep")]
    ours: dict[str, Any] = json.loads(bert_post_processor(content.special, *ids).__getstate__())
    return ours


def _shown(encoding: Encoding) -> str:
    return " ".join(encoding.tokens) + f" (segments {encoding.type_ids})"
