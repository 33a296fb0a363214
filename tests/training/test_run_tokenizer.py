import pytest
from etils import epath

from bertjax.config import Config, TokenizerConfig
from bertjax.errors import UserError
from bertjax.training.run_tokenizer import check_tokenizer, initial_tokenizer
from tests.data.tokenizers.given.test_vocab_txt import ODD, saved_earlier


def test_a_run_that_began_with_a_file_as_it_was_read_before_goes_on(tmp_path):
    _, earlier = saved_earlier(tmp_path / "run" / "tokenizer")
    run = epath.Path(tmp_path) / "run"
    file = tmp_path / "vocab.txt"
    file.write_bytes(ODD)
    config = Config(tokenizer=TokenizerConfig(vocab_file=str(file)))
    tokenizer = initial_tokenizer(config, run)
    assert tokenizer.fingerprint == earlier
    check_tokenizer(config, tokenizer, run)
    assert initial_tokenizer(config, tmp_path / "new").fingerprint != earlier
    file.write_bytes(ODD.replace(b"a\n", b"e\n"))
    tokenizer = initial_tokenizer(config, run)
    # A start that ended before its first update binds nothing.
    check_tokenizer(config, tokenizer, run)
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="tokenizer: found tokenizer"):
        check_tokenizer(config, tokenizer, run)
