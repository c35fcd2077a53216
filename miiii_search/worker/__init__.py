"""A worker: it claims trials, trains them in lanes, reports, saves checkpoints and writes results."""
