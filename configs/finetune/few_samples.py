"""Fine-tuning where there are few examples, by the remedies of arXiv 2006.05987.

    bertjax finetune configs/finetune/few_samples.py --init-from runs/base --finetune.tasks rte=data/RTE \
        --seeds 0 1 2 3 4

Adam with its bias correction, more epochs, the top layers and the pooler new, learning rates that
fall with depth; evaluated twice an epoch, the best checkpoint kept. Which of them helps differs by
task: the paper's table 2 has RTE, MRPC, STS-B and CoLA; `--optimizer.mixout 0.1
--finetune.reinit-layers 0` is another of its settings.
"""

from bertjax.config import Config, FinetuneConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model_from_init=True,
        finetune=FinetuneConfig(
            epochs=10.0,
            warmup_fraction=0.1,
            evaluations_per_epoch=2,
            reinit_layers=1,
            reinit_pooler=True,
        ),
        optimizer=OptimizerConfig(peak_learning_rate=2e-5, warmup_steps=0, layer_decay=0.95),
        train=TrainConfig(batch_size=16, log_every_steps=50, keep_checkpoints=1),
    )
