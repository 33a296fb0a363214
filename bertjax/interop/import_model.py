"""A model of another program as a run, which every verb reads."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from bertjax.config import Config, DataConfig, ModelConfig, TokenizerConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import UserError, check
from bertjax.interop.checkpoints import huggingface, tensorflow
from bertjax.interop.checkpoints.weight_files import has_weights
from bertjax.training.saved_model import check_new, save_model


class Imported(NamedTuple):
    """What `import_model` made."""

    checkpoint: epath.Path
    config: Config
    tokenizer: Tokenizer | None


def import_model(
    source: epath.PathLike,
    run_dir: epath.PathLike,
    *,
    drop: Sequence[str] = (),
    lowercase: bool | None = None,
    take_tokenizer: bool = True,
) -> Imported:
    """Make a run of step 0 from a model folder of `transformers` or of the original BERT.

    `source` holds `config.json` and weights (`bertjax.interop.checkpoints.huggingface`), or
    `bert_config.json` and `bert_model.ckpt.*` (`bertjax.interop.checkpoints.tensorflow`), where the
    checkpoint's prefix does as well; and the tokenizer's files, which are taken along unless
    `take_tokenizer` is False. `lowercase` says how to read a `vocab.txt` that nothing else tells
    of. Tensors whose names begin with an entry of `drop` are left out. Raises `UserError` as those
    modules say, and where `run_dir` has files in it.
    """
    check(
        not isinstance(drop, str),
        where="drop",
        found=repr(drop),
        expected="a list of beginnings of names",
    )
    path = epath.Path(source)
    check_new(epath.Path(run_dir))
    folder = path if path.is_dir() else path.parent
    original = (folder / tensorflow.CONFIG).exists()
    if (path / huggingface.CONFIG).exists() and (has_weights(path) or not original):
        name, (model, params) = "huggingface", huggingface.load(path, drop)
    elif original:
        name, (model, params) = "tensorflow", tensorflow.load(path, drop)
    else:
        found = (
            "neither in it" if path.is_dir() else "a file" if path.exists() else "no such folder"
        )
        expected = (
            f"a folder with {huggingface.CONFIG} or {tensorflow.CONFIG}, here and not on a hub"
        )
        raise UserError(f"{path}: found {found}, expected {expected}")
    tokenizer = read_tokenizer_folder(folder, lowercase) if take_tokenizer else None
    if tokenizer is not None:
        entries = f"at least the tokenizer's {tokenizer.vocab_size} entries"
        check(
            tokenizer.vocab_size <= model.vocab_size,
            where=f"{path}: vocab_size",
            found=model.vocab_size,
            expected=entries,
        )
    config = Config(model=model, data=_data(model), tokenizer=_settings(tokenizer))
    facts = {"imported": {"format": name, "source": str(path), "dropped": list(drop)}}
    return Imported(save_model(run_dir, config, params, tokenizer, facts), config, tokenizer)


def _data(model: ModelConfig) -> DataConfig:
    length = min(DataConfig.max_seq_length, model.max_length)
    predictions = min(DataConfig.max_predictions_per_seq, length - 1)
    data = DataConfig(max_seq_length=length, max_predictions_per_seq=predictions)
    return data if "nsp" in model.heads else dataclasses.replace(data, sentence_objective="none")


def _settings(tokenizer: Tokenizer | None) -> TokenizerConfig:
    if tokenizer is None:
        return TokenizerConfig()
    return TokenizerConfig(
        kind=tokenizer.kind, lowercase=tokenizer.lowercase, vocab_size=tokenizer.vocab_size
    )
