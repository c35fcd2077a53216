from .curves import Curve, CurveSet, read_curves, round_floats, write_curves
from .figure import draw_curves, draw_pruners
from .from_study import curves_from_study
from .orders import GridEIOrder
from .pruner_variants import PrunerVariant
from .replay import ReplayedRun
from .scoring import GroundTruth, Summary, draw_studies, ground_truth, score_replays, shuffled_studies, summarize
from .search_speed import RelativeSaving, SearchResult, relative_saving, replay_searches

__all__ = [
    "Curve",
    "CurveSet",
    "GridEIOrder",
    "GroundTruth",
    "PrunerVariant",
    "RelativeSaving",
    "ReplayedRun",
    "SearchResult",
    "Summary",
    "curves_from_study",
    "draw_curves",
    "draw_pruners",
    "draw_studies",
    "ground_truth",
    "read_curves",
    "relative_saving",
    "replay_searches",
    "round_floats",
    "score_replays",
    "shuffled_studies",
    "summarize",
    "write_curves",
]
