"""Tokens that folders name without ids, against `AutoTokenizer` of drawn folders."""

import random

import pytest

from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.errors import UserError
from tests.data.tokenizers.given.test_registered_tokens import (
    BERT,
    ENTRIES,
    GENERAL,
    drawn,
    in_text,
    rows,
    their_ids,
)
from tests.data.tokenizers.test_huggingface import put, vocab_txt

NEW = [f"<n{number}>" for number in range(8)]
NAMES = [*NEW, "<user>", "[E1]", "user"]
FIELDS = ["audio_token", "image_token", "boi_token", "z_token", "bos_token", "eos_token"]


def drawn_token(chosen, typed=True):
    """A token as a text or an object; a few objects do not say what they are."""
    content = chosen.choice(NAMES)
    if chosen.random() < 0.5:
        return content
    flags = ("lstrip", "rstrip", "single_word", "normalized", "special")
    value = {name: chosen.random() < 0.5 for name in flags if chosen.random() < 0.4}
    if typed and chosen.random() < 0.75:
        value["__type"] = "AddedToken"
    return {"content": content, **value}


def drawn_list(chosen, typed=True):
    """A list of tokens, or an object of tokens by name."""
    if chosen.random() < 0.6:
        return [drawn_token(chosen, typed) for _ in range(chosen.randrange(3))]
    return {name: chosen.choice(NAMES) for name in ("x_token", "audio_token")}


def drawn_folder(folder, seed):
    """Write a folder that names tokens in its settings, mostly in other files too."""
    chosen = random.Random(seed)
    fields = {name: drawn_token(chosen) for name in chosen.sample(FIELDS, chosen.randrange(5))}
    if chosen.random() < 0.25:
        fields["extra_special_tokens"] = drawn_list(chosen)
    if chosen.random() < 0.1:
        fields["model_specific_special_tokens"] = {"m_token": drawn_token(chosen)}
    if chosen.random() < 0.25:
        fields["additional_special_tokens"] = [drawn_token(chosen), chosen.choice(NAMES)]
    keys = chosen.sample(list(fields), len(fields))
    settings = {key: fields[key] for key in keys}
    files = {"vocab_txt": vocab_txt(ENTRIES), "config_json": {"model_type": "bert"}}
    if chosen.random() < 0.5:
        marked = {name: drawn_token(chosen, typed=False) for name in chosen.sample(FIELDS, 2)}
        if chosen.random() < 0.4:
            marked["extra_special_tokens"] = drawn_list(chosen, typed=False)
        elif chosen.random() < 0.4:
            marked["additional_special_tokens"] = chosen.sample(NAMES, 2)
        files["special_tokens_map_json"] = marked
    numbered = {len(ENTRIES) + number: name for number, name in enumerate(chosen.sample(NEW, 2))}
    if chosen.random() < 0.25:
        files["added_tokens_json"] = {name: i for i, name in numbered.items()}
    if chosen.random() < 0.25:
        decoder = {str(i): {"content": name, "special": i % 2 == 0} for i, name in numbered.items()}
        settings["added_tokens_decoder"] = decoder
    if chosen.random() < 0.6:
        settings |= BERT
        if chosen.random() < 0.2:
            settings["split_special_tokens"] = True
    else:
        settings |= GENERAL
        files["tokenizer_json"] = in_text("<user>") if chosen.random() < 0.5 else in_text()
    return put(folder, tokenizer_config_json=settings, **files)


def flags(token):
    return token.lstrip, token.rstrip, token.single_word, token.normalized


def check_seed(folder, seed, transformers, texts):
    """Return whether both read the folder; ids and flags must be those of `AutoTokenizer` then."""
    drawn_folder(folder, seed)
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except TypeError:
        # It takes no object without `__type` where it expects a token.
        return False
    try:
        ours = read_tokenizer_folder(folder)
    except UserError as error:
        if "special in one place and not in another" not in str(error):
            raise
        return False
    ids = {piece: i for i, piece in enumerate(ours.pieces(range(ours.vocab_size)))}
    added = {token.content: (i, token) for i, token in theirs.added_tokens_decoder.items()}
    assert len(theirs) == ours.vocab_size, seed
    assert {name: i for name, (i, _) in added.items()}.items() <= ids.items(), seed
    found = {name: flags(token) for name, (_, token) in added.items() if name not in SPECIAL_TOKENS}
    kept = {token.content: flags(token) for token in ours.registered}
    if theirs.split_special_tokens:
        found = {name: found[name] for name in found if not added[name][1].special}
    assert found == kept, seed
    assert rows(ours, texts) == theirs(texts, add_special_tokens=False)["input_ids"], seed
    return True


def check_seeds(tmp_path, seeds):
    transformers = pytest.importorskip("transformers")
    texts = ["".join(NAMES), " ".join(NAMES).upper(), "x <n1> <n2>y users", *drawn(20)]
    read = [check_seed(tmp_path / str(seed), seed, transformers, texts) for seed in seeds]
    assert 2 * sum(read) > len(read)


def test_ids_and_flags_of_named_tokens_are_those_of_auto_tokenizer(tmp_path):
    check_seeds(tmp_path, range(40))


@pytest.mark.slow
def test_ids_and_flags_of_many_drawn_folders_are_those_of_auto_tokenizer(tmp_path):
    check_seeds(tmp_path, range(40, 2000))


ORDER = [
    ({"z_token": "<n1>", "eos_token": "<n2>", "bos_token": "<n3>"}, ["<n3>", "<n2>", "<n1>"]),
    ({"z_token": "<n1>", "a_token": {"__type": "AddedToken", "content": "<n2>"}}, ["<n2>", "<n1>"]),
    ({"extra_special_tokens": ["<n1>"], "z_token": "<n2>", "a_token": "<n3>"}, ["<n2>", "<n3>", "<n1>"]),
    ({"audio_token": {"content": "<n1>"}, "z_token": "<n2>"}, ["<n2>"]),
]  # fmt: skip


@pytest.mark.parametrize("settings,expected", ORDER)
def test_named_attributes_come_first_then_objects_then_texts_then_others(
    tmp_path, settings, expected
):
    files = {"config_json": {"model_type": "bert"}, "vocab_txt": vocab_txt(ENTRIES)}
    put(tmp_path, tokenizer_config_json=BERT | settings, **files)
    tokenizer = read_tokenizer_folder(tmp_path)
    assert tokenizer.pieces(range(len(ENTRIES), tokenizer.vocab_size)) == expected
    # The expected order is that of `transformers`.
    assert rows(tokenizer, expected) == their_ids(tmp_path, expected)


def test_a_token_that_is_special_in_one_place_alone_is_refused_where_these_are_divided(tmp_path):
    other = {"__type": "AddedToken", "content": "<n1>", "special": False}
    settings = BERT | {"extra_special_tokens": ["<n1>", other]}
    put(tmp_path, tokenizer_config_json=settings, vocab_txt=vocab_txt(ENTRIES))
    assert read_tokenizer_folder(tmp_path).vocab_size == len(ENTRIES) + 1
    put(tmp_path, tokenizer_config_json=settings | {"split_special_tokens": True})
    with pytest.raises(UserError, match="split_special_tokens: found the token '<n1>', which is"):
        read_tokenizer_folder(tmp_path)


@pytest.mark.parametrize("settings", [
    {"additional_special_tokens": ["fox"]},
    {"added_tokens_decoder": {str(len(ENTRIES)): {"content": "fox", "single_word": True}}},
    {"additional_special_tokens": ["fox"], "split_special_tokens": True},
    {"added_tokens_decoder": {str(len(ENTRIES)): {"content": "##ing", "normalized": True}}},
])  # fmt: skip
def test_a_new_word_that_is_not_found_in_any_text_is_refused(tmp_path, settings):
    put(tmp_path, tokenizer_config_json=BERT | settings, vocab_txt=vocab_txt(ENTRIES))
    with pytest.raises(UserError, match="registered tokens: found '(fox|##ing)', a word that is"):
        read_tokenizer_folder(tmp_path)


def test_a_new_word_that_is_found_in_any_text_has_the_ids_of_auto_tokenizer(tmp_path):
    files = {"config_json": {"model_type": "bert"}, "added_tokens_json": {"fox": len(ENTRIES)}}
    put(tmp_path, vocab_txt=vocab_txt(ENTRIES), **files)
    texts = ["a fox", "FOXES", "thefox u", "fo\u200bx", "f\u00f6x"]
    assert rows(read_tokenizer_folder(tmp_path), texts) == their_ids(tmp_path, texts)
