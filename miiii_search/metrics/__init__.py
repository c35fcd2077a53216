"""Metrics of workers and coordinators for Prometheus, served over HTTP at `/metrics`."""

from miiii_search.metrics.prometheus import CoordinatorMetrics, Metric, WorkerCounters, serve

__all__ = ["CoordinatorMetrics", "Metric", "WorkerCounters", "serve"]
