"""Batched lanes that do not fit. test_out_of_memory.py runs this in a separate process with limited memory."""

from __future__ import annotations

import queue
import resource
from pathlib import Path

from miiii_search.experiment.metrics import hash_weights
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.device import use_compilation_cache
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer import Trainer
from miiii_search.training.trainer_messages import RunRequest, RunSaved, RunsOutOfMemory, RunUpdate, TrainerEvent

EXPERIMENT = Experiment(p=113, epochs=24, evaluate_every=4)
HYPERPARAMETERS = Hyperparameters(d_model=256)
MORE = 7


def main() -> None:
    use_compilation_cache()
    unbroken = Lanes(ProgramKey.of(EXPERIMENT, HYPERPARAMETERS), batched=True)
    lane = unbroken.admit(EXPERIMENT, HYPERPARAMETERS)
    unbroken.train(6)
    expected = hash_weights(unbroken.weights(lane))
    unbroken.clear()

    posted: queue.SimpleQueue[TrainerEvent] = queue.SimpleQueue()
    lanes = Lanes(unbroken.program.key, batched=True, program=unbroken.program)
    lanes.prepare(1 + MORE)  # a compiler that finds no memory would end the process
    trainer = Trainer(lanes, posted.put, save_seconds=3600.0)
    trainer.admit([RunRequest(0, EXPERIMENT, HYPERPARAMETERS)])
    assert isinstance(next_of(posted, RunUpdate), RunUpdate)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 700 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    trainer.admit([RunRequest(k, EXPERIMENT, HYPERPARAMETERS) for k in range(1, 1 + MORE)])
    saved = next_of(posted, RunSaved)  # before the wider program was tried
    failed = next_of(posted, RunsOutOfMemory)
    assert isinstance(saved, RunSaved) and isinstance(failed, RunsOutOfMemory)
    assert saved.run == 0 and 0 < saved.epoch < EXPERIMENT.epochs
    assert sorted(failed.runs) == list(range(1 + MORE)), failed
    assert failed.bytes_per_lane is not None and 100 * 2**20 < failed.bytes_per_lane < 300 * 2**20, failed
    # The same trainer continues with fewer runs.
    trainer.admit([RunRequest(8, EXPERIMENT, HYPERPARAMETERS, saved.state)])
    while True:
        update = next_of(posted, RunUpdate)
        assert isinstance(update, RunUpdate) and update.run == 8
        if update.final_state is not None:
            break
    assert hash_weights(update.final_state.weights) == expected
    trainer.close()
    print("went on", saved.epoch)


def next_of(posted: queue.SimpleQueue[TrainerEvent], kind: type) -> TrainerEvent:
    """Return the next event of this kind. Raise the error if the trainer posts one."""
    while True:
        one = posted.get(timeout=600)
        if isinstance(one, BaseException):
            raise one
        if isinstance(one, kind):
            return one


if __name__ == "__main__":
    main()
