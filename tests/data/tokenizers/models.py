"""SentencePiece models with options that those of bertjax do not have, and texts for them."""

import io
import random

import sentencepiece as spm

from bertjax.data.tokenizers.sentencepiece import SentencePiece
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from tests.data.tokenizers.test_tokenizer import TEXTS

SYMBOLS = ["<USER>", "<sep>", "ab", "cab", "New York", "É", "e\u0301", "天气很"]
PARTS = [
    *SYMBOLS, *"abcABC<>e", "user", "USER", "new york", "1,000", "e", "\u0301", "\u0323", "\u0302",
    "天", "很", " ", "  ", "\t", "\n", "\r\n", "\u3000", "▁", "\x07", "F\u0301", "E\u200d",
    "A\U0001f3fb", "I\u0307", "Ọ\u0301", "Α\u0345", "ß", "ﬁ\u0301", "\u1112\u1161\u11ab", "ㄱㅏ",
    "か\u3099", "हिन्दी", "the quick", "Fox", "jumps over", "☃", "🙂🏽", "<0x41>", "<0xFF>", "<0x02>", "0x0", "<0x", ".", "...",
]  # fmt: skip
LINES = [*TEXTS, *[f"{a} {b}{a}" for a in PARTS if a.strip() for b in ("the", "cab ab", "x")]]


def content(kind="unigram", **options):
    """The bytes of a model that SentencePiece trains with `options`."""
    model = io.BytesIO()
    pad, unk, *control = SPECIAL_TOKENS
    defaults = {
        "vocab_size": 400, "hard_vocab_limit": False, "pad_id": 0, "unk_id": 1, "bos_id": -1,
        "eos_id": -1, "pad_piece": pad, "unk_piece": unk, "control_symbols": control,
        "num_threads": 1, "minloglevel": 2, "model_type": kind,
    }  # fmt: skip
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, **(defaults | options)
    )
    return model.getvalue()


def opened(kind="unigram", cleaning="", **options):
    return SentencePiece("the model", content(kind, **options), kind, True, cleaning)


def texts(count, seed=0):
    """Texts of `PARTS`, with and without spaces between them."""
    chosen = random.Random(seed)
    drawn = []
    for _ in range(count):
        parts = chosen.choices(PARTS, k=chosen.randrange(10))
        drawn.append("".join(part + chosen.choice(("", " ")) for part in parts))
    return drawn
