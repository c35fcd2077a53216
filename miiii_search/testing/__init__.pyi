from .fault_study import run_without_faults
from .faults import run_with_faults
from .faulty_cluster import FaultReport
from .memory_database import MemoryDatabase
from .memory_study_catalog import MemoryStudyCatalog, create_memory_study
from .memory_study_store import MemoryStudyStore
from .memory_trial_queue import MemoryTrialQueue
from .postgres import PostgresServer
from .trainer_pool import FakeTrainerPool

__all__ = [
    "FakeTrainerPool",
    "FaultReport",
    "MemoryDatabase",
    "MemoryStudyCatalog",
    "MemoryStudyStore",
    "MemoryTrialQueue",
    "PostgresServer",
    "create_memory_study",
    "run_with_faults",
    "run_without_faults",
]
