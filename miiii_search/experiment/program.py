"""The compiled program of one lane: everything between two looks of the host at a run.

A program is fixed by what changes shapes or code. What differs between the lanes that share it (learning
rate, weight decay, λ, α, dropout, seed) is traced, so that Table 1's 384 configurations need four programs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from miiii_search.experiment import tasks
from miiii_search.experiment.loss import evaluate, task_weights, weighted_loss
from miiii_search.experiment.model import initial_weights, make_dropout, with_weights
from miiii_search.experiment.optimizer import make_optimizer
from miiii_search.experiment.spec import Experiment, Hyperparameters

Array = jax.Array
Weights = dict[str, Array]

MAX_EVALUATIONS = 256
"""The longest chunk, in evaluations: the size of the buffer that a program returns."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Knobs:
    """A lane's own numbers, float32 scalars."""

    learning_rate: Array
    weight_decay: Array
    grokfast_lambda: Array
    grokfast_alpha: Array
    dropout: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LaneState:
    """All that a run is at one moment: what a checkpoint holds. Scalars are int32 unless said otherwise."""

    weights: Weights
    optimizer: Any
    knobs: Knobs
    key: Array  # uint32 [2]; epoch t draws from fold_in(key, t)
    epoch: Array  # epochs trained
    streak: Array  # evaluations in a row at the target
    solved_epoch: Array  # the first epoch of the streak that solved the run, 0 before
    failed_epoch: Array  # the first epoch whose loss was not finite, 0 as long as all is well


Chunk = tuple[LaneState, dict[str, Array], Array]
"""A lane after some epochs, `MAX_EVALUATIONS` rows of its record, and how many of them were written."""


@dataclass(frozen=True)
class ProgramKey:
    """What is compiled: runs with equal keys share a program."""

    experiment: Experiment
    d_model: int
    n_heads: int

    @staticmethod
    def of(experiment: Experiment, hyperparameters: Hyperparameters) -> ProgramKey:
        """The key of a run: its experiment without what is traced."""
        traced = {name: Experiment.model_fields[name].default for name in ("seed", "grokfast_alpha")}
        return ProgramKey(experiment.model_copy(update=traced), hyperparameters.d_model, hyperparameters.n_heads)


class Program:
    """One lane's functions, compiled at their first call: `init`, `train`, `test`."""

    def __init__(self, key: ProgramKey) -> None:
        self.key = key
        self.moduli, self.scored = key.experiment.moduli, key.experiment.scored
        splits = tasks.make_splits(key.experiment)
        self.data = {
            name: (jnp.asarray(split.x), jnp.asarray(split.y))
            for name, split in [
                ("train", splits.train),
                ("validation", splits.validation),
                ("test", splits.test),
            ]
        }

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.key.experiment.p, self.key.d_model, self.key.n_heads, sum(self.moduli)

    def init(self, experiment: Experiment, hyperparameters: Hyperparameters) -> LaneState:
        """The state before epoch 1; always computed for one lane alone, so it depends on nothing else."""
        if ProgramKey.of(experiment, hyperparameters) != self.key:
            raise ValueError(f"this run needs another program than {self.key}")
        knobs = Knobs(
            learning_rate=jnp.float32(hyperparameters.learning_rate),
            weight_decay=jnp.float32(hyperparameters.weight_decay),
            grokfast_lambda=jnp.float32(hyperparameters.grokfast_lambda),
            grokfast_alpha=jnp.float32(experiment.grokfast_alpha),
            dropout=jnp.float32(hyperparameters.dropout),
        )
        state: LaneState = self._init(jax.random.PRNGKey(experiment.seed), knobs)
        return state

    def train(self, state: LaneState, evaluations: int) -> Chunk:
        """Up to `evaluations` times `evaluation_interval` epochs; `state` is donated.

        Stops at the evaluation at which the run ends (solved, out of epochs, not finite). So a run's end
        does not depend on how its epochs were cut into chunks. Returns device arrays without waiting: the
        state, `MAX_EVALUATIONS` rows, and how many of them were written.
        """
        trained: Chunk = self._train(state, jnp.int32(min(evaluations, MAX_EVALUATIONS)), self.data)
        return trained

    def test(self, state: LaneState) -> tuple[Array, Array]:
        """Loss and accuracy of each task on the test split, which is for runs that have ended."""
        losses, hits = self._test(state.weights, *self.data["test"])
        return losses.mean(0), self._share(hits)

    def has_ended(self, state: LaneState) -> Array:
        """Solved, out of epochs, or not finite."""
        out_of_epochs = state.epoch >= self.key.experiment.epochs
        return (state.solved_epoch > 0) | (state.failed_epoch > 0) | out_of_epochs

    @cached_property
    def _init(self) -> Any:
        def init(key: Array, knobs: Knobs) -> LaneState:
            weight_key, dropout_key = jax.random.split(key)
            weights = initial_weights(*self._shape, weight_key)
            zero = jnp.zeros((), jnp.int32)
            return LaneState(
                weights=weights,
                optimizer=self._optimizer(knobs).init(weights),
                knobs=knobs,
                key=dropout_key,
                epoch=zero,
                streak=zero,
                solved_epoch=zero,
                failed_epoch=zero,
            )

        return jax.jit(init)

    @cached_property
    def _train(self) -> Any:
        return jax.jit(self.train_lane, donate_argnums=0)

    @cached_property
    def _test(self) -> Any:
        return jax.jit(self._evaluate)

    def train_lane(self, state: LaneState, evaluations: Array, data: Any) -> Chunk:
        """`train` as a pure function of one lane, to be compiled, mapped over lanes, or both."""
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((MAX_EVALUATIONS, *leaf.shape), leaf.dtype),
            jax.eval_shape(lambda s: self._evaluate_row(s, self._norms(s.weights), data), state),
        )

        def go_on(carry: tuple[LaneState, Any, Array]) -> Array:
            state, _, done = carry
            return (done < evaluations) & ~self.has_ended(state)

        def until_next_evaluation(carry: tuple[LaneState, Any, Array]) -> tuple[LaneState, Any, Array]:
            state, rows, done = carry
            state, norms = jax.lax.scan(
                lambda s, _: self.step(s, *data["train"]),
                state,
                length=self.key.experiment.evaluation_interval,
            )
            row = self._evaluate_row(state, norms[-1], data)
            rows = jax.tree.map(lambda buffer, value: buffer.at[done].set(value), rows, row)
            return self._judge(state, row), rows, done + 1

        state, rows, done = jax.lax.while_loop(go_on, until_next_evaluation, (state, empty, jnp.zeros((), jnp.int32)))
        return state, rows, done

    def step(self, state: LaneState, x: Array, y: Array) -> tuple[LaneState, Array]:
        """One epoch: one full-batch step. Also returns the gradient norm of every matrix."""
        epoch = state.epoch + 1
        dropout = make_dropout(
            jax.random.fold_in(state.key, epoch), state.knobs.dropout, self.key.experiment.dropout_mask
        )
        weights_of_tasks = task_weights(self.moduli, self.scored)

        def loss(weights: Weights) -> Array:
            # Without this a GPU takes float32 products in 19 bits (TF32).
            with jax.default_matmul_precision("highest"):
                logits = with_weights(weights)(x, dropout)["logits"]
            return weighted_loss(logits, y, weights_of_tasks, self.moduli)

        value, gradients = jax.value_and_grad(loss)(state.weights)
        updates, optimizer = self._optimizer(state.knobs).update(gradients, state.optimizer, state.weights)
        failed = (state.failed_epoch == 0) & ~jnp.isfinite(value)
        return (
            replace(
                state,
                weights=optax.apply_updates(state.weights, updates),
                optimizer=optimizer,
                epoch=epoch,
                failed_epoch=jnp.where(failed, epoch, state.failed_epoch),
            ),
            self._norms(gradients),
        )

    def _evaluate_row(self, state: LaneState, gradient_norm: Array, data: Any) -> dict[str, Array]:
        # One pass for both splits: half as much to compile.
        both = jax.tree.map(lambda *parts: jnp.concatenate(parts), data["train"], data["validation"])
        losses, hits = self._evaluate(state.weights, *both)
        n_train = len(data["train"][0])
        train_loss, validation_loss = losses[:n_train].mean(0), losses[n_train:].mean(0)
        return {
            "epoch": state.epoch,
            "train_loss": train_loss,
            "train_accuracy": self._share(hits[:n_train]),
            "validation_loss": validation_loss,
            "validation_accuracy": self._share(hits[n_train:]),
            "gradient_norm": gradient_norm,
            "weight_norm": self._norms(state.weights),
        }

    def _evaluate(self, weights: Weights, x: Array, y: Array) -> tuple[Array, Array]:
        with jax.default_matmul_precision("highest"):
            logits = with_weights(weights)(x)["logits"]
        return evaluate(logits, y, self.moduli)

    def _judge(self, state: LaneState, row: dict[str, Array]) -> LaneState:
        """Whether the run is solved or has failed, by its latest evaluation.

        Enough evaluations in a row with every scored task at the target solve it.
        """
        experiment = self.key.experiment
        # A quarter of a sample is less than any accuracy can miss the target by, and more than rounding takes.
        at_target = row["validation_accuracy"] >= experiment.target_accuracy - 0.25 / experiment.n_validation
        streak = jnp.where(jnp.all(at_target | ~jnp.asarray(self.scored)), state.streak + 1, 0)
        first = state.epoch - (experiment.solved_evaluations - 1) * experiment.evaluation_interval
        solved = (state.solved_epoch == 0) & (streak >= experiment.solved_evaluations)
        finite = jnp.all(jnp.isfinite(row["validation_loss"])) & jnp.all(jnp.isfinite(row["train_loss"]))
        failed = (state.failed_epoch == 0) & ~finite
        return replace(
            state,
            streak=streak,
            solved_epoch=jnp.where(solved, first, state.solved_epoch),
            failed_epoch=jnp.where(failed, state.epoch, state.failed_epoch),
        )

    @staticmethod
    def _share(hits: Array) -> Array:
        """How many of the samples are right, of 1, in every task."""
        # XLA divides by multiplying with 1/n, which makes 41 of 41 a little less than 1.
        return jnp.where(hits.all(0), 1, hits.mean(0))

    @staticmethod
    def _norms(weights: Weights) -> Array:
        return jnp.stack([jnp.linalg.norm(weights[name].ravel()) for name in sorted(weights)])

    @staticmethod
    def _optimizer(knobs: Knobs) -> Any:
        return make_optimizer(knobs.learning_rate, knobs.weight_decay, knobs.grokfast_lambda, knobs.grokfast_alpha)
