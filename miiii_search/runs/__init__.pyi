from .output_files import output_errors, prepare_output_file
from .output_folder import OutputFolder, newest_path, open_output
from .report_folder import open_report, publish_report, write_report
from .run_folder import check_run_folder, contains_run, read_run
from .study_summary import read_study_summary
from .trial_runs import attach_artifacts, find_finished_trial, read_trial_run

__all__ = [
    "OutputFolder",
    "attach_artifacts",
    "check_run_folder",
    "contains_run",
    "find_finished_trial",
    "newest_path",
    "open_output",
    "open_report",
    "output_errors",
    "prepare_output_file",
    "publish_report",
    "read_run",
    "read_study_summary",
    "read_trial_run",
    "write_report",
]
