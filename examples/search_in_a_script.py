"""Search a small space on this machine and export the best configuration.

To run it, type:

    python examples/search_in_a_script.py --storage sqlite:///search.db
"""

from __future__ import annotations

import argparse
import logging

import miiii_search as ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="sqlite:///search.db")
    parser.add_argument("--epochs", type=int, default=1024)
    parser.add_argument("--out", default="best.toml")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    spec = ms.StudySpec(
        experiment=ms.Experiment(p=11, epochs=arguments.epochs, validation_samples=20),
        hyperparameters=ms.Hyperparameters(d_model=32, n_heads=2, learning_rate=1e-3),
        space={"weight_decay": (0.5, 1.0), "grokfast_lambda": (0.0, 0.5)},
    )
    with ms.create_study(arguments.storage, spec, name="script") as study:
        study.run(lanes="auto")  # after Ctrl-C the same script continues
        best = study.best_trial
        if best is None:
            raise SystemExit("no trial was completed")
        print(f"best: trial {best.number} with {best.params}, objective {best.value:.3f}")
        study.export_best(arguments.out)
        print(f"train it again: miiii-search train {arguments.out}")


if __name__ == "__main__":
    main()
