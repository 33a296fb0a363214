"""What the tokenizer loses of the corpus: warnings, and the end where nothing is left to mask."""

import logging
from collections.abc import Mapping

from bertjax.config import TokenizerConfig
from bertjax.errors import check

log = logging.getLogger("bertjax")

# SentencePiece leaves 1 character in 2,000 of a corpus out of its vocabulary, on purpose
# (`character_coverage`). English text with some foreign names and symbols loses about as much under
# WordPiece. Twenty times that is text for which the tokenizer was not made.
WARN_SHARE = 0.01
"""Share of the characters that may be lost, or lose a mark, without a warning."""


def unknown_share(counts: Mapping[str, int]) -> float:
    """Return the share of the characters that are lost in unknown tokens, 0 to 1."""
    return _share(counts, "unknown_characters")


def stripped_share(counts: Mapping[str, int]) -> float:
    """Return the share of the characters that lose a mark, 0 to 1."""
    return _share(counts, "stripped_characters")


def describe(counts: Mapping[str, int]) -> str:
    """Return both shares in words; empty for counts of an earlier version, which lack them."""
    if not counts.get("visible_characters"):
        return ""
    return (
        f"lost in unknown tokens: {unknown_share(counts):.2%} of the characters; "
        f"accents and marks stripped from {stripped_share(counts):.2%}"
    )


def report(counts: Mapping[str, int], config: TokenizerConfig) -> None:
    """Log a warning where the shares are large.

    Raises `UserError` where all text is lost: there is nothing that a model could be trained on.
    """
    visible, unknown = counts.get("visible_characters", 0), unknown_share(counts)
    check(
        not visible or unknown < 1,
        where=f"tokenizer.kind {config.kind}",
        found=f"all {visible:,} characters of the corpus in unknown tokens, which are never masked",
        expected=f"text that it has pieces for ({_remedy(config)})",
    )
    if unknown > WARN_SHARE:
        log.warning(
            "%.1f %% of the characters are lost in unknown tokens: try %s",
            100 * unknown,
            _remedy(config),
        )
    if stripped_share(counts) > WARN_SHARE:
        log.warning(
            "%.1f %% of the characters lose an accent or a vowel sign, or are one: to keep them, "
            "set --tokenizer.strip-accents False",
            100 * stripped_share(counts),
        )


def check_maskable(where: str, tokens: int, unknown_tokens: int, config: TokenizerConfig) -> None:
    """Raise `UserError` for a split of which all tokens are unknown."""
    check(
        not tokens or unknown_tokens < tokens,
        where=where,
        found=f"{tokens:,} tokens, all of them unknown, of which none can be masked",
        expected=f"a token that the vocabulary has ({_remedy(config)})",
    )


def _remedy(config: TokenizerConfig) -> str:
    if config.kind == "wordpiece":
        return "--tokenizer.kind unigram, which needs no spaces, or a larger vocabulary"
    return "a vocabulary trained on this text"


def _share(counts: Mapping[str, int], name: str) -> float:
    return counts.get(name, 0) / max(counts.get("visible_characters", 0), 1)
