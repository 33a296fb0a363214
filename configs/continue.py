"""Continued pretraining of an existing model on the text of a domain, with the model's tokenizer.

    bertjax prepare continue --init-from FOLDER --data.corpus my_text.txt
    bertjax train continue --init-from FOLDER

FOLDER is a run, an imported model or a grown one; model and tokenizer are taken from it. The
objective is masked words alone, in rows filled with sentences. The learning rate is low enough for
the model to keep what it knows (arXiv 2004.10964). That paper's runs have 12,500 steps of 2,048
rows; these are a fifth of that, for one accelerator. A model without a masked-word head, such as a
sentence encoder, gets a new one by `--model.heads mlm --new-heads mlm`.
"""

from bertjax.config import Config, DataConfig, OptimizerConfig, TrainConfig


def get_config() -> Config:
    return Config(
        model_from_init=True,
        data=DataConfig(
            prepared_dir="prepared/continue", sentence_objective="none", dynamic_masking=True
        ),
        optimizer=OptimizerConfig(peak_learning_rate=1e-4, warmup_steps=600),
        train=TrainConfig(
            steps=10_000, batch_size=512, eval_every_steps=1_000, save_every_steps=1_000
        ),
    )
