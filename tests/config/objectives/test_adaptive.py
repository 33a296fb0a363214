import pytest

from bertjax.config import (
    AdaptiveConfig,
    Config,
    DataConfig,
    DistillConfig,
    ModelConfig,
    ReplacedConfig,
)
from bertjax.errors import UserError

DATA = DataConfig(dynamic_masking=True, masking="token", sentence_objective="none")
HARD = AdaptiveConfig(masks="hard")


def test_adaptive_masks_are_an_option_of_masked_words():
    assert not Config().adaptive.is_used
    config = Config(adaptive=HARD, data=DATA)
    assert (config.adaptive.every_steps, config.adaptive.memory) == (200, 0.2)


@pytest.mark.parametrize("changes,message", [
    ({"data": {"dynamic_masking": False}}, "data.dynamic_masking: found False, expected True, for adaptive.masks hard"),
    ({"data": {"masking": "whole_word"}}, "data.masking: found whole_word, expected token"),
    ({"data": {"causal_share": 0.5, "max_predictions_per_seq": 127}}, "data.causal_share: found 0.5, expected 0.0"),
    ({"data": {"objective": "diffusion", "mask_shares": (1.0, 0.0, 0.0), "max_predictions_per_seq": 128}}, "data.objective: found diffusion, expected masked"),
    ({"replaced": ReplacedConfig(generator="tied"), "model": ModelConfig(heads=("rtd",))}, "adaptive.masks: found hard beside replaced.generator, expected none"),
    ({"distill": DistillConfig(teacher="runs/x")}, "adaptive.masks: found hard beside distill.teacher"),
    ({"adaptive": {"every_steps": 0}}, "adaptive.every_steps: found 0, expected a number above 0"),
    ({"adaptive": {"memory": 1.0}}, "adaptive.memory: found 1.0, expected a number from 0 to below 1"),
    ({"phases": ("steps=5", "data.masking=ngram")}, "phase 2: data.masking: found ngram"),
    ({"phases": ("steps=5", "adaptive.masks=none")}, "found 'adaptive.masks', expected from"),
])  # fmt: skip
def test_what_does_not_go_with_them_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        Config(adaptive=HARD, data=DATA).replace(**changes)
