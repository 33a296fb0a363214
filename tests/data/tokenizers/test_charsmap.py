import re

import sentencepiece as spm
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from bertjax.data.tokenizers import charsmap
from bertjax.data.tokenizers.sentencepiece_model import read_model
from tests.data.tokenizers.test_tokenizer import TRAINED


def test_rules_are_read_as_sentencepiece_applies_them():
    content = TRAINED["unigram"]._content
    model, rules = read_model(content), charsmap.read_rules(read_model(content).charsmap)
    theirs = spm.SentencePieceNormalizer(
        model_proto=content, add_dummy_prefix=False, remove_extra_whitespaces=False
    )
    assert len(rules) > 200_000
    # Every 97th, and what white space becomes.
    for source in [*sorted(rules)[::97], "\t", "\u3000", "▁"]:
        assert theirs.normalize(f"x{source}").replace("▁", " ") == f"x{rules[source]}"
    assert model.rule_name == "nmt_nfkc_cf"


@given(
    st.dictionaries(
        st.characters(exclude_characters="\0", exclude_categories=("Cs",)),
        st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=4),
        min_size=1,
    )
)
def test_written_rules_are_read_here_and_by_tokenizers(rules):
    content = charsmap.write_rules(rules)
    assert charsmap.read_rules(content) == rules
    theirs = normalizers.Precompiled(content)
    for source, target in rules.items():
        assert theirs.normalize_str(source) == target


@given(st.sets(st.text("abcé天", min_size=1, max_size=4), min_size=1), st.text("abcé天"))
def test_longest_pattern_matches_the_longest_of_its_texts(texts, text):
    # Python has `\xHH` and `\UHHHHHHHH` for the `\x{H}` of Oniguruma.
    pattern = re.sub(
        r"\\x\{(\w+)\}", lambda m: f"\\U{int(m[1], 16):08x}", charsmap.longest_pattern(texts)
    )
    found = re.match(pattern, text)
    longest = max((known for known in texts if text.startswith(known)), key=len, default=None)
    assert (found[0] if found else None) == longest
