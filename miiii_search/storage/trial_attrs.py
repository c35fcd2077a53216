"""Attributes of trials on which workers, coordinators and commands must agree."""

from __future__ import annotations

SHAPE_KEY = "miiii:shape"
"""System attribute: the shape for which the trial's program is compiled."""
REPLICATE_KEY = "miiii:replicate"
"""System attribute: the number of the trial's replicate, from 0."""
ENDED_BY_KEY = "miiii:ended_by"
"""System attribute: the token of the lease that ended the trial."""
RETRIES_KEY = "retries"
"""User attribute: how often the trial's run failed and was repeated."""
METRICS_KEY = "metrics"
"""User attribute: the trial's `Metrics`."""
