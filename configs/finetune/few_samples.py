r"""Fine-tuning with few examples, by the methods of arXiv 2006.05987.

    bertjax finetune few_samples --init-from runs/base --finetune.tasks rte=data/RTE \
        --seeds 0 1 2 3 4

Adam with its bias correction, more epochs, new parameters for the top layers and the pooler,
learning rates that fall with depth; two evaluations an epoch, of which the best checkpoint is kept.
Which of these methods helps differs from task to task: table 2 of the paper has RTE, MRPC, STS-B
and CoLA. Another of its settings is `--optimizer.mixout 0.1 --finetune.reinit-layers 0`.
"""

from bertjax.config import Config
from bertjax.presets.finetune import paper


def get_config() -> Config:
    return paper.get_config().replace(
        finetune={
            "epochs": 10.0,
            "evaluations_per_epoch": 2.0,
            "reinit_layers": 1,
            "reinit_pooler": True,
        },
        optimizer={"peak_learning_rate": 2e-5, "layer_decay": 0.95},
        train={"batch_size": 16},
    )
