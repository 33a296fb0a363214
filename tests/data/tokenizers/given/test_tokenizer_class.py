import pytest

from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.errors import UserError
from tests.data.tokenizers.test_byte_bpe import TRAINED as BYTE_BPE
from tests.data.tokenizers.test_huggingface import put, vocab_txt

JAPANESE = "BertJapaneseTokenizer"


@pytest.mark.parametrize("settings,model,message", [
    (None, {"tokenizer_class": JAPANESE}, r"/config\.json: tokenizer_class: found 'BertJapaneseTokenizer', expected one of BertTokenizer"),
    ({}, {"tokenizer_class": JAPANESE}, r"/config\.json: tokenizer_class: found"),
    ({"tokenizer_class": JAPANESE + "Fast"}, {"tokenizer_class": "BertTokenizer"}, r"tokenizer_config\.json: tokenizer_class"),
    ({"word_tokenizer_type": "mecab"}, {}, r"tokenizer_config\.json: word_tokenizer_type: found 'mecab', expected 'basic'"),
    ({"word_tokenizer_type": "sudachi", "tokenizer_class": "BertTokenizer"}, {}, "word_tokenizer_type: found 'sudachi'"),
    ({"subword_tokenizer_type": "character"}, {}, "subword_tokenizer_type: found 'character', expected 'wordpiece'"),
    ({}, {"word_tokenizer_type": "jumanpp"}, r"/config\.json: word_tokenizer_type: found 'jumanpp'"),
    ({"subword_tokenizer_type": ["wordpiece"]}, {}, "subword_tokenizer_type: found"),
    (None, {"tokenizer_class": "PhobertTokenizer"}, "found 'PhobertTokenizer'"),
    (None, {"tokenizer_class": 5}, "tokenizer_class: found 5"),
    ({"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, {}, "auto_map: found .*, expected no tokenizer of its own code"),
    ({"auto_map": ["own.Tokenizer", None]}, {}, "auto_map: found"),
])  # fmt: skip
def test_a_class_that_splits_text_otherwise_is_refused_wherever_it_is_declared(
    tmp_path, settings, model, message
):
    files = {} if settings is None else {"tokenizer_config_json": settings}
    put(tmp_path, vocab_txt=vocab_txt(), config_json=model, **files)
    with pytest.raises(UserError, match=message) as caught:
        read_tokenizer_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings,model", [
    ({}, {}), ({}, {"tokenizer_class": None}), ({}, {"tokenizer_class": "BertTokenizerFast"}),
    # As in transformers, the settings of the tokenizer count before those of the model.
    ({"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": JAPANESE}),
    ({"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}, {}),
    ({"word_tokenizer_type": None}, {"auto_map": {"AutoModel": "own.Model"}}),
])  # fmt: skip
def test_a_class_with_berts_rules_is_read(tmp_path, settings, model):
    put(tmp_path, vocab_txt=vocab_txt(), config_json=model, tokenizer_config_json=settings)
    assert read_tokenizer_folder(tmp_path).kind == "wordpiece"


def test_the_vocabulary_of_byte_pair_encoding_is_no_wordpiece(tmp_path):
    put(tmp_path, vocab_txt=vocab_txt(), bpe_codes="t h 5\n")
    with pytest.raises(UserError, match=r"bpe\.codes: found merges, expected vocab\.txt of Word"):
        read_tokenizer_folder(tmp_path)


def test_other_kinds_of_files_are_refused_by_the_class_of_config_json_too(tmp_path):
    files = {
        "vocab_json": BYTE_BPE._files["vocab.json"],
        "merges_txt": BYTE_BPE._files["merges.txt"],
    }
    put(tmp_path, config_json={"tokenizer_class": "HerbertTokenizer"}, **files)
    with pytest.raises(
        UserError, match=r"/config\.json: tokenizer_class: found 'HerbertTokenizer'"
    ):
        read_tokenizer_folder(tmp_path)
