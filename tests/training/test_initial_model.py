import pytest

from bertjax.config import Config
from bertjax.errors import UserError
from bertjax.training.initial_model import take_initial_model, take_initial_model_to_finetune
from tests.tasks.tiny import save_start


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A run whose layers are written out."""
    folder = tmp_path_factory.mktemp("start") / "run"
    return save_start(folder, model={"scan_unroll": 2, "max_position_embeddings": 128})


def config(start, **fields):
    return Config(model_from_init=True, init_from=str(start), **fields)


def test_the_model_and_the_tokenizer_are_those_it_starts_from(start):
    taken = take_initial_model(config(start))
    assert (taken.model.scan_unroll, taken.model.max_position_embeddings) == (2, 128)
    assert taken.tokenizer.vocab_file.endswith("/run/tokenizer")
    assert taken.data == Config().data
    assert take_initial_model(Config()) == Config()


def test_to_fine_tune_the_layers_are_a_loop_and_data_is_that_of_pretraining(start):
    taken = take_initial_model_to_finetune(config(start))
    assert (taken.model.scan_unroll, taken.model.max_position_embeddings) == (1, 128)
    assert taken.data.max_seq_length == 16


def test_fields_that_are_set_go_before_those_of_the_model(start):
    own = config(start).replace(model={"scan_unroll": 3, "hidden_dropout_prob": 0.25})
    for take in (take_initial_model, take_initial_model_to_finetune):
        taken = take(own, {"model.scan_unroll", "seed"}).model
        assert taken.scan_unroll == 3
        assert taken.hidden_dropout_prob != 0.25


def test_a_folder_must_be_given_and_be_a_model(tmp_path):
    with pytest.raises(UserError, match="init_from: found nothing, expected a folder"):
        take_initial_model(Config(model_from_init=True))
    with pytest.raises(UserError, match="found no checkpoint"):
        take_initial_model(config(tmp_path))
