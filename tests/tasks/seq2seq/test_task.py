"""The task: rows, settings, the same on a mesh, and that it learns."""

import dataclasses
import logging

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.config import MeshConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.examples import PairExample
from bertjax.tasks.metric_table import Scale
from bertjax.tasks.seq2seq.task import Seq2Seq, make_task
from tests.data.tokenizers.family_folders import eurobert, gpt_bert, one_end_token
from tests.factory import SMALL_MODEL
from tests.tasks.seq2seq.cases import (
    CLS,
    LETTERS,
    MODEL,
    SEP,
    TASK,
    VOCABULARY,
    generated,
    loss_and_gradient,
    pairs_batch,
    params_of_task,
    scores_of,
    search_of,
)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece(
        "vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True
    )


def test_a_tokenizer_that_pads_with_the_end_of_a_text_is_refused(tmp_path):
    for make in (eurobert, one_end_token):
        with pytest.raises(UserError, match="task t: found a tokenizer in which one token pads"):
            make_task("t", read_tokenizer_folder(make(tmp_path / make.__name__)))


def test_targets_have_an_end_also_where_the_rows_of_sources_have_none(tmp_path):
    tokenizer = read_tokenizer_folder(gpt_bert(tmp_path / "x"))
    task = make_task("t", tokenizer, max_target_length=5)
    example = PairExample("1", "the dog", "fox")
    for length in (64, 3):
        rows = task.encode([example], tokenizer, length, targets=True)
        source, target = (tokenizer.encode_batch([text])[0].tolist() for text in ("the dog", "fox"))
        assert rows.ids.tolist() == [tokenizer.cls_id, *source][:length]
        expected = [tokenizer.cls_id, *target[:3], tokenizer.sep_id]
        expected += [tokenizer.pad_id] * (5 - len(expected))
        assert rows.targets["target_ids"].tolist() == [expected]


@pytest.mark.slow
def test_loss_gradients_and_targets_are_the_same_on_a_mesh():
    task = dataclasses.replace(TASK, search=search_of(beam_size=2))
    batch = pairs_batch(np.random.default_rng(4))
    batch["item_weights"][3] = 0
    params = params_of_task()
    (loss, sums), gradient = loss_and_gradient(task, MODEL, params, batch)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, sequence=2), jax.devices())
    layout = rules.MeshLayout(mesh)
    axes = {**functional.logical_axes(MODEL), "tasks": {"reverse": task.head_axes(MODEL)}}
    split = jax.device_put(params, rules.tree_shardings(mesh, axes))
    kernel = split["tasks"]["reverse"]["layers"]["cross_attention"]["query"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 4 == kernel.size
    put = jax.device_put(batch, rules.batch_sharding(mesh))

    @jax.jit
    def on_mesh(params, batch):
        def loss(params):
            sums = task.sums(task.logits(MODEL, params, batch, key=None, layout=layout), batch)
            return sums["loss"] / task.count(batch), sums

        return jax.value_and_grad(loss, has_aux=True)(params), task.generate(
            MODEL, params, batch, layout=layout
        )

    ((result, found_sums), found_gradient), texts = on_mesh(split, put)
    np.testing.assert_allclose(result, loss, rtol=1e-5)
    assert (
        float(found_sums["count"])
        == float(sums["count"])
        == np.sum(batch["target_ids"][:3, 1:] > 0)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found_gradient, gradient)
    np.testing.assert_array_equal(texts, generated(task, MODEL, params, batch))


@given(st.lists(st.tuples(LETTERS, LETTERS), min_size=1, max_size=5))
def test_rows_hold_sources_and_targets_and_targets_come_back_as_text(tokenizer, texts):
    task = make_task("reverse", tokenizer, max_target_length=9)
    examples = [PairExample(str(i), source, target) for i, (source, target) in enumerate(texts)]
    rows = task.encode(examples, tokenizer, 16, targets=True)
    for i, one in enumerate(examples):
        row = rows.ids[rows.offsets[i] : rows.offsets[i + 1]]
        assert tokenizer.decode(row) == f"[CLS] {one.source} [SEP]"
        assert rows.second_begins[i] == len(row)
        assert (
            tokenizer.decode(rows.targets["target_ids"][i]).replace(" [PAD]", "")
            == f"[CLS] {one.target} [SEP]"
        )
    assert rows.example_indices.tolist() == list(range(len(texts)))
    assert rows.targets["target_ids"].shape == (len(texts), 9)
    predictions = task.predict(list(rows.targets["target_ids"]), rows, examples)
    assert predictions == [one.target for one in examples]
    assert task.encode(examples, tokenizer, 16, targets=False).targets == {}


def test_long_texts_are_cut_and_said_and_a_missing_target_is_named(tokenizer, caplog):
    task = make_task("reverse", tokenizer, max_target_length=4)
    examples = [PairExample("7", "a b c d e f g h", "a b c"), PairExample("8", "a", "b")]
    with caplog.at_level(logging.WARNING, logger="bertjax"):
        rows = task.encode(examples, tokenizer, 6, targets=True)
    assert tokenizer.decode(rows.ids) == "[CLS] a b c d [SEP] [CLS] a [SEP]"
    assert tokenizer.decode(rows.targets["target_ids"][0]) == "[CLS] a b [SEP]"
    assert caplog.messages == [
        "sources longer than 6 ids, which were cut to them: 1 of 2",
        "targets longer than 4 ids, which were cut to them: 1 of 2",
    ]
    with pytest.raises(UserError, match="task reverse: example 9: found no target, expected one"):
        task.encode([PairExample("9", "a")], tokenizer, 6, targets=True)


def test_items_that_fill_up_a_batch_add_exactly_nothing():
    batch, params = pairs_batch(np.random.default_rng(3)), params_of_task()
    batch["item_weights"][2:] = 0
    (loss, sums), gradient = loss_and_gradient(TASK, MODEL, params, batch)
    batch["target_ids"][2], batch["target_ids"][3] = 2**30, -1  # no ids of any vocabulary
    (other, same), other_gradient = loss_and_gradient(TASK, MODEL, params, batch)
    jax.tree.map(
        np.testing.assert_array_equal, (other, same, other_gradient), (loss, sums, gradient)
    )
    scores = jax.nn.log_softmax(scores_of(TASK, MODEL, params, batch))[:2, :-1]
    labels = batch["target_ids"][:2, 1:]
    losses = -0.9 * np.take_along_axis(np.asarray(scores), labels[:, :, None], 2)[
        :, :, 0
    ] - 0.1 * scores.mean(-1)
    np.testing.assert_allclose(sums["loss"], losses[labels > 0].sum(), rtol=1e-5)
    assert float(sums["count"]) == float(TASK.count(batch)) == (labels > 0).sum()
    assert float(sums["correct"]) == ((np.argmax(scores, -1) == labels) & (labels > 0)).sum()


def test_a_figure_is_named_by_what_it_ignores_and_the_one_of_the_tokenizer_is_the_metric(tokenizer):
    sacrebleu = pytest.importorskip("sacrebleu")
    uncased = make_task("reverse", tokenizer)
    expected = ["the cat sat on the mat today .", "a dog barks loudly at night ."]
    result = ["the cat sat on a mat today .", "A dog barks loudly at night ."]
    examples = [PairExample(str(i), "", text) for i, text in enumerate(expected)]
    cased = dataclasses.replace(uncased, lowercase=False)
    figures = {
        "bleu": sacrebleu.corpus_bleu(result, [expected]).score,
        "exact_match": 0.0,
    }
    assert cased.figures(result, examples) == figures
    assert cased.metric == "bleu"
    figures["bleu_lc"] = sacrebleu.corpus_bleu(result, [expected], lowercase=True).score
    figures["exact_match_lc"] = 0.5
    assert uncased.figures(result, examples) == figures
    assert uncased.metric == "bleu_lc"
    assert 0 < figures["bleu"] < figures["bleu_lc"] < 100
    chosen = dataclasses.replace(cased, metrics=("exact_match_lc",))
    assert chosen.figures(result, examples).keys() == {"bleu", "exact_match", "exact_match_lc"}
    assert (chosen.metric, chosen.metric_scale) == ("exact_match_lc", Scale.SHARE)


def test_a_chinese_target_is_divided_into_characters(tokenizer):
    sacrebleu = pytest.importorskip("sacrebleu")
    task = make_task("reverse", tokenizer, bleu_tokenizer="zh")
    expected, result = (
        ["北京是中国的首都。", "他在大学里学习。"],
        ["北京是中国首都。", "他在大学学习。"],
    )
    examples = [PairExample(str(i), "", text) for i, text in enumerate(expected)]
    figures = task.figures(result, examples)
    assert task.metric == "bleu_zh_lc"
    assert figures["bleu_zh"] == sacrebleu.corpus_bleu(result, [expected], tokenize="zh").score
    assert figures["bleu_zh"] > 40
    assert sacrebleu.corpus_bleu(result, [expected]).score < 1  # of 13a, which has no words here


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"label_smoothing": 1.0},
            "task reverse: label_smoothing: found 1.0, expected 0 to below 1",
        ),
        ({"max_target_length": 2}, "task reverse: max_target_length: found 2, expected 3 or more"),
        ({"beam_size": 0}, "task reverse: beam_size: found 0, expected 1 or more"),
        ({"length_penalty": -1.0}, "task reverse: length_penalty: found -1.0, expected 0 or more"),
        (
            {"max_target_length": 17},
            "task reverse: max_target_length: found 17, expected at most the model's 16",
        ),
    ],
)
def test_settings_out_of_range_are_named(tokenizer, changes, message):
    with pytest.raises(UserError, match=message):
        make_task("reverse", tokenizer, **changes).init_head(MODEL, jax.random.key(0))


def trained(config, task, params, batches, rate, warmup=1):
    """(parameters, losses) of Adam on these batches."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(0.0, rate, warmup))
    )

    @jax.jit
    def update(params, state, gradient):
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state, losses = optimizer.init(params), []
    for batch in batches:
        (loss, _), gradient = loss_and_gradient(task, config, params, batch)
        params, state = update(params, state, gradient)
        losses.append(loss)
    return params, [float(loss) for loss in losses]


def reversed_batch(rng, rows, words, kinds):
    """Words to be written backwards."""
    drawn = rng.integers(5, 5 + kinds, (rows, words))

    def frame(x):
        return np.pad(x, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP))).astype(np.int32)

    source = frame(drawn)
    rest = {
        "input_mask": np.ones_like(source),
        "segment_ids": np.zeros_like(source),
        "item_weights": np.ones(rows, np.float32),
    }
    return {"input_ids": source, "target_ids": frame(drawn[:, ::-1]), **rest}


def test_a_few_steps_lower_the_loss():
    params = jax.tree.map(lambda x: x / 15 if x.ndim > 1 else x, params_of_task())
    batch = reversed_batch(np.random.default_rng(0), 4, 6, 8)
    _, losses = trained(MODEL, TASK, params, [batch] * 15, 1e-2)
    assert losses[0] == pytest.approx(np.log(32), abs=0.1)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_it_learns_to_reverse_eight_words():
    config = dataclasses.replace(
        SMALL_MODEL,
        vocab_size=24,
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        heads=(),
    )
    task, rng = (
        Seq2Seq("reverse", search_of(config, length=10, beam_size=4)),
        np.random.default_rng(0),
    )
    params, losses = trained(
        config,
        task,
        params_of_task(config),
        (reversed_batch(rng, 32, 8, 16) for _ in range(450)),
        2e-3,
        warmup=100,
    )
    test = reversed_batch(rng, 256, 8, 16)
    exact = np.mean(np.all(generated(task, config, params, test) == test["target_ids"], axis=1))
    print(f"loss {losses[0]:.2f} to {np.mean(losses[-20:]):.4f}; exact targets {exact:.3f}")
    assert exact > 0.95
