"""The rules of the official scripts: by hand, and what the scripts said of the same predictions."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.tasks.question_answering.answer_rules import (
    MLQA,
    RULES,
    described,
    named_rule,
    rules_of_texts,
    squad_normalized,
)
from bertjax.tasks.question_answering.squad_metrics import figures_1, figures_2, question_scores

pytestmark = pytest.mark.quick

# Each word is of one sentence: on several, NLTK asks a trained model.
WORDS = [
    "北京",
    "中华人民共和国",
    "的",
    "1949年",
    "10月1日",
    "NBA",
    "u.s.a",
    "can't",
    "he's",
    "they'll",
    '"hello"',
    "(abc)",
    "3,000",
    "40%",
    "$5",
    "《红楼梦》",
    "、",
    "——",
    "the",
    "der",
    "el",
    "los",
    "une",
    "của",
    "ال",
    "الكتاب",
    "कहाँ",
    "。",
    "you'd",
    "wanna",
    "cannot",
    "'tis",
    "x,",
    "ab-cd",
    "a",
    "ＮＢＡ",
    "ウィキ",
    "서울에",
    "กรุงเทพ",
    "¿qué",
    "«b»",
    "،",
    "।",
    "é",
    "İ",
    "𠀀",
    "〇",
]


def drawn(number):
    rng = random.Random(1)

    def text():
        return rng.choice(["", " "]).join(rng.choices(WORDS, k=rng.randint(1, 5)))

    answers = [[text() for _ in range(rng.randint(1, 3))] for _ in range(number)]
    # A part of a right answer is often predicted.
    return [
        rng.choice(right)[rng.randint(0, 2) :] + rng.choice(["", text()]) for right in answers
    ], answers


@pytest.mark.parametrize("rule,predicted,right,exact,f1", [
    # Four of the five characters, in a run: 2 · 1 · 0.8 / 1.8.
    ("cmrc2018", "人民大会", "人民大会堂", 0, 8 / 9),
    ("cmrc2018", "《红楼梦》", "红楼梦。", 1, 1.0),
    ("cmrc2018", "“北京”、上海", "北京上海", 1, 1.0),
    # A run counts, not a set of characters: 民人 and 人民 share one.
    ("cmrc2018", "民人", "人民", 0, 0.5),
    ("mlqa_zh", "民人", "人民", 0, 1.0),
    # 北京 of 在北京市: two of four, and two of two.
    ("mlqa_zh", "北京", "在北京市", 0, 2 / 3),
    ("squad", "北京", "在北京市", 0, 0),
    # A year is one word; the script of CMRC divides what stands between Han characters.
    ("cmrc2018", "1949年", "1949年10月", 0, 2 * 0.5 / 1.5),
    ("mlqa_zh", "1949年", "1949年10月", 0, 2 * 0.5 / 1.5),
    ("cmrc2018", "NBA总决赛", "nba总决赛", 1, 1.0),
    ("cmrc2018", "they'll go", "they go", 0, 2 * (1 / 2) * (1 / 3) / (5 / 6)),
    ("mlqa_zh", "《NBA》 总决赛", "nba总决赛", 1, 1.0),
    # Full-width letters are other letters, in both scripts.
    ("cmrc2018", "ＮＢＡ", "NBA", 0, 0),
    ("mlqa_zh", "ＮＢＡ", "NBA", 0, 0),
    ("mlqa_zh", "北京（首都）", "北京首都", 1, 1.0),
    # Two dots in one entry of the script's list are never removed; 、 is.
    ("cmrc2018", "北京…", "北京", 0, 0.8),
    # Kana between Han characters is one word to both scripts.
    ("mlqa_zh", "富士山のふもと", "富士山", 0, 2 * 0.75 / 1.75),
    ("characters", "富士山のふもと", "富士山", 0, 0.6),
    ("characters", "東京タワー", "「東京タワー」", 1, 1.0),
    ("characters", "กรุงเทพ", "กรุงเทพฯ", 0, 2 * (7 / 8) / (15 / 8)),
    ("characters", "the 𠀀 b", "𠀀", 0, 0.5),
    ("mlqa_de", "der Hund", "«Hund»!", 1, 1.0),
    ("squad", "der Hund", "«Hund»!", 0, 0),
    ("mlqa_es", "¿el perro?", "perro", 1, 1.0),
    ("mlqa_vi", "những con chó", "con chó", 1, 1.0),
    ("mlqa_ar", "الكتاب،", "كتاب", 1, 1.0),
    ("mlqa_hi", "१९४७।", "१९४७", 1, 1.0),
    ("mlqa_hi", "१९४७", "1947", 0, 0),
    ("mlqa_en", "The “cat”", "a cat", 1, 1.0),
    # Six of seven characters; to SQuAD's rule they are two other words.
    ("korquad", "서울특별시에", "서울특별시", 0, 2 * (5 / 6) / (11 / 6)),
    ("korquad", "《홍길동전》", "홍길동전", 1, 1.0),
    ("squad", "서울특별시에", "서울특별시", 0, 0),
])  # fmt: skip
def test_each_rule_scores_as_worked_by_hand(rule, predicted, right, exact, f1):
    assert question_scores(predicted, [right], False, RULES[rule]) == (
        exact,
        pytest.approx(f1, abs=1e-12),
    )


# exact_match and f1 that the scripts printed for `drawn(2000)`, with the word tokenizer of NLTK.
PRINTED = {
    "cmrc2018": (16.7, 53.97311505676553),
    "mlqa_ar": (21.95, 38.05464063714062),
    "mlqa_de": (21.1, 36.124214119214095),
    "mlqa_en": (21.6, 36.06681679431678),
    "mlqa_es": (21.3, 36.12709484959481),
    "mlqa_hi": (21.1, 36.29629481629481),
    "mlqa_vi": (21.1, 36.02974941724941),
    "mlqa_zh": (21.1, 46.45230172984594),
    "korquad": (17.25, 73.66676454638763),
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_figures_are_those_that_the_official_scripts_printed_for_the_same_answers(name):
    predicted, answers = drawn(2000)
    figures = figures_1(predicted, answers, [RULES[name]] * 2000)
    assert (figures["exact_match"], figures["f1"]) == PRINTED[name]


@pytest.mark.parametrize("text,words", [
    ("The Panthers' defense", "panthers defense"),
    ("a.b. c", "ab c"),
    ("An A, the THE", ""),
    ("theatre\u00a0\u3000an\u2009hour", "theatre hour"),
    ("co-operate", "cooperate"),
    ("„黑豹“ 队", "„黑豹“ 队"),
    ("İ", "i\u0307"),
    ("thé", "thé"),
])  # fmt: skip
def test_squads_rule_leaves_out_case_ascii_punctuation_articles_and_white_space(text, words):
    assert squad_normalized(text) == words


@given(st.text(max_size=12), st.text(max_size=12))
def test_every_rule_gives_an_equal_text_full_marks_and_is_the_same_both_ways(first, second):
    for rule in RULES.values():
        words = rule.words(rule.normalized(first))
        assert question_scores(first, [first], False, rule) == (1, 1 if words else 0)
        there = question_scores(first, [second], False, rule)
        back = question_scores(second, [first], False, rule)
        assert there == (back[0], pytest.approx(back[1], abs=1e-12))
        assert 0 <= there[1] <= 1 + 1e-12


@given(st.text("北京中国人a1 。、「", max_size=12))
def test_in_chinese_the_rule_of_characters_is_that_of_mlqa(text):
    assert RULES["characters"].normalized(text) == MLQA["zh"].normalized(text)


def test_no_answer_is_right_where_there_is_none_by_every_rule():
    for rule in RULES.values():
        assert question_scores("", [], True, rule) == (1, 1)
        assert question_scores("、", ["。"], True, RULES["cmrc2018"]) == (1, 1)
        assert question_scores("x", [], True, rule) == (0, 0)
    figures = figures_2(["人民", ""], [["人民大"], []], rules=[MLQA["zh"]] * 2)
    assert figures["HasAns_f1"] == pytest.approx(80)
    assert figures["NoAns_f1"] == 100


@pytest.mark.parametrize("option,name,rule", [
    ("auto", "squad", None),
    ("auto", "SQuAD_v2", None),
    ("auto", "cmrc2018", "cmrc2018"),
    ("auto", "CMRC2018-small", "cmrc2018"),
    ("auto", "drcd", "cmrc2018"),
    ("auto", "my_cmrc2018", "cmrc2018"),
    ("auto", "korquad", "korquad"),
    ("auto", "mlqa_zh", "mlqa_zh"),
    ("auto", "MLQA-de-en", "mlqa_de"),
    ("auto", "mlqa.zh.zh", "mlqa_zh"),
    ("auto", "mlqa.zh.de", "mlqa_zh"),
    ("auto", "my_mlqa_de", "mlqa_de"),
    ("auto", "de-mlqa", "mlqa_de"),
    ("auto", "mlqa-dev-context-es-question-hi", "mlqa_es"),
    ("auto", "mlqa-question-hi-context-es", "mlqa_es"),
    ("auto", "mlqa-translate-train.vi", "mlqa_vi"),
    ("auto", "mlqa-translate-test.vi", None),
    ("auto", "KorQuAD1", "korquad"),
    ("auto", "KorQuAD_v1.0", "korquad"),
    ("auto", "korquad.1", "korquad"),
    ("auto", "drcd2018", "cmrc2018"),
    ("auto", "cmrc.2018", "cmrc2018"),
    ("auto", "korquadish", None),
    ("auto", "mlqa", None),
    ("auto", "mlqa_fr", None),
    ("auto", "xquad", None),
    ("auto", "squad_zh", None),
    ("auto", "mine", None),
    ("squad", "cmrc2018", "squad"),
    ("characters", "mine", "characters"),
])  # fmt: skip
def test_a_rule_is_chosen_by_the_option_or_else_by_the_name(option, name, rule):
    chosen = named_rule(option, name)
    assert (chosen.name if chosen else None) == rule


def test_a_set_in_two_languages_is_compared_by_the_rule_of_each_question():
    rules = rules_of_texts(["A city.", "北京是首都。", "北京是首都。"])
    assert [rule.name for rule in rules] == ["squad", "mlqa_zh", "mlqa_zh"]
    assert described(rules) == "mlqa_zh (2 of 3 questions), squad (1 of 3 questions)"
    assert described(rules[1:]) == "mlqa_zh"


LATIN_HEAVY = (
    "NBA（National Basketball Association）是北美的职业篮球联盟，总部位于 New York, Manhattan。"
)


def test_a_chinese_paragraph_with_many_latin_letters_has_the_rule_of_its_set():
    assert [rule.name for rule in rules_of_texts([LATIN_HEAVY])] == ["squad"]
    chinese = [f"第{number}座城市的人口很多。" for number in range(20)]
    assert described(rules_of_texts([*chinese, LATIN_HEAVY])) == "mlqa_zh"
    japanese = [f"{number}番目の都市はとても大きいです。" for number in range(20)]
    assert described(rules_of_texts([*japanese, "北京。", LATIN_HEAVY])) == "characters"


def test_the_answers_tell_where_the_set_has_several_languages_or_too_few_paragraphs():
    english = ["A city.", "A town."]
    answers = [["北京"], ["city"], ["town"], ["联盟", "NBA"]]
    rules = rules_of_texts(["北京是首都。", *english, LATIN_HEAVY], answers)
    assert [rule.name for rule in rules] == ["mlqa_zh", "squad", "squad", "mlqa_zh"]
    assert described(rules_of_texts([LATIN_HEAVY], [["职业篮球联盟"]])) == "mlqa_zh"
    # The whole set is English, so a few foreign words are words of SQuAD's script.
    assert described(rules_of_texts(english, [["city"], ["town (北京)"]])) == "squad"


def test_xquad_is_scored_by_characters_in_chinese_and_as_squad_in_german(shared_data):
    for language, name in (("zh", "mlqa_zh"), ("de", "squad")):
        content = json.loads((shared_data / f"tasks/xquad/xquad.{language}.json").read_bytes())
        paragraphs = [
            paragraph for article in content["data"] for paragraph in article["paragraphs"]
        ]
        assert described(rules_of_texts([one["context"] for one in paragraphs])) == name
        # All but the first character of each answer.
        texts = [question["answers"][0]["text"] for one in paragraphs for question in one["qas"]]
        texts = [text for text in texts if len(text) > 1]
        cut = figures_1(
            [text[1:] for text in texts], [[text] for text in texts], [RULES[name]] * len(texts)
        )
        assert cut["f1"] > (70 if language == "zh" else 40)
