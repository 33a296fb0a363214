"""Environment, options and fixtures of all tests."""

import gc
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.waiting import until
from tests.xla import LONG_WAITS, WITHOUT_FUSION_EMITTERS

# Before JAX starts: eight CPU devices stand for a slice, in every test.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
# The number of cores as XLA sees it: with fewer threads than devices, collectives can wait for each
# other.
os.environ.setdefault("NPROC", "64")
# Most of a test's time is XLA's: compile fast, not well.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    f" {WITHOUT_FUSION_EMITTERS} --xla_cpu_parallel_codegen_split_count=1 {LONG_WAITS}"
)
# Tests, and the two workers of a run, share many programs: each is compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="bertjax-tests-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from etils import epath
from hypothesis import HealthCheck, settings

# Collecting the tests imports a million objects. None of them is garbage, and the collector would go
# through all of them again and again: it waits, and then leaves them out.
gc.disable()

# PyTorch for GPUs brings Triton, whose LLVM ends the process if TensorFlow's was loaded before it.
sys.modules["triton"] = None

settings.register_profile(
    "bertjax",
    max_examples=20,
    print_blob=True,
    # Both measure time, which on a busy machine says nothing of a test.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bertjax")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(autouse=True)
def _no_silent_broadcasting():
    """A rank mismatch between arrays is an error, not a broadcast."""
    if "jax" not in sys.modules:
        yield
        return
    import jax

    with jax.numpy_rank_promotion("raise"):
        yield


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def _many_maps():
    """Whether this process has an eighth of the maps of memory that Linux allows it."""
    try:
        allowed = int(Path("/proc/sys/vm/max_map_count").read_text())
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps) > allowed / 8
    except OSError:
        return True


@pytest.fixture(autouse=True, scope="module")
def _programs_of_some_files_at_a_time():
    """Drop compiled programs after a file, once there are many; until then nothing kept is garbage.

    XLA maps memory for every program. Linux allows a process 65,530 maps, and it crashes at the
    next.
    """
    yield
    if "jax" in sys.modules and _many_maps():
        gc.unfreeze()
        sys.modules["jax"].clear_caches()
        gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _environment_of_one_file_at_a_time():
    """Put back the environment after a file: verbs that run in this process change it for theirs."""
    before = dict(os.environ)
    yield
    for name in {*before, *os.environ} - {"PYTEST_CURRENT_TEST"}:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real text and task sets beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture
def largest(record_property):
    """`largest(what, difference, bound)`: assert the bound.

    The run's summary shows the largest difference of each `what`.
    """
    recorded = {}

    def check(what, difference, bound):
        difference = float(difference)
        if what not in recorded:
            recorded[what] = [what, difference, bound]
            record_property("largest", recorded[what])
        recorded[what][1] = max(difference, recorded[what][1])
        assert difference <= bound, f"{what}: {difference:.2e}, bound {bound:.0e}"

    return check


def pytest_terminal_summary(terminalreporter):
    largest, bounds = {}, {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "largest":
                what, difference, bound = value
                largest[what] = max(difference, largest.get(what, 0.0))
                bounds[what] = bound
    if largest:
        terminalreporter.section("largest differences from the references")
        for what, difference in largest.items():
            bound = bounds[what]
            terminalreporter.write_line(f"{what:<60} {difference:.1e}  of {bound:.0e} allowed")


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


STORE_KEYS = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1,localhost",
}  # fmt: skip
OTHER_STORES = (
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
)
BUCKET_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """The address of a server with S3's API, in a process of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    # Port 0: the system gives a free one, which the server names once it listens.
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | STORE_KEYS
        )
    try:
        listens = re.compile(r"Running on (http://127\.0\.0\.1:\d+)\s")
        expected = f"the server listens: see {log}"
        match = until(lambda: listens.search(log.read_text()), process=process, expected=expected)
        yield match[1]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(s3_server, tmp_path, monkeypatch):
    """A new bucket, which this process and those it starts reach."""
    for name in OTHER_STORES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in (
        STORE_KEYS | {"AWS_ENDPOINT_URL": s3_server, "BERTJAX_CACHE": str(tmp_path / "cache")}
    ).items():
        monkeypatch.setenv(name, value)
    import s3fs

    name = f"bertjax-test-{next(BUCKET_NUMBERS)}"
    s3fs.S3FileSystem().mkdir(name)
    return epath.Path(f"s3://{name}")


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    return epath.Path(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")


@pytest.fixture
def known_unfinished_names(monkeypatch):
    """Let `written_whole` write to `NAME.unfinished` first, where a test can put an obstacle."""
    from bertjax.storage import files

    def known(path):
        return path.parent / f"{path.name}{files.UNFINISHED}"

    monkeypatch.setattr(files, "unfinished_path", known)
