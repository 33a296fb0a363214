import json
import shutil

import jax
import numpy as np
import pytest

import bertjax
from bertjax.cli.replay import replay_lines
from bertjax.errors import UserError
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.pretraining import Pretraining
from bertjax.training.replaced.losses import SEEDS
from bertjax.training.replaced.objective import ReplacedTokens
from bertjax.training.step import programs as step_module
from tests.training.replay.runs_of_phases import config_of, library

# A step and a sentence of a tiny run are replayed every day, as the examples of the docstrings.
pytestmark = pytest.mark.slow

DYNAMIC = {
    "dynamic_masking": True,
    "mlm_probability": 0.15,
    "mlm_probability_to": 0.05,
    "mlm_probability_steps": 8,
}


OBJECTIVES = {
    "data": {
        "dynamic_masking": True, "masking": "token", "sentence_objective": "none",
        "prepared_dir": "prepared/plain", "max_predictions_per_seq": 31,
    },
    "phases": (
        "steps=2 data.causal_share=0.25",
        "steps=2 model.mlm_shifted=True",
        "steps=2 data.causal_share=0 data.objective=diffusion data.mask_shares=1,0,0"
        " data.max_predictions_per_seq=32 model.mlm_shifted=False",
    ),
    "train": {"steps": 6},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs with static and with dynamic masks."""
    with library(tmp_path_factory.mktemp("replay")) as folder:
        for name, data in (("static", {}), ("dynamic", DYNAMIC)):
            bertjax.train(config_of(data=data, mesh={"data": 2, "fsdp": 4}), f"runs/{name}")
        yield folder


def trained_batches(config, run, monkeypatch):
    """The batches of a run by their steps, read inside the step of the loop."""
    trained = {}
    prepare = Pretraining.prepare

    def keep(step, batch):
        trained[int(step)] = {name: np.array(values) for name, values in batch.items()}

    def watched(self, batch, key, step=0):
        prepared = prepare(self, batch, key, step)
        jax.debug.callback(keep, step, prepared)
        return prepared

    step_module._jit_train_step.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "prepare", watched)
        bertjax.train(config, run)
        jax.effects_barrier()
    step_module._jit_train_step.cache_clear()
    return trained


def same(batch, expected):
    assert batch.keys() == expected.keys()
    for feature, values in expected.items():
        assert np.array_equal(batch[feature], values), feature
        assert batch[feature].dtype == values.dtype


@pytest.mark.parametrize("name,data", [("static", {}), ("dynamic", DYNAMIC)])
def test_a_replayed_batch_is_the_one_that_the_loop_trained_on(runs, name, data, monkeypatch):
    """That of a run on another mesh."""
    trained = trained_batches(config_of(data=data), f"runs/{name}-watched", monkeypatch)
    assert sorted(trained) == list(range(9))
    for begin, expected in trained.items():
        update = bertjax.replay(f"runs/{name}", begin + 1)
        assert (update.begin, update.step, update.phase) == (begin, begin + 1, 1 + (begin >= 6))
        same(update.batch, expected)


def test_causal_rows_and_diffusion_are_replayed(runs, monkeypatch):
    config = config_of(**OBJECTIVES).replace(model={"heads": ("mlm",)})
    vocabulary = {"vocab_file": "prepared/tiny/tokenizer/vocab.txt"}
    bertjax.prepare(config.replace(tokenizer=vocabulary))
    trained = trained_batches(config, "runs/objectives", monkeypatch)
    for begin, expected in trained.items():
        update = bertjax.replay("runs/objectives", begin + 1)
        same(update.batch, expected)
        assert update.equals_log is True
        assert (update.mask_rate is None) == (begin >= 4)
        kinds = []
        for index, ids in enumerate(update.original_ids):
            row = update.row(index)
            whole = update.tokenizer.pieces(ids.tolist())
            # Of the token itself, in a causal row too, shifted or not.
            assert all(whole[each.position] == each.label for each in row.predictions)
            kinds.append({each.kind for each in row.predictions})
        assert kinds.count({"next"}) == (2 if begin < 4 else 0)
        assert begin < 4 or set().union(*kinds) == {"masked"}


@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_loss_and_gradient_norm_equal_the_logged_ones_to_the_bit(runs, name):
    step_module._jit_train_step.cache_clear()
    entries = [each for each in read_entries(runs / "runs" / name) if each["split"] == "train"]
    assert [entry["step"] for entry in entries] == list(range(1, 10))
    for entry in entries:
        update = bertjax.replay(f"runs/{name}", entry["step"])
        assert update.equals_log is True
        for metric, value in update.computed.items():
            assert value == entry[metric], metric
        assert update.learning_rate == entry["learning_rate"]
    rates = [bertjax.replay(f"runs/{name}", step).mask_rate for step in (1, 5, 9)]
    assert rates == pytest.approx([0.15, 0.1, 0.05] if name == "dynamic" else [0.15] * 3)


def test_a_row_tells_its_record_its_text_and_what_stands_in_place_of_each_token(runs):
    update = bertjax.replay("runs/static", 9)
    assert set(update.corpora) == {"all"}
    kinds = set()
    for index, record in enumerate(update.records):
        row = update.row(index)
        assert row.record == record
        whole = update.tokenizer.pieces(update.original_ids[index].tolist())
        assert row.text.startswith("[CLS]")
        assert len(row.sentence_labels) == 1
        for each in row.predictions:
            assert whole[each.position] == each.label
            assert row.pieces[each.position] == each.shown
            assert each.weight == 1
            kinds.add(each.kind)
    assert {"masked"} <= kinds <= {"masked", "random", "kept"}


def test_without_the_checkpoint_the_batch_is_shown_and_the_reason_told(runs):
    shutil.copytree("runs/static", "runs/thinned")
    shutil.rmtree("runs/thinned/checkpoints/3")
    update = bertjax.replay("runs/thinned", 4)
    assert "step 3: found no checkpoint, expected one of" in update.note
    assert not update.computed
    assert update.equals_log is None
    assert update.logged["step"] == 4
    whole = bertjax.replay("runs/static", 4)
    assert all(np.array_equal(update.batch[name], whole.batch[name]) for name in whole.batch)


def test_too_few_devices_are_told_and_the_batch_is_shown(runs):
    shutil.copytree("runs/static", "runs/wide")
    for path in [*runs.glob("runs/wide/config.json")]:
        values = json.loads(path.read_text())
        values["mesh"]["data"] = 16
        path.write_text(json.dumps(values))
    update = bertjax.replay("runs/wide", 4)
    assert update.note.startswith("not on these devices: mesh")
    assert len(update.records) == 8


@pytest.mark.parametrize("step", [0, -1, 10])
def test_a_step_beyond_the_run_is_refused(runs, step):
    with pytest.raises(UserError, match=rf"runs/static: step: found {step}, expected 1 to 9"):
        bertjax.replay("runs/static", step)


def test_a_growing_batch_is_several_steps(runs):
    grown = {"batch_size": 8, "max_batch_size": 16, "batch_size_schedule": "ramp", "steps": 7}
    bertjax.train(
        config_of(phases=(), train=grown | {"batch_size_steps": 3}, data=DYNAMIC), "runs/grown"
    )
    logged = [each for each in read_entries(runs / "runs" / "grown") if each["split"] == "train"]
    assert [(each["step"], each["batch_size"]) for each in logged] == [
        (1, 8), (2, 8), (3, 8), (5, 16), (7, 16),
    ]  # fmt: skip
    for step, span in {1: (0, 1), 4: (3, 5), 5: (3, 5), 6: (5, 7), 7: (5, 7)}.items():
        update = bertjax.replay("runs/grown", step)
        assert (update.begin, update.step) == span
        assert len(update.records) == 8 * (span[1] - span[0])
        assert update.equals_log is True
    # Records stand beside their rows, also where rows of two batches are joined.
    found = bertjax.find_steps("runs/grown", "the cat")
    seen = [each.record for each in found.seen if each.step == 7]
    rows = [update.row(index) for index in range(16)]
    assert sorted(seen) == sorted(row.record for row in rows if " the cat " in row.text)


def test_a_mixture_names_the_corpus_of_each_row(runs):
    data = {"mixture": ("a=prepared/tiny", "b=prepared/other"), "mixture_weights": (1.0, 2.0)}
    shutil.copytree("prepared/tiny", "prepared/other")
    bertjax.train(config_of(phases=(), data=data, train={"steps": 4}), "runs/mixed")
    for step in range(1, 5):
        update = bertjax.replay("runs/mixed", step)
        assert update.equals_log is True
        share = update.corpora.count("b") / len(update.corpora)
        assert share == pytest.approx(update.logged["rate/b"])
        assert "corpus_ids" not in update.batch


PLAIN = {"data": {**OBJECTIVES["data"], "max_predictions_per_seq": 8}, "phases": ()}
TRAIN = {"steps": 5, "keep_every_steps": 2, "keep_checkpoints": 1, "save_every_steps": 50}


@pytest.fixture
def plain(runs):
    """A folder of rows without pairs; returned is the configuration that reads it."""
    config = config_of(**PLAIN, train=TRAIN)
    vocabulary = {"vocab_file": "prepared/tiny/tokenizer/vocab.txt"}
    bertjax.prepare(config.replace(model={"heads": ("mlm",)}, tokenizer=vocabulary))
    return config


@pytest.mark.parametrize("parts", [1, 2])
def test_drawn_words_are_those_of_the_loop_where_the_weights_are_kept(plain, parts, monkeypatch):
    config = plain.replace(
        model={"heads": ("rtd",)},
        replaced={"generator": "tied", "generator_size": 0.5},
        train={"gradient_accumulation_steps": parts, "batch_size": 16},
    )
    drawn = {}
    whole = ReplacedTokens.sums_and_samples

    def keep(seeds, samples):
        for row, words in zip(np.array(seeds), np.array(samples), strict=True):
            drawn[row.tobytes()] = words

    def watched(self, params, batch, **options):
        sums, samples = whole(self, params, batch, **options)
        jax.debug.callback(keep, batch[SEEDS], samples)
        return sums, samples

    run = f"runs/replaced-{parts}"
    step_module._jit_train_step.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(ReplacedTokens, "sums_and_samples", watched)
        bertjax.train(config, run)
        jax.effects_barrier()
    step_module._jit_train_step.cache_clear()
    for step in (1, 3, 5):
        update = bertjax.replay(run, step)
        expected = [drawn[row.tobytes()] for row in update.batch[SEEDS]]
        assert np.array_equal(update.drawn, expected)
        assert update.equals_log is True
        words = [each.drawn for each in update.row(0).predictions]
        for word, number in zip(words, update.drawn[0].tolist(), strict=False):
            # The model has 120 ids, and the tokenizer fewer pieces.
            known = number < update.tokenizer.vocab_size
            assert word == (update.tokenizer.pieces([number])[0] if known else f"[id {number}]")
        assert any(f", drawn {words[0]}" in line for line in replay_lines(update, 1))
    # Without the weights: the rows that the generator reads, and the nearest step that is kept.
    update = bertjax.replay(run, 2)
    assert update.drawn is None
    assert "step 1: found no checkpoint, expected one of 0, 2, 4, 5; the nearest is" in update.note


def test_adaptive_masks_are_replayed_from_a_kept_checkpoint_and_else_refused(plain, monkeypatch):
    adaptive = {"masks": "hard", "every_steps": 2}
    config = plain.replace(model={"heads": ("mlm",)}, adaptive=adaptive)
    trained = trained_batches(config, "runs/adaptive", monkeypatch)
    for begin in (0, 2, 4):
        update = bertjax.replay("runs/adaptive", begin + 1)
        same(update.batch, trained[begin])
        assert update.equals_log is True
    refusal = "step 3: found no checkpoint, expected one of 0, 2, 4, 5; the nearest is 2: adaptive"
    with pytest.raises(UserError, match=refusal):
        bertjax.replay("runs/adaptive", 4)
