"""Train one network, print its accuracy, and write a report about what it learned.

To run it, type:

    python examples/train_one_run.py --out run-report
"""

from __future__ import annotations

import argparse
from pathlib import Path

import miiii_search as ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=int, default=23, help="prime; the inputs are pairs of digits in base p")
    parser.add_argument("--epochs", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=Path("run-report"), help="folder of the report")
    arguments = parser.parse_args()

    experiment = ms.Experiment(p=arguments.p, task="nanda", epochs=arguments.epochs, validation_samples=50)
    hyperparameters = ms.Hyperparameters(d_model=64, n_heads=4, learning_rate=1e-3, weight_decay=1.0)
    run = ms.train(experiment, hyperparameters, progress=True)

    assert run.record is not None and run.metrics is not None
    accuracy = run.record.validation_accuracy.mean(axis=1)  # one value per evaluation
    print(f"validation accuracy: {accuracy[0]:.3f} at epoch {run.record.epoch[0]}, {accuracy[-1]:.3f} at the end")
    solved = run.metrics.epochs_to_solve
    print("not solved" if solved is None else f"solved at epoch {solved}")

    ms.analyze(run, out=arguments.out)
    print(f"the report is {arguments.out / 'report.html'}")


if __name__ == "__main__":
    main()
