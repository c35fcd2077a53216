from .comparison import ComparisonTable, compare_runs
from .file_checks import InvalidRunError, check_metrics, check_record, check_spectra, check_weights, file_errors
from .findings import Findings, analyze
from .milestones import find_milestones
from .numbers import findings_to_json
from .reference import ReferenceCurves, ReferenceDifferences, differences_from_reference, read_reference
from .study_summary import SearchDimension, SeedSpread, StudySummary, TrialSummary, summarize_trials
from .subset_runs import SubsetRun, subset_run
from .trained_run import TrainedRun
from .transformer_lens import to_config, to_state_dict

__all__ = [
    "ComparisonTable",
    "Findings",
    "InvalidRunError",
    "ReferenceCurves",
    "ReferenceDifferences",
    "SearchDimension",
    "SeedSpread",
    "StudySummary",
    "SubsetRun",
    "TrainedRun",
    "TrialSummary",
    "analyze",
    "check_metrics",
    "check_record",
    "check_spectra",
    "check_weights",
    "compare_runs",
    "differences_from_reference",
    "file_errors",
    "find_milestones",
    "findings_to_json",
    "read_reference",
    "subset_run",
    "summarize_trials",
    "to_config",
    "to_state_dict",
]
