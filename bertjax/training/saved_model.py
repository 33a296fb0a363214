"""Models in their folders: load the parameters of a run, and save parameters as a new run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
from etils import epath
from jax.typing import DTypeLike

from bertjax.config import Config, MeshConfig, ReplacedConfig, to_dict
from bertjax.config.objectives.replaced import generator_of
from bertjax.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from bertjax.errors import check
from bertjax.model import functional
from bertjax.model.functional import BESIDE_MODEL, TASKS, Params
from bertjax.model.linear_head import init_linear, linear_axes
from bertjax.model.sparse.choice import with_sparse_products
from bertjax.parallel import rules
from bertjax.parallel.mesh import make_mesh
from bertjax.storage.outputs import folder_written_whole
from bertjax.training import checkpoint, run_config
from bertjax.training.pretraining import pretraining
from bertjax.training.provenance import data_record
from bertjax.training.provenance.data_record import FINGERPRINT, check_fingerprint
from bertjax.training.replaced.networks import generator_params

TOKENIZER = "tokenizer"  # its folder in a run's folder
# Of a model of `sentence-transformers` what `import` did not take: a field of "imported" in `meta`.
NOT_TAKEN = "not_taken"
IMPORTED = "imported"
OF_SOURCE = (data_record.DATA, data_record.ROWS, data_record.MANIFEST, TASKS, IMPORTED)
"""Fields of a checkpoint's `meta` that are true of a model made of it, too."""
Network = Literal["model", "generator"]
"""The networks of a run with replaced-token detection; other runs have the model alone."""


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint's parameters, laid out on `config.mesh`, and the folders they came from."""

    config: Config
    run_dir: epath.Path
    checkpoint: epath.Path
    params: Params
    not_taken: tuple[str, ...] = ()
    """What `import` left of a model of `sentence-transformers`: see `interop`."""

    @cached_property
    def inference_params(self) -> Params:
        """`params`, with kernels in sparse form where this is faster (`model.sparse_products`)."""
        return with_sparse_products(self.config.model, self.params)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run; raises `UserError` if the run has none or another one now."""
        return saved_tokenizer(self.run_dir, self.checkpoint)


def saved_tokenizer(run_dir: epath.Path, folder: epath.Path) -> Tokenizer:
    """Load a run's tokenizer; raise `UserError` unless its checkpoint `folder` was trained with it.

    Ids of another tokenizer would be looked up without an error.
    """
    tokenizer = load_tokenizer(run_dir / TOKENIZER)
    record = checkpoint.read_meta(folder)
    check_fingerprint(folder, record, tokenizer.fingerprint, where=run_dir / TOKENIZER)
    return tokenizer


def for_inference(config: Config) -> Config:
    """Return `config` for using a model on this machine's devices.

    The mesh is the default one, since there may have been more devices where the model was
    trained. The layers run as a loop (`scan_unroll` 1), which compiles fastest.
    """
    model = dataclasses.replace(config.model, scan_unroll=1)
    # What is loaded is one network.
    return dataclasses.replace(config, mesh=MeshConfig(), model=model, replaced=ReplacedConfig())


def load_model(
    path: epath.PathLike,
    config: Config | None = None,
    *,
    dtype: DTypeLike | None = None,
    heads: Mapping[str, int] | None = None,
) -> TrainedModel:
    """Load the model of a run folder (its newest or best checkpoint) or of one checkpoint folder.

    `config` takes the place of the checkpoint's own configuration; its model must have the same
    parameters. By default it is the checkpoint's own, for the devices of this machine
    (`for_inference`). The parameters are cast to `dtype` (such as bfloat16) as they are read; by
    default they stay as they were trained.

    Heads that fine-tuning added are not loaded, except the linear heads in `heads`, which maps the
    name of a task to the number of its head's outputs. They are at `params["tasks"][NAME]`.

    Raises `UserError` where there is no checkpoint, or where its tensors are not those of the
    configuration.

    >>> import bertjax
    >>> model = bertjax.load_model("runs/tiny")
    >>> model.config.model.num_hidden_layers
    2
    >>> sorted(model.params)
    ['embeddings', 'encoder', 'mlm', 'nsp', 'pooler']
    >>> model.tokenizer.encode_with_masks("the [MASK] sees the dog.").dtype
    dtype('int32')
    """
    run_dir, folder = checkpoint.find_checkpoint(path)
    if config is None:
        config = for_inference(checkpoint.read_checkpoint_config(folder))
    shapes, axes = functional.shapes(config.model), functional.logical_axes(config.model)
    if heads:
        model, key = config.model, jax.random.key(0)  # only shapes are computed: any key will do
        shapes[TASKS] = jax.eval_shape(
            lambda: {name: init_linear(model, key, outputs) for name, outputs in heads.items()}
        )
        axes[TASKS] = {name: linear_axes() for name in heads}
    shardings = rules.tree_shardings(make_mesh(config.mesh), axes)
    target = rules.with_shardings(shapes, shardings, dtype)
    # Other heads of tasks may be in the checkpoint; they are not read.
    params = checkpoint.restore_params(
        folder, target, ignored_groups=BESIDE_MODEL, cast=dtype is not None
    )
    not_taken = imported_from(folder).get(NOT_TAKEN) or ()
    return TrainedModel(config, run_dir, folder, params, tuple(not_taken))


def load_networks(folder: epath.Path, config: Config) -> Params:
    """Return the parameters of both networks of a run with replaced-token detection.

    `config` says how they are laid out. Raises `UserError` as `load_model` does.
    """
    objective = pretraining(config)
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)))
    shardings = rules.tree_shardings(make_mesh(config.mesh), objective.logical_axes())
    return checkpoint.restore_params(folder, rules.with_shardings(shapes, shardings))


def load_network(path: epath.PathLike, network: Network) -> TrainedModel:
    """Load a network of a run's checkpoint, for the devices of this machine, as `load_model` does.

    The generator is a model of its own, for masked words. Raises `UserError` where a run has none.
    """
    if network == "model":
        return load_model(path)
    run_dir, folder = checkpoint.find_checkpoint(path)
    config = checkpoint.read_checkpoint_config(folder)
    check(
        config.replaced.is_used,
        where=f"{folder}: network",
        found=network,
        expected="model, which is all that a run without replaced-token detection has",
    )
    own = for_inference(config)
    params = load_networks(folder, dataclasses.replace(own, replaced=config.replaced))
    generator = generator_of(own.model, config.replaced)
    alone = dataclasses.replace(own, model=generator)
    return TrainedModel(alone, run_dir, folder, generator_params(params))


def imported_from(folder: epath.Path) -> Mapping[str, Any]:
    """Return what the `meta` of a checkpoint says of the model that was imported; empty if none.

    Raises `UserError` if it is no object, or if what was not taken is no list of texts.
    """
    where = f"{folder}/meta: {IMPORTED}"
    origin = checkpoint.read_meta(folder).get(IMPORTED) or {}
    check(isinstance(origin, Mapping), where=where, found=_shown(origin), expected="an object")
    not_taken = origin.get(NOT_TAKEN) or []
    check(
        isinstance(not_taken, list) and all(isinstance(each, str) for each in not_taken),
        where=f"{where}.{NOT_TAKEN}",
        found=_shown(not_taken),
        expected="a list of texts",
    )
    return origin


def _shown(value: Any) -> str:
    return repr(value)[:80]


def opened_model(model: TrainedModel | epath.PathLike) -> TrainedModel:
    """Return `model` itself, or the model loaded from a run or checkpoint folder."""
    return model if isinstance(model, TrainedModel) else load_model(model)


def save_model(
    run_dir: epath.PathLike,
    config: Config,
    params: Any,
    tokenizer: Tokenizer | None,
    facts: Mapping[str, Any],
) -> epath.Path:
    """Write `params` as step 0 of a new run, and return the checkpoint's folder.

    Every command of bertjax that takes a run can read it. The run has no optimizer state: it cannot
    be resumed, but another run can start from it by `init_from`. `facts` go to the checkpoint's
    `meta`. Raises `UserError` if `run_dir` has files in it.
    """
    run_dir = epath.Path(run_dir)
    with folder_written_whole(run_dir, "save_model", last=checkpoint.FOLDER) as part:
        assert part is not None  # a folder is refused, whatever made it
        write_model(part, config, params, tokenizer, facts)
    return saved_checkpoint(run_dir)


def facts_of_source(folder: epath.Path) -> dict[str, Any]:
    """Return the fields of a checkpoint's `meta` that are true of a model made of it, too."""
    record = checkpoint.read_meta(folder)
    return {name: record[name] for name in OF_SOURCE if name in record}


def saved_checkpoint(run_dir: epath.Path) -> epath.Path:
    """Return the checkpoint's folder of a run that `save_model` has written."""
    return checkpoint.find_checkpoint(run_dir / checkpoint.FOLDER / "0")[1]


def write_model(
    folder: epath.Path,
    config: Config,
    params: Any,
    tokenizer: Tokenizer | None,
    facts: Mapping[str, Any],
) -> None:
    """Write the files of `save_model` into an empty folder."""
    meta = {
        "config": to_dict(config),
        FINGERPRINT: tokenizer.fingerprint if tokenizer else None,
        **facts,
        "versions": checkpoint.versions(),
    }
    run_config.write_run_config(folder, config)
    if tokenizer is not None:
        tokenizer.save(folder / TOKENIZER, model_max_length=config.model.max_length)
    checkpoints = checkpoint.Checkpoints(folder, keep=1)
    checkpoints.save(0, {"step": 0, "params": params}, meta, heldout=None)
    checkpoints.close()
