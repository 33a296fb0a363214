"""A fine-tuned teacher's soft labels beside the true ones, for a student with half its layers.

    bertjax distill distill/task --teacher runs/sst2 --finetune.tasks sst2=data/SST-2

The student starts from every second layer of the teacher, head included, unless `--init-from` names
a student that was distilled on text before. `--distill.objective-weight 0` leaves out the true
labels. The terms of layers, as `--distill.hidden-weight`, are for tasks too.
"""

from bertjax.config import Config, DistillConfig, FinetuneConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        distill=DistillConfig(objective_weight=1.0, soft_weight=1.0, temperature=2.0),
        finetune=FinetuneConfig(max_seq_length=128, epochs=4.0, warmup_fraction=0.1),
        optimizer=OptimizerConfig(peak_learning_rate=5e-5, warmup_steps=0),
        train=TrainConfig(batch_size=32, log_every_steps=50, keep_checkpoints=1),
    )
