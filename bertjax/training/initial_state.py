"""The state that a run starts with: from a checkpoint, or new, with new or restored parameters."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, get_args

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh

from bertjax.config import Config, Head, ModelConfig
from bertjax.config.layers import LayerConfig
from bertjax.config.phases.kept import marks_of
from bertjax.errors import check
from bertjax.model.functional import BESIDE_MODEL, DECODER_GROUPS, DISTILLATION, TASKS, Params
from bertjax.parallel import hosts
from bertjax.training import checkpoint, run_config
from bertjax.training.integrity import damage
from bertjax.training.objective import NOTHING, Given, Objective
from bertjax.training.step import TrainState, abstract_state, jit_init

log = logging.getLogger("bertjax")

# Fields of the model that a decoder computes by, beside those that show in its shapes.
NOT_DECODED = {
    "local_attention",
    "global_attn_every_n_layers",
    "first_global_layer",
    "dropout_places",
}
DECODED = (
    *(field.name for field in fields(LayerConfig) if field.name not in NOT_DECODED),
    "position_offset",
    "mlm_act",
    "layer_norm_eps",
)
NORM = "layer_norm"  # of the pooler and of the head for masked words


def begun(
    config: Config,
    run_dir: epath.Path,
    mesh: Mesh,
    objective: Objective,
    facts: Mapping[str, Any],
    target: TrainState,
    given: Given = NOTHING,
) -> tuple[Config, checkpoint.Checkpoints, TrainState]:
    """Open a run's folder; return the configuration it has, its checkpoints and the first state.

    Where the newest checkpoint is damaged, it is set aside and all begins again with the one before
    it, which has its own record of data and settings (`train.damaged_checkpoint`).
    """
    folder = run_dir / checkpoint.FOLDER
    while True:
        checkpoints = None
        try:
            damage.same_everywhere(folder, lambda: checkpoint.check_records(run_dir))
            # Before the checkpoints are opened: settings that do not fit the folder are refused.
            own = run_config.write_run_config(run_dir, config, facts)
            checkpoints = checkpoint.Checkpoints(
                run_dir, config.train.keep_checkpoints, marks_of(config)
            )
            state = initial_state(own, mesh, objective, checkpoints, target, given)
            return own, checkpoints, state
        except damage.DamagedCheckpointError as error:
            if checkpoints is not None:
                checkpoints.close()
            damage.set_aside(error, folder, config.train.damaged_checkpoint)


def initial_state(
    config: Config,
    mesh: Mesh,
    objective: Objective,
    checkpoints: checkpoint.Checkpoints,
    target: TrainState,
    given: Given = NOTHING,
) -> TrainState:
    """Return the state that a run starts with, sharded as `target` (`abstract_state`).

    1. If the run has checkpoints, the state is that of the newest one.
    2. Otherwise, with `config.init_from`, its parameters are used with a new optimizer at step 0.
    3. Otherwise the groups that `given.start` has are used in the same way, such as the layers of a
       teacher.
    4. All other parameters are new, from `config.seed`.

    A pooler that `init_from` lacks, and that is not among `config.new_heads`, is a copy of the
    masked-word head's linear layer and norm.

    Raises `UserError` if what is restored does not fit the configuration.
    """
    latest = checkpoints.latest()
    # Of all hosts the first decides: another one may still see a folder that was renamed.
    step = hosts.from_first("" if latest is None else str(latest))
    if step:
        return checkpoints.restore(int(step), target)
    programs = jit_init(config, mesh, objective)
    state = programs.state()
    restored = _restored_groups(config, target) if config.init_from else given.start()
    if not restored:
        return state
    params = objective.initial_params(state.params, restored)
    # The step's program refuses arrays that lie otherwise than `target` says.
    params = jax.tree.map(
        lambda leaf, abstract: jax.device_put(leaf, abstract.sharding), params, target.params
    )
    return state._replace(params=params, opt_state=programs.opt_state(params))


def check_initial_params(
    config: Config, mesh: Mesh, objective: Objective, *, imported: Params | None = None
) -> None:
    """Raise the `UserError` of `initial_state` for the parameters of `config.init_from`.

    So a run can be refused before it has a folder. `imported` are these parameters, if they will be
    saved in `init_from` later.
    """
    if not config.init_from:
        return
    groups, ignored = _groups_to_restore(config, abstract_state(config, mesh, objective))
    if imported is None:
        folder = checkpoint.find_checkpoint(config.init_from)[1]
        own = _with_mlm_for_pooler(config, groups, _saved_heads(folder))
        checkpoint.check_params(folder, own, ignored)
    else:
        own = _with_mlm_for_pooler(config, groups, imported)
        checkpoint.check_params(epath.Path(config.init_from), own, ignored, saved=imported)
    if config.finetune.decoder_from:
        folder = checkpoint.find_checkpoint(config.finetune.decoder_from)[1]
        checkpoint.check_params(folder, groups, ignored)
        _check_decoder(config.model, checkpoint.read_checkpoint_config(folder).model)


def _check_decoder(model: ModelConfig, donor: ModelConfig) -> None:
    """Raise `UserError` for the first field that makes the donor of a decoder another function.

    The decoder's own configuration is the encoder's, `model`. Their shapes are equal.
    """
    for name in DECODED:
        found, expected = getattr(donor, name), getattr(model, name)
        check(
            found == expected,
            where=f"finetune.decoder_from: model.{name}",
            found=found,
            expected=f"{expected}, as in the encoder",
        )


def _restored_groups(config: Config, target: TrainState) -> dict[str, Any]:
    """Return the groups of parameters that are restored from `config.init_from`, by name.

    If `finetune.decoder_from` is set, its groups are in the group `DECODER_GROUPS`.
    """
    _, folder = checkpoint.find_checkpoint(config.init_from)
    groups, ignored = _groups_to_restore(config, target)
    own = _with_mlm_for_pooler(config, groups, _saved_heads(folder))
    from_mlm = "" if "pooler" in own or "pooler" not in groups else ", pooler from the mlm head"
    new_heads = f", new heads: {', '.join(config.new_heads)}" if config.new_heads else ""
    log.info("parameters from %s%s%s", folder, new_heads, from_mlm)
    restored = checkpoint.restore_params(folder, own, ignored)
    if from_mlm:
        restored["pooler"] = _pooler_of(restored["mlm"])
        if "mlm" not in groups:
            del restored["mlm"]
    if config.finetune.decoder_from:
        _, decoder_folder = checkpoint.find_checkpoint(config.finetune.decoder_from)
        restored[DECODER_GROUPS] = checkpoint.restore_params(decoder_folder, groups, ignored)
    return restored


def _groups_to_restore(config: Config, target: TrainState) -> tuple[dict[str, Any], list[str]]:
    """Return the groups of `target` that `init_from` must have, and those that it may have."""
    # The heads of a fine-tuned model belong to its tasks, so they are not restored.
    not_restored = (*config.new_heads, TASKS, DISTILLATION)
    groups = {group: leaves for group, leaves in target.params.items() if group not in not_restored}
    # Groups that the checkpoint may have although this model does not use them. Any other group
    # is an error, so that no parameter is dropped silently.
    ignored = [group for group in (*get_args(Head), *BESIDE_MODEL) if group not in groups]
    return groups, ignored


def _saved_heads(folder: epath.Path) -> Collection[str]:
    return checkpoint.read_checkpoint_config(folder).model.heads


def _with_mlm_for_pooler(
    config: Config, groups: Mapping[str, Any], heads: Collection[str]
) -> dict[str, Any]:
    """Return the groups to read from a model with these `heads`, of those in `groups`.

    Where it has no pooler, but a head for masked words whose transform is one, this takes its
    place. `transformers` names the two alike for such models, so a classifier starts from it.
    """
    is_missing = "pooler" in groups and "pooler" not in heads
    if not is_missing or "mlm" not in heads or not config.model.pooler_is_mlm_transform:
        return dict(groups)
    pooler = groups["pooler"]
    transform = {name: leaf for name, leaf in pooler.items() if name != NORM}
    norm = {NORM: pooler[NORM]} if NORM in pooler else {}
    others = {name: leaves for name, leaves in groups.items() if name != "pooler"}
    return {**others, "mlm": {**groups.get("mlm", {}), "transform": transform, **norm}}


def _pooler_of(mlm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a pooler that are those of a masked-word head's transform."""
    norm = {NORM: mlm[NORM]} if NORM in mlm else {}
    # Copies: the head may be trained too, and no buffer may be donated twice.
    return jax.tree.map(jnp.copy, {**mlm["transform"], **norm})
