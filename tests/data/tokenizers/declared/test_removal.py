import json

from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from tests.data.tokenizers.declared.folders import put
from tests.data.tokenizers.declared.makers import (
    byte_level_with_other_words,
    course_normalizer,
    delimiter,
    no_normalizer,
    no_unknown_token,
    removed_dashes,
    space_by_the_normalizer,
)
from tests.data.tokenizers.test_tokenizer import ids_of


def test_characters_that_the_rules_remove_are_in_no_token(tmp_path):
    text = "the|dog - the-dog"
    removed = {
        delimiter: "|",
        removed_dashes: "--",
        no_normalizer: None,
        byte_level_with_other_words: None,
        no_unknown_token: "|--",
        space_by_the_normalizer: None,
    }
    for make, expected in removed.items():
        tokenizer = read_tokenizer_folder(make(tmp_path / make.__name__))
        unread = tokenizer.unread([text, "dog"])
        if unread is None:
            assert expected is None
            continue
        found = [c for c, is_unread in zip(text, unread, strict=False) if is_unread]
        assert "".join(found).replace(" ", "") == expected
        assert len(unread) == len(text) + 3


def test_tokens_beside_characters_without_a_piece_begin_at_their_own(tmp_path):
    tokenizer = read_tokenizer_folder(no_unknown_token(tmp_path))
    text = "\u2603the d\u2603\u2603og\u2603 the"
    (begins,) = tokenizer.encode_begins([text])
    pieces = tokenizer.pieces(ids_of(tokenizer, text))
    letters = [piece.strip("\u2581")[:1] for piece in pieces]
    assert letters == [text[begin] for begin in begins] == ["t", "d", "o", "g", "t"]
    assert tokenizer.encode_counted([text, "the"])[2].unknown == 4


def test_a_mark_that_is_stripped_belongs_to_its_letter(tmp_path):
    folder = course_normalizer(tmp_path)
    engine = json.loads((folder / "tokenizer.json").read_text())
    engine["pre_tokenizer"] = {"type": "CharDelimiterSplit", "delimiter": " "}
    tokenizer = read_tokenizer_folder(put(folder, engine))
    text = "dog\u0301 the"
    unread = tokenizer.unread([text]).tolist()
    assert [c for c, is_unread in zip(text, unread, strict=True) if is_unread] == [" "]
