import dataclasses
import functools
import tempfile

import jax
import numpy as np
import pytest

from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.inference import zero_shot as module
from bertjax.inference.zero_shot import zero_shot
from bertjax.model import functional
from tests.factory import SMALL_MODEL, model_in_memory
from tests.families.tiny import of_each_family, tiny
from tests.interop.exported_programs import random_params

WORDS = ["it", "is", "about", "a", "cat", "dog", "##s", "fish", "sees", ":", "."]
TOKENIZER = WordPiece(
    "vocab.txt",
    "".join(f"{w}\n" for w in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]).encode(),
    True,
)
MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=1)
LABELS = ["cat", "a fishs", "fish"]  # of 1, 3 and 1 pieces
TEXTS = ["a dog sees a cat", "", "fish . [MASK]", "cat fish cat", "a fish is a dog"]
SHORT = "{} about [MASK] ."


@functools.cache
def params():
    return random_params(MODEL)


@functools.cache
def model(config=MODEL):
    return model_in_memory(tempfile.mkdtemp(prefix="zero-shot-"), config, params(), TOKENIZER)


def inner(text):
    return TOKENIZER.encode_batch([text])[0].tolist()


@jax.jit
def _both(batch):
    hidden = functional.encode(MODEL, params(), batch).hidden_BxLxD
    sentence = functional.nsp_logits(MODEL, params(), functional.pool(MODEL, params(), hidden))
    return functional.mlm_logits(MODEL, params(), hidden)[0], sentence[0]


def logits(ids, segments):
    """The masked-word head's [16, V] and the sentence head's [2] of one row."""
    fill = lambda values: np.array([values + [0] * (16 - len(ids))], np.int32)  # noqa: E731
    return _both(
        {"input_ids": fill(ids), "segment_ids": fill(segments), "input_mask": fill([1] * len(ids))}
    )


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def by_mask(before, text, after, label):
    """The mean log-probability of each piece at its mask, special tokens out of the race."""
    pieces = inner(label)
    left = [2, *inner(before), *inner(text), *inner(after[0])]
    ids = [*left, *[4] * len(pieces), *inner(after[1]), 3]
    words = np.asarray(logits(ids, [0] * len(ids))[0])[len(left) :, 5 : 5 + len(WORDS)]
    return np.mean([log_softmax(words[i])[piece - 5] for i, piece in enumerate(pieces)])


def by_next_sentence(first, second):
    ids = [2, *inner(first), 3, *inner(second), 3]
    segments = [0] * (len(inner(first)) + 2) + [1] * (len(inner(second)) + 1)
    return log_softmax(logits(ids, segments)[1])[0]


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def test_a_label_scores_the_mean_log_probability_of_its_pieces_at_as_many_masks():
    found = zero_shot(model(), TEXTS, LABELS, template=SHORT, batch_size=3)
    wanted = np.array(
        [[by_mask("", text, ("about", "."), label) for label in LABELS] for text in TEXTS]
    )
    np.testing.assert_allclose(found.scores, wanted, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, softmax(wanted), atol=1e-5)
    assert (found.scores.dtype, found.truncated) == (np.float32, 0)
    assert np.ptp(wanted, axis=0).min() > 0.1  # else all texts would be the same to this model


def test_calibration_takes_off_the_score_of_the_label_with_no_text():
    template = "it : [MASK] . {}"
    found = zero_shot(model(), TEXTS[:2], LABELS[:2], template=template, calibrate=True)
    wanted = np.array(
        [
            [by_mask("it :", "", ("", ". " + text), label) for label in LABELS[:2]]
            for text in TEXTS[:2]
        ]
    )
    np.testing.assert_allclose(found.scores, wanted - wanted[1], atol=1e-5)
    np.testing.assert_array_equal(found.probabilities[1], [0.5, 0.5])
    assert found.truncated == 0


@pytest.mark.parametrize("template", ["{} it is [MASK] .", "it is [MASK] . {}"])
def test_next_sentence_scores_whether_the_template_and_the_text_follow(template):
    options = {"template": template, "method": "next-sentence", "batch_size": 8}
    found = zero_shot(model(), TEXTS[:2], LABELS[:2], **options)
    filled = [f"it is {label} ." for label in LABELS[:2]]
    pairs = [
        [(text, b) if template.startswith("{}") else (b, text) for b in filled]
        for text in TEXTS[:2]
    ]
    wanted = np.array([[by_next_sentence(*pair) for pair in row] for row in pairs])
    np.testing.assert_allclose(found.scores, wanted, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, softmax(wanted), atol=1e-5)
    if template.startswith("{}"):
        found = zero_shot(model(), TEXTS[:2], LABELS[:2], calibrate=True, **options)
        np.testing.assert_allclose(found.scores, wanted - wanted[1], atol=1e-5)


def test_a_long_text_is_cut_alike_for_all_labels_and_counted_and_the_template_is_whole():
    long = "a cat sees a dog and a fish"
    options = {"template": SHORT, "max_seq_length": 12}
    found = zero_shot(model(), [long, "a cat sees a dog", "a"], LABELS, **options)
    # 12 less [CLS] about [MASK] [MASK] [MASK] . [SEP]
    wanted = zero_shot(model(), ["a cat sees a dog"], LABELS, **options)
    assert (found.truncated, wanted.truncated) == (1, 0)
    np.testing.assert_allclose(found.scores[:2], np.tile(wanted.scores, (2, 1)), atol=1e-5)
    with pytest.raises(
        UserError,
        match=r"template: found 7 ids without the text, expected fewer than 7 \(max_seq_length\)",
    ):
        zero_shot(model(), ["a"], LABELS, template=SHORT, max_seq_length=7)


def test_rows_share_all_devices_and_programs_are_few(monkeypatch):
    seen = []
    compute = module._row_scores

    def watched(config, params, batch, allowed, pieces):
        seen.append(
            (*batch["input_ids"].shape, *pieces.shape, len(batch["input_ids"].sharding.device_set))
        )
        return compute(config, params, batch, allowed, pieces)

    monkeypatch.setattr(module, "_row_scores", watched)
    texts = ["cat"] * 7 + ["cat " * 6] * 3
    zero_shot(model(), texts, ["fish", "cat", "dogs"], template=SHORT, batch_size=7)
    assert seen == [(8, 16, 2, 1, 8), (8, 8, 2, 1, 8), (8, 16, 1, 2, 8), (8, 8, 1, 2, 8)]


@pytest.mark.parametrize("changes,message", [
    ({"template": "{} is about"}, r"template: found '{} is about', expected {} for the text and \[MASK\] for the label, each once"),
    ({"template": "is about [MASK]"}, "template: found 'is about"),
    ({"template": "{} [MASK] [MASK]"}, "each once"),
    ({"template": "a {} [MASK]", "method": "next-sentence"}, "template: found 'a {} .*', expected {} at its beginning or its end"),
    ({"labels": ["cat"]}, "labels: found cat, expected two or more"),
    ({"labels": ["cat", "dog", "Cat"]}, "labels: found Cat twice, expected different ones"),
    ({"labels": ["cat", " "]}, "labels: found ' ', expected a word or more"),
    ({"template": "long " * 9999}, r"template: found 'long [long ]*'\.\.\., expected {} for the text"),
    ({"labels": ["cat", "h" * 9999]}, r"label 'h{60}'\.\.\.: found a word without pieces"),
    ({"labels": ["cat", "horse"]}, "label 'horse': found a word without pieces, expected what the vocabulary can spell"),
    ({"batch_size": 0}, "batch_size: found 0"),
    ({"max_seq_length": 99}, "max_seq_length: found 99, expected 2 to 16"),
    ({"method": "guess"}, "method: found 'guess', expected one of mask, next-sentence"),
    ({"config": dataclasses.replace(MODEL, vocab_size=9)}, "tokenizer: found 16 entries, expected at most 9, the model's"),
    ({"config": dataclasses.replace(MODEL, type_vocab_size=1), "method": "next-sentence"}, "model.type_vocab_size: found 1"),
    ({"config": dataclasses.replace(MODEL, heads=("pooler", "nsp"))}, "model.heads: found pooler, nsp, expected mlm"),
    ({"config": dataclasses.replace(MODEL, heads=("pooler", "mlm")), "method": "next-sentence"}, "model.heads: found pooler, mlm, expected nsp"),
])  # fmt: skip
def test_mistakes_are_named(changes, message):
    given = {"config": MODEL, "labels": ["cat", "dog"], "template": "{} [MASK]", **changes}
    config, labels = given.pop("config"), given.pop("labels")
    with pytest.raises(UserError, match=message):
        zero_shot(model(config), ["a cat"], labels, **given)


def test_letters_of_one_string_are_taken_for_neither_texts_nor_labels():
    with pytest.raises(UserError, match="texts: found one text, 'a cat', expected a list of texts"):
        zero_shot(model(), "a cat", ["cat", "dog"], template="{} [MASK]")
    with pytest.raises(UserError, match="labels: found one text, 'ab', expected a list of texts"):
        zero_shot(model(), ["a cat"], "ab", template="{} [MASK]")


@pytest.mark.slow
@of_each_family
def test_scores_of_a_text_are_those_of_it_alone_of_each_family(name, tmp_path):
    config = tiny(name)
    params = jax.jit(lambda: functional.init(config, jax.random.key(1)))()
    loaded = model_in_memory(tmp_path, config, params, TOKENIZER)
    texts = [" ".join(WORDS[n % 11] for n in range(count)) for count in (2, 50, 17)]
    options = {"template": SHORT, "max_seq_length": 64}
    together = zero_shot(loaded, texts, LABELS, **options).scores
    for text, scores in zip(texts, together, strict=True):
        alone = zero_shot(loaded, [text], LABELS, **options).scores[0]
        np.testing.assert_allclose(scores, alone, rtol=1e-4, atol=2e-5)
    # Nor does it matter what stands beside it: the labels are told apart.
    assert np.ptp(together, axis=1).min() > 1e-4
