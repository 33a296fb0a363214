r"""BERT large, phase 2: the last 100,000 steps of the paper's million, at sequence length 512.

    bertjax prepare large_phase2 --data.corpus tfds:wikipedia/20230601.en \
        --tokenizer.vocab-file prepared/base128/tokenizer/vocab.txt --output-dir prepared/base512
    bertjax train large_phase2 --init-from runs/large --run-dir runs/large512

Parameters come from the newest checkpoint of phase 1 (`large`). The optimizer starts anew, with a
short warmup to the learning rate at which phase 1 would have continued.
"""

from bertjax.config import Config
from bertjax.presets import large


def get_config() -> Config:
    return large.get_config().replace(
        data={
            "prepared_dir": "prepared/base512",
            "max_seq_length": 512,
            # 0.15 * 512, rounded up.
            "max_predictions_per_seq": 77,
        },
        # The paper's rate falls linearly from 1e-4 to 0 in a million steps: 1e-5 after 900,000.
        optimizer={"peak_learning_rate": 1e-5, "warmup_steps": 1_000},
        train={"steps": 100_000},
    )
