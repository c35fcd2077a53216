from .fault_study import run_without_faults
from .faults import run_with_faults
from .faulty_cluster import FaultReport
from .postgres import PostgresServer
from .trainer_pool import FakeTrainerPool

__all__ = ["FakeTrainerPool", "FaultReport", "PostgresServer", "run_with_faults", "run_without_faults"]
