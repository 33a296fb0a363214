"""Fine-tuning by the real loop: a tiny language learnt, stopped and continued, ended early."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from bertjax.errors import UserError
from bertjax.finetuning import finetune
from bertjax.finetuning.evaluate import evaluate_split
from bertjax.finetuning.evaluate_checkpoint import assess, predict_split, validation_sets
from bertjax.finetuning.load import load_finetuned
from bertjax.interop.export_model import export_model
from bertjax.model.sparse.product import SparseKernel
from bertjax.parallel.mesh import make_mesh
from bertjax.tasks import registry as kinds
from bertjax.training import checkpoint
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.optimization import sparsity
from bertjax.training.provenance.data_record import check_same_data
from bertjax.training.saved_model import load_model, save_model
from tests.tasks.tiny import (
    TOKENIZER,
    config_of,
    fit,
    has_good,
    identical,
    read_json_strictly,
    save_start,
    sentences,
    write_splits,
    write_table,
    write_tagged,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_start(tmp_path_factory.mktemp("start") / "run")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("texts"), has_good)


@pytest.fixture(scope="module")
def config(start, texts):
    return config_of(f"good:classification={texts}", init_from=str(start))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    run = epath.Path(tmp_path_factory.mktemp("undisturbed")) / "run"
    return run, *fit(config, run)


def scores_of(run):
    return {row["step"]: row["score"] for row in read_entries(run) if row["split"] == "validation"}


def comparable(run):
    return [
        {k: v for k, v in row.items() if not k.endswith("_per_second")} for row in read_entries(run)
    ]


def test_a_word_that_decides_is_learnt_in_six_epochs(undisturbed):
    run, config, outcome = undisturbed
    assert (config.train.steps, config.train.eval_every_steps) == (
        48,
        8,
    )  # 128 examples, 16 a batch
    assert config.optimizer.warmup_steps == 5
    assert (config.model.heads, config.new_heads) == (("pooler",), ())
    assert (outcome.step, outcome.stopped) == (48, False)
    scores = scores_of(run)
    assert list(scores) == list(range(8, 49, 8))
    assert max(scores.values()) > 0.95
    train = [row for row in read_entries(run) if row["split"] == "train"]
    assert {"loss", "accuracy", "learning_rate", "grad_norm"} < set(train[0])
    assert np.mean([row["accuracy"] for row in train[-8:]]) > 0.95


def test_the_best_checkpoint_is_named_kept_and_loaded(undisturbed):
    run, _, _ = undisturbed
    result, scores = read_json_strictly(run / "result.json"), scores_of(run)
    best = max(scores.values())
    assert scores[result["step"]] == result["figures"]["score"] == best
    assert result["evaluations"] == 6
    assert checkpoint.find_checkpoint(run) == (
        run.resolve(),
        run.resolve() / "checkpoints" / str(result["step"]),
    )
    loaded = load_finetuned(run)
    assert loaded.checkpoint.name == str(result["step"])
    assert loaded.kinds == {"good": "classification"}
    _, figures = assess(loaded, validation_sets(loaded, TOKENIZER), TOKENIZER)
    row = next(
        row
        for row in read_entries(run)
        if row["split"] == "validation" and row["step"] == result["step"]
    )
    assert figures == pytest.approx({k: v for k, v in row.items() if k not in ("step", "split")})
    # The model alone, as other verbs take it.
    assert identical(load_model(run).params["pooler"], loaded.params["pooler"])
    assert "tasks" not in load_model(run).params


def test_the_last_checkpoint_is_the_result_where_the_best_is_not_asked_for(undisturbed):
    run, config, outcome = undisturbed
    changed = dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, restore_best=False)
    )
    before = (run / "result.json").read_text()
    try:
        prepared = finetune.prepare(changed, TOKENIZER)
        result = finetune.write_result(changed, run, outcome.evaluations, prepared)
        assert result["step"] == 48
        assert load_finetuned(run).checkpoint.name == "48"
    finally:
        (run / "result.json").write_text(before)


def test_a_run_that_sigterm_stopped_ends_bit_for_bit_as_the_undisturbed_one(
    undisturbed, config, tmp_path
):
    def stop(what, done, total):
        if (what, done) == ("train", 21):
            signal.raise_signal(signal.SIGTERM)

    run = epath.Path(tmp_path) / "run"
    _, outcome = fit(config, run, progress=stop)
    assert outcome.stopped
    assert outcome.step in (21, 22)
    assert not (run / "result.json").exists()
    assert fit(config, run)[1].step == 48
    assert comparable(run) == comparable(undisturbed[0])
    for folder in ("", "checkpoints/48"):
        assert identical(
            load_finetuned(run / folder).params, load_finetuned(undisturbed[0] / folder).params
        )
    assert (run / "result.json").read_text() == (undisturbed[0] / "result.json").read_text()


def test_a_run_ends_early_after_as_many_evaluations_without_a_better_one_and_then_is_finished(
    undisturbed, config, tmp_path
):
    scores = list(scores_of(undisturbed[0]).values())
    patience = 1
    end = 8 * next(
        n for n in range(2, 7) if max(scores[n - patience : n]) <= max(scores[: n - patience])
    )
    assert end < 48
    run = epath.Path(tmp_path) / "run"
    changed = dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, early_stopping_patience=patience)
    )
    _, outcome = fit(changed, run)
    assert (outcome.step, outcome.stopped) == (end, False)
    assert comparable(run) == [row for row in comparable(undisturbed[0]) if row["step"] <= end]
    assert scores_of(run)[int(load_finetuned(run).checkpoint.name)] == max(scores_of(run).values())
    before = {
        path: path.read_bytes()
        for path in map(epath.Path, (run / "metrics.jsonl", run / "result.json"))
    }
    steps = []
    _, outcome = fit(changed, run, progress=lambda what, done, total: steps.append(done))
    assert (outcome.step, outcome.stopped, steps) == (end, False, [])
    assert all(path.read_bytes() == content for path, content in before.items())
    # So is one that went through all its epochs.
    fit(config, undisturbed[0], progress=lambda what, done, total: steps.append(done))
    assert steps == []


def test_sparse_products_give_the_figures_of_dense_ones(undisturbed):
    dense = load_finetuned(undisturbed[0])
    model = dataclasses.replace(dense.config.model, sparse_products="always")
    sparse = load_finetuned(undisturbed[0], dataclasses.replace(dense.config, model=model))
    splits = validation_sets(dense, TOKENIZER)
    up = sparse.inference_params["encoder"]["layers"]["mlp"]["up"]
    assert isinstance(up["kernel"], SparseKernel)
    assert assess(sparse, splits, TOKENIZER)[1] == pytest.approx(
        assess(dense, splits, TOKENIZER)[1], abs=1e-5
    )


@pytest.mark.slow
def test_a_stopped_sparse_run_goes_on_bit_for_bit_and_its_result_has_the_share_of_zeros(
    config, start, tmp_path
):
    options = dataclasses.replace(
        config.finetune, sparsity=0.6, sparsity_begin=0.2, sparsity_end=0.6, sparsity_interval=3
    )
    config = dataclasses.replace(config, finetune=options)

    def stop(what, done, total):
        if (what, done) == ("train", 19):
            signal.raise_signal(signal.SIGTERM)

    whole, stopped = epath.Path(tmp_path) / "whole", epath.Path(tmp_path) / "stopped"
    resolved, _ = fit(config, whole)
    assert fit(config, stopped, progress=stop)[1].stopped
    fit(config, stopped)
    assert comparable(stopped) == comparable(whole)
    model = load_finetuned(whole)
    assert identical(load_finetuned(stopped).params, model.params)
    train = [row for row in read_entries(whole) if row["split"] == "train"]
    # 48 steps: from 10 to 29. The share never falls.
    shares = [row["sparsity"] for row in train]
    assert shares == sorted(shares)
    assert (shares[11], shares[12] > 0, shares[27] < 0.6) == (0, True, True)
    assert shares[28:] == pytest.approx([0.6] * 20, abs=1e-3)
    # Scores of denser models do not count, nor do they keep a checkpoint.
    assert int(model.checkpoint.name) >= 29
    finetune.record_sparsity(resolved, whole, model.params)
    recorded = read_json_strictly(whole / "result.json")["sparsity"]
    assert recorded == pytest.approx(0.6, abs=1e-3)
    # So are the exports.
    export_model(whole, tmp_path / "exported", "huggingface")
    zeros = [
        int(np.sum(tensor == 0))
        for name, tensor in load_file(tmp_path / "exported" / "model.safetensors").items()
        if "encoder.layer" in name and name.endswith("weight") and tensor.ndim == 2
    ]
    kernels = sparsity.kernels_of(model.params).values()
    assert sum(zeros) == sum(int(np.sum(kernel == 0)) for kernel in kernels)
    assert len(zeros) == 12
    with pytest.raises(UserError, match=r"finetune\.sparsity: found 0\.7, expected 0\.6"):
        fit(dataclasses.replace(config, finetune=dataclasses.replace(options, sparsity=0.7)), whole)


def test_a_run_goes_on_with_its_own_data_and_configuration_only(undisturbed, config):
    changed = dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, label_smoothing=0.1)
    )
    with pytest.raises(UserError, match=r"finetune\.label_smoothing: found 0\.1, expected 0\.0"):
        fit(changed, undisturbed[0])


def test_predictions_of_a_file_without_labels_are_those_of_the_same_texts(undisturbed, texts):
    loaded = load_finetuned(undisturbed[0])
    lines = (texts / "dev.tsv").read_text().splitlines()
    write_table(texts / "test.tsv", [(line.split("\t")[0],) for line in lines[1:]], ["sentence"])
    changed = loaded.config.finetune
    examples, predictions = predict_split(
        loaded, kinds.entry_of(changed.tasks[0], changed), "test", TOKENIZER
    )
    assert [example.text for example in examples] == [line.split("\t")[0] for line in lines[1:]]
    right = [
        prediction.label == line.split("\t")[1]
        for prediction, line in zip(predictions, lines[1:], strict=True)
    ]
    assert np.mean(right) == pytest.approx(
        read_json_strictly(undisturbed[0] / "result.json")["figures"]["accuracy"]
    )


def test_a_model_that_no_task_was_trained_on_is_no_fine_tuned_one(start):
    with pytest.raises(
        UserError, match="found a model without a task, expected one that `bertjax finetune` made"
    ):
        load_finetuned(start)


# What follows from the data, without training.


def test_balanced_class_weights_reach_the_task(texts, tmp_path):
    config = config_of(f"good:classification={texts}", finetune={"class_weights": "balanced"})
    (opened,) = finetune.prepare(config, TOKENIZER).opened
    counts = [
        sum(example.label == label for example in opened.splits["train"]) for label in ("no", "yes")
    ]
    assert opened.task.labels == ("no", "yes")
    assert opened.task.class_weights == pytest.approx([128 / (2 * count) for count in counts])
    assert len(set(counts)) == 2
    tags = config_of(
        f"towns:tagging={write_tagged(tmp_path)}", finetune={"class_weights": "balanced"}
    )
    (opened,) = finetune.prepare(tags, TOKENIZER).opened
    assert opened.task.class_weights[0] < 1 < opened.task.class_weights[1]
    plain = finetune.prepare(config_of(f"good:classification={texts}"), TOKENIZER).opened[0].task
    assert plain.class_weights == ()


def test_so_many_training_examples_are_drawn_by_the_seed_and_no_others_of_the_validation_set(texts):
    def drawn(seed, count=20):
        config = config_of(
            f"good:classification={texts}", seed=seed, finetune={"max_train_examples": count}
        )
        (opened,) = finetune.prepare(config, TOKENIZER).opened
        return [example.text for example in opened.splits["train"]], len(
            opened.splits["validation"]
        )

    whole = sentences(168)[:128]
    first, validation = drawn(0)
    assert (len(first), validation) == (20, 40)
    assert first == [text for text in whole if text in set(first)]  # in their order
    assert drawn(0)[0] == first
    assert set(drawn(1)[0]) != set(first)
    assert drawn(0, 128)[0] == drawn(0, 1000)[0] == drawn(0, 0)[0] == whole


@pytest.mark.parametrize("changed,steps,every", [
    ({"epochs": 3.0}, 24, 8),
    ({"epochs": 0.5}, 4, 4),
    ({"epochs": 2.3}, 19, 8),
    ({"epochs": 2.0, "evaluations_per_epoch": 2.0}, 16, 4),
    ({"epochs": 2.0, "evaluations_per_epoch": 0.5}, 16, 16),
    ({"epochs": 1e-6}, 1, 1),
])  # fmt: skip
def test_steps_and_evaluations_follow_from_epochs(texts, changed, steps, every):
    config = config_of(f"good:classification={texts}", finetune=changed | {"warmup_fraction": 0.25})
    prepared = finetune.prepare(config, TOKENIZER)
    train = finetune.resolve(config, prepared, ()).train
    assert (train.steps, train.eval_every_steps, train.save_every_steps) == (steps, every, every)
    assert finetune.resolve(config, prepared, ()).optimizer.warmup_steps == round(steps / 4)


def test_heads_that_the_source_lacks_or_that_are_to_be_new_are_new(texts, tmp_path):
    config = config_of(f"good:classification={texts}", init_from="somewhere")
    prepared = finetune.prepare(config, TOKENIZER)
    for reinit, restored, new in (
        (False, ("pooler", "mlm"), ()),
        (False, ("mlm",), ("pooler",)),
        (True, ("pooler", "mlm"), ("pooler",)),
    ):
        changed = dataclasses.replace(
            config, finetune=dataclasses.replace(config.finetune, reinit_pooler=reinit)
        )
        resolved = finetune.resolve(changed, prepared, restored)
        assert (resolved.model.heads, resolved.new_heads) == (("pooler",), new)
    assert finetune.resolve(dataclasses.replace(config, init_from=""), prepared, ()).new_heads == ()
    tags = config_of(f"towns:tagging={write_tagged(tmp_path)}", init_from="somewhere")
    resolved = finetune.resolve(tags, finetune.prepare(tags, TOKENIZER), ("pooler", "mlm", "nsp"))
    assert (resolved.model.heads, resolved.new_heads) == ((), ())
    tags = tags.replace(model={"pooler_act": "gelu", "pooler_norm": True, "token_pooler": True})
    for restored, new in ((("mlm",), ()), ((), ("pooler",))):
        resolved = finetune.resolve(tags, finetune.prepare(tags, TOKENIZER), restored)
        assert (resolved.model.heads, resolved.new_heads) == (("pooler",), new)


def test_a_pooler_that_the_masked_word_head_has_is_no_new_head(texts):
    config = config_of(f"good:classification={texts}", init_from="somewhere")
    prepared = finetune.prepare(config, TOKENIZER)
    modern = {"pooler_act": "gelu", "pooler_norm": True}
    for fields, restored, reinit, new in (
        (modern, ("mlm",), False, ()),
        (modern, ("mlm",), True, ("pooler",)),
        (modern, (), False, ("pooler",)),
        (modern | {"pooler_act": "relu"}, ("mlm",), False, ("pooler",)),
        (modern | {"embedding_size": 8}, ("mlm",), False, ("pooler",)),
        (modern | {"mlm_hidden_size": 8}, ("mlm",), False, ("pooler",)),
        ({"pooler": "none"}, ("mlm",), True, ()),
    ):
        changed = config.replace(model=fields, finetune={"reinit_pooler": reinit})
        assert finetune.resolve(changed, prepared, restored).new_heads == new, (fields, restored)
    frozen = config.replace(optimizer={"freeze": "encoder"})
    message = (
        r"optimizer\.freeze: found encoder, expected another value for a model without a pooler"
    )
    with pytest.raises(UserError, match=message):
        finetune.resolve(frozen, prepared, ("mlm",))
    assert finetune.resolve(frozen.replace(model=modern), prepared, ("mlm",)).new_heads == ()


def test_options_that_the_data_decide_or_the_task_would_not_heed_are_refused(texts):
    config = config_of(f"good:classification={texts}")
    prepared = finetune.prepare(config, TOKENIZER)
    for section, name, value in (
        ("train", "steps", 5),
        ("train", "save_every_steps", 7),
        ("optimizer", "warmup_steps", 3),
    ):
        other = config_of(f"good:classification={texts}", **{section: {name: value}})
        with pytest.raises(
            UserError, match=rf"{section}\.{name}: found {value}, expected finetune\."
        ):
            finetune.resolve(other, prepared, ())
    numbers = {"label_type": "number", "label_smoothing": 0.1}
    with pytest.raises(
        UserError, match=r"finetune\.label_smoothing: found 0\.1, expected 0, for good"
    ):
        finetune.prepare(config_of(f"good:classification={texts}", finetune=numbers), TOKENIZER)


def test_what_is_drawn_of_the_training_set_does_not_decide_the_labels(tmp_path):
    rows = [(text, "rare" if n == 0 else has_good(text)) for n, text in enumerate(sentences(60))]
    write_table(tmp_path / "train.tsv", rows)
    write_table(tmp_path / "dev.tsv", rows)
    config = config_of(f"good:classification={tmp_path}", finetune={"max_train_examples": 5})
    prepared = finetune.prepare(config, TOKENIZER)
    assert prepared.opened[0].task.labels == ("no", "rare", "yes")
    assert prepared.train["good"].items == 5


def test_a_run_goes_on_with_the_training_examples_that_it_began_with_only(
    undisturbed, config, tmp_path
):
    write_splits(tmp_path, lambda text: "no" if "good" in text else "yes", train=128)
    prepared = finetune.prepare(config_of(f"good:classification={tmp_path}"), TOKENIZER)
    facts = finetune.facts_of(prepared, TOKENIZER)
    with pytest.raises(UserError, match=r"checkpoints/\d+: data, training_rows_sha256: found"):
        check_same_data(undisturbed[0], config, facts)
    same = finetune.prepare(config, TOKENIZER)
    check_same_data(undisturbed[0], config, finetune.facts_of(same, TOKENIZER))


def test_a_run_goes_on_with_the_validation_examples_that_it_began_with_only(
    undisturbed, config, texts, tmp_path
):
    for path in epath.Path(texts).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copied = config_of(f"good:classification={tmp_path}")
    facts = finetune.facts_of(finetune.prepare(copied, TOKENIZER), TOKENIZER)
    check_same_data(undisturbed[0], config, facts)
    write_table(tmp_path / "dev.tsv", [("a good cat", "yes"), ("the dog", "no")])
    facts = finetune.facts_of(finetune.prepare(copied, TOKENIZER), TOKENIZER)
    with pytest.raises(UserError, match=r"data, validation of good: found"):
        check_same_data(undisturbed[0], config, facts)


def test_a_finished_run_is_not_repeated_on_other_training_examples(config, tmp_path):
    prepared = finetune.prepare(config, TOKENIZER)
    run = epath.Path(tmp_path)
    (run / "result.json").write_text(json.dumps({"training_rows_sha256": prepared.digest}))
    finetune.check_finished_on(run, prepared)
    other = dataclasses.replace(prepared, train={})
    with pytest.raises(UserError, match="found other training examples, expected those it began"):
        finetune.check_finished_on(run, other)
    # Runs of before recorded nothing.
    (run / "result.json").write_text("{}")
    finetune.check_finished_on(run, other)


def test_the_first_validation_split_of_mnli_is_its_own_and_the_other_is_named(tmp_path):
    rows = [("a cat", "the dog", label) for label in ("entailment", "neutral", "contradiction")]
    for name in ("train", "dev_matched", "dev_mismatched"):
        write_table(tmp_path / f"{name}.tsv", rows, ["sentence1", "sentence2", "gold_label"])
    prepared = finetune.prepare(config_of(f"mnli={tmp_path}"), TOKENIZER)
    assert [split.name for split in prepared.validation] == ["", "mismatched"]


def row(step, score):
    return {"step": step, "split": "validation", "score": score}


def test_an_evaluation_without_a_score_is_never_the_best_and_only_kept_checkpoints_count(tmp_path):
    run = epath.Path(tmp_path)
    rows = [row(1, 0.9), row(2, 0.5), row(3, None), row(4, 0.4)]
    for step in (2, 3, 4):
        (run / "checkpoints" / str(step)).mkdir(parents=True)
    config = config_of("good:classification=x")
    nothing = finetune.Prepared((), {}, ())
    found = finetune.write_result(config, run, rows, nothing)
    assert found == {
        "step": 2,
        "figures": {"score": 0.5},
        "evaluations": 4,
        "training_rows_sha256": nothing.digest,
        "signatures": {},
    }
    assert finetune.write_result(config, run, rows[:3], nothing)["evaluations"] == 3
    last = dataclasses.replace(
        config, finetune=dataclasses.replace(config.finetune, restore_best=False)
    )
    assert finetune.write_result(last, run, rows, nothing)["step"] == 4
    assert read_json_strictly(run / "result.json")["step"] == 4


def test_of_equal_scores_the_latest_step_is_selected_however_few_are_kept(tmp_path):
    config, nothing = config_of("good:classification=x"), finetune.Prepared((), {}, ())
    for kept in ([3], [2, 3], [1, 2, 3, 4]):
        run = epath.Path(tmp_path / str(len(kept)))
        rows = [row(1, 0.5), row(2, 0.5), row(3, 0.5), row(4, 0.4)]
        for step in kept:
            (run / "checkpoints" / str(step)).mkdir(parents=True)
        assert finetune.write_result(config, run, rows, nothing)["step"] == 3


# All kinds of targets and options, each with a program of its own.


@pytest.mark.slow
def test_two_tasks_at_once_have_each_its_figures(start, texts, tmp_path):
    towns = write_tagged(tmp_path / "towns")
    config = config_of(
        f"good:classification={texts}",
        f"towns:tagging={towns}",
        init_from=str(start),
        finetune={"epochs": 10.0},
    )
    run = epath.Path(tmp_path) / "run"
    fit(config, run)
    figures = read_json_strictly(run / "result.json")["figures"]
    assert figures["score"] == pytest.approx((figures["accuracy/good"] + figures["f1/towns"]) / 2)
    assert figures["loss"] == pytest.approx((figures["loss/good"] + figures["loss/towns"]) / 2)
    assert min(figures["accuracy/good"], figures["f1/towns"]) > 0.95
    rows = [row for row in read_entries(run) if row["split"] == "train"]
    assert {"good" if "loss/good" in row else "towns" for row in rows} == {"good", "towns"}
    assert all(("loss/good" in row) != ("loss/towns" in row) for row in rows)
    loaded = load_finetuned(run)
    assert loaded.kinds == {"good": "classification", "towns": "tagging"}
    assert set(loaded.params["tasks"]) == {"good", "towns"}


@pytest.mark.slow
@pytest.mark.parametrize("label_type,label,name", [
    ("classes", lambda text: ",".join(word for word in ("good", "cat") if word in text), "f1_micro"),
    ("number", lambda text: text.split().count("good"), "pearson"),
])  # fmt: skip
def test_several_classes_at_once_and_numbers_are_learnt(start, tmp_path, label_type, label, name):
    folder = write_splits(tmp_path / "texts", label)
    config = config_of(
        f"own:classification={folder}",
        init_from=str(start),
        finetune={"label_type": label_type, "epochs": 10.0},
    )
    fit(config, tmp_path / "run")
    figures = read_json_strictly(tmp_path / "run" / "result.json")["figures"]
    assert figures["score"] == figures[name]
    assert figures[name] > 0.9


def change_of(start, run):
    """How far each group went from the parameters that the run began with; the layers apart."""
    before = load_model(start).params
    after = load_finetuned(run).params
    far = jax.tree.map(
        lambda a, b: np.abs(np.asarray(a) - np.asarray(b)), before, {k: after[k] for k in before}
    )
    layers = [max(leaf[n].max() for leaf in jax.tree.leaves(far["encoder"])) for n in range(2)]
    return {
        k: max(leaf.max() for leaf in jax.tree.leaves(far[k])) for k in ("embeddings", "pooler")
    }, layers


@pytest.mark.slow
def test_freezing_and_new_layers_change_what_they_should_only(start, texts, tmp_path):
    def moved(run, **changes):
        config = config_of(f"good:classification={texts}", init_from=str(start), **changes)
        fit(
            dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, epochs=0.25)),
            tmp_path / run,
        )
        return change_of(start, tmp_path / run)

    groups, layers = moved("plain")
    assert 0 < groups["embeddings"] < 0.02  # two steps of 6e-3 at most
    assert 0 < min(layers) <= max(layers) < 0.02
    groups, layers = moved("frozen", optimizer={"freeze": "encoder"})
    assert (groups, layers) == ({"embeddings": 0, "pooler": 0}, [0, 0])
    groups, layers = moved("lowest", optimizer={"freeze_layers": 1})
    assert (groups["embeddings"], layers[0]) == (0, 0)
    assert layers[1] > 0
    groups, layers = moved("new", finetune={"reinit_layers": 1, "reinit_pooler": True})
    assert layers[0] < 0.02 < layers[1]
    assert groups["embeddings"] < 0.02 < groups["pooler"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        {"mixout": 0.2},
        {"layer_decay": 0.9},
        {"algorithm": "bert", "peak_learning_rate": 1e-3},
        {"algorithm": "lamb", "peak_learning_rate": 2e-2},
        {"algorithm": "muon", "peak_learning_rate": 2e-2},
        {"algorithm": "schedule_free", "schedule": "constant", "layer_decay": 0.9},
    ],
    ids=str,
)
def test_the_remedies_learn_too_and_continue_bit_for_bit(start, texts, tmp_path, optimizer):
    def stop(what, done, total):
        if done == 10 and what == "train":
            signal.raise_signal(signal.SIGTERM)

    config = config_of(f"good:classification={texts}", init_from=str(start), optimizer=optimizer)
    fit(config, tmp_path / "a")
    assert fit(config, tmp_path / "b", progress=stop)[1].stopped
    fit(config, tmp_path / "b")
    assert identical(load_finetuned(tmp_path / "a").params, load_finetuned(tmp_path / "b").params)
    assert read_json_strictly(tmp_path / "a" / "result.json")["figures"]["score"] > 0.9


@pytest.mark.slow
def test_a_head_on_tokens_trains_the_pooler_that_begins_as_the_masked_word_head(tmp_path):
    modern = {"pooler_act": "gelu", "pooler_norm": True, "token_pooler": True}
    start = save_start(tmp_path / "start", model={**modern, "heads": ("mlm",)})
    towns = write_tagged(tmp_path / "towns")
    config = config_of(f"towns:tagging={towns}", init_from=str(start), model=modern)
    prepared = finetune.prepare(config, TOKENIZER)
    resolved = finetune.resolve(config, prepared, ("mlm",))
    run = epath.Path(tmp_path / "run")
    outcome = finetune.finetune(resolved, run, prepared, TOKENIZER)
    finetune.write_result(resolved, run, outcome.evaluations, prepared)
    assert read_json_strictly(run / "result.json")["figures"]["score"] > 0.9
    begun, ended = load_model(start).params["mlm"], load_finetuned(run).params["pooler"]
    distance = np.abs(begun["transform"]["kernel"] - ended["kernel"]).max()
    # 24 steps of 6e-3 at most; new kernels are 0.1 and more apart from each other.
    assert 0 < distance < 0.15


@pytest.mark.slow
def test_a_run_that_rounds_to_eight_bits_learns_and_continues_bit_for_bit(start, texts, tmp_path):
    config = config_of(
        f"good:classification={texts}",
        init_from=str(start),
        finetune={"quantization_aware": "int8"},
    )

    def stop(what, done, total):
        if (what, done) == ("train", 21):
            signal.raise_signal(signal.SIGTERM)

    a, b = epath.Path(tmp_path / "a"), epath.Path(tmp_path / "b")
    fit(config, a)
    assert max(scores_of(a).values()) > 0.95
    assert fit(config, b, progress=stop)[1].stopped
    fit(config, b)
    assert comparable(a) == comparable(b)
    assert identical(load_finetuned(a).params, load_finetuned(b).params)
    changed = dataclasses.replace(config.finetune, quantization_aware="int4")
    with pytest.raises(UserError, match="quantization_aware"):
        fit(dataclasses.replace(config, finetune=changed), a)


def more_good_than_bad(text):
    words = text.split()
    count = lambda *chosen: sum(words.count(word) for word in chosen)  # noqa: E731
    return (
        "yes" if count("good", "cat", "one", "paris") > count("bad", "dog", "no", "rome") else "no"
    )


def with_offsets(folder, run):
    """A copy of a run that computes the same, with weights that are far from 0.

    What is added to all outputs of a matrix alike, the norm that follows takes out again.
    """
    model = load_finetuned(run)
    flat = flatten_dict(jax.device_get(model.params), sep="/")
    flat = {path: np.array(leaf) for path, leaf in flat.items()}
    flat["embeddings/word/embedding"] += 1.2
    flat["encoder/layers/mlp/down/kernel"][:, 0] += 2
    flat["encoder/layers/attention/output/kernel"][:, 0, 0] += 2
    facts = {"tasks": [kinds.to_plain(task) for task in model.objective.tasks]}
    save_model(folder, model.config, unflatten_dict(flat, sep="/"), TOKENIZER, facts)
    return folder


def losses_of(run):
    """The held-out loss of a run: as it is, and with weights of four bits."""
    model = load_finetuned(run)
    (split,) = validation_sets(model, TOKENIZER)
    mesh, losses = make_mesh(model.config.mesh), {}
    for form in ("none", "int4"):
        objective = dataclasses.replace(model.objective, quantization_aware=form)
        params = objective.rounded(model.params)
        found = evaluate_split(
            model.config, objective, mesh, params, split, TOKENIZER.pad_id, labelled=True
        )
        losses[form] = found.figures["loss"]
    return losses


@pytest.mark.slow
def test_weights_of_four_bits_lose_less_where_training_has_rounded_them(tmp_path):
    texts = write_splits(tmp_path / "texts", more_good_than_bad, train=512, validation=200)
    task, last = f"good:classification={texts}", {"restore_best": False}
    fit(config_of(task, finetune={"epochs": 6.0, **last}), tmp_path / "base")
    before = losses_of(tmp_path / "base")
    start = with_offsets(tmp_path / "start", tmp_path / "base")
    moved = losses_of(start)
    assert moved["none"] == pytest.approx(before["none"], abs=1e-3)
    # Only 16 values are left for numbers that lie close together and far from 0.
    assert moved["int4"] > 2 * before["int4"]
    after = {}
    for form in ("none", "int4"):
        config = config_of(
            task,
            init_from=str(start),
            optimizer={"peak_learning_rate": 2e-3},
            finetune={"epochs": 4.0, "quantization_aware": form, **last},
        )
        found = []
        for seed in (0, 1):
            run = tmp_path / f"{form}{seed}"
            fit(dataclasses.replace(config, seed=seed), run)
            found.append(losses_of(run))
        after[form] = {name: np.mean([each[name] for each in found]) for name in moved}
    assert after["none"]["int4"] > 1.5 * after["none"]["none"]
    assert after["int4"]["int4"] < 0.7 * after["none"]["int4"]


def test_a_decoder_which_no_program_of_integers_has_is_not_trained_for_one(tmp_path):
    lines = [(text, text.upper()) for text in ("the cat", "a dog", "one bird", "no paris")]
    write_table(tmp_path / "train.tsv", lines, ("source", "target"))
    write_table(tmp_path / "validation.tsv", lines, ("source", "target"))
    config = config_of(
        f"turn:seq2seq={tmp_path}", finetune={"quantization_aware": "int8", "max_seq_length": 16}
    )
    prepared = finetune.prepare(config, TOKENIZER)
    with pytest.raises(UserError, match="quantization_aware: found int8, expected none for turn"):
        finetune.resolve(config, prepared, ())
