import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.class_weights import balanced_weights


def test_balanced_weights_are_scikit_learns():
    weights = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    labels = ["a", "b", "b", "c", "c", "c", "c"]
    result = balanced_weights(("a", "b", "c"), labels)
    assert result == pytest.approx(
        tuple(weights("balanced", classes=np.array(["a", "b", "c"]), y=labels))
    )
    with pytest.raises(UserError, match="label d: found no training example"):
        balanced_weights(("a", "d"), ["a"])
