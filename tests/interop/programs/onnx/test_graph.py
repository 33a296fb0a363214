import numpy as np

from bertjax.interop.programs.onnx.graph import weights_by_layer


def test_weights_are_matrices_and_vectors_of_each_layer():
    rng = np.random.default_rng(0)
    params = {
        "encoder/layers/attention/query/kernel": rng.standard_normal((2, 6, 3, 4)),
        "encoder/layers/attention/query/bias": rng.standard_normal((2, 3, 4)),
        "encoder/layers/attention/output/kernel": rng.standard_normal((2, 3, 4, 6)),
        "mlm/decoder": rng.standard_normal((7, 6)),
        "pooler/kernel": rng.standard_normal((6, 6)),
    }
    weights = weights_by_layer(params)
    x, heads = rng.standard_normal(6), rng.standard_normal((3, 4))
    for layer in range(2):
        name = f"encoder/layers/{layer}/attention"
        query = np.einsum("d,dhk->hk", x, params["encoder/layers/attention/query/kernel"][layer])
        np.testing.assert_allclose(x @ weights[f"{name}/query/kernel"], query.ravel())
        output = np.einsum(
            "hk,hkd->d", heads, params["encoder/layers/attention/output/kernel"][layer]
        )
        np.testing.assert_allclose(heads.ravel() @ weights[f"{name}/output/kernel"], output)
        assert weights[f"{name}/query/bias"].shape == (12,)
    np.testing.assert_allclose(x @ weights["mlm/decoder"], params["mlm/decoder"] @ x)
    assert (weights["pooler/kernel"] == params["pooler/kernel"]).all()
    assert len(weights) == 8
