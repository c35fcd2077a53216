from .coordinator import supervise, wait_for_study, wait_for_work
from .local import ChildProcess, run_study
from .other_studies import describe_unfinished_studies

__all__ = ["ChildProcess", "describe_unfinished_studies", "run_study", "supervise", "wait_for_study", "wait_for_work"]
