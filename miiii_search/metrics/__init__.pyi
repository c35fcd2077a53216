from .prometheus import CoordinatorMetrics, Metric, WorkerCounters, serve

__all__ = ["CoordinatorMetrics", "Metric", "WorkerCounters", "serve"]
