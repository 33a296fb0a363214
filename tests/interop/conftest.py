import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def transformers_4(tmp_path_factory):
    """A folder for PYTHONPATH with the last `transformers` 4.

    It has Flax models and reads TensorFlow's checkpoints, which version 5 does not.
    """
    folder = tmp_path_factory.mktemp("transformers4")
    packages = ["transformers==4.57.6", "huggingface-hub<1", "tokenizers<0.23"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        *packages,
    ]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(
            f"transformers 4 cannot be installed here: {made.stderr.strip().splitlines()[-1]}"
        )
    return folder
