"""`bertjax train` and `bertjax eval` in several processes, on prepared shards: the commands that a
launch script starts.
"""

import dataclasses
import random
import re
import signal
import time

import jax
import pytest
from etils import epath

from bertjax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from bertjax.data.preparation.prepare import prepare
from bertjax.training.logs.metrics_log import read_entries
from tests.factory import RUN_FOLDER
from tests.multihost.processes import start
from tests.multihost.test_multihost import alike, figures, identical, last_line
from tests.waiting import until

# So many that a signal after step 50 stops the run long before its end: it takes about a second.
STEPS = 400
CONFIG = "from bertjax.config import *\n\ndef get_config():\n    return {!r}\n"


def config_of(folder):
    return Config(
        tokenizer=TokenizerConfig(vocab_file=str(folder / "vocab.txt")),
        data=DataConfig(corpus=(str(folder / "corpus.txt"),), prepared_dir=str(folder / "prepared"), max_seq_length=16,
                        max_predictions_per_seq=4, validation_fraction=0.2, dupe_factor=1, num_shards=2, workers=1),
        model=ModelConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                          intermediate_size=32, max_position_embeddings=16),
        optimizer=OptimizerConfig(warmup_steps=5),
        train=TrainConfig(steps=STEPS, batch_size=8, log_every_steps=1, eval_every_steps=200, save_every_steps=20),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A configuration file and its prepared shards; their held-out rows fill no batch."""
    folder = tmp_path_factory.mktemp("commands")
    rng, words = random.Random(0), [f"w{i}" for i in range(40)]
    sentences = [" ".join(rng.choices(words, k=rng.randint(1, 5))) + "." for _ in range(400)]
    (folder / "corpus.txt").write_text(
        "\n\n".join("\n".join(sentences[i : i + 4]) for i in range(0, 400, 4))
    )
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *words])
    )
    config = config_of(folder)
    prepare(config, epath.Path(folder / "prepared"))
    (folder / "config.py").write_text(CONFIG.format(config))
    return folder


def train(folder, run, count, *options, wait=True):
    words = ["bertjax.cli.main", "train", folder / "config.py", "--run-dir", run, *options]
    job = start(folder / f"{run.name}-{time.monotonic_ns()}", words, count)
    return (job, job.wait()) if wait else job


def until_step(run, step, job):
    """Return when the run has written this step's metrics."""
    until(
        lambda: any(row["step"] >= step for row in read_entries(epath.Path(run))),
        process=job.processes[0],
        expected=f"step {step} is reached, see {job.outputs[0]}",
    )


def state_of(run, step):
    from bertjax.config import MeshConfig
    from bertjax.parallel.mesh import make_mesh
    from bertjax.training import checkpoint
    from bertjax.training.step import abstract_state

    config = dataclasses.replace(
        checkpoint.read_checkpoint_config(epath.Path(run) / "checkpoints" / str(step)),
        mesh=MeshConfig(),
    )
    target = abstract_state(config, make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    return checkpoint.Checkpoints(epath.Path(run), 9).restore(step, target)


def held_out(said):
    return dict(re.findall(r"^(\w+): ([\d.,]+)$", said, re.M))


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does(folder):
    short = ("--train.steps", "6", "--train.eval-every-steps", "3", "--optimizer.warmup-steps", "2")
    _, (status,) = train(folder, folder / "one", 1, *short)
    assert status == 0
    job, statuses = train(folder, folder / "two", 2, *short)
    assert statuses == [0, 0], job.said(0) + job.said(1)
    one, two = figures(folder, "one"), figures(folder, "two")
    assert len(two) == 8
    assert alike(one, two, 1e-5)
    assert two[-1]["instances"] % 8, "the last batch is to be uneven"
    names = {path.name for path in (folder / "two").iterdir()}
    assert names == RUN_FOLDER
    assert "report: " in job.said(0)
    assert "report: " not in job.said(1)
    assert "INFO" not in job.said(1)
    found = {}
    for count in (1, 2):
        job = start(folder / f"eval-{count}", ["bertjax.cli.main", "eval", folder / "two"], count)
        assert job.wait() == [0] * count, job.said(0)
        found[count] = held_out(job.said(0))
    assert found[1] == found[2]
    assert float(found[2]["mlm_loss"]) == pytest.approx(two[-1]["mlm_loss"], abs=1e-4)
    assert "mlm_loss" not in job.said(1)


@pytest.mark.slow
def test_four_processes_killed_and_stopped_end_bit_for_bit_as_undisturbed(folder):
    whole, run = folder / "whole", folder / "disturbed"
    job, statuses = train(folder, whole, 4)
    assert statuses == [0] * 4, job.said(0)

    job = train(folder, run, 4, wait=False)
    until_step(run, 25, job)
    job.processes[2].kill()
    began = time.monotonic()
    assert job.wait() == [1, 1, -9, 1]
    print(f"kill -9 of process 2: the others ended within {time.monotonic() - began:.1f} s")
    for index in (0, 1, 3):
        print(last_line(job, index))
        assert f"process {index} of 4: ends because it lost " in last_line(job, index)

    job = train(folder, run, 4, wait=False)
    until_step(run, 50, job)
    job.processes[1].send_signal(signal.SIGTERM)
    assert job.wait() == [75] * 4, "".join(job.said(i) for i in range(4))
    step = int(
        re.search(rf"stopped by a signal at step (\d+) of {STEPS}, saved", job.said(0)).group(1)
    )
    print(f"SIGTERM to process 1 after step 50: all ended with 75, saved at step {step}")
    assert (run / "checkpoints" / str(step) / "state").exists()

    job, statuses = train(folder, run, 4)
    assert statuses == [0] * 4, job.said(0)
    assert identical(state_of(run, STEPS), state_of(whole, STEPS))
    assert figures(folder, "disturbed") == figures(folder, "whole")


@pytest.mark.slow
def test_a_mistake_on_one_host_ends_all_with_status_2(folder):
    """The second host has other settings than the first."""
    from tests.multihost.processes import free_port

    address = f"127.0.0.1:{free_port()}"
    jobs = []
    for index in range(2):
        place = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }
        words = [
            "bertjax.cli.main",
            "train",
            folder / "config.py",
            "--run-dir",
            folder / "odd",
            "--seed",
            str(index),
        ]
        jobs.append(start(folder / f"odd-{index}", words, 1, **place))
    assert [job.wait()[0] for job in jobs] == [2, 2], jobs[0].said(0) + jobs[1].said(0)
    assert (
        last_line(jobs[1], 0)
        == "bertjax: process 1 of 2: seed: found 1, expected 0, as process 0 of 2 has it"
    )
    assert "process 0 of 2: ends because process 1 of 2 failed: seed: found 1" in last_line(
        jobs[0], 0
    )
    # It ends without Python's exit handlers, and the next start may be on another host.
    assert not (folder / "odd" / ".bertjax-lock").exists()


@pytest.mark.slow
def test_of_two_jobs_on_one_run_the_second_ends_with_status_2_and_the_first_goes_on(folder):
    run = folder / "shared"
    first = train(folder, run, 2, wait=False)
    until_step(run, 1, first)
    second, statuses = train(folder, run, 2)
    assert statuses == [2, 2], [second.said(0), second.said(1)]
    refusal = r"shared: found bertjax train \(process \d+ on .*\) at work on it, expected no other"
    assert re.fullmatch(rf"bertjax: process 0 of 2: .*{refusal}.*", last_line(second, 0))
    assert re.fullmatch(
        rf"bertjax: process 1 of 2: ends because process 0 of 2 failed: .*{refusal}.*",
        last_line(second, 1),
    )
    assert first.wait() == [0, 0], [first.said(0), first.said(1)]
    rows = read_entries(epath.Path(run))
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, STEPS + 1))
    assert {path.name for path in run.iterdir()} == RUN_FOLDER
