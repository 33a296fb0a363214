"""Import of another program's model as a run, which every command can read."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from bertjax.config import Config, DataConfig, ModelConfig, TokenizerConfig
from bertjax.data.tokenizers.huggingface import read_tokenizer_folder
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import check, mismatch
from bertjax.given_files import place_of
from bertjax.interop import sentence_transformers
from bertjax.interop.checkpoints import huggingface, tensorflow
from bertjax.interop.checkpoints.weight_files import has_weights
from bertjax.model.functional import Params
from bertjax.storage import exact_version_of
from bertjax.storage.output_record import check_whole, request_digest
from bertjax.storage.outputs import folder_written_whole
from bertjax.training import checkpoint
from bertjax.training.saved_model import (
    IMPORTED,
    NOT_TAKEN,
    TOKENIZER,
    imported_from,
    save_model,
    saved_checkpoint,
    write_model,
)

log = logging.getLogger("bertjax")


class ExternalModel(NamedTuple):
    """A model of another program, read and checked but not saved."""

    config: Config
    params: Params
    tokenizer: Tokenizer | None
    facts: dict[str, Any]
    """The origin of the model, for the `meta` of its checkpoint."""


class Imported(NamedTuple):
    """A new run with an imported model."""

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

    `source`, `drop`, `lowercase` and `take_tokenizer` are passed to `read_external_model`. If the
    model cannot be read, nothing is written. Raises `UserError` as that function does, and if
    `run_dir` has other files than this call would write.

    >>> import bertjax
    >>> folder = bertjax.export_model("runs/tiny", "exported/import-example", "huggingface")
    >>> imported = bertjax.import_model(folder, "runs/imported")
    >>> imported.config.model.hidden_size, imported.tokenizer.kind
    (32, 'wordpiece')
    """
    run_dir = place_of(run_dir)
    request = request_digest(
        "import",
        source=_versions(place_of(source)),
        drop=list(drop),
        lowercase=lowercase,
        take_tokenizer=take_tokenizer,
    )
    # Before the model is read, which takes minutes for a large one.
    with folder_written_whole(run_dir, "import", request, last=checkpoint.FOLDER) as part:
        if part is not None:
            model = read_external_model(
                source, drop=drop, lowercase=lowercase, take_tokenizer=take_tokenizer
            )
            write_model(part, model.config, model.params, model.tokenizer, model.facts)
    imported = saved_checkpoint(run_dir)
    tokenizer = load_tokenizer(run_dir / TOKENIZER) if (run_dir / TOKENIZER).exists() else None
    return Imported(imported, checkpoint.read_checkpoint_config(imported), tokenizer)


def _versions(source: epath.Path) -> dict[str, str]:
    """Return what tells whether a model folder is still the same: the version of each file."""
    folder = source if source.is_dir() else source.parent
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    return {"": str(source), **{path.name: exact_version_of(path) for path in files}}


def read_external_model(
    source: epath.PathLike,
    *,
    drop: Sequence[str] = (),
    lowercase: bool | None = None,
    take_tokenizer: bool = True,
) -> ExternalModel:
    """Read a model folder of `transformers` or of the original BERT into memory.

    `source` holds `config.json` and weights (`bertjax.interop.checkpoints.huggingface`), or
    `bert_config.json` and `bert_model.ckpt.*` (`bertjax.interop.checkpoints.tensorflow`). In the
    second case it may also be the prefix of the checkpoint. `bert_config.json` may also stand
    beside weights of PyTorch, as in the first BERTs for it. The tokenizer's files are read too,
    unless `take_tokenizer` is False. `lowercase` says whether a `vocab.txt` is uncased, if no other
    file says it. Tensors are left out whose names begin or end with an entry of `drop`, or match
    it, if it has wildcards (`fnmatch`).

    Raises `UserError` if the folder is neither, if a tensor is missing, unknown or of another
    shape, if a setting is not supported, or if the tokenizer is larger than the vocabulary.
    """
    check(
        not isinstance(drop, str),
        where="drop",
        found=repr(drop),
        expected="a list of beginnings, endings or patterns of names",
    )
    path = place_of(source)
    # The prefix of a checkpoint is no file: its folder has the rest.
    folder = path if path.is_dir() else path.parent
    check_whole(folder)
    format, model, params = _load(path, folder, drop)
    tokenizer = read_tokenizer_folder(folder, lowercase) if take_tokenizer else None
    if tokenizer is not None:
        # The embedding table may be larger than the vocabulary (rounded up to a multiple), but not
        # smaller.
        check(
            tokenizer.vocab_size <= model.vocab_size,
            where=f"{path}: vocab_size",
            found=model.vocab_size,
            expected=f"at least the tokenizer's {tokenizer.vocab_size} entries",
        )
        _check_padding(path, model, tokenizer)
    config = Config(model=model, data=_data_config(model), tokenizer=_tokenizer_config(tokenizer))
    origin = {"format": format, "source": str(path), "dropped": list(drop)}
    missing = sentence_transformers.not_taken(folder)
    if missing:
        origin[NOT_TAKEN] = missing
        log.warning(
            "%s: a model of sentence-transformers, whose encoder alone is taken, without %s",
            path,
            ", ".join(missing),
        )
    facts = {IMPORTED: origin}
    return ExternalModel(config, params, tokenizer, facts)


def _check_padding(path: epath.Path, model: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raise `UserError` where a token of the text may have the padding id of the model's positions.

    With positions that begin after this id, `transformers` does not count the tokens that have it.
    """
    if not model.position_offset:
        return
    padding = model.position_offset - 1
    check(
        padding == tokenizer.pad_id,
        where=f"{path}: pad_token_id",
        found=padding,
        expected=f"{tokenizer.pad_id}, the tokenizer's, as positions begin after it"
        " (--take-tokenizer False imports the model alone)",
    )
    in_rows = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id, tokenizer.unk_id)
    check(
        padding not in in_rows,
        where=f"{path}: pad_token_id",
        found=f"{padding}, which the tokenizer has for other special tokens too",
        expected="one for padding alone, as its tokens have no position of their own"
        " (--take-tokenizer False imports the model alone)",
    )


def save_external_model(model: ExternalModel, run_dir: epath.PathLike) -> Imported:
    """Save a model that was read as step 0 of the new run `run_dir`."""
    folder = save_model(run_dir, model.config, model.params, model.tokenizer, model.facts)
    return Imported(folder, model.config, model.tokenizer)


def is_external(folder: epath.Path) -> bool:
    """Return whether a folder is a model of another program rather than a run."""
    if (folder / checkpoint.FOLDER).exists():
        return False
    # A checkpoint of TensorFlow is also given by the beginning of its files' names.
    index = folder.parent / f"{folder.name}.index"
    return has_weights(folder) or (folder / tensorflow.CONFIG).exists() or index.exists()


def is_imported_from(run_dir: epath.Path, source: epath.Path) -> bool:
    """Return whether the model in `run_dir` was imported from this folder."""
    return _source_of(run_dir) == str(source)


def _source_of(run_dir: epath.Path) -> str | None:
    return imported_from(checkpoint.find_checkpoint(run_dir)[1]).get("source")


def check_imported_from(run_dir: epath.Path, source: epath.Path) -> None:
    """Raise `UserError` if the model in `run_dir` was imported from another folder."""
    check(
        is_imported_from(run_dir, source),
        where=str(run_dir),
        found=f"the model of {_source_of(run_dir)}",
        expected=f"that of {source} (another --run-dir)",
    )


def _load(
    path: epath.Path, folder: epath.Path, drop: Sequence[str]
) -> tuple[str, ModelConfig, dict[str, Any]]:
    """Return the format, the model and its parameters."""
    original = (folder / tensorflow.CONFIG).exists()
    weights = has_weights(path)
    # A folder of the original BERT may have a config.json too, but no weights of transformers.
    if (path / huggingface.CONFIG).exists() and (weights or not original):
        return "huggingface", *huggingface.load(path, drop)
    if original and weights:
        if not any(path.glob("*.index")):
            return "huggingface", *huggingface.load(path, drop, config_name=tensorflow.CONFIG)
        log.warning("%s: has weights of TensorFlow and others; TensorFlow's are imported", path)
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
        encoder = sentence_transformers.encoder_folder(path)
        return f"neither in it, but an encoder in {encoder}" if encoder else "neither in it"
    if path.exists():
        return "a file"
    return "no such folder"


def _data_config(model: ModelConfig) -> DataConfig:
    """Return the default `DataConfig`, adapted to the model's length and heads."""
    length = min(DataConfig.max_seq_length, model.max_length)
    # `DataConfig` asks for fewer predictions than positions.
    predictions = min(DataConfig.max_predictions_per_seq, length - 1)
    data = DataConfig(max_seq_length=length, max_predictions_per_seq=predictions)
    if "nsp" not in model.heads:
        # Without the head there is nothing that a sentence label could train.
        data = dataclasses.replace(data, sentence_objective="none")
    return data


def _tokenizer_config(tokenizer: Tokenizer | None) -> TokenizerConfig:
    if tokenizer is None:
        return TokenizerConfig()
    # As in configurations of earlier versions where the kind does this by default.
    default = tokenizer.lowercase if tokenizer.kind == "wordpiece" else False
    accents = tokenizer.strip_accents
    return TokenizerConfig(
        kind=tokenizer.kind,
        lowercase=tokenizer.lowercase,
        strip_accents=None if accents == default else accents,
        vocab_size=tokenizer.vocab_size,
    )
