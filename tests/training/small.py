"""The shape of the runs in tests of lanes. They share it, so that its programs are compiled once."""

from miiii_search.experiment.spec import Experiment, Hyperparameters

# 200 is not a multiple of 12, so evaluations are 10 epochs apart.
SMALL = Experiment(p=11, train_fraction=0.5, epochs=200, evaluate_every=12)
INTERVAL = 10
NARROW = Hyperparameters(d_model=32, n_heads=4, learning_rate=1e-3)
EXPLODING = NARROW.model_copy(update={"learning_rate": 1e30})


def with_seed(seed: int, experiment: Experiment = SMALL) -> Experiment:
    return experiment.model_copy(update={"seed": seed})
