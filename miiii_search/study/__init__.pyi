from .archive_export import export_study
from .archive_import import import_study
from .best_trials import best_first_key, best_trial, read_best, read_best_trials, sort_best_first
from .cleanup import old_snapshots, remove_snapshots
from .create import create_study
from .delete import read_contents
from .export import Configuration, export_best, export_trial, read_configuration
from .finished_trials import read_varied_parameters
from .gpu_predictions import predict_throughput, read_predictions
from .names import check_name, study_names
from .open import open_study
from .overview import StudyOverview, list_deleted, list_studies
from .pause import resume
from .plan import EpochShare, Plan, plan_at_speed, plan_on_gpu
from .promote import queue_further_seeds
from .replicates import SeedStats, rank_configurations
from .snapshots import claim_folder, read_snapshots, trial_folder
from .state import StudyState, describe_pause, describe_waiting, expected_trials, missing_process, study_state
from .status import Status, StatusReader, read_status
from .stored_spec import parse_spec, upgrade_stored_spec
from .study import Study
from .tables import Table, read_table, to_data_frame, write_table
from .trials import counts_by_name, distributions, insert_trials, new_trial, shape_of

__all__ = [
    "Configuration",
    "EpochShare",
    "Plan",
    "SeedStats",
    "Status",
    "StatusReader",
    "Study",
    "StudyOverview",
    "StudyState",
    "Table",
    "best_first_key",
    "best_trial",
    "check_name",
    "claim_folder",
    "counts_by_name",
    "create_study",
    "describe_pause",
    "describe_waiting",
    "distributions",
    "expected_trials",
    "export_best",
    "export_study",
    "export_trial",
    "import_study",
    "insert_trials",
    "list_deleted",
    "list_studies",
    "missing_process",
    "new_trial",
    "old_snapshots",
    "open_study",
    "parse_spec",
    "plan_at_speed",
    "plan_on_gpu",
    "predict_throughput",
    "queue_further_seeds",
    "rank_configurations",
    "read_best",
    "read_best_trials",
    "read_configuration",
    "read_contents",
    "read_predictions",
    "read_snapshots",
    "read_status",
    "read_table",
    "read_varied_parameters",
    "remove_snapshots",
    "resume",
    "shape_of",
    "sort_best_first",
    "study_names",
    "study_state",
    "to_data_frame",
    "trial_folder",
    "upgrade_stored_spec",
    "write_table",
]
