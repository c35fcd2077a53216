from .gaussian_process import rank_by_expected_improvement, to_coordinates
from .grid_ei import GridEISampler
from .optuna_samplers import PointSampler, TrialSampler

__all__ = ["GridEISampler", "PointSampler", "TrialSampler", "rank_by_expected_improvement", "to_coordinates"]
