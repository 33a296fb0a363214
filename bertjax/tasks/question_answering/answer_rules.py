"""Rules by which a predicted answer is compared with a right one: those of the official scripts.

A rule says which texts are equal (`exact_match`) and which words two texts have in common (`f1`).
Where a script has no spaces between words, its characters are the words. Otherwise an answer in
Chinese would be one word, and its F1 all or nothing.

- `squad`: SQuAD's `evaluate-v1.1.py` and `evaluate-v2.0.py` (arXiv 1606.05250, 1806.03822).
- `cmrc2018`: `cmrc2018_evaluate.py` of CMRC 2018 (arXiv 1810.07366), also used for DRCD.
- `mlqa_ar` … `mlqa_zh`: `mlqa_evaluation_v1.py` of MLQA (arXiv 1910.07475), one for each language.
- `korquad`: the script of KorQuAD 1.0 (arXiv 1909.07005).
- `characters`: for other scripts without spaces, such as Japanese and Thai; it is `mlqa_zh` with
  the characters of these scripts as words, too. It is no official script's.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bertjax.tasks.kind import AUTO
from bertjax.tasks.question_answering import cmrc_words
from bertjax.tasks.scripts import HAN, SPACELESS, Script, script_of


@dataclass(frozen=True)
class AnswerRule:
    """The comparison of two answers."""

    name: str
    normalized: Callable[[str], str]
    """Returns the text that exact match compares; it is empty for a text without words."""
    words: Callable[[str], list[str]]
    """Returns the words that F1 compares; it is given a normalized text."""
    common: Callable[[list[str], list[str]], int]
    """Returns how many words two texts have in common."""


def shared_words(first: list[str], second: list[str]) -> int:
    """Return the number of words that both have, in any order; a repeated word counts again."""
    return sum((Counter(first) & Counter(second)).values())


def _by_words(name: str, normalized: Callable[[str], str]) -> AnswerRule:
    """Return the rule whose words are what white space separates in the normalized text."""
    return AnswerRule(name, normalized, str.split, shared_words)


# SQuAD.

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def squad_normalized(text: str) -> str:
    """Return `text` in lower case, without ASCII punctuation and the articles a, an, the.

    The words are separated by one space.
    """
    # Punctuation goes first, as in the official scripts: `the-end` becomes `theend`, which has no
    # article.
    without_punctuation = text.lower().translate(_ASCII_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", without_punctuation).split())


# MLQA.


class _Punctuation(dict[int, int | None]):
    """A table for `str.translate` that removes punctuation of all scripts."""

    def __missing__(self, code: int) -> int | None:
        # string.punctuation has symbols as well, such as $ and +, whose category is not P.
        character = chr(code)
        is_mark = character in string.punctuation or unicodedata.category(character)[0] == "P"
        self[code] = None if is_mark else code
        return self[code]


_PUNCTUATION = _Punctuation()
MLQA_ARTICLES = {
    # The script replaces these two letters anywhere, not only at the beginning of a word: in its
    # pattern, what asks for a beginning can match nothing.
    "ar": re.compile("ال"),
    "de": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "en": _ARTICLES,
    "es": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "hi": None,
    "vi": re.compile(r"\b(?:của|là|cái|chiếc|những)\b"),
    "zh": None,
}
"""What MLQA's script takes for an article, by language."""


def _mlqa_rule(
    name: str, articles: re.Pattern[str] | None, single: re.Pattern[str] | None
) -> AnswerRule:
    """Return MLQA's rule with a language's articles; a character in `single` is a word."""

    def normalized(text: str) -> str:
        text = text.lower().translate(_PUNCTUATION)
        if articles is not None:
            text = articles.sub(" ", text)
        if single is not None:
            text = single.sub(r" \g<0> ", text)
        return " ".join(text.split())

    return _by_words(name, normalized)


# KorQuAD.

_KOREAN_QUOTES = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


def _korquad_normalized(text: str) -> str:
    # Quotes and brackets separate words, other punctuation does not.
    spaced = text.translate(_KOREAN_QUOTES).lower()
    return " ".join(spaced.translate(_ASCII_PUNCTUATION).split())


def _visible_characters(normalized_text: str) -> list[str]:
    return list(normalized_text.replace(" ", ""))


# The table.

SQUAD = _by_words("squad", squad_normalized)
CMRC2018 = AnswerRule(
    "cmrc2018", cmrc_words.normalized, cmrc_words.words, cmrc_words.longest_common_run
)
KORQUAD = AnswerRule("korquad", _korquad_normalized, _visible_characters, shared_words)
CHARACTERS = _mlqa_rule("characters", None, SPACELESS)
MLQA = {
    language: _mlqa_rule(f"mlqa_{language}", articles, HAN if language == "zh" else None)
    for language, articles in MLQA_ARTICLES.items()
}
RULES: Mapping[str, AnswerRule] = {
    rule.name: rule for rule in (SQUAD, CMRC2018, *MLQA.values(), KORQUAD, CHARACTERS)
}
"""The rules by their names in `finetune.answer_rule`."""
# SQuAD is not among them: its paragraphs are English, and a set of another language in its form is
# often given its name.
_RULE_OF_SET = {"cmrc": CMRC2018, "drcd": CMRC2018, "korquad": KORQUAD}
_SET = re.compile(r"(cmrc|drcd|korquad)v?\d*")
"""The name of a set, perhaps with a version or a year."""


def is_mlqa(name: str) -> bool:
    """Return whether `mlqa` is a part of a task's name, as in `my_mlqa_de` and `mlqa.de.en`."""
    return "mlqa" in _parts(name)


def named_rule(option: str, task_name: str) -> AnswerRule | None:
    """Return the rule that the option names, or else the task; None if the text has to decide."""
    if option != AUTO:
        return RULES[option]
    parts = _parts(task_name)
    if is_mlqa(task_name):
        return MLQA.get(_mlqa_language(parts))
    for part in parts:
        match = _SET.fullmatch(part)
        if match:
            return _RULE_OF_SET[match[1]]
    return None


def _mlqa_language(parts: Sequence[str]) -> str:
    """Return the language of the paragraphs, and so of the answers; empty if no part names it.

    The set's own names have it first, `mlqa.zh.de`, or call it `context-zh-question-de`.
    """
    if {"translate", "test"} <= set(parts):
        # These paragraphs are English, although the name has the language that they were in.
        return ""
    place = parts.index("context" if "context" in parts else "mlqa")
    languages = [part for part in (*parts[place:], *parts[:place]) if part in MLQA]
    return languages[0] if languages else ""


def _parts(name: str) -> list[str]:
    return re.split(r"[-_.\s]+", name.lower())


RULE_OF_SCRIPT = {
    Script.CHINESE: MLQA["zh"],
    Script.SPACELESS: CHARACTERS,
    Script.SPACED: SQUAD,
}
"""The rule for a paragraph in a script, where no name says another."""


SET_SHARE = 0.9
"""If this share of a set's paragraphs or more has no spaces, one rule is for all its answers."""


def rules_of_texts(texts: Sequence[str], answers: Sequence[Sequence[str]] = ()) -> list[AnswerRule]:
    """Return the rule of each question by its paragraph, and by those of the whole set.

    Paragraphs with many Latin letters are in every Chinese set. So if nearly all paragraphs are in
    scripts without spaces, the most frequent script decides for all. In a set of several languages
    each paragraph decides for itself; but if one of the right `answers` has characters of such a
    script, the question has the rule of the set's paragraphs in these scripts.
    """
    script_by_text = {text: script_of(text) for text in dict.fromkeys(texts)}
    scripts = Counter(script_by_text.values())
    spaceless = [script for script, _ in scripts.most_common() if script is not Script.SPACED]
    if not spaceless:
        # A few paragraphs may all have more Latin letters; then the answers alone can tell.
        all_answers = " ".join(text for right in answers for text in right)
        return [RULE_OF_SCRIPT[script_of(all_answers)]] * len(texts)
    usual = RULE_OF_SCRIPT[spaceless[0]]
    if scripts.total() - scripts[Script.SPACED] >= SET_SHARE * scripts.total():
        return [usual] * len(texts)
    rules = []
    for number, text in enumerate(texts):
        script = script_by_text[text]
        own_answers = " ".join(answers[number]) if answers else ""
        is_usual = script is Script.SPACED and SPACELESS.search(own_answers) is not None
        rules.append(usual if is_usual else RULE_OF_SCRIPT[script])
    return rules


def described(rules: Sequence[AnswerRule]) -> str:
    """Return the name of the rule; of several, each with its number of questions."""
    counts = Counter(rule.name for rule in rules)
    if len(counts) == 1:
        return next(iter(counts))
    parts = (f"{name} ({count} of {len(rules)} questions)" for name, count in counts.items())
    return ", ".join(sorted(parts))
