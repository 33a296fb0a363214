"""Import of another program's model as a run, which every verb reads."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from bertjax.config import Config, DataConfig, ModelConfig, TokenizerConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import Tokenizer
from bertjax.errors import check, mismatch
from bertjax.interop.checkpoints import huggingface, tensorflow
from bertjax.interop.checkpoints.weight_files import has_weights
from bertjax.training.saved_model import check_new, save_model


class Imported(NamedTuple):
    """The run that `import_model` made."""

    checkpoint: epath.Path
    """Folder of its only checkpoint, step 0."""
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
    `take_tokenizer` is False. `lowercase` says how to read a `vocab.txt` without any other file
    that tells. Tensors whose names begin with an entry of `drop` are left out. Raises `UserError`
    as those modules do, and where `run_dir` has files in it.
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
    format, model, params = _load(path, folder, drop)
    tokenizer = read_tokenizer_folder(folder, lowercase) if take_tokenizer else None
    if tokenizer is not None:
        # A table may be larger than its tokenizer, filled up to a multiple; never smaller.
        check(
            tokenizer.vocab_size <= model.vocab_size,
            where=f"{path}: vocab_size",
            found=model.vocab_size,
            expected=f"at least the tokenizer's {tokenizer.vocab_size} entries",
        )
    config = Config(model=model, data=_data_config(model), tokenizer=_tokenizer_config(tokenizer))
    facts = {"imported": {"format": format, "source": str(path), "dropped": list(drop)}}
    return Imported(save_model(run_dir, config, params, tokenizer, facts), config, tokenizer)


def _load(
    path: epath.Path, folder: epath.Path, drop: Sequence[str]
) -> tuple[str, ModelConfig, dict[str, Any]]:
    """Return the format, the model and its parameters."""
    original = (folder / tensorflow.CONFIG).exists()
    # A folder of the original may have a config.json too, but then no weights of transformers.
    if (path / huggingface.CONFIG).exists() and (has_weights(path) or not original):
        return "huggingface", *huggingface.load(path, drop)
    if original:
        return "tensorflow", *tensorflow.load(path, drop)
    raise mismatch(
        where=str(path),
        found=_what_is_there(path),
        expected=(
            f"a folder with {huggingface.CONFIG} or {tensorflow.CONFIG}, here and not on a hub"
        ),
    )


def _what_is_there(path: epath.Path) -> str:
    if path.is_dir():
        return "neither in it"
    if path.exists():
        return "a file"
    return "no such folder"


def _data_config(model: ModelConfig) -> DataConfig:
    """Return the defaults, made to fit the model's length and heads."""
    length = min(DataConfig.max_seq_length, model.max_length)
    predictions = min(DataConfig.max_predictions_per_seq, length - 1)
    data = DataConfig(max_seq_length=length, max_predictions_per_seq=predictions)
    if "nsp" not in model.heads:
        data = dataclasses.replace(data, sentence_objective="none")
    return data


def _tokenizer_config(tokenizer: Tokenizer | None) -> TokenizerConfig:
    if tokenizer is None:
        return TokenizerConfig()
    return TokenizerConfig(
        kind=tokenizer.kind, lowercase=tokenizer.lowercase, vocab_size=tokenizer.vocab_size
    )
