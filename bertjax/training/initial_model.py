"""Configuration of a run that takes its model and tokenizer from another model."""

import dataclasses
from collections.abc import Collection
from typing import Any, NamedTuple, TypeVar

from etils import epath

from bertjax.config import Config, to_flat_dict
from bertjax.errors import check, nearest
from bertjax.training import checkpoint
from bertjax.training.saved_model import TOKENIZER, saved_tokenizer

Section = TypeVar("Section")


class InitialModel(NamedTuple):
    """The model that a run starts from, as far as its configuration needs it."""

    config: Config
    """The configuration that the model was trained with, or imported with."""
    tokenizer_dir: epath.Path
    """Folder of its tokenizer."""


def read_initial_model(path: epath.PathLike) -> InitialModel:
    """Read the configuration of a run folder or checkpoint folder.

    Raises `UserError` if it is neither, or if the tokenizer there is not the one of the checkpoint.
    """
    run_dir, folder = checkpoint.find_checkpoint(path)
    if (run_dir / TOKENIZER).exists():
        saved_tokenizer(run_dir, folder)
    return InitialModel(checkpoint.read_checkpoint_config(folder), run_dir / TOKENIZER)


def take_initial_model(
    config: Config, overrides: Collection[str] = (), *, initial: InitialModel | None = None
) -> Config:
    """Return `config` with model and tokenizer of `init_from`, if `model_from_init` says so.

    `overrides` are dotted names of fields, such as `model.hidden_dropout_prob`, that keep the value
    they have in `config`. `initial` is the model at `init_from` where that was read already.

    Raises `UserError` where `init_from` is empty, or is no run and no checkpoint, and for an
    override that is no field.
    """
    _check_overrides(config, overrides)
    if not config.model_from_init:
        return config
    initial = initial or _named_by(config)
    return dataclasses.replace(config, **_sections(config, overrides, initial))


def take_initial_model_to_finetune(
    config: Config, overrides: Collection[str] = (), *, initial: InitialModel | None = None
) -> Config:
    """Return the configuration of `take_initial_model`, adapted to fine-tuning.

    `scan_unroll` is set to 1, so that the layers are a loop in the program. If the loop were
    unrolled, the program would take minutes to compile for each length to which batches are padded.
    The section `data`, which fine-tuning does not use, stays as it was in pretraining.
    """
    _check_overrides(config, overrides)
    if not config.model_from_init:
        return config
    initial = initial or _named_by(config)
    model = dataclasses.replace(initial.config.model, scan_unroll=1)
    initial = initial._replace(config=dataclasses.replace(initial.config, model=model))
    data = _overridden(initial.config.data, config.data, "data", overrides)
    # All sections are replaced together, because a model with few positions does not fit the
    # defaults of `data`.
    return dataclasses.replace(config, data=data, **_sections(config, overrides, initial))


def _check_overrides(config: Config, overrides: Collection[str]) -> None:
    """Raise `UserError` for a name that is no field: its value would be that of the old model."""
    fields = to_flat_dict(config)
    for name in overrides:
        check(
            name in fields,
            where="overrides",
            found=repr(name),
            expected=f"dotted names of fields{nearest(name, fields)}",
        )


def _named_by(config: Config) -> InitialModel:
    check(
        config.init_from,
        where="init_from",
        found="nothing",
        expected="a folder to take the model from, as model_from_init says",
    )
    return read_initial_model(config.init_from)


def _sections(config: Config, overrides: Collection[str], initial: InitialModel) -> dict[str, Any]:
    """Return the sections `model` and `tokenizer` of the initial model, with the overrides."""
    tokenizer = dataclasses.replace(initial.config.tokenizer, vocab_file=str(initial.tokenizer_dir))
    return {
        "model": _overridden(initial.config.model, config.model, "model", overrides),
        "tokenizer": _overridden(tokenizer, config.tokenizer, "tokenizer", overrides),
    }


def _overridden(initial: Section, own: Section, name: str, overrides: Collection[str]) -> Section:
    """Return the section `initial` with those fields of `own` that are among the overrides."""
    kept = {}
    for field in dataclasses.fields(own):  # type: ignore[arg-type]
        if f"{name}.{field.name}" in overrides:
            kept[field.name] = getattr(own, field.name)
    return dataclasses.replace(initial, **kept)  # type: ignore[type-var]
