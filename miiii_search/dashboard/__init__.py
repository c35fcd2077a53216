"""optuna-dashboard as a service: read-only, with a password, below a path, and with answers that are current."""
