r"""Fine-tuning as in section 4 and appendix A.3 of arXiv 1810.04805.

    bertjax finetune paper --init-from runs/base --finetune.tasks rte=data/RTE --run-dir runs/rte
    bertjax finetune paper --init-from runs/base --finetune.tasks rte=data/RTE --grid paper \
        --seeds 0 1 2

The model is the one of `--init-from`. The paper has for BERT base, on the test sets of GLUE:
MNLI 84.6/83.4, QQP 71.2 (F1), QNLI 90.5, SST-2 93.5, CoLA 52.1, STS-B 85.8, MRPC 88.9 (F1), RTE
66.4. An epoch of MNLI is 12,272 steps of 32 rows. For SQuAD: `--finetune.max-seq-length 384
--finetune.epochs 2` (1.1: F1 88.5). For SWAG: rows of 128 tokens (81.6).
"""

from bertjax.config import Config, FinetuneConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model_from_init=True,
        finetune=FinetuneConfig(max_seq_length=128, epochs=3.0, warmup_fraction=0.1),
        optimizer=OptimizerConfig(peak_learning_rate=3e-5, warmup_steps=0),
        train=TrainConfig(batch_size=32, log_every_steps=50, keep_checkpoints=1),
    )
