"""The command line from text to predictions, in processes of its own, killed and continued."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from etils import epath

from bertjax.cli.main import main
from bertjax.training import checkpoint
from bertjax.training.logs.metrics_log import read_entries
from bertjax.training.step import init_state
from tests.factory import RUN_FOLDER
from tests.waiting import until

CONFIG = """
from bertjax.config import *

def get_config():
    return Config(
        tokenizer=TokenizerConfig(vocab_size=300),
        data=DataConfig(corpus=({corpus!r},), prepared_dir={prepared!r}, max_seq_length=32, max_predictions_per_seq=5,
                        validation_fraction=0.1, dupe_factor=2, num_shards=2, workers=1),
        model=ModelConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                          intermediate_size=64, max_position_embeddings=32),
        optimizer=OptimizerConfig(peak_learning_rate=3e-3, warmup_steps=5),
        train=TrainConfig(steps={steps}, batch_size=16, log_every_steps=10, eval_every_steps=20, save_every_steps=10),
    )
"""
NOUNS = ["cat", "dog", "bird", "fish", "horse"]
VERBS = ["sees", "hears", "follows", "likes"]


def environment():
    # One device, compiled as users compile: these runs are compared to the bit.
    return {k: v for k, v in os.environ.items() if k not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}


def bertjax(*words, check=True):
    command = [sys.executable, "-m", "bertjax.cli.main", *map(str, words)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert run.returncode == 0 or not check, run.stderr
    return run


@pytest.fixture
def in_this_process(capsys):
    """The exit status of a verb, its standard output and standard error; a start takes seconds."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A configuration, and what `prepare` made of a little language with a rule to learn."""
    folder = tmp_path_factory.mktemp("verbs")
    rng = random.Random(0)

    def sentence():
        noun = rng.choice(NOUNS)
        return f"the {noun} {rng.choice(VERBS)} the other {noun}."

    documents = ["\n".join(sentence() for _ in range(rng.randint(3, 9))) for _ in range(300)]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n")
    options = {
        "corpus": str(folder / "corpus.txt"),
        "prepared": str(folder / "prepared"),
        "steps": 40,
    }
    (folder / "config.py").write_text(CONFIG.format(**options))
    printed = bertjax("prepare", folder / "config.py").stdout
    assert "held-out unigram entropy" in printed
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    run = epath.Path(folder) / "run"
    printed = bertjax("train", folder / "config.py", "--run-dir", run).stdout
    assert f"checkpoint: {run}/checkpoints/40" in printed
    assert f"report: {run}/report.html" in printed
    return run


def params_of(run):
    run, step = checkpoint.find_checkpoint(run)
    config = checkpoint.read_checkpoint_config(step)
    shapes = jax.eval_shape(lambda: init_state(config).params)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    params = jax.tree.leaves(jax.device_get(checkpoint.restore_params(step, target)))
    return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in params)).hexdigest()


def test_a_run_folder_holds_all_that_belongs_to_the_run(trained):
    names = {p.name for p in trained.iterdir()}
    assert names == RUN_FOLDER
    assert "held-out" in (trained / "log.txt").read_text()
    meta = json.loads((trained / "checkpoints" / "40" / "meta" / "metadata").read_text())
    digests = {"tokenizer_fingerprint", "data_sha256", "manifest_sha256", "own_sha256"}
    assert {"config", *digests, "versions", "score"} == set(meta)


@pytest.mark.slow
def test_eval_gives_the_last_evaluation_of_training_again(trained):
    printed = dict(line.split(": ") for line in bertjax("eval", trained).stdout.splitlines())
    last = [row for row in read_entries(trained) if row["split"] == "validation"][-1]
    for name in ("mlm_loss", "mlm_perplexity", "nsp_accuracy", "unigram_entropy"):
        assert float(printed[name]) == pytest.approx(last[name], abs=2e-4), name
    one = dict(
        line.split(": ")
        for line in bertjax("eval", trained / "checkpoints" / "20").stdout.splitlines()
    )
    assert one["checkpoint"].endswith("/20")


def test_fill_mask_prints_words_with_their_probabilities(trained, in_this_process):
    printed = bertjax(
        "fill-mask", trained, "the [MASK] sees the [MASK] dog.", "--top-k", "3"
    ).stdout.splitlines()
    assert printed[0] == "the [MASK] sees the [MASK] dog."
    assert len(printed) == 3
    for line in printed[1:]:
        shares = [float(word[:-1]) for word in line.split() if word.endswith("%")]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
    status, _, error = in_this_process("fill-mask", trained, "no mask here")
    expected = "bertjax: 'no mask here': found no [MASK], expected one or more\n"
    assert (status, error) == (2, expected)
    status, _, error = in_this_process("fill-mask", trained, "[MASK] " + "dog " * 40)
    assert status == 2
    assert "expected at most 32 (model.max_position_embeddings)" in error


@pytest.mark.slow
def test_a_model_trained_here_fills_masks_with_the_same_words_in_transformers_and_back_here(
    trained, tmp_path
):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    sentences = ["the [MASK] sees the other dog.", "the bird [MASK] the other bird."]
    ours = bertjax("fill-mask", trained, *sentences).stdout
    assert (
        "config.json"
        in bertjax("export", trained, "--format", "huggingface", "--to", tmp_path / "out").stdout
    )

    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    fill = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=5)
    for sentence, line in zip(sentences, ours.splitlines()[1::2], strict=True):
        words, shares = line.split()[::2], [float(share[:-1]) for share in line.split()[1::2]]
        theirs = fill(sentence)
        assert [found["token_str"] for found in theirs] == words
        # Theirs are of all rows of the table; ours leave out special tokens, and rows that are no
        # entry.
        scores = [found["score"] for found in theirs]
        assert np.array(scores) / sum(scores) == pytest.approx(
            np.array(shares) / sum(shares), abs=3e-3
        )

    printed = bertjax("import", tmp_path / "out", "--to", tmp_path / "run").stdout
    assert "tokenizer: wordpiece" in printed
    assert params_of(tmp_path / "run") == params_of(trained)
    assert bertjax("fill-mask", tmp_path / "run", *sentences).stdout == ours


CONTINUE = """
from bertjax.config import *

def get_config():
    return Config(
        model_from_init=True,
        data=DataConfig(corpus=({corpus!r},), prepared_dir={prepared!r}, max_seq_length=16, max_predictions_per_seq=5,
                        sentence_objective="none", dynamic_masking=True, num_shards=1, workers=1),
        optimizer=OptimizerConfig(peak_learning_rate=3e-3, warmup_steps=2),
        train=TrainConfig(steps=20, batch_size=16, log_every_steps=10, eval_every_steps=20, save_every_steps=20),
    )
"""


@pytest.mark.slow
def test_training_goes_on_from_a_model_with_its_configuration_and_tokenizer(
    folder, trained, tmp_path
):
    options = {"corpus": str(folder / "corpus.txt"), "prepared": str(tmp_path / "prepared")}
    config = tmp_path / "continue.py"
    config.write_text(CONTINUE.format(**options))
    without = bertjax("prepare", config, check=False)
    assert "init_from: found nothing, expected a folder to take the model from" in without.stderr
    bertjax("prepare", config, "--init-from", trained)
    assert (tmp_path / "prepared" / "tokenizer" / "vocab.txt").read_bytes() == (
        trained / "tokenizer" / "vocab.txt"
    ).read_bytes()
    run = tmp_path / "run"
    options = ("--init-from", trained, "--model.hidden-dropout-prob", "0.2", "--run-dir", run)
    bertjax("train", config, *options)
    before, after = (
        json.loads((path / "config.json").read_text())["model"] for path in (trained, run)
    )
    assert after == before | {"hidden_dropout_prob": 0.2}
    first = next(row for row in read_entries(run) if row["split"] == "train")
    fresh = next(row for row in read_entries(trained) if row["split"] == "train")
    assert first["mlm_loss"] < 0.8 * fresh["mlm_loss"]
    assert (
        bertjax("train", config, *options).returncode == 0
    )  # the same command again finds it finished


def test_inspect_describes_shards_and_runs(folder, trained, in_this_process):
    assert "checksums good" in bertjax("inspect", folder / "prepared").stdout
    status, printed, _ = in_this_process("inspect", trained)
    assert status == 0
    assert "checkpoints: 20, 30, 40" in printed
    assert "validation: step 40 of 40" in printed


@pytest.mark.parametrize("words,expected", [
    (["--train.batch-size", "8"], "train.batch_size: found 8, expected 16"),
    (["--data.max-seq-length", "16"], "max_seq_length: found 32 in the shards, expected 16 as data.max_seq_length says"),
    (["--model.vocab-size", "30"], "model.vocab_size: found 30, expected at least the"),
    (["--mesh.data", "3"], "mesh: found replica 1 x data 3 x fsdp 1 x tensor 1 x sequence 1, expected axes that multiply to the number of devices (8)"),
])  # fmt: skip
def test_a_changed_setting_is_refused_by_the_run(folder, trained, in_this_process, words, expected):
    arguments = "train", folder / "config.py", "--run-dir", trained, *words
    status, _, error = in_this_process(*arguments)
    assert status == 2
    assert error.splitlines()[-1].startswith("bertjax: ")
    assert expected in error


def test_a_refusal_ends_a_process_with_status_2_and_without_a_traceback(folder, trained):
    changed = "--run-dir", trained, "--optimizer.peak-learning-rate", "0.5"
    run = bertjax("train", folder / "config.py", *changed, check=False)
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert last.startswith("bertjax: ")
    assert "optimizer.peak_learning_rate: found 0.5, expected 0.003" in last
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_a_tokenizer_of_another_preparation_is_refused(folder, trained, tmp_path):
    other = [
        "--output-dir",
        tmp_path / "other",
        "--tokenizer.kind",
        "bpe",
        "--tokenizer.vocab-size",
        "80",
    ]
    bertjax("prepare", folder / "config.py", *other)
    words = ["--data.prepared-dir", tmp_path / "other", "--run-dir", trained]
    run = bertjax("train", folder / "config.py", *words, check=False)
    assert run.returncode == 2
    assert "tokenizer: found tokenizer" in run.stderr
    start = [
        "--init-from",
        trained,
        "--data.prepared-dir",
        tmp_path / "other",
        "--run-dir",
        tmp_path / "run",
    ]
    assert (
        "tokenizer: found tokenizer"
        in bertjax("train", folder / "config.py", *start, check=False).stderr
    )


def start_training(folder, run):
    command = [
        sys.executable,
        "-m",
        "bertjax.cli.main",
        "train",
        str(folder / "config.py"),
        "--run-dir",
        str(run),
    ]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
    )


@pytest.mark.slow
def test_a_full_disk_for_all_but_the_checkpoints_stops_nothing(folder, trained, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # Space for configuration and tokenizer, and for some steps.
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]).returncode:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        run = disk / "run"
        run.mkdir()
        (tmp_path / "checkpoints").mkdir()
        (run / "checkpoints").symlink_to(tmp_path / "checkpoints")
        ended = bertjax("train", folder / "config.py", "--run-dir", run)
        assert params_of(run) == params_of(trained)
        warnings = [line for line in ended.stderr.splitlines() if "cannot be written" in line]
        assert len(warnings) == len({line.split()[3] for line in warnings}) > 1, ended.stderr
        assert "Traceback" not in ended.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="gives up the rights of root, to be refused")
def test_a_refused_save_ends_the_command_within_ten_seconds(folder, tmp_path):
    rights = "-dac_override,-dac_read_search"
    run = tmp_path / "run"
    command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", sys.executable, "-m"]
    command += ["bertjax.cli.main", "train", str(folder / "config.py"), "--run-dir", str(run)]
    process = subprocess.Popen(
        [*command, "--train.steps", "2000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment(),
        text=True,
    )
    until((run / "checkpoints" / "10").exists, process=process)
    (run / "checkpoints").chmod(0o500)
    lines = []
    for line in process.stderr:
        if line.startswith("bertjax: "):
            told = time.monotonic()
            lines.append(line)
        assert "Traceback" not in line
    assert process.wait(timeout=60) == 2
    assert time.monotonic() - told < 10
    assert len(lines) == 1
    assert "checkpoints: cannot be read or written" in lines[0]
    (run / "checkpoints").chmod(0o700)


@pytest.mark.slow
def test_sigterm_saves_says_so_and_the_same_command_goes_on_to_the_same_end(
    folder, trained, tmp_path
):
    process = start_training(folder, tmp_path / "run")
    until((tmp_path / "run" / "metrics.jsonl").exists, process=process)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate()[1].decode()
    assert process.returncode in (0, 75), printed
    if process.returncode == 75:
        assert "stopped by a signal at step" in printed
    bertjax("train", folder / "config.py", "--run-dir", tmp_path / "run")
    assert params_of(tmp_path / "run") == params_of(trained)


def steps_done(run):
    return max((row["step"] for row in read_entries(epath.Path(run))), default=0)


def killed(folder, trained, run, moments):
    """Kill the run at this many random moments, starting it again each time; all must come to the
    same end.

    One in four of the moments is any in a start's first seconds, the others are at a random step
    still to come, and a random part of a second: among steps, evaluations and saves.
    """
    rng = random.Random(1)
    finished = []
    for _ in range(moments):
        process = start_training(folder, run)
        target = rng.randint(steps_done(run), 40) if rng.random() < 0.75 else None
        patience = time.monotonic() + (60 if target else rng.uniform(0, 8))
        while (
            process.poll() is None
            and time.monotonic() < patience
            and (not target or steps_done(run) < target)
        ):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        if process.wait() == 0:  # it was quick: that run is done, the next start begins anew
            finished.append(run.rename(run.with_name(f"finished-{len(finished)}")))
    bertjax("train", folder / "config.py", "--run-dir", run)
    wanted = params_of(trained)
    for each in map(epath.Path, [run, *finished]):
        assert params_of(each) == wanted
        steps = [row["step"] for row in read_entries(each) if row["split"] == "train"]
        assert steps == list(range(1, 41))
        assert [row["step"] for row in read_entries(each) if row["split"] == "validation"] == [
            20,
            40,
        ]
    print(
        f"{moments} kills, {1 + len(finished)} finished runs, all with the parameters {wanted[:16]}"
    )


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_bit_identical(folder, trained, tmp_path):
    killed(folder, trained, tmp_path / "run", 3)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_bit_identical(folder, trained, tmp_path):
    killed(folder, trained, tmp_path / "run", 20)
