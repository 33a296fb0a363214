import itertools
import unicodedata

import pytest
import sentencepiece as spm
from tokenizers import normalizers

from bertjax.data.tokenizers import charsmap
from bertjax.data.tokenizers.sentencepiece_model import read_model
from bertjax.data.tokenizers.sentencepiece_normalizer import (
    TEXT_BEGIN,
    character_steps,
    normalizers_of,
    rules_problem,
)
from tests.data.tokenizers.models import content

RULES = ("nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf")


def normalized(model, texts):
    steps = normalizers.Sequence(normalizers_of(model))
    return [steps.normalize_str(text).removeprefix(f"{TEXT_BEGIN} ") for text in texts]


def theirs(model_content, texts):
    model = spm.SentencePieceNormalizer(
        model_proto=model_content, add_dummy_prefix=False, remove_extra_whitespaces=False
    )
    return [model.normalize(text).replace("▁", " ") for text in texts]


def compare(rule, step):
    """Compare texts around every `step`th of the rules of several characters."""
    # With pieces for bytes, so that no rule counts as one that changes nothing.
    trained = content(
        normalization_rule_name=rule, byte_fallback=True, remove_extra_whitespaces=False
    )
    model = read_model(trained)
    assert rules_problem(model) is None
    several = sorted(s for s in charsmap.read_rules(model.charsmap) if len(s) > 1)[::step]
    texts = [
        before + source + after
        for source, (before, after) in itertools.product(
            several, [("x", "x"), ("E", "\u0301"), ("\u1112", "\u11ab"), (" ", "\u0345 ")]
        )
    ]
    different = [
        text
        for text, ours, expected in zip(
            texts, normalized(model, texts), theirs(trained, texts), strict=True
        )
        if ours != expected
    ]
    assert not different, ascii(different[:5])


def test_rules_of_several_characters_give_what_sentencepiece_gives():
    compare("nmt_nfkc_cf", 4999)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_all_rules_of_several_characters_give_what_sentencepiece_gives(rule):
    compare(rule, 7)


def test_marks_stay_that_tokenizers_would_lose():
    trained = content(normalization_rule_name="nmt_nfkc_cf")
    text = "F\u0301 E\u200d A\U0001f3fb e\u0302\u0323"
    (ours,) = normalized(read_model(trained), [text])
    assert [ours] == theirs(trained, [text])
    assert "\u0301" in ours
    assert "\U0001f3fb" in ours
    plain = normalizers.Precompiled(read_model(trained).charsmap).normalize_str(text)
    assert "\u0301" not in plain


def test_character_steps_do_what_a_function_does_to_each_character_alone():
    def without_marks(character):
        parts = unicodedata.normalize("NFKD", character).lower()
        return "".join(c for c in parts if not unicodedata.category(c).startswith("M"))

    steps = normalizers.Sequence(character_steps(without_marks))
    for text in (
        "ÜNÏ\u0308cödé",
        "A\u0301B",
        "ﬁ①",
        "한\u1161",
        "ΟΔΟΣ",
        "\u0d00x\u0d63",
        "",
        "\u0301",
    ):
        assert steps.normalize_str(text) == "".join(map(without_marks, text))


def rule_file(path, rules):
    lines = ["\t".join(" ".join(f"{ord(c):X}" for c in text) for text in rule) for rule in rules]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_rules_of_the_user_are_applied_in_the_same_places(tmp_path):
    rules = [
        ("A", "a"), ("ab", "x"), ("abc", "bc"), ("bcd", "Q"), ("Q", "z"), ("...", "…"),
        ("e\u0301", "é"), ("hh", ""), ("don't", "do not"), ("\u0301", ""), ("\t", " "),
    ]  # fmt: skip
    file = rule_file(tmp_path / "rules.tsv", rules)
    trained = content(normalization_rule_tsv=file, remove_extra_whitespaces=False)
    parts = ("ab", "abc", "d", "A", "Q", "..", ".", "e", "\u0301", "h", "don't", " ", "\t")
    texts = ["".join(chosen) for chosen in itertools.product(parts, repeat=3)]
    assert normalized(read_model(trained), texts) == theirs(trained, texts)


def test_rules_that_normalizers_cannot_express_are_named(tmp_path):
    for rules, problem in (
        ([("\t", "  ")], "a rule that makes '  ' of a text"),
        ([("ab", " c")], "a rule that makes ' c' of a text"),
    ):
        file = rule_file(tmp_path / "rules.tsv", rules)
        assert rules_problem(read_model(content(normalization_rule_tsv=file))) == problem
    spaced = read_model(content(user_defined_symbols=["a  b"]))
    assert rules_problem(spaced) == "the symbol 'a  b'"
