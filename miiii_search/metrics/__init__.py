"""Metrics of workers and coordinators for Prometheus."""
