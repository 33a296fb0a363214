"""What TensorFlow's own optimizers leave in a checkpoint is told from the model."""

import itertools
import json
import logging
import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertjax
from bertjax.errors import UserError
from bertjax.interop.checkpoints import tensorflow
from bertjax.interop.checkpoints.tensor_mapping import export_tensors
from bertjax.interop.checkpoints.tensor_names import tensorflow_dialect
from bertjax.interop.checkpoints.training_state import Variable, training_state
from tests.factory import SMALL_MODEL
from tests.interop.trees import same

tf = pytest.importorskip("tensorflow")
v1 = tf.compat.v1
AVERAGE = "ExponentialMovingAverage"
KERNEL = "bert/encoder/layer_0/output/dense/kernel"


@pytest.fixture(scope="module")
def weights():
    """The variables of a small BERT, by the original's names."""
    params = bertjax.init(SMALL_MODEL, jax.random.key(0))
    return dict(export_tensors(params, tensorflow_dialect()))


class LAMB(v1.train.Optimizer):
    """An optimizer of a program of one's own: slots are made as `Optimizer` makes them."""

    def _create_slots(self, variables):
        for variable in variables:
            self._zeros_slot(variable, "m", "lamb_m")
            self._zeros_slot(variable, "v", "lamb_v")

    def _resource_apply_dense(self, gradient, variable):
        return variable.assign_sub(1e-3 * gradient)


OPTIMIZERS = {
    "Adam": lambda: v1.train.AdamOptimizer(1e-3),
    "BERTAdam": lambda: v1.train.AdamOptimizer(1e-3, name="BERTAdam"),
    "Momentum": lambda: v1.train.MomentumOptimizer(1e-3, 0.9),
    "RMSProp": lambda: v1.train.RMSPropOptimizer(1e-3, centered=True),
    "Adagrad": lambda: v1.train.AdagradOptimizer(1e-3),
    "Adadelta": lambda: v1.train.AdadeltaOptimizer(1e-3),
    "Ftrl": lambda: v1.train.FtrlOptimizer(1e-3),
    "LAMB": lambda: LAMB(use_locking=False, name="LAMB"),
}
# Each slot of TensorFlow takes some milliseconds to make.
TRAINED = ("bert/embeddings/word_embeddings", KERNEL, "cls/predictions/output_bias")
SLOTS = [
    "Adam", "Adam_1", "BERTAdam", "BERTAdam_1", "Momentum", "RMSProp", "RMSProp_2", "Adagrad",
    "Adadelta_1", "Ftrl", "Ftrl_1", "lamb_m", "lamb_v", "ExponentialMovingAverage", "biased",
]  # fmt: skip


def make_variables(weights, types, parts):
    """Return TensorFlow's variables by their names, the matrices in `parts`."""
    scope = v1.get_variable_scope()
    variables = {}
    for name, array in weights.items():
        dtype = types.get(name, tf.float32)
        with v1.variable_scope(scope) as same_scope:
            initial = v1.constant_initializer(array)
            if parts > 1 and array.ndim > 1:
                same_scope.set_partitioner(v1.fixed_size_partitioner(parts))
                initial = v1.random_normal_initializer(seed=0)
            variables[name] = v1.get_variable(name, array.shape, dtype, initial)
    v1.get_variable("note", initializer=tf.constant(["en", "de"]), trainable=False)
    v1.get_variable("done", initializer=tf.constant(False), trainable=False)
    v1.get_variable("loss_scale", initializer=tf.constant(1024.0), trainable=False)
    return variables


def make_updates(optimizers, averages, only):
    """Return a step of each optimizer on the squares of float32 variables, and averages.

    `only` names the variables; all if it is empty.
    """
    floats = [v for v in v1.trainable_variables() if v.dtype.base_dtype == tf.float32]
    trained = [v for v in floats if not only or v.op.name in only]
    loss = tf.add_n([tf.reduce_sum(variable**2) for variable in trained])
    step = v1.train.get_or_create_global_step()
    updates = [OPTIMIZERS[kind]().minimize(loss, step, trained) for kind in optimizers]
    for without_bias in averages:
        average = tf.train.ExponentialMovingAverage(0.9, zero_debias=without_bias)
        updates.append(average.apply([loss] if without_bias else [*trained, loss]))
    return updates


def save_training(
    folder, weights, optimizers, *, averages=(), scope="", types=(), parts=1, only=()
):
    """Train one step by TensorFlow, save all variables by its Saver, and return the weights."""
    with tf.Graph().as_default():
        variables = make_variables(weights, dict(types), parts)
        with v1.name_scope(scope or None):
            updates = make_updates(optimizers, averages, only)
        saver = v1.train.Saver()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            session.run(updates)
            saver.save(session, str(folder / "model.ckpt"), global_step=1)
            arrays = session.run([tf.convert_to_tensor(v) for v in variables.values()])
    write_config(folder)
    return {name: a.astype(np.float32) for name, a in zip(variables, arrays, strict=True)}


def write_config(folder):
    values = {name: getattr(SMALL_MODEL, name) for name in tensorflow.FIELDS}
    (folder / "bert_config.json").write_text(json.dumps(values | {"hidden_act": "gelu"}))


def write(folder, tensors):
    """Write a checkpoint of these names, with the operator of TensorFlow's Saver."""
    write_config(folder)
    names, values = list(tensors), [tf.constant(array) for array in tensors.values()]
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt-1"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=values,
    )


def exported(params):
    return dict(export_tensors(params, tensorflow_dialect()))


def test_the_slots_of_nine_optimizers_are_left_out_and_said_the_variables_are_read(
    tmp_path, weights, caplog
):
    caplog.set_level(logging.INFO, "bertjax")
    values = save_training(tmp_path, weights, OPTIMIZERS, averages=[False, True], only=TRAINED)
    config, params = tensorflow.load(tmp_path)
    assert config == SMALL_MODEL
    assert same(exported(params), values)
    # The step has changed them, and the averages are others.
    average = tf.train.load_variable(str(tmp_path / "model.ckpt-1"), f"{KERNEL}/{AVERAGE}")
    assert not np.array_equal(values[KERNEL], weights[KERNEL])
    assert not np.array_equal(values[KERNEL], average)
    for slot in SLOTS:
        assert f"X/{slot} (" in caplog.text, slot
    assert "global_step (1)" in caplog.text
    assert "the parameters themselves are imported" in caplog.text
    assert "no known optimizer" not in caplog.text


def test_variables_under_others_that_no_optimizer_has_are_named_in_one_warning(
    tmp_path, weights, caplog
):
    bias = "bert/encoder/layer_0/output/dense/bias"
    others = {
        f"{KERNEL}/u": np.ones((1, weights[KERNEL].shape[1]), np.float32),
        f"{KERNEL}/log_alpha": weights[KERNEL],
        f"{bias}/log_alpha": weights[bias],
        f"{KERNEL}/quant_scale": np.float32(1),
        f"{KERNEL}/Adam": weights[KERNEL],
        f"{KERNEL}/adam_v": weights[KERNEL],
        f"{KERNEL}/v": weights[KERNEL],
    }
    write(tmp_path, weights | others)
    tensorflow.load(tmp_path)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path}/model.ckpt-1: variables under the model's own that no known optimizer has are"
        " left out, too: X/log_alpha (2), X/quant_scale (1), X/u (1); if the model computes with"
        " them, it is another one"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizers_slots_are_left_out(tmp_path, weights, kind):
    values = save_training(tmp_path, weights, [kind])
    assert same(exported(tensorflow.load(tmp_path)[1]), values)
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "model.ckpt-1"))]
    assert len(names) >= 2 * len(weights)


def test_variables_in_parts_of_four_types_trained_in_a_scope_are_read_as_float32(tmp_path, weights):
    types = dict(zip(weights, itertools.cycle([tf.float32, tf.bfloat16, tf.float64]), strict=False))
    # TensorFlow's reader has no code for parts of float16.
    types |= {name: tf.float16 for name, array in weights.items() if array.ndim == 1}
    values = save_training(tmp_path, weights, ["Adam"], scope="training", types=types, parts=2)
    saved = dict(tf.train.list_variables(str(tmp_path / "model.ckpt-1")))
    assert "training/beta1_power" in saved
    imported = exported(tensorflow.load(tmp_path)[1])
    assert same(imported, values)
    assert all(array.dtype == np.float32 for array in imported.values())


def test_float16_in_parts_is_named(tmp_path, weights):
    types = dict.fromkeys([KERNEL], tf.float16)
    save_training(tmp_path, weights, [], types=types, parts=2, only=TRAINED)
    with pytest.raises(UserError, match=f"{KERNEL}: found float16 in parts"):
        tensorflow.load(tmp_path)


def test_a_number_too_large_for_float32_is_refused(tmp_path, weights):
    write(tmp_path, weights | {KERNEL: np.full(weights[KERNEL].shape, 1e300)})
    with pytest.raises(UserError, match=f"{KERNEL}: found numbers that are not finite"):
        tensorflow.load(tmp_path)


def test_a_fine_tuned_checkpoint_is_imported_by_the_advice_of_its_error(tmp_path, weights):
    head = {"output_weights": np.ones((2, 16), np.float32), "output_bias": np.zeros(2, np.float32)}
    slots = {f"{name}/BERTAdam": array for name, array in (weights | head).items()}
    write(tmp_path, weights | head | slots)
    with pytest.raises(UserError, match=r"\(2 such tensors\).*--drop") as error:
        tensorflow.load(tmp_path)
    patterns = re.search(r"--drop (.*)$", str(error.value))[1].split()
    assert sorted(patterns) == ["output_bias", "output_weights"]
    config, params = tensorflow.load(tmp_path, patterns)
    assert config == SMALL_MODEL
    assert same(exported(params), weights)


def test_a_second_model_in_the_checkpoint_is_named(tmp_path, weights):
    write(tmp_path, weights | {f"teacher/{name}": array for name, array in weights.items()})
    with pytest.raises(UserError, match=r"teacher/.*; .* leaves them out with --drop teacher$"):
        tensorflow.load(tmp_path)
    assert same(exported(tensorflow.load(tmp_path, ["teacher"])[1]), weights)


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda n: f"model/{n}", ": embeddings/LayerNorm/beta: found no such tensor (but model/bert/emb"),
        (lambda n: n.replace("bert/", "electra/"), "kernel: found no such tensor (but electra/pooler"),
        (lambda n: f"{n}/ExponentialMovingAverage", "tensor (but bert/embeddings/LayerNorm/beta/Expo"),
        (lambda n: f"{n}/part_0", "found no such tensor (but bert/embeddings/LayerNorm/beta/part_0)"),
        (lambda n: f"model/{n}/.ATTRIBUTES/VARIABLE_VALUE", "found a variable by its place in an object"),
    ],
)  # fmt: skip
def test_names_of_other_programs_are_refused_with_the_name_that_is_there(
    tmp_path, weights, change, expected
):
    write(tmp_path, {change(name): array for name, array in weights.items()})
    with pytest.raises(UserError) as error:
        tensorflow.load(tmp_path)
    assert expected in str(error.value)


def test_a_checkpoint_of_objects_is_refused(tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable([1.0], name="bert/pooler/dense/kernel")
    tf.train.Checkpoint(model=module).write(str(tmp_path / "model.ckpt-1"))
    write_config(tmp_path)
    with pytest.raises(
        UserError, match=r"place in an object \(tf.train.Checkpoint\), expected one"
    ):
        tensorflow.load(tmp_path)


W, B = Variable((8, 4), "float32"), Variable((4,), "float32")
MODEL = {"bert/dense/kernel": W, "bert/dense/bias": B}


@pytest.mark.parametrize(
    "name, variable, called",
    [
        ("bert/dense/kernel/any_name", W, "X/any_name"),
        ("bert/dense/kernel/Average/local_step", Variable((), "float32"), "X/Average/local_step"),
        ("bert/dense/kernel/Adafactor", Variable((8,), "float32"), "X/Adafactor"),
        ("bert/dense/kernel/Adafactor_1", Variable((4,), "float32"), "X/Adafactor_1"),
        ("bert/dense/kernel/SM3", Variable((1, 4), "float32"), "X/SM3"),
        ("training/Adam/bert/dense/kernel/m", W, "X/m"),
        ("bert/dense/bias/fp32/shadow", B, "X/fp32/shadow"),
        ("labels", Variable((3,), "string"), "labels"),
        ("steps", Variable((1,), "int64"), "steps"),
        ("bert/steps", Variable((), "int32"), "bert/steps"),
        ("training/beta2_power_1", Variable((), "float32"), "training/beta2_power_1"),
        # What may change the outputs, and what no optimizer makes:
        ("bert/dense/kernel/mask", W, None),
        ("bert/dense/kernel/lora_a", Variable((8, 1), "float32"), None),
        ("bert/dense/kernel/lower", Variable((8, 2), "float32"), None),
        ("bert/dense/kernel_2", W, None),
        ("teacher/bert/dense/kernel", W, None),
        ("bert/dense/alpha", Variable((), "float32"), None),
        ("bert/ids", Variable((5,), "int32"), None),
        ("output_bias", Variable((2,), "float32"), None),
        ("bert/dense/kernel/more", Variable((8, 4, 2), "float32"), None),
    ],
)
def test_a_variable_is_the_trainings_by_its_place_and_shape(name, variable, called):
    state = training_state(MODEL | {name: variable}, ("bert", "cls"))
    assert state == ({name: called} if called else {})


@given(st.lists(st.sampled_from(["bert", "dense", "kernel", "a", ""]), max_size=30))
def test_any_name_ends_soon_in_an_answer(parts):
    name = "/".join(parts)
    state = training_state(MODEL | {name: Variable((9, 9), "float32")}, ("bert",))
    assert state == {}
