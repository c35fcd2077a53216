"""The coordinator of a study.

It returns trials of dead workers to the queue, and queues further seeds of the best configurations. It keeps the
study's note in the dashboard, and decides that the study is done. `local` runs a whole study on one machine.
"""

from miiii_search.coordinator.coordinator import supervise, wait_for_study, wait_for_work
from miiii_search.coordinator.local import ChildProcess, run_study
from miiii_search.coordinator.other_studies import describe_unfinished_studies

__all__ = [
    "ChildProcess",
    "describe_unfinished_studies",
    "run_study",
    "supervise",
    "wait_for_study",
    "wait_for_work",
]
