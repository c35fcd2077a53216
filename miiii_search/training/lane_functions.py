"""The functions of one lane: its initial state, an epoch, an evaluation, and a chunk of many epochs.

All of them are pure functions of JAX arrays. `Program` compiles them, and `VmappedLanes` maps them over many lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.switches import PAPER, Switches
from miiii_search.training.balanced import BalancedLoss
from miiii_search.training.lane_state import Array, LaneState, TracedHyperparameters, Weights
from miiii_search.training.loss import evaluate, task_weights, weighted_loss
from miiii_search.training.model import initial_weights, make_dropout, transformer_from_weights
from miiii_search.training.optimizer import make_optimizer
from miiii_search.training.outputs import transform_logits

MAX_EVALUATIONS = 256
"""Maximum number of evaluations in a chunk: the number of rows in the buffer that `train_lane` returns."""

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}
"""JAX's names of the precisions of matrix products."""

ChunkResult = tuple[LaneState, dict[str, Array], Array]
"""A lane's state after a chunk, `MAX_EVALUATIONS` rows of its record, and the number of rows that were written."""


class EndRule(NamedTuple):
    """The rule that ends a run. It is traced, so runs of other lengths and other targets share a compiled program."""

    epochs: Array
    """The number of epochs."""
    accuracy_threshold: Array
    """The validation accuracy that every scored task must exceed; see `Experiment.accuracy_threshold`."""
    solved_evaluations: Array
    """The number of consecutive evaluations above it after which a run is solved."""

    @staticmethod
    def of(experiment: Experiment) -> EndRule:
        """Return the rule that ends the runs of an experiment."""
        return EndRule(
            jnp.int32(experiment.epochs),
            jnp.float32(experiment.accuracy_threshold),
            jnp.int32(experiment.solved_evaluations),
        )


class LaneFunctions:
    """The functions of a lane for one experiment, one size of the network and one set of switches.

    Args:
        experiment: The experiment.
        d_model: The width of the residual stream.
        n_heads: The number of attention heads.
        switches: The hyperparameters that switch code on.
        platform: JAX's name of the platform that the functions are compiled for. By default the one in use.
    """

    def __init__(
        self,
        experiment: Experiment,
        d_model: int,
        n_heads: int,
        switches: Switches = PAPER,
        platform: str | None = None,
    ) -> None:
        self.experiment = experiment
        self.d_model = d_model
        self.n_heads = n_heads
        self.switches = switches
        self.platform = platform or jax.default_backend()
        self.moduli, self.scored = experiment.classes, experiment.scored
        self.balanced = BalancedLoss(experiment) if experiment.balanced else None

    def initial_state(self, key: Array, hyperparameters: TracedHyperparameters) -> LaneState:
        """Return the state before the first epoch.

        Args:
            key: A key of JAX, from the run's seed.
            hyperparameters: The run's own hyperparameters.
        """
        weight_key, dropout_key = jax.random.split(key)
        weights = initial_weights(
            self.experiment.p, self.d_model, self.n_heads, self.moduli, weight_key, self.experiment.initialisation
        )
        zero = jnp.zeros((), jnp.int32)
        return LaneState(
            weights=weights,
            optimizer=self._optimizer(hyperparameters).init(weights),
            hyperparameters=hyperparameters,
            key=dropout_key,
            epoch=zero,
            streak=zero,
            solved_epoch=zero,
            failed_epoch=zero,
        )

    def has_ended(self, state: LaneState, end: EndRule) -> Array:
        """Return whether the run is solved, has trained all of its epochs, or has a loss that is not finite."""
        out_of_epochs = state.epoch >= end.epochs
        return (state.solved_epoch > 0) | (state.failed_epoch > 0) | out_of_epochs

    def train_lane(self, state: LaneState, evaluations: Array, data: Any) -> ChunkResult:
        """Train a lane for a number of evaluation intervals, or until its run ends.

        Args:
            state: The lane's state.
            evaluations: The number of evaluation intervals, at most `MAX_EVALUATIONS`.
            data: The samples `[n, 2]` and labels `[n, tasks]` of each split, by its name, and the `EndRule` as `end`.
        """
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((MAX_EVALUATIONS, *leaf.shape), leaf.dtype),
            jax.eval_shape(lambda s: self._epochs_and_evaluation(s, data)[1], state),
        )

        def must_continue(carry: tuple[LaneState, Any, Array]) -> Array:
            state, _, done = carry
            return (done < evaluations) & ~self.has_ended(state, data["end"])

        def train_until_next_evaluation(carry: tuple[LaneState, Any, Array]) -> tuple[LaneState, Any, Array]:
            state, rows, done = carry
            state, row = self._epochs_and_evaluation(state, data)
            return (
                self.mark_ended(state, row, data["end"]),
                jax.tree.map(lambda all_, one: all_.at[done].set(one), rows, row),
                done + 1,
            )

        state, rows, done = jax.lax.while_loop(
            must_continue, train_until_next_evaluation, (state, empty, jnp.zeros((), jnp.int32))
        )
        return state, rows, done

    def step(self, state: LaneState, x: Array, y: Array) -> tuple[LaneState, dict[str, Array]]:
        """Train one epoch, which is one step on all training samples.

        Args:
            state: The lane's state.
            x: Digits, `[n, 2]`.
            y: Labels, `[n, tasks]`.

        Returns:
            The next state, and what the step computed: loss and accuracy of each task, with dropout and before the
            update, and the gradient norm of each matrix.
        """
        epoch = state.epoch + 1
        hyperparameters = self._anneal(state.hyperparameters, epoch)
        dropout = make_dropout(
            jax.random.fold_in(state.key, epoch), hyperparameters.dropout, self.experiment.dropout_mask
        )
        weights_of_tasks = self._task_weights(hyperparameters)
        of_logits = self.balanced.weighted_loss if self.balanced else weighted_loss

        def loss(weights: Weights) -> tuple[Array, tuple[Array, Array]]:
            with self.matmul_precision():
                logits = transformer_from_weights(weights)(x, dropout)["logits"]
            logits = transform_logits(logits, self.switches, hyperparameters.option_values)
            return of_logits(logits, y, weights_of_tasks, self.moduli)

        (total, (losses, accuracies)), gradients = jax.value_and_grad(loss, has_aux=True)(state.weights)
        updates, optimizer = self._optimizer(hyperparameters).update(
            gradients, state.optimizer, state.weights, streak=state.streak
        )
        failed = (state.failed_epoch == 0) & ~jnp.isfinite(total)
        return (
            replace(
                state,
                weights=optax.apply_updates(state.weights, updates),
                optimizer=optimizer,
                epoch=epoch,
                failed_epoch=jnp.where(failed, epoch, state.failed_epoch),
            ),
            {"train_loss": losses, "train_accuracy": accuracies, "gradient_norm": _norms(gradients)},
        )

    def mark_ended(self, state: LaneState, row: dict[str, Array], end: EndRule) -> LaneState:
        """Mark the run as solved or failed, if its latest evaluation says so.

        A run is solved after `solved_evaluations` consecutive evaluations with every scored task at the target.

        Args:
            state: The state at the evaluation.
            row: The evaluation's row of the record.
            end: The rule that ends the run.
        """
        at_target = row["validation_accuracy"] > end.accuracy_threshold
        is_solved = jnp.all(at_target | ~self._scored(state.hyperparameters))
        streak = jnp.where(is_solved, state.streak + 1, 0)
        first = state.epoch - (end.solved_evaluations - 1) * self.experiment.evaluation_interval
        solved = (state.solved_epoch == 0) & (streak >= end.solved_evaluations)
        finite = jnp.all(jnp.isfinite(row["validation_loss"])) & jnp.all(jnp.isfinite(row["train_loss"]))
        failed = (state.failed_epoch == 0) & ~finite
        return replace(
            state,
            streak=streak,
            solved_epoch=jnp.where(solved, first, state.solved_epoch),
            failed_epoch=jnp.where(failed, state.epoch, state.failed_epoch),
        )

    def evaluate(self, weights: Weights, option_values: Mapping[str, Array], x: Array, y: Array) -> tuple[Array, Array]:
        """Return the loss and the accuracy of each task without dropout, `[tasks]` each.

        Args:
            weights: The weights of a run.
            option_values: The run's numbers of the switches, by name.
            x: Digits, `[n, 2]`.
            y: Labels, `[n, tasks]`.
        """
        with self.matmul_precision():
            logits = transformer_from_weights(weights)(x)["logits"]
        logits = transform_logits(logits, self.switches, option_values)
        return (self.balanced.evaluate if self.balanced else evaluate)(logits, y, self.moduli)

    def matmul_precision(self) -> Any:
        """Return a context in which matrix products have the experiment's precision.

        Without it, a GPU computes float32 products with TF32, in 19 bits. A CPU has only float32 products.
        """
        precision = "float32" if self.platform == "cpu" else self.experiment.precision
        return jax.default_matmul_precision(PRECISIONS[precision])

    def _epochs_and_evaluation(self, state: LaneState, data: Any) -> tuple[LaneState, dict[str, Array]]:
        """Train the epochs up to the next evaluation. Return the state and the evaluation's row of the record."""
        state, of_epochs = jax.lax.scan(
            lambda s, _: self.step(s, *data["train"]), state, length=self.experiment.evaluation_interval
        )
        loss, accuracy = self.evaluate(state.weights, state.hyperparameters.option_values, *data["validation"])
        return state, {
            "epoch": state.epoch,
            **{name: values[-1] for name, values in of_epochs.items()},
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "weight_norm": _norms(state.weights),
        }

    def _task_weights(self, hyperparameters: TracedHyperparameters) -> Array:
        """Return the weight of each task in the loss, `[tasks]`; 0 for one that is not in the run's subset."""
        weights = task_weights(self.moduli, self.scored, self.experiment.loss_reduction)
        if self.balanced:
            weights = weights * jnp.asarray(self.balanced.relative_weights, jnp.float32)
        return weights if hyperparameters.task_mask is None else weights * hyperparameters.task_mask

    def _scored(self, hyperparameters: TracedHyperparameters) -> Array:
        """Return whether each task must be at the target, `[tasks]`."""
        scored = jnp.asarray(self.scored)
        return scored if hyperparameters.task_mask is None else scored & (hyperparameters.task_mask > 0)

    def _anneal(self, hyperparameters: TracedHyperparameters, epoch: Array) -> TracedHyperparameters:
        """Return the hyperparameters at an epoch."""
        factors = {
            name: optax.linear_schedule(1.0, decay.end_factor, decay.end - decay.start, decay.start)(epoch)
            for name, decay in self.experiment.annealing.decays.items()
        }
        return hyperparameters.annealed(factors)

    def _optimizer(self, hyperparameters: TracedHyperparameters) -> Any:
        return make_optimizer(
            hyperparameters.learning_rate,
            hyperparameters.weight_decay,
            hyperparameters.grokfast_lambda,
            hyperparameters.grokfast_alpha,
            self.experiment.grokfast_start,
            switches=self.switches,
            option_values=hyperparameters.option_values,
        )


def _norms(weights: Weights) -> Array:
    """Return the L2 norm of each matrix, in the order of the sorted names."""
    return jnp.stack([jnp.linalg.norm(weights[name].ravel()) for name in sorted(weights)])
