"""What SentencePiece does to text before its model, as normalizers of `tokenizers`.

SentencePiece goes through the text once. At each position it takes the longest symbol that the user
defined, which stays as it is, or else the longest text that a rule replaces, or else one character.
This is called a unit here. `Precompiled` of `tokenizers` reads the same rules, but applies the rule
of a character to this character and the marks on it, which are lost. So marks are parted from the
characters before them, NFC composes what a rule of several characters composes, and what neither
gives right is replaced by a character of private use meanwhile.

`tokenizers` reads a text with special tokens in it in parts, and each part goes through these steps
alone. So `TEXT_BEGIN` is put first, for the step after them that knows which part is the first.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Regex, normalizers

from bertjax.data.tokenizers import charsmap
from bertjax.data.tokenizers.charsmap import joins
from bertjax.data.tokenizers.sentencepiece_model import NORMAL, USER_DEFINED, WORD, Model

# Noncharacters, which no text has: between units, and inside of them. A letter or mark with four
# bytes before it is longer than the five bytes up to which `Precompiled` looks at marks at all.
UNIT_END, INSIDE = "\U0010fffe", "\U0010ffff"
TEXT_BEGIN, FIRST_PART, NO_SPACE = "\U000ffffe", "\U000fffff", "\U000efffe"
# Stand-ins are the last 4,093 characters of private use before this one.
_FOREIGN = "\U0010fffd"  # takes the place of a text's own stand-ins: no model knows it either
_FIRST_STAND_IN = 0x10F000
MAX_STAND_INS_FOR_RULES = 100
MAX_STAND_INS = ord(_FOREIGN) - _FIRST_STAND_IN


class _Rules(NamedTuple):
    """The rules of a model, and how they are expressed."""

    single: dict[str, str]
    targets: frozenset[str]
    """What any rule gives."""
    several: str
    """Expression of the texts of several characters that a rule replaces; may be empty."""
    later: frozenset[str]
    """Characters of such texts but the first."""
    later_join: bool
    """True if `charsmap.joining_pattern` matches each of them."""
    composes: bool
    """True if NFC gives what most of these rules give."""
    kept: list[str]
    """Marks that stay marks in these texts, while the rule for one alone makes a letter of it."""
    others: dict[str, list[str]]
    """Replacement and texts of the rules that NFC does not give."""


def normalizers_of(
    model: Model, before: Sequence[normalizers.Normalizer] = ()
) -> list[normalizers.Normalizer]:
    """Return the steps, `before` first; they leave `TEXT_BEGIN` and a space before each part.

    `NO_SPACE` is before them if the part begins with U+2581 that is no space.
    """
    reserved = f"[{TEXT_BEGIN}{FIRST_PART}{NO_SPACE}\\x{{{_FIRST_STAND_IN:x}}}-{INSIDE}]"
    # Before any step that removes or joins characters: the position of a part's first character in
    # the original text tells whether it is the first part.
    steps = [_replace(reserved, _FOREIGN), normalizers.Prepend(TEXT_BEGIN), *before]
    restored: dict[str, str] = {}
    if model.charsmap:
        rule_steps, restored = _rule_steps(model)
        steps += rule_steps
    if model.remove_extra_whitespaces:
        steps.append(_replace(" {2,}", " "))
    steps += [normalizers.Replace(stand_in, text) for stand_in, text in restored.items()]
    if model.remove_extra_whitespaces:
        # `\z` and `\A`: `$` and `^` are the end and the begin of a line.
        steps.append(_replace(f"[ {WORD}]+\\z", ""))
        # A space at the begin may go; U+2581 that is no space to the rules may not.
        steps.append(_replace(f"\\A(?={TEXT_BEGIN}{WORD})", NO_SPACE))
    return [*steps, normalizers.Replace(TEXT_BEGIN, f"{TEXT_BEGIN} ")]


def character_steps(change: Callable[[str], str]) -> list[normalizers.Normalizer]:
    """Return the steps that replace each character by what `change` makes of it alone.

    A table of its own, because `tokenizers` has another version of Unicode than Python.
    """
    rules = {c: change(c) for c in _changeable() if change(c) != c}
    return [
        _replace(f"(?<=.)(?={charsmap.joining_pattern({})})", INSIDE),
        normalizers.Precompiled(charsmap.write_rules(rules)),
        normalizers.Replace(INSIDE, ""),
    ]


@lru_cache(maxsize=1)
def _changeable() -> list[str]:
    """Characters that may change: marks, composed ones, those with a lower case, white space."""
    characters = []
    for c in map(chr, (*range(1, 0xD800), *range(0xE000, 0x110000))):
        # Syllables of Hangul are composed by a rule, without an entry.
        composed = unicodedata.decomposition(c) or "\uac00" <= c <= "\ud7a3"
        if composed or c.lower() != c or c.isspace() or unicodedata.category(c)[0] == "M":
            characters.append(c)
    return characters


def rules_problem(model: Model) -> str | None:
    """Return the rule or symbol that cannot be expressed as a normalizer; None if all can."""
    for symbol in model.symbols:
        # Spaces at its ends would be compared with those around it, those inside it never go.
        if model.remove_extra_whitespaces and ("  " in f" {symbol}" or symbol.endswith(" ")):
            return f"the symbol {symbol!r}"
    if not model.charsmap:
        return None
    rules = _read(model.charsmap)
    if rules.composes:
        targets = list(rules.single.values())
        unstable = [c for c in _changed_by_nfc() if c not in rules.single]
        unstable += [t for t, c in zip(targets, _nfc(targets), strict=True) if t != c]
        if unstable:
            return f"rules that keep {unstable[0]!r}, which NFC replaces"
    if model.remove_extra_whitespaces:
        # As with symbols: what a stand-in stands for is not compared with the spaces around it.
        spaced = [target for target in rules.targets if "  " in target]
        spaced += [target for target in rules.others if target != target.strip(" ")]
        if spaced:
            return f"a rule that makes {spaced[0]!r} of a text"
    count = len(_other_rules(model, rules)) + len(model.symbols)
    return f"{count} rules and symbols" if count > MAX_STAND_INS else None


def _rule_steps(model: Model) -> tuple[list[normalizers.Normalizer], dict[str, str]]:
    """Return the steps of the rules, and each stand-in with the text that it stands for."""
    rules, symbols = _read(model.charsmap), model.symbols
    others = _other_rules(model, rules)
    plain = normalizers.Sequence(_steps(model.charsmap, rules, symbols, {}, True))
    # Symbols that would be changed. With spaces in it, others might be cut or joined.
    protected = [s for s in symbols if plain.normalize_str(s) != s or " " in s]
    texts_by_target = others | {symbol: [symbol] for symbol in protected}
    stand_ins = {target: chr(_FIRST_STAND_IN + i) for i, target in enumerate(texts_by_target)}
    replaced = {stand_ins[target]: texts for target, texts in texts_by_target.items()}
    # A text of `others` occurs inside of a unit only if it begins with one of its later characters.
    begins = [text[0] for texts in others.values() for text in texts]
    whole = rules.later_join and rules.later.isdisjoint(begins)
    sparse = not protected and (whole or not begins)
    steps = _steps(model.charsmap, rules, symbols, replaced, sparse)
    return steps, {stand_in: target for target, stand_in in stand_ins.items()}


def _steps(
    content: bytes,
    rules: _Rules,
    symbols: Sequence[str],
    replaced: Mapping[str, list[str]],
    sparse: bool,
) -> list[normalizers.Normalizer]:
    """The steps of the rules.

    `replaced` has the texts for which each stand-in stands. If `sparse`, the ends of units are
    marked only where a mark follows, which makes the steps faster.
    """
    joining = charsmap.joining_pattern(rules.single)
    steps: list[normalizers.Normalizer] = []
    units = [charsmap.longest_pattern(symbols)] if symbols else []
    units += [rules.several] if rules.several else []
    if units:
        # Atomic, so that a unit is never cut; from the last match on (`\G`), so that each is found.
        unit = f"(?>{'|'.join([*units, '(?m:.)'])})"
        end = f"\\G(?:{unit})+?\\K(?={joining})" if sparse else f"\\G{unit}\\K"
        steps.append(_replace(end, UNIT_END))
    for stand_in, texts in replaced.items():
        text = charsmap.longest_pattern(texts)
        whole = f"{text}(?!{joining})" if sparse else f"(?<![^{UNIT_END}]){text}(?={UNIT_END})"
        steps.append(_replace(whole, stand_in))
    kept = {mark: chr(ord(_FOREIGN) - 1 - i) for i, mark in enumerate(rules.kept)}
    steps += [_replace(f"(?<=[^{UNIT_END}]){mark}", other) for mark, other in kept.items()]
    steps += [
        # Not before the first character: `tokenizers` ends with an error there.
        _replace(f"(?<=[^{UNIT_END}])(?={joining})", INSIDE),
        normalizers.Precompiled(content),
        normalizers.Replace(INSIDE, ""),
        *(normalizers.Replace(other, mark) for mark, other in kept.items()),
    ]
    steps += [normalizers.NFC()] if rules.composes else []
    steps += [normalizers.Replace(UNIT_END, "")] if units else []
    return steps


def _replace(pattern: str, content: str) -> normalizers.Normalizer:
    return normalizers.Replace(Regex(pattern), content)


def _other_rules(model: Model, rules: _Rules) -> dict[str, list[str]]:
    """The `others` whose ids may differ: with bytes for unknown text, or with known characters."""
    if model.byte_fallback:
        return rules.others
    known: set[str] = set()
    for piece in model.pieces:
        if piece.type in (NORMAL, USER_DEFINED):
            known.update(piece.name)
    single = rules.single
    kept = {}
    for target, texts in rules.others.items():
        seen = set(target)
        for text in texts:
            seen.update(*(single.get(character, character) for character in text))
        if seen & known:
            kept[target] = texts
    return kept


@lru_cache(maxsize=4)
def _read(content: bytes) -> _Rules:
    rules = charsmap.read_rules(content)
    single = {source: target for source, target in rules.items() if len(source) == 1}
    several = [source for source in rules if len(source) > 1]
    targets = frozenset(rules.values())
    if not several:
        return _Rules(single, targets, "", frozenset(), True, False, [], {})
    later = frozenset().union(*(source[1:] for source in several))
    kept = [c for c in sorted(later) if _is_mark(c) and not _is_mark(single.get(c, c)[:1])]
    table = charsmap.translation(rules)
    inside = {code: target for code, target in table.items() if chr(code) not in kept}
    others = _not_given(rules, several, [source.translate(table) for source in several])
    # A few rules of the user, of which NFC may give some, but would change other text too.
    composes = len(others) > MAX_STAND_INS_FOR_RULES
    if composes:
        mapped = [source[0].translate(table) + source[1:].translate(inside) for source in several]
        others = _not_given(rules, several, _nfc(mapped))
    pattern = charsmap.longest_pattern(several)
    later_join = all(joins(c) or joins(single.get(c, c)[:1]) for c in later)
    return _Rules(
        single, targets, pattern, later, later_join, composes, kept if composes else [], others
    )


def _not_given(
    rules: Mapping[str, str], sources: Sequence[str], results: Sequence[str]
) -> dict[str, list[str]]:
    """The replacements, and their texts, that are not the `results` of the steps for `sources`."""
    others: dict[str, list[str]] = {}
    for source, result in zip(sources, results, strict=True):
        if rules[source] != result:
            others.setdefault(rules[source], []).append(source)
    return others


def _is_mark(character: str) -> bool:
    return character != "" and unicodedata.category(character).startswith("M")


def _nfc(texts: Sequence[str]) -> list[str]:
    """Each text in the form NFC as `tokenizers` has it, whose tables are older than Python's."""
    # In one call, because there are hundreds of thousands.
    joined = normalizers.NFC().normalize_str(UNIT_END.join(texts))
    return joined.split(UNIT_END) if texts else []


@lru_cache(maxsize=1)
def _changed_by_nfc() -> list[str]:
    """All characters that NFC replaces."""
    candidates = [c for c in map(chr, range(0x110000)) if unicodedata.decomposition(c)]
    composed = _nfc(candidates)
    return [c for c, other in zip(candidates, composed, strict=True) if c != other]
