"""The compiled program of one lane: everything between two looks of the host at a run.

A program is fixed by what changes shapes or code. What differs between the lanes that share it (learning
rate, weight decay, λ, α, dropout, seed) is traced, so that Table 1's 384 configurations need four programs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax

from miiii_search.experiment import tasks
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.loss import evaluate, task_weights, weighted_loss
from miiii_search.training.model import initial_weights, make_dropout, transformer_from_weights
from miiii_search.training.numerics import pinned
from miiii_search.training.optimizer import make_optimizer

Array = jax.Array
Weights = dict[str, Array]

MAX_EVALUATIONS = 256
"""The longest chunk, in evaluations: the size of the buffer that a program returns."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TracedHyperparameters:
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
    knobs: TracedHyperparameters
    key: Array  # uint32 [2]; epoch t draws from fold_in(key, t)
    epoch: Array  # epochs trained
    streak: Array  # evaluations in a row at the target
    solved_epoch: Array  # the first epoch of the streak that solved the run, 0 before
    failed_epoch: Array  # the first epoch whose loss was not finite, 0 as long as all is well


PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}
"""JAX's names. A CPU has no faster product than float32's and is asked for no other."""

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


def _abstract_input() -> Any:
    """A key and knobs, as shapes and types."""
    return jax.eval_shape(lambda: (jax.random.PRNGKey(0), TracedHyperparameters(*[jnp.float32(0)] * 5)))


class Program:
    """One lane's functions, compiled at their first call: `init`, `train`, `final`, `spectrum`.

    All are compiled and run with `pinned_numerics`: JAX's configuration does not change their results.
    """

    @pinned
    def __init__(self, key: ProgramKey) -> None:
        self.key = key
        self.moduli, self.scored = key.experiment.moduli, key.experiment.scored
        self._compiling = threading.Lock()
        self._locks = {name: threading.Lock() for name in ("_init", "_train", "_final", "_spectrum")}
        self._rest: threading.Thread | None = None
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
    def _shape(self) -> tuple[int, int, int, tuple[int, ...]]:
        return self.key.experiment.p, self.key.d_model, self.key.n_heads, self.moduli

    @pinned
    def init(self, experiment: Experiment, hyperparameters: Hyperparameters) -> LaneState:
        """The state before epoch 1; always computed for one lane alone, so it depends on nothing else."""
        if ProgramKey.of(experiment, hyperparameters) != self.key:
            raise ValueError(f"this run needs another program than {self.key}")
        knobs = TracedHyperparameters(
            learning_rate=jnp.float32(hyperparameters.learning_rate),
            weight_decay=jnp.float32(hyperparameters.weight_decay),
            grokfast_lambda=jnp.float32(hyperparameters.grokfast_lambda),
            grokfast_alpha=jnp.float32(experiment.grokfast_alpha),
            dropout=jnp.float32(hyperparameters.dropout),
        )
        self._make("_init")
        state: LaneState = self._init(jax.random.PRNGKey(experiment.seed), knobs)
        return state

    @pinned
    def train(self, state: LaneState, evaluations: int) -> Chunk:
        """Up to `evaluations` times `evaluation_interval` epochs; `state` is donated.

        Stops at the evaluation at which the run ends (solved, out of epochs, not finite). So a run's end
        does not depend on how its epochs were cut into chunks. Returns device arrays without waiting: the
        state, `MAX_EVALUATIONS` rows, and how many of them were written.
        """
        self.compile()
        trained: Chunk = self._train(state, jnp.int32(min(evaluations, MAX_EVALUATIONS)), self.data)
        return trained

    @pinned
    def final_metrics(self, state: LaneState) -> dict[str, Array]:
        """Loss and accuracy of each task on the training and test splits, for a run that has ended."""
        self._make("_final")
        final: dict[str, Array] = self._final(state.weights, self.data)
        return final

    @pinned
    def spectrum(self, state: LaneState) -> Array:
        """The magnitude of the neurons' 2-d Fourier transform over the grid of all (x0, x1), mean over neurons.

        `[p, p // 2 + 1]`, frequency of x0 by frequency of x1; those of real activations are symmetric, and the
        other half is left out. The base of Fig. 17 and Table 3.
        """
        self._make("_spectrum")
        spectrum: Array = self._spectrum(state.weights)
        return spectrum

    def has_ended(self, state: LaneState) -> Array:
        """Solved, out of epochs, or not finite."""
        out_of_epochs = state.epoch >= self.key.experiment.epochs
        return (state.solved_epoch > 0) | (state.failed_epoch > 0) | out_of_epochs

    def compile(self) -> None:
        """Compiles what training one lane needs, unless it is."""
        self._make("_init", "_train")
        self.compile_rest()

    def compile_all(self) -> None:
        """Compiles everything and waits for it, so that what is measured next is training alone."""
        self._make(*self._locks)

    def compile_rest(self) -> None:
        """Compiles in a thread what a run's end needs, so that no end waits for it."""
        with self._compiling:
            if self._rest is None:
                # Not a daemon: one that compiles when the interpreter ends takes the process down with it.
                self._rest = threading.Thread(target=self._make, args=("_final", "_spectrum"))
                self._rest.start()

    @property
    def compiled(self) -> Any:
        """`train` as compiled, for its memory and its text."""
        self.compile()
        return self._train

    @pinned
    def _make(self, *functions: str) -> None:
        """Compiles functions, unless they are; of several threads that ask for one, one does."""
        for name in functions:
            if name not in vars(self):
                with self._locks[name]:
                    getattr(self, name)

    @cached_property
    @pinned
    def abstract_state(self) -> LaneState:
        """The shapes and types of a lane's state."""
        state: LaneState = jax.eval_shape(self._initial_state, *_abstract_input())
        return state

    @cached_property
    def _init(self) -> Any:
        return jax.jit(self._initial_state).lower(*_abstract_input()).compile()

    def _initial_state(self, key: Array, knobs: TracedHyperparameters) -> LaneState:
        weight_key, dropout_key = jax.random.split(key)
        weights = initial_weights(*self._shape, weight_key, self.key.experiment.initialisation)
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

    @cached_property
    def _train(self) -> Any:
        program = jax.jit(self.train_lane, donate_argnums=0)
        return program.lower(self.abstract_state, jnp.int32(1), self.data).compile()

    @cached_property
    def _final(self) -> Any:
        def final(weights: Weights, data: Any) -> dict[str, Array]:
            values = {}
            for split in ("train", "test"):
                values[f"{split}_loss"], values[f"{split}_accuracy"] = self._evaluate(weights, *data[split])
            return values

        return jax.jit(final).lower(self.abstract_state.weights, self.data).compile()

    @cached_property
    def _spectrum(self) -> Any:
        p = self.key.experiment.p
        digits = jnp.stack(jnp.meshgrid(jnp.arange(p), jnp.arange(p), indexing="ij"), axis=-1).reshape(-1, 2)

        def spectrum(weights: Weights, digits: Array) -> Array:
            with self._precision():
                neurons = transformer_from_weights(weights)(digits)["neurons"]  # [4d, p²]
            return jnp.abs(jnp.fft.rfft2(neurons.reshape(-1, p, p))).mean(0)

        compiled = jax.jit(spectrum).lower(self.abstract_state.weights, digits).compile()
        return lambda weights: compiled(weights, digits)

    def _evaluate(self, weights: Weights, x: Array, y: Array) -> tuple[Array, Array]:
        with self._precision():
            logits = transformer_from_weights(weights)(x)["logits"]
        return evaluate(logits, y, self.moduli)

    def train_lane(self, state: LaneState, evaluations: Array, data: Any) -> Chunk:
        """`train` as a pure function of one lane, to be compiled, mapped over lanes, or both."""
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((MAX_EVALUATIONS, *leaf.shape), leaf.dtype),
            jax.eval_shape(lambda s: self._epochs_and_evaluation(s, data)[1], state),
        )

        def go_on(carry: tuple[LaneState, Any, Array]) -> Array:
            state, _, done = carry
            return (done < evaluations) & ~self.has_ended(state)

        def until_next_evaluation(carry: tuple[LaneState, Any, Array]) -> tuple[LaneState, Any, Array]:
            state, rows, done = carry
            state, row = self._epochs_and_evaluation(state, data)
            return (
                self._mark_ended(state, row),
                jax.tree.map(lambda all_, one: all_.at[done].set(one), rows, row),
                done + 1,
            )

        state, rows, done = jax.lax.while_loop(go_on, until_next_evaluation, (state, empty, jnp.zeros((), jnp.int32)))
        return state, rows, done

    def _epochs_and_evaluation(self, state: LaneState, data: Any) -> tuple[LaneState, dict[str, Array]]:
        """The epochs from one evaluation to the next, and the row of the record at their end."""
        state, of_epochs = jax.lax.scan(
            lambda s, _: self.step(s, *data["train"]), state, length=self.key.experiment.evaluation_interval
        )
        loss, accuracy = self._evaluate(state.weights, *data["validation"])
        return state, {
            "epoch": state.epoch,
            **{name: values[-1] for name, values in of_epochs.items()},
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "weight_norm": self._norms(state.weights),
        }

    def step(self, state: LaneState, x: Array, y: Array) -> tuple[LaneState, dict[str, Array]]:
        """One epoch: one full-batch step.

        Also returns what the step saw: each task's loss and accuracy, with dropout and before the update, and
        the gradient norm of every matrix.
        """
        epoch = state.epoch + 1
        knobs = self._anneal(state.knobs, epoch)
        dropout = make_dropout(jax.random.fold_in(state.key, epoch), knobs.dropout, self.key.experiment.dropout_mask)
        weights_of_tasks = task_weights(self.moduli, self.scored, self.key.experiment.loss_reduction)

        def loss(weights: Weights) -> tuple[Array, tuple[Array, Array]]:
            with self._precision():
                logits = transformer_from_weights(weights)(x, dropout)["logits"]
            return weighted_loss(logits, y, weights_of_tasks, self.moduli)

        (total, (losses, accuracies)), gradients = jax.value_and_grad(loss, has_aux=True)(state.weights)
        updates, optimizer = self._optimizer(knobs).update(gradients, state.optimizer, state.weights)
        failed = (state.failed_epoch == 0) & ~jnp.isfinite(total)
        return (
            replace(
                state,
                weights=optax.apply_updates(state.weights, updates),
                optimizer=optimizer,
                epoch=epoch,
                failed_epoch=jnp.where(failed, epoch, state.failed_epoch),
            ),
            {"train_loss": losses, "train_accuracy": accuracies, "gradient_norm": self._norms(gradients)},
        )

    def _anneal(self, knobs: TracedHyperparameters, epoch: Array) -> TracedHyperparameters:
        """The knobs as they are at an epoch."""
        left = {
            name: optax.linear_schedule(1.0, fall.end_factor, fall.end - fall.start, fall.start)(epoch)
            for name, fall in self.key.experiment.annealing.decays.items()
        }
        return replace(knobs, **{name: getattr(knobs, name) * share for name, share in left.items()})

    def _precision(self) -> Any:
        """What products are computed in. Without it a GPU would take those of float32 in 19 bits (TF32)."""
        precision = "float32" if jax.default_backend() == "cpu" else self.key.experiment.precision
        return jax.default_matmul_precision(PRECISIONS[precision])

    def _mark_ended(self, state: LaneState, row: dict[str, Array]) -> LaneState:
        """Marks the run as solved or failed by its latest evaluation.

        Enough evaluations in a row with every scored task at the target solve it.
        """
        experiment = self.key.experiment
        at_target = row["validation_accuracy"] > experiment.accuracy_threshold
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
    def _norms(weights: Weights) -> Array:
        return jnp.stack([jnp.linalg.norm(weights[name].ravel()) for name in sorted(weights)])

    def _optimizer(self, knobs: TracedHyperparameters) -> Any:
        return make_optimizer(
            knobs.learning_rate,
            knobs.weight_decay,
            knobs.grokfast_lambda,
            knobs.grokfast_alpha,
            self.key.experiment.grokfast_start,
        )
