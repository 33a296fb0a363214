import dataclasses
import doctest

import pytest

from bertjax.config import (  # fmt: skip
    Config,
    DataConfig,
    DistillConfig,
    FinetuneConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    run,
)
from bertjax.errors import UserError

TASK = FinetuneConfig(tasks=("rte=data/RTE",))


def test_replace_changes_fields_of_sections_and_keeps_the_others():
    base = Config(seed=3, model=ModelConfig(hidden_size=24, num_attention_heads=2))
    changed = base.replace(
        init_from="runs/base",
        model={"num_hidden_layers": 2, "heads": ["mlm"]},
        data={"corpus": ["text"], "validation_fraction": 0},
    )
    model = dataclasses.replace(base.model, num_hidden_layers=2, heads=("mlm",))
    data = DataConfig(corpus=("text",), validation_fraction=0.0)
    assert changed == dataclasses.replace(base, init_from="runs/base", model=model, data=data)
    assert base.model.num_hidden_layers == 12


def test_the_example_of_replace_runs():
    results = doctest.testmod(run)
    assert (results.failed, results.attempted) == (0, 2)


def test_replace_takes_a_whole_section():
    train = TrainConfig(steps=20_000)
    assert Config().replace(train=train, optimizer={"warmup_steps": 0}) == Config(
        train=train, optimizer=OptimizerConfig(warmup_steps=0)
    )


@pytest.mark.parametrize("changes,message", [
    ({"model": {"hidden_sise": 3}}, "config.model: found the field 'hidden_sise', expected one of"),
    ({"model": {"hidden_sise": 3}}, "; the nearest is hidden_size"),
    ({"sed": 1}, "config: found the field 'sed', expected one of"),
    ({"replace": 1}, "config: found the field 'replace', expected one of"),
    ({"model": 3}, "config.model: found 3, expected a dict of fields"),
    ({"model": TrainConfig()}, "config.model: found TrainConfig("),
    ({"seed": "1"}, "config.seed: found '1', expected a value of type int"),
    ({"train": {"steps": 10}}, "optimizer.warmup_steps: found 10000, expected at most train.steps (10)"),
    ({"train": {"steps": -5}}, "train.steps: found -5, expected a number above 0"),
])  # fmt: skip
def test_replace_refuses_what_a_configuration_file_may_not_say(changes, message):
    with pytest.raises(UserError) as caught:
        Config().replace(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CAUSAL = {
    "causal_share": 0.5,
    "dynamic_masking": True,
    "sentence_objective": "none",
    "max_predictions_per_seq": 127,
}
DIFFUSION = {
    "objective": "diffusion",
    "dynamic_masking": True,
    "masking": "token",
    "mask_shares": (1, 0, 0),
    "max_predictions_per_seq": 128,
}


@pytest.mark.parametrize("make,message", [
    (lambda: Config(seed=-1), "seed: found -1"),
    (lambda: DataConfig(mlm_probability=0.0), "data.mlm_probability: found 0.0"),
    (lambda: DataConfig(mask_shares=(0.8, 0.2)), "data.mask_shares: found (0.8, 0.2), expected three numbers"),
    (lambda: DataConfig(mask_shares=(0.8, 0.1, 0.2)), "data.mask_shares: found (0.8, 0.1, 0.2), expected three numbers from 0 to 1 whose sum is 1"),
    (lambda: DataConfig(mask_shares=(1.2, -0.1, -0.1)), "data.mask_shares: found (1.2, -0.1, -0.1), expected three"),
    (lambda: DataConfig(objective="diffusion"), "data.dynamic_masking: found False, expected True, for data.objective diffusion"),
    (lambda: DataConfig(objective="diffusion", dynamic_masking=True), "data.masking: found whole_word, expected token, for data.objective diffusion"),
    (lambda: DataConfig(**DIFFUSION | {"mask_shares": (0.8, 0.1, 0.1)}), "data.mask_shares: found (0.8, 0.1, 0.1), expected (1.0, 0.0, 0.0), for data.objective diffusion"),
    (lambda: DataConfig(**DIFFUSION | {"max_predictions_per_seq": 20}), "data.max_predictions_per_seq: found 20, expected 128, for data.objective diffusion"),
    (lambda: DataConfig(**DIFFUSION | {"causal_share": 0.5}), "data.causal_share: found 0.5, expected 0.0, for data.objective diffusion"),
    (lambda: DataConfig(**CAUSAL | {"dynamic_masking": False}), "data.dynamic_masking: found False, expected True, for data.causal_share 0.5"),
    (lambda: DataConfig(**CAUSAL | {"max_predictions_per_seq": 20}), "data.max_predictions_per_seq: found 20, expected 127, for data.causal_share 0.5"),
    (lambda: DataConfig(**CAUSAL | {"sentence_objective": "next_sentence"}), "data.sentence_objective: found next_sentence, expected none, for data.causal_share 0.5"),
    (lambda: DataConfig(**CAUSAL | {"causal_share": 1.5}), "data.causal_share: found 1.5"),
    (lambda: Config(data=DataConfig(**CAUSAL), model=ModelConfig(kernels="pallas", dropout_bits="hash")), "model.kernels: found pallas, expected xla, for data.causal_share 0.5"),
    (lambda: Config(data=DataConfig(**CAUSAL | {"causal_share": 0.01}), train=TrainConfig(batch_size=8)), "data.causal_share: found 0.01, expected a share that leaves a row of each kind"),
    (lambda: Config(data=DataConfig(**CAUSAL), distill=DistillConfig(teacher="runs/a")), "distill.teacher: found 'runs/a', expected none, for data.objective diffusion or data.causal_share"),
    (lambda: DataConfig(corpus=()), "data.corpus: found no source"),
    (lambda: DataConfig(max_seq_length=16), "data.max_predictions_per_seq: found 20, expected less than"),
    (lambda: DataConfig(max_sequences_per_row=128), "data.max_sequences_per_row: found 128, expected 1 to 127"),
    (lambda: DataConfig(cross_documents=True), "data.cross_documents: found True, expected data.sentence_objective none"),
    (lambda: DataConfig(mixture=("a=b", "a=c")), "data.mixture: found a, a, expected a name once"),
    (lambda: DataConfig(mixture=("a",)), "data.mixture: found a, expected NAME=FOLDER"),
    (lambda: DataConfig(mixture=("a=b",), mixture_weights=(0.0,)), "data.mixture_weights: found (0.0,)"),
    (lambda: DataConfig(workers=-1), "data.workers: found -1, expected 0 (one a core) or more"),
    (lambda: ModelConfig(hidden_dropout_prob=1.0), "model.hidden_dropout_prob: found 1.0"),
    (lambda: ModelConfig(local_attention=3), "model.local_attention: found 3, expected an even number"),
    (lambda: ModelConfig(heads=("nsp",)), "model.heads: found ('nsp',)"),
    (lambda: ModelConfig(kernels="pallas"), "model.dropout_bits: found threefry, expected hash"),
    (lambda: ModelConfig(position_offset=512), "model.position_offset: found 512, expected less than"),
    (lambda: ModelConfig(vocab_size=2**31), "model.vocab_size: found 2147483648, expected less than 2**31"),
    (lambda: OptimizerConfig(schedule="multistep"), "optimizer.milestones: found ()"),
    (lambda: OptimizerConfig(schedule="multistep", milestones=(5, 2)), "optimizer.milestones"),
    (lambda: OptimizerConfig(schedule="step"), "optimizer.decay_steps: found 0"),
    (lambda: OptimizerConfig(mixout=1.0), "optimizer.mixout: found 1.0, expected a number from 0 to below 1"),
    (lambda: OptimizerConfig(peak_learning_rate=float("nan")), "optimizer.peak_learning_rate: found nan"),
    (lambda: OptimizerConfig(peak_learning_rate=float("inf")), "optimizer.peak_learning_rate: found inf"),
    (lambda: TrainConfig(batch_size=10, gradient_accumulation_steps=4), "train.batch_size: found 10, expected a multiple"),
    (lambda: TrainConfig(batch_size_schedule="ramp", max_batch_size=768), "train.max_batch_size: found 768"),
    (lambda: TrainConfig(batch_size_schedule="adaptive", max_batch_size=512), "train.gradient_accumulation_steps: found 1"),
    (lambda: TrainConfig(keep_checkpoints=0), "train.keep_checkpoints: found 0"),
    (lambda: MeshConfig(data=0), "mesh.data: found 0"),
    (lambda: MeshConfig(data=-1, fsdp=-1), "mesh: found -1 for data and fsdp"),
    (lambda: FinetuneConfig(tasks=("rte",)), "finetune.tasks: found rte, expected NAME=PLACE"),
    (lambda: FinetuneConfig(tasks=("a=b", "a:spans=c")), "finetune.tasks: found a, a, expected each name once"),
    (lambda: FinetuneConfig(length_buckets=(16, 8)), "finetune.length_buckets: found (16, 8)"),
    (lambda: FinetuneConfig(max_train_examples=-1), "finetune.max_train_examples: found -1, expected 0 or more"),
    (lambda: Config(train=TrainConfig(steps=10)), "optimizer.warmup_steps: found 10000, expected at most train.steps"),
    (lambda: Config(new_heads=("mlm",), model=ModelConfig(heads=())), "new_heads: found ('mlm',)"),
    (lambda: Config(data=DataConfig(max_seq_length=513, max_predictions_per_seq=80)),
     "data.max_seq_length: found 513, expected at most model.max_position_embeddings (512)"),
    (lambda: Config(finetune=dataclasses.replace(TASK, max_seq_length=513)), "finetune.max_seq_length: found 513"),
    (lambda: Config(finetune=TASK, train=TrainConfig(batch_size_schedule="ramp", max_batch_size=512)),
     "train.batch_size_schedule: found ramp, expected constant"),
    (lambda: Config(finetune=FinetuneConfig(decoder_from="run")), "finetune.decoder_from: found run, expected init_from"),
    (lambda: Config(optimizer=OptimizerConfig(freeze="encoder"), finetune=FinetuneConfig(reinit_pooler=True)),
     "optimizer.freeze: found encoder"),
    (lambda: Config(optimizer=OptimizerConfig(freeze_layers=13)), "optimizer.freeze_layers: found 13, expected at most the model's layers, 12"),
    (lambda: Config(mesh=MeshConfig(sequence=2), model=ModelConfig(kernels="pallas", dropout_bits="hash")), "mesh.sequence: found 2"),
])  # fmt: skip
def test_values_out_of_range_are_refused_naming_the_field(make, message):
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)


def test_row_lengths_are_the_buckets_below_the_longest():
    assert Config().row_lengths == (128,)
    tasks = dataclasses.replace(TASK, max_seq_length=100, length_buckets=(16, 64, 128))
    assert Config(finetune=tasks).row_lengths == (16, 64, 100)
