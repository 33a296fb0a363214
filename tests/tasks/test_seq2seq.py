"""Sequence to sequence: the decoder beside `transformers`', the search beside plain ones, and that it learns."""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from bertjax.config import MeshConfig
from bertjax.data.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks.examples import PairExample
from bertjax.tasks.seq2seq import decode, decoder
from bertjax.tasks.seq2seq.decode import Search
from bertjax.tasks.seq2seq.pairs import read_pairs
from bertjax.tasks.seq2seq.task import Seq2Seq, make_task
from bertjax.tasks.sources import Source
from tests.factory import SMALL_MODEL

WORDS = [*"abcdefghijklmnop", "don", "'", "t", ".", "##s"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
PAD, CLS, SEP = 0, 2, 3
# Weights of a size that makes predictions differ from place to place.
MODEL = dataclasses.replace(SMALL_MODEL, vocab_size=32, initializer_range=0.3, heads=("mlm",))
TINY = dataclasses.replace(MODEL, vocab_size=8, hidden_size=8, max_position_embeddings=8, initializer_range=0.6)
SEEDS = st.integers(0, 2**31 - 1)
LETTERS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPiece("vocab.txt", "".join(f"{entry}\n" for entry in VOCABULARY).encode(), lowercase=True)


def search_of(config=MODEL, length=8, beam_size=1, alpha=0.6):
    return Search(CLS, SEP, PAD, config.vocab_size - 1, length, beam_size, alpha)


# One task, and batches of one shape: programs take longer to compile than to run.
TASK = Seq2Seq("reverse", search_of(), label_smoothing=0.1)


@functools.partial(jax.jit, static_argnums=0)
def encoder_of(config, seed):
    return functional.init(config, jax.random.key(seed))


@functools.partial(jax.jit, static_argnums=0)
def decoder_of(config, seed):
    return decoder.init(config, jax.random.key(seed))


@functools.cache
def params_of_task(config=MODEL, seed=0):
    return {**encoder_of(config, seed), "tasks": {"reverse": decoder_of(config, seed + 1)}}


def pairs_batch(rng, rows=4, length=8, target_length=8, vocab_size=31):
    sources, targets = rng.integers(2, length + 1, rows), rng.integers(2, target_length + 1, rows)
    mask = np.arange(length)[None, :] < sources[:, None]
    places = np.arange(target_length)[None, :]
    ids = rng.integers(4, vocab_size, (rows, target_length)) * (places < targets[:, None])
    ids[:, 0], ids[np.arange(rows), targets - 1] = CLS, SEP
    return {
        "input_ids": (rng.integers(4, vocab_size, (rows, length)) * mask).astype(np.int32),
        "input_mask": mask.astype(np.int32),
        "segment_ids": np.zeros((rows, length), np.int32),
        "target_ids": ids.astype(np.int32),
        "item_weights": np.ones(rows, np.float32),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def scores_of(task, config, params, batch, key=None):
    return task.scores(config, params, batch, key=key, layout=ANYWHERE)


@functools.partial(jax.jit, static_argnums=(0, 1))
def loss_and_gradient(task, config, params, batch, key=None):
    def loss(params):
        sums = task.sums(task.scores(config, params, batch, key=key, layout=ANYWHERE), batch)
        return sums["loss"] / task.count(batch), sums

    return jax.value_and_grad(loss, has_aux=True)(params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def generated(task, config, params, batch):
    return task.generate(config, params, {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")})


@functools.partial(jax.jit, static_argnums=(0, 2))
def encoded(config, seed, rows=4):
    """A decoder, what it attends to, and which of that is real."""
    keys = jax.random.split(jax.random.key(seed), 3)
    memory = jax.random.normal(keys[0], (rows, 6, config.hidden_size))
    mask = jnp.arange(6)[None, :] < jax.random.randint(keys[1], (rows, 1), 1, 7)
    return decoder.init(config, keys[2]), memory, mask.astype(jnp.int32)


teacher = jax.jit(decoder.logits, static_argnums=0)
greedy = jax.jit(decode.greedy, static_argnums=(0, 4))
beam_search = jax.jit(decode.beam_search, static_argnums=(0, 4))
targets_of = jax.jit(decode.generate, static_argnums=(0, 4))


# --- beside transformers ---


def reference(config, seed):
    """An encoder-decoder of `transformers`, every parameter random, and our parameters with its numbers."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from bertjax.interop.model_config import config_values

    torch.manual_seed(seed)
    values = {name: value for name, value in config_values("bert", config, 0).items() if name != "model_type"}
    make = functools.partial(transformers.BertConfig, **values, attn_implementation="eager")
    encoder = transformers.BertModel(make(), add_pooling_layer=False)
    decoder_model = transformers.BertLMHeadModel(make(is_decoder=True, add_cross_attention=True))
    model = transformers.EncoderDecoderModel(encoder=encoder, decoder=decoder_model).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * config.initializer_range)
    return model


def ours(config, model, gradients=False):
    """Our tree of the reference's parameters, or of their gradients, with a head for the task `reverse`."""
    from bertjax.interop.names import torch_dialect
    from bertjax.interop.tensors import Tensors, take

    of = {name: (p.grad if gradients else p.detach()).numpy() for name, p in model.named_parameters()}

    def taken(config, prefix, base=""):
        found = {
            base + name.removeprefix(prefix): x
            for name, x in of.items()
            if name.startswith(prefix) and "crossattention" not in name
        }
        return take(
            config,
            torch_dialect("bert"),
            Tensors("the reference", {name: x.shape for name, x in found.items()}, found.__getitem__),
        )

    encoder = taken(dataclasses.replace(config, heads=()), "encoder.", "bert.")
    whole = taken(dataclasses.replace(config, heads=("mlm",)), "decoder.")

    def stacked(name, leaf):
        layers = range(config.num_hidden_layers)
        return np.stack([of[f"decoder.bert.encoder.layer.{i}.crossattention.{name}.{leaf}"] for i in layers])

    width, heads = config.hidden_size, (config.num_attention_heads, config.hidden_size // config.num_attention_heads)
    cross = {
        part: {
            "kernel": stacked(f"self.{part}", "weight").transpose(0, 2, 1).reshape(-1, width, *heads),
            "bias": stacked(f"self.{part}", "bias").reshape(-1, *heads),
        }
        for part in ("query", "key", "value")
    }
    cross["output"] = {
        "kernel": stacked("output.dense", "weight").transpose(0, 2, 1).reshape(-1, *heads, width),
        "bias": stacked("output.dense", "bias"),
    }
    norm = {"scale": stacked("output.LayerNorm", "weight"), "bias": stacked("output.LayerNorm", "bias")}
    layers = {**whole["encoder"]["layers"], "cross_attention": cross, "cross_attention_layer_norm": norm}
    head = {"embeddings": whole["embeddings"], "layers": layers, "mlm": whole["mlm"]}
    return jax.tree.map(jnp.asarray, {**encoder, "tasks": {"reverse": head}})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"hidden_act": "relu", "num_attention_heads": 4, "num_hidden_layers": 3}, marks=pytest.mark.slow),
    ],
)
def test_scores_loss_gradients_and_greedy_targets_are_those_of_transformers(changes, largest):
    torch = pytest.importorskip("torch")
    config = dataclasses.replace(MODEL, **changes)
    model = reference(config, 3)
    params, batch = ours(config, model), pairs_batch(np.random.default_rng(1))
    as_long = lambda x: torch.tensor(x, dtype=torch.long)  # noqa: E731
    ids, mask, target = (as_long(batch[name]) for name in ("input_ids", "input_mask", "target_ids"))
    theirs = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target[:, :-1]).logits
    labels = target[:, 1:].masked_fill(target[:, 1:] == PAD, -100)
    loss = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    loss.backward()

    task = TASK
    scores = scores_of(task, config, params, batch)
    assert scores.shape == (4, 8, config.vocab_size)
    largest("seq2seq scores, and transformers'", np.abs(scores[:, :-1] - theirs.detach().numpy()).max(), 2e-4)
    (own_loss, sums), gradient = loss_and_gradient(task, config, params, batch)
    largest("seq2seq loss, and PyTorch's with label smoothing", abs(own_loss - loss.item()), 1e-5)
    best = (theirs.argmax(-1) == labels).sum().item()
    assert (float(sums["correct"]), float(sums["count"])) == (best, (labels >= 0).sum().item())
    wanted = ours(config, model, gradients=True)
    assert jax.tree.structure(wanted) == jax.tree.structure(gradient)
    for found, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(wanted), strict=True):
        bound = 1e-3 * max(1.0, float(jnp.abs(expected).max()))
        largest("seq2seq gradients, and PyTorch's", jnp.abs(found - expected).max(), bound)

    options = {"do_sample": False, "num_beams": 1, "max_length": 8, "suppress_tokens": [PAD, CLS, 31]}
    special = {"decoder_start_token_id": CLS, "eos_token_id": SEP, "pad_token_id": PAD}
    texts = model.generate(input_ids=ids, attention_mask=mask, **options, **special).numpy()
    texts = np.pad(texts, ((0, 0), (0, 8 - texts.shape[1])), constant_values=PAD)
    np.testing.assert_array_equal(generated(task, config, params, batch), texts)


# --- the decoder ---


@given(SEEDS, st.integers(1, 7))
def test_no_score_depends_on_a_later_id_or_on_padding_of_the_source(seed, place):
    batch = pairs_batch(np.random.default_rng(seed))
    params, task = params_of_task(), TASK
    scores = scores_of(task, MODEL, params, batch)
    changed = {
        **batch,
        "target_ids": batch["target_ids"].copy(),
        "input_ids": batch["input_ids"] + 7 * (1 - batch["input_mask"]),
    }
    changed["target_ids"][:, place:] = (changed["target_ids"][:, place:] + 5) % 31
    other = scores_of(task, MODEL, params, changed)
    np.testing.assert_array_equal(other[:, :place], scores[:, :place])
    assert np.abs(other[:, place] - scores[:, place]).max(-1).min() > 1e-4  # but the id itself counts
    source = {**batch, "input_ids": batch["input_ids"].copy()}
    source["input_ids"][:, 1] = (source["input_ids"][:, 1] + 9) % 31
    assert np.abs(scores_of(task, MODEL, params, source) - scores).max((1, 2)).min() > 1e-4  # so do the source's


def test_steps_with_the_cache_give_the_scores_of_whole_targets():
    config = dataclasses.replace(TINY, share_layers=True, embedding_size=4)
    head, memory, mask = encoded(config, 5)
    targets = np.random.default_rng(0).integers(0, 8, (4, 3, 5)).astype(np.int32)
    source, cache = jax.jit(functools.partial(decoder.start, beams=3, length=5), static_argnums=0)(
        config, head, memory, mask
    )
    step = jax.jit(decoder.step, static_argnums=0)
    found = []
    for place in range(5):
        scores, cache = step(config, head, source, cache, targets[:, :, place], jnp.int32(place))
        found.append(scores)
    for beam in range(3):
        whole = teacher(config, head, memory, mask, targets[:, beam])
        np.testing.assert_allclose(np.stack(found, 2)[:, beam], whole, atol=3e-5)


@pytest.mark.slow
def test_remat_changes_nothing_and_dropout_comes_with_a_key():
    config = dataclasses.replace(MODEL, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    params, batch, task = params_of_task(config), pairs_batch(np.random.default_rng(2)), TASK
    keys = jax.random.split(jax.random.key(1))
    (loss, _), gradient = loss_and_gradient(task, config, params, batch, keys[0])
    for remat in ("full", "dots"):
        (other, _), same = loss_and_gradient(task, dataclasses.replace(config, remat=remat), params, batch, keys[0])
        np.testing.assert_allclose(other, loss, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), same, gradient)
    losses = {float(loss_and_gradient(task, config, params, batch, key)[0][0]) for key in (*keys, None)}
    assert len(losses) == 3


def test_a_warm_decoder_is_the_donor_but_for_cross_attention_and_shares_no_array_with_it():
    donor, new = encoder_of(MODEL, 1), decoder_of(MODEL, 2)
    warm = decoder.warm_start(MODEL, new, donor)
    expected = {
        "embeddings": donor["embeddings"],
        "layers": {**new["layers"], **donor["encoder"]["layers"]},
        "mlm": donor["mlm"],
    }
    jax.tree.map(np.testing.assert_array_equal, warm, expected)
    assert not np.array_equal(
        warm["layers"]["attention"]["query"]["kernel"], new["layers"]["attention"]["query"]["kernel"]
    )
    # A train step gives its state's memory back: each array once.
    jax.jit(lambda both: jax.tree.map(lambda x: x + 1, both), donate_argnums=0)((donor, warm))


def test_a_warm_decoder_needs_no_masked_word_head_and_refuses_other_sizes():
    donor, new = encoder_of(MODEL, 1), decoder_of(MODEL, 2)
    bare = {name: part for name, part in donor.items() if name != "mlm"}
    warm = decoder.warm_start(MODEL, new, bare)
    jax.tree.map(np.testing.assert_array_equal, warm["mlm"], new["mlm"])
    np.testing.assert_array_equal(warm["embeddings"]["word"]["embedding"], donor["embeddings"]["word"]["embedding"])
    larger = encoder_of(dataclasses.replace(MODEL, vocab_size=40), 1)
    with pytest.raises(
        UserError,
        match=r"embeddings/word/embedding: found shape \(40, 16\) in the checkpoint, expected the decoder's \(32, 16\)",
    ):
        decoder.warm_start(MODEL, new, larger)
    factored = decoder_of(dataclasses.replace(MODEL, embedding_size=16), 1)
    with pytest.raises(UserError, match="embeddings/projection/bias: found no such tensor in the checkpoint"):
        decoder.warm_start(MODEL, factored, donor)
    assert TASK.begin(MODEL, new, {}) is new
    jax.tree.map(np.testing.assert_array_equal, TASK.begin(MODEL, new, bare), warm)


@pytest.mark.parametrize("changes", [{}, {"share_layers": True, "embedding_size": 8}])
def test_every_parameter_has_its_axes_and_the_encoders_where_it_is_the_encoders(changes):
    config = dataclasses.replace(MODEL, **changes)
    axes, shapes = decoder.logical_axes(config), jax.eval_shape(lambda: decoder.init(config, jax.random.key(0)))
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    jax.tree.map(lambda spec, leaf: np.testing.assert_equal(len(spec), leaf.ndim), axes, shapes, is_leaf=is_spec)
    encoder = functional.logical_axes(config)
    assert axes["embeddings"] == encoder["embeddings"]
    assert axes["mlm"] == encoder["mlm"]
    layers = encoder["encoder"]["layers"]
    assert {name: axes["layers"][name] for name in layers} == layers
    assert axes["layers"]["cross_attention"] == layers["attention"]
    assert axes["layers"]["cross_attention_layer_norm"] == layers["attention_layer_norm"]
    assert set(axes["layers"]) == {*layers, "cross_attention", "cross_attention_layer_norm"}


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
            sums = task.sums(task.scores(MODEL, params, batch, key=None, layout=layout), batch)
            return sums["loss"] / task.count(batch), sums

        return jax.value_and_grad(loss, has_aux=True)(params), task.generate(MODEL, params, batch, layout=layout)

    ((found, found_sums), found_gradient), texts = on_mesh(split, put)
    np.testing.assert_allclose(found, loss, rtol=1e-5)
    assert float(found_sums["count"]) == float(sums["count"]) == np.sum(batch["target_ids"][:3, 1:] > 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found_gradient, gradient)
    np.testing.assert_array_equal(texts, generated(task, MODEL, params, batch))


# --- the search ---


def log_probabilities(config, head, memory, mask, row, search, prefixes):
    """log P [n, V] of the id after each prefix, all of one length, by whole targets and plain numpy."""
    padded = np.full((128, search.max_target_length), PAD, np.int32)  # one shape, one program
    padded[: len(prefixes), : len(prefixes[0])] = prefixes
    rows = jnp.repeat(memory[row : row + 1], 128, axis=0), np.repeat(mask[row : row + 1], 128, axis=0)
    scores = np.asarray(teacher(config, head, *rows, padded), np.float64)[: len(prefixes), len(prefixes[0]) - 1]
    scores -= scores.max(-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(-1, keepdims=True))
    scores[:, [CLS, PAD, *range(search.vocab_size, config.vocab_size)]] = -np.inf
    return scores


def plain_beam_search(search, following):
    """As `decode.beam_search` says, with lists; `following(prefixes)` is log P [n, V]."""
    opened, ended, count = [(0.0, [CLS])], [], 0
    for length in range(1, search.max_target_length):
        table = following([ids for _, ids in opened])
        every = [
            (total + p, [*ids, i])
            for (total, ids), row in zip(opened, table, strict=True)
            for i, p in enumerate(row)
            if p > -np.inf
        ]
        every.sort(key=lambda candidate: -candidate[0])
        done = [
            (total / ((5 + length) / 6) ** search.length_penalty, ids)
            for total, ids in every[: search.beam_size]
            if ids[-1] == SEP
        ]
        ended, count = ended + done, count + len(done)
        opened = [(total, ids) for total, ids in every if ids[-1] != SEP][: search.beam_size]
        if count >= search.beam_size:
            break
    return max(ended)[1] if ended else opened[0][1]


def filled(ids, length):
    return [*ids, *[PAD] * (length - len(ids))]


@settings(max_examples=10)
@given(SEEDS)
def test_beam_search_finds_what_a_plain_one_does(seed):
    search = search_of(TINY, length=6, beam_size=3)
    head, memory, mask = encoded(TINY, seed)
    found = np.asarray(beam_search(TINY, head, memory, mask, search))
    for row in range(4):
        following = functools.partial(log_probabilities, TINY, head, memory, mask, row, search)
        assert found[row].tolist() == filled(plain_beam_search(search, following), 6)


@pytest.mark.slow
@settings(max_examples=5)
@given(SEEDS)
def test_a_beam_as_wide_as_the_search_finds_the_best_of_all_targets(seed):
    search = search_of(TINY, length=4, beam_size=80, alpha=1.0)  # 16 open targets, 5 ids each
    head, memory, mask = encoded(TINY, seed)
    found = np.asarray(beam_search(TINY, head, memory, mask, search))
    for row in range(4):
        best = {}
        totals = {(CLS,): 0.0}
        for length in (1, 2, 3):
            table = log_probabilities(TINY, head, memory, mask, row, search, list(totals))
            every = {
                (*ids, i): total + p[i]
                for (ids, total), p in zip(totals.items(), table, strict=True)
                for i in (1, 3, 4, 5, 6)
            }
            best |= {ids: total / ((5 + length) / 6) for ids, total in every.items() if ids[-1] == SEP}
            totals = {ids: total for ids, total in every.items() if ids[-1] != SEP}
        assert len(best) == 1 + 4 + 16
        assert found[row].tolist() == filled(max(best, key=best.get), 4)


@given(SEEDS)
def test_one_beam_is_greedy_search_exactly(seed):
    arguments = (TINY, *encoded(TINY, seed), search_of(TINY, length=6))
    found = np.asarray(greedy(*arguments))
    np.testing.assert_array_equal(beam_search(*arguments), found)
    for row in found:
        ends = np.flatnonzero(row == SEP)
        assert (row[ends[0] + 1 :] == PAD).all() if len(ends) else (row != PAD).all()
        assert row[0] == CLS
        assert not np.isin(row[1:], [CLS, 7]).any()


def test_what_does_not_end_is_cut_and_loses_to_what_ends():
    head, memory, mask = encoded(TINY, 0)
    bias = jnp.zeros(8)
    never = {**head, "mlm": {**head["mlm"], "bias": bias.at[SEP].set(-60.0).at[4].set(90.0)}}
    for beams in (1, 3):
        found = targets_of(TINY, never, memory, mask, search_of(TINY, length=6, beam_size=beams))
        assert np.asarray(found).tolist() == [[CLS, 4, 4, 4, 4, 4]] * 4
    always = {**head, "mlm": {**head["mlm"], "bias": bias.at[SEP].set(90.0)}}
    found = targets_of(TINY, always, memory, mask, search_of(TINY, length=6, beam_size=3))
    assert np.asarray(found).tolist() == [[CLS, SEP, PAD, PAD, PAD, PAD]] * 4


def test_the_score_is_that_of_gnmt():
    assert float(decode.score(jnp.float32(-6.0), 1, 0.7)) == pytest.approx(-6.0)
    assert float(decode.score(jnp.float32(-6.0), 7, 1.0)) == pytest.approx(-3.0)
    assert float(decode.score(jnp.float32(-6.0), 19, 0.5)) == pytest.approx(-3.0)


# --- the task ---


@given(st.lists(st.tuples(LETTERS, LETTERS), min_size=1, max_size=5))
def test_rows_hold_sources_and_targets_and_targets_come_back_as_text(tokenizer, texts):
    task = make_task("reverse", tokenizer, max_target_length=9)
    examples = [PairExample(str(i), source, target) for i, (source, target) in enumerate(texts)]
    rows = task.rows(examples, tokenizer, 16, targets=True)
    for i, one in enumerate(examples):
        row = rows.ids[rows.offsets[i] : rows.offsets[i + 1]]
        assert tokenizer.decode(row) == f"[CLS] {one.source} [SEP]"
        assert rows.second[i] == len(row)
        assert tokenizer.decode(rows.targets["target_ids"][i]).replace(" [PAD]", "") == f"[CLS] {one.target} [SEP]"
    assert rows.example.tolist() == list(range(len(texts)))
    assert rows.targets["target_ids"].shape == (len(texts), 9)
    predictions = task.predict(list(rows.targets["target_ids"]), rows, examples)
    assert predictions == [one.target for one in examples]
    assert task.rows(examples, tokenizer, 16, targets=False).targets == {}


def test_long_texts_are_cut_and_said_and_a_missing_target_is_named(tokenizer, caplog):
    task = make_task("reverse", tokenizer, max_target_length=4)
    examples = [PairExample("7", "a b c d e f g h", "a b c"), PairExample("8", "a", "b")]
    with caplog.at_level(logging.WARNING, logger="bertjax"):
        rows = task.rows(examples, tokenizer, 6, targets=True)
    assert tokenizer.decode(rows.ids) == "[CLS] a b c d [SEP] [CLS] a [SEP]"
    assert tokenizer.decode(rows.targets["target_ids"][0]) == "[CLS] a b [SEP]"
    assert caplog.messages == [
        "sources longer than 6 ids, which were cut to them: 1 of 2",
        "targets longer than 4 ids, which were cut to them: 1 of 2",
    ]
    with pytest.raises(UserError, match="task reverse: example 9: found no target, expected one"):
        task.rows([PairExample("9", "a")], tokenizer, 6, targets=True)


def test_items_that_fill_up_a_batch_add_exactly_nothing():
    batch, params = pairs_batch(np.random.default_rng(3)), params_of_task()
    batch["item_weights"][2:] = 0
    (loss, sums), gradient = loss_and_gradient(TASK, MODEL, params, batch)
    batch["target_ids"][2], batch["target_ids"][3] = 2**30, -1  # no ids of any vocabulary
    (other, same), other_gradient = loss_and_gradient(TASK, MODEL, params, batch)
    jax.tree.map(np.testing.assert_array_equal, (other, same, other_gradient), (loss, sums, gradient))
    scores = jax.nn.log_softmax(scores_of(TASK, MODEL, params, batch))[:2, :-1]
    labels = batch["target_ids"][:2, 1:]
    losses = -0.9 * np.take_along_axis(np.asarray(scores), labels[:, :, None], 2)[:, :, 0] - 0.1 * scores.mean(-1)
    np.testing.assert_allclose(sums["loss"], losses[labels > 0].sum(), rtol=1e-5)
    assert float(sums["count"]) == float(TASK.count(batch)) == (labels > 0).sum()
    assert float(sums["correct"]) == ((np.argmax(scores, -1) == labels) & (labels > 0)).sum()


def test_bleu_is_sacrebleus_of_the_corpus(tokenizer):
    sacrebleu = pytest.importorskip("sacrebleu")
    task = make_task("reverse", tokenizer)
    wanted = ["the cat sat on the mat today .", "a dog barks loudly at night ."]
    found = ["the cat sat on a mat today .", "A dog barks loudly at night ."]
    examples = [PairExample(str(i), "", text) for i, text in enumerate(wanted)]
    assert task.figures(wanted, examples) == {"bleu": pytest.approx(100.0), "exact_match": 1.0}
    figures = task.figures(found, examples)
    assert figures == {"bleu": sacrebleu.corpus_bleu(found, [wanted], lowercase=True).score, "exact_match": 0.5}
    cased = dataclasses.replace(task, lowercase=False).figures(found, examples)
    assert cased == {"bleu": sacrebleu.corpus_bleu(found, [wanted]).score, "exact_match": 0.0}
    assert 0 < cased["bleu"] < figures["bleu"] < 100
    assert task.metric in figures


def test_without_sacrebleu_the_error_says_what_to_install(monkeypatch, tokenizer):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(UserError, match="bleu: found no package sacrebleu, expected it: pip install sacrebleu"):
        make_task("reverse", tokenizer).figures(["a"], [PairExample("1", "a", "a")])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label_smoothing": 1.0}, "task reverse: label_smoothing: found 1.0, expected 0 to below 1"),
        ({"max_target_length": 2}, "task reverse: max_target_length: found 2, expected 3 or more"),
        ({"beam_size": 0}, "task reverse: beam_size: found 0, expected 1 or more"),
        ({"length_penalty": -1.0}, "task reverse: length_penalty: found -1.0, expected 0 or more"),
        ({"max_target_length": 17}, "task reverse: max_target_length: found 17, expected at most the model's 16"),
    ],
)
def test_settings_out_of_range_are_named(tokenizer, changes, message):
    with pytest.raises(UserError, match=message):
        make_task("reverse", tokenizer, **changes).init_head(MODEL, jax.random.key(0))


# --- pairs from files ---


@pytest.mark.parametrize(
    "name, content",
    [
        ("train.tsv", "a b\tc \nd\t\n"),
        ("train.tsv", "source\ttarget\na b\tc \nd\t\n"),
        ("train.tsv", "target\tid\tsource\nc \t1\ta b\n\t2\td\n"),
        ("train.jsonl", '{"source": "a b", "target": "c "}\n{"id": 2, "source": "d", "target": ""}\n'),
    ],
)
def test_pairs_are_read_from_tables_and_json(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    found = read_pairs(Source(str(tmp_path)), "train", targets=True)
    assert [(pair.source, pair.target) for pair in found] == [("a b", "c "), ("d", "")]
    if "id" in content.split("\n")[0]:
        assert [pair.id for pair in found] == ["1", "2"]


def test_pairs_are_read_from_parallel_files_line_by_line(tmp_path):
    (tmp_path / "dev.src").write_bytes("\ufeffa b\r\n\nc\u2028d\n".encode())
    (tmp_path / "dev.tgt").write_bytes(b"x\ny\nz")
    expected = [PairExample("1", "a b", "x"), PairExample("2", "", "y"), PairExample("3", "c\u2028d", "z")]
    assert read_pairs(Source(str(tmp_path)), "validation", targets=True) == expected
    named = Source(str(tmp_path), {"test": ("dev.src", "dev.tgt")})
    assert read_pairs(named, "test", targets=True) == expected
    (tmp_path / "test.src").write_text("a\n")
    assert read_pairs(Source(str(tmp_path)), "test", targets=False) == [PairExample("1", "a")]


def test_columns_are_found_by_their_names_and_targets_may_be_missing_in_prediction(tmp_path):
    (tmp_path / "train.tsv").write_text("de\ten\nja\tyes\n")
    (tmp_path / "test.jsonl").write_text('{"de": "nein"}\n')
    source = Source(str(tmp_path))
    assert read_pairs(source, "train", targets=True, texts=("de", "en")) == [PairExample("2", "ja", "yes")]
    assert read_pairs(source, "train", targets=True, texts=("en", "de")) == [PairExample("2", "yes", "ja")]
    assert read_pairs(source, "test", targets=False, texts=("de", "en")) == [PairExample("1", "nein")]


@pytest.mark.parametrize(
    "files, message",
    [
        ({"train.tsv": "a\tb\nc\n"}, "train.tsv, line 2: found 1 columns, expected 2 (source, target)"),
        ({"train.tsv": "a\tb\nc\td\te\n"}, "train.tsv, line 2: found 3 columns, expected 2 (source, target)"),
        ({"train.tsv": ""}, "split train: found no row, expected one or more"),
        (
            {"train.jsonl": '{"source": "a"}\n'},
            "train.jsonl, line 1: found the columns source, expected 'target' among them",
        ),
        (
            {"train.jsonl": '{"source": "a", "target": "b"}\n{"source": 1, "target": "b"}\n'},
            "train.jsonl, line 2: source: found a value of type int, expected text",
        ),
        (
            {"train.jsonl": '{"source": "a", "target": null}\n'},
            "train.jsonl, line 1: target: found a value of type NoneType, expected text",
        ),
        ({"train.src": "a\nb\n", "train.tgt": "a\n"}, "train.tgt: found 1 lines, expected 2, as "),
        ({"train.src": "a\n"}, "train.src: found 1 file, expected a file of sources (.src), and one of targets (.tgt)"),
        ({"train.src": "", "train.tgt": ""}, "train.src: found no line, expected one or more"),
        (
            {"train.src": b"a\n\xff\n", "train.tgt": "a\nb\n"},
            "train.src, line 2: found the byte 0xff, which is not UTF-8, expected UTF-8",
        ),
        ({}, "split train: found none, expected train.*"),
    ],
)
def test_pairs_that_cannot_be_read_are_named_with_their_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        read_pairs(Source(str(tmp_path)), "train", targets=True)
    assert message in str(raised.value)


# --- it learns ---


def trained(config, task, params, batches, rate, warmup=1):
    """(parameters, losses) of Adam on these batches."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(0.0, rate, warmup)))

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
    frame = lambda x: np.pad(x, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP))).astype(np.int32)  # noqa: E731
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
    task, rng = Seq2Seq("reverse", search_of(config, length=10, beam_size=4)), np.random.default_rng(0)
    params, losses = trained(
        config, task, params_of_task(config), (reversed_batch(rng, 32, 8, 16) for _ in range(450)), 2e-3, warmup=100
    )
    test = reversed_batch(rng, 256, 8, 16)
    exact = np.mean(np.all(generated(task, config, params, test) == test["target_ids"], axis=1))
    print(f"loss {losses[0]:.2f} to {np.mean(losses[-20:]):.4f}; exact targets {exact:.3f}")
    assert exact > 0.95
