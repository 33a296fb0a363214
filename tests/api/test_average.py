import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import bertjax
from bertjax.api.average import AVERAGE_OF
from bertjax.cli.main import main
from bertjax.config import to_dict
from bertjax.data.tokenizers.vocabulary import SPECIAL_TOKENS
from bertjax.data.tokenizers.wordpiece import WordPiece
from bertjax.errors import UserError
from bertjax.training import checkpoint, run_config
from bertjax.training.provenance.data_record import FINGERPRINT
from bertjax.training.saved_model import load_model
from tests.factory import SMALL_MODEL, small_config
from tests.tasks.tiny import config_of, fit, has_good, save_start, write_splits
from tests.training.checkpoints import put_other_numbers, random_state, same

STEPS = (2, 4, 6, 8)
TOKENS = [*SPECIAL_TOKENS, *"abcdefg"]
CONFIG = small_config(model=dataclasses.replace(SMALL_MODEL, vocab_size=len(TOKENS)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four checkpoints: the parameters at step s are s + 1/3 times those of step 1."""
    run = epath.Path(tmp_path_factory.mktemp("average")) / "run"
    tokenizer = WordPiece("vocab.txt", "\n".join(TOKENS).encode(), lowercase=True)
    tokenizer.save(run / "tokenizer")
    run_config.write_run_config(run, CONFIG)
    state, _ = random_state(CONFIG)
    checkpoints = checkpoint.Checkpoints(run, len(STEPS))
    meta = {"config": to_dict(CONFIG), FINGERPRINT: tokenizer.fingerprint}
    for step in STEPS:
        params = jax.tree.map(lambda leaf, step=step: leaf * (step + 1 / 3), state.params)
        now = state._replace(step=np.int32(step), params=params)
        checkpoints.save(step, now, meta, None)
    checkpoints.close()
    return run, jax.device_get(state.params)


def by_hand(first, steps):
    """The mean in float64 of what was saved in float32."""

    def mean(leaf):
        saved = [np.float64(np.asarray(leaf * jnp.float32(step + 1 / 3))) for step in steps]
        return np.mean(saved, axis=0).astype(np.float32)

    return jax.tree.map(mean, first)


@pytest.mark.parametrize("options,steps", [
    ({}, STEPS),
    ({"last": 2}, (6, 8)),
    ({"last": 4}, STEPS),
    ({"steps": (8, 2, 4)}, (2, 4, 8)),
])  # fmt: skip
def test_the_parameters_are_the_mean_of_the_chosen_checkpoints(run, tmp_path, options, steps):
    source, first = run
    made = bertjax.average(source, tmp_path / "mean", **options)
    assert made.steps == steps
    model = load_model(tmp_path / "mean")
    expected = by_hand(first, steps)
    for ours, mean in zip(jax.tree.leaves(model.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_max_ulp(np.asarray(ours), mean, 1)
    assert model.tokenizer.fingerprint == load_model(source).tokenizer.fingerprint
    meta = checkpoint.read_meta(made.checkpoint)
    assert meta[AVERAGE_OF] == {"run": str(source), "steps": list(steps), "ema": False}
    assert model.config.model == load_model(source).config.model


def test_the_verb_makes_a_run_that_other_verbs_read(run, tmp_path, capsys, monkeypatch):
    to = str(tmp_path / "mean")
    monkeypatch.chdir(run[0].parent)
    assert main(["average", "run", "--to", to, "--last", "3"]) == 0
    assert "mean of steps: 4, 6, 8" in capsys.readouterr().out
    assert main(["fill-mask", to, "a b [MASK]"]) == 0
    assert main(["export", to, "--format", "huggingface", "--to", str(tmp_path / "hf")]) == 0
    # A command that is repeated has nothing to do, and one of other steps is refused.
    assert main(["average", str(run[0]), "--to", to, "--last", "3"]) == 0
    assert main(["average", str(run[0]), "--to", to, "--last", "2"]) == 2
    assert "expected a folder that is new or empty" in capsys.readouterr().err


@pytest.mark.parametrize("options,message", [
    ({"last": 5}, "found 4 checkpoints: 2, 4, 6, 8, expected 5; train.keep_checkpoints"),
    ({"last": 1}, "found 8, expected two checkpoints or more"),
    ({"steps": (4,)}, "found 4, expected two checkpoints or more"),
    ({"steps": (4, 7)}, "step 7: found no checkpoint, expected one of 2, 4, 6, 8; the nearest is"),
    ({"steps": (4, 4)}, r"steps: found \[4, 4\], expected each step once"),
    ({"steps": (4, 6), "last": 2}, "last: found 2, expected none beside steps"),
    ({"last": -1}, "last: found -1"),
    ({"ema": True}, "8: found no average of the weights, expected one of a run with train.ema_decay"),
    ({"ema": True, "last": 2}, "last: found 2, expected none beside ema"),
    ({"ema": True, "steps": (4, 6)}, r"steps: found \[4, 6\], expected one at most, beside ema"),
    ({"ema": True, "steps": (5,)}, "step 5: found no checkpoint, expected one of 2, 4, 6, 8"),
])  # fmt: skip
def test_what_cannot_be_averaged_is_refused_and_nothing_is_written(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        bertjax.average(run[0], tmp_path / "mean", **options)
    assert not list(tmp_path.iterdir())


def test_the_moving_average_of_a_run_becomes_a_run(run, tmp_path, capsys):
    source = epath.Path(tmp_path) / "run"
    shutil.copytree(run[0], source)
    config = CONFIG.replace(train={"ema_decay": 0.9})
    state, _ = random_state(config)
    meta = checkpoint.read_meta(source / "checkpoints" / "8")
    checkpoints = checkpoint.Checkpoints(source, 9)
    checkpoints.save(10, state, {FINGERPRINT: meta[FINGERPRINT], "config": to_dict(config)}, None)
    checkpoints.close()
    to = tmp_path / "mean"
    assert main(["average", str(source), "--ema", "--to", str(to)]) == 0
    assert "moving average at step: 10" in capsys.readouterr().out
    same(load_model(to).params, state.opt_state.ema)
    assert checkpoint.read_meta(to / "checkpoints" / "0")[AVERAGE_OF]["ema"]
    with pytest.raises(UserError, match="8: found no average of the weights"):
        bertjax.average(source, tmp_path / "other", ema=True, steps=(8,))


def test_a_run_cannot_become_its_own_mean(run):
    with pytest.raises(UserError, match="files there"):
        bertjax.average(run[0], run[0])


def test_checkpoints_of_other_shapes_are_refused_naming_the_tensor(run, tmp_path):
    source = tmp_path / "run"
    shutil.copytree(run[0], source)
    wide = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, hidden_size=32))
    checkpoints = checkpoint.Checkpoints(epath.Path(source), 9)
    state, _ = random_state(wide)
    meta = checkpoint.read_meta(epath.Path(source) / "checkpoints" / "8")
    checkpoints.save(10, state, {FINGERPRINT: meta[FINGERPRINT], "config": to_dict(wide)}, None)
    checkpoints.close()
    with pytest.raises(UserError, match=r"8: params/\S+: found shape \[.*16.*\], expected shape"):
        bertjax.average(source, tmp_path / "mean", last=2)
    assert not (tmp_path / "mean").exists()


def test_a_damaged_checkpoint_is_refused(run, tmp_path):
    source = epath.Path(tmp_path) / "run"
    shutil.copytree(run[0], source)
    put_other_numbers(source, 6, "params/pooler/kernel")
    with pytest.raises(UserError, match="checkpoints/6: found"):
        bertjax.average(source, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.slow
def test_the_mean_of_a_fine_tuned_run_is_evaluated_as_the_run_is(tmp_path):
    texts = write_splits(tmp_path / "texts", has_good)
    start = save_start(tmp_path / "start")
    kept = {"keep_checkpoints": 3}
    config = config_of(f"good:classification={texts}", init_from=str(start), train=kept)
    fit(config, tmp_path / "tuned")
    assert len(checkpoint.steps_of(epath.Path(tmp_path) / "tuned")) > 1
    bertjax.average(tmp_path / "tuned", tmp_path / "mean")
    metrics = bertjax.evaluate(tmp_path / "mean").metrics
    assert metrics["accuracy"] > 0.9, metrics
