import pytest

from bertjax.estimate.cost.operations import collectives_of, most_expensive, where_and_phase

NAMES = {
    "jit(<lambda>)/jvp(Network.encode)/encoder/while/body/closed_call/layers/mlp/up/dot_general": (
        "encoder/layers/mlp/up dot_general",
        "forward",
    ),
    "jit(<lambda>)/transpose(jvp(Network.encode))/encoder/while/body/closed_call/checkpoint/layers/mlp/down/dot_general": (
        "encoder/layers/mlp/down dot_general",
        "backward",
    ),
    "jit(<lambda>)/transpose(jvp(Network.encode))/encoder/while/body/checkpoint/rematted_computation/layers/add": (
        "encoder/layers add",
        "again",
    ),
    "jit(<lambda>)/jvp(Network.encode)/embeddings/word/jit(_take)/gather": (
        "embeddings/word gather",
        "forward",
    ),
    "jit(<lambda>)/transpose(jvp(Network.mlm_cross_entropy))/mlm/transform/reduce_sum": (
        "mlm/transform reduce_sum",
        "backward",
    ),
    "jit(<lambda>)/jvp(Network.pool)/pooler/dot_general": ("pool/pooler dot_general", "forward"),
    "jit(<lambda>)/mul": ("mul", "update"),
    "": ("", ""),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_named_by_its_part_of_the_model_and_its_phase(name):
    assert where_and_phase(name) == NAMES[name]


def test_the_list_of_operations_is_cut_and_that_of_collectives_is_not(compile_for):
    import jax
    import jax.numpy as jnp

    def make(mesh):
        return lambda x, w: jnp.sum(
            jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0], dtype=jnp.float32
        )

    specs = [((8192, 1024), jnp.bfloat16, ("data",)), ((3, 1024, 1024), jnp.bfloat16, ())]
    schedule = compile_for(make, specs, {"data": 4}).schedule()
    operations = most_expensive(schedule, 1000)
    assert len(operations) == sum(cost.total > 0 for cost in schedule.costs) > 2
    assert operations[0].seconds == max(cost.total for cost in schedule.costs)
    assert most_expensive(schedule, 2) == operations[:2]
    (product,) = [operation for operation in operations if operation.where == "dot_general"]
    assert (product.times, product.basis) == (3, "cycles")
    (summed,) = collectives_of(schedule)
    assert (summed.kind, summed.axes, summed.bytes, summed.times) == ("all-reduce", ("data",), 4, 1)
