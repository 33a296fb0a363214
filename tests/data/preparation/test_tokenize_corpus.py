import subprocess
import sys


def test_a_worker_imports_neither_tensorflow_nor_jax():
    code = "import sys, bertjax.data.preparation.tokenize_corpus, bertjax.data.preparation.build_shard; print({'tensorflow', 'jax', 'flax'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "set()\n"
    )
