"""Compiled programs, which train one lane from one visit of the host to the next.

A program is determined by what changes shapes or code. What differs between the lanes that share it is traced: learning
rate, weight decay, λ, α, dropout, seed and the subset of the tasks. So the 384 configurations of Table 1 need only four
programs. What ends a run is traced as well, so a longer study finds its programs in the cache of compiled ones.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from miiii_search import failpoints
from miiii_search.experiment import tasks
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.subsets import ALL
from miiii_search.experiment.switches import PAPER, Switches
from miiii_search.training.lane_functions import MAX_EVALUATIONS, ChunkResult, EndRule, LaneFunctions
from miiii_search.training.lane_state import Array, LaneState, TracedHyperparameters, Weights
from miiii_search.training.model import transformer_from_weights
from miiii_search.training.numerics import pinned

PartitionSpec: Any = jax.sharding.PartitionSpec


@dataclass(frozen=True)
class ProgramKey:
    """The key of a program. Runs with equal keys share a program."""

    experiment: Experiment
    """The experiment, with the defaults of the fields that are traced."""
    d_model: int
    n_heads: int
    switches: Switches = PAPER
    """The parts of the training step that differ from the paper's."""

    @staticmethod
    def of(experiment: Experiment, hyperparameters: Hyperparameters) -> ProgramKey:
        """Return the key of the program that trains a run."""
        traced = {name: Experiment.model_fields[name].default for name in ("seed", "grokfast_alpha")}
        subset = None if experiment.moduli is None else ALL
        return ProgramKey(
            experiment.model_copy(update={**traced, "moduli": subset}),
            hyperparameters.d_model,
            hyperparameters.n_heads,
            Switches.of(hyperparameters),
        )


class Program(LaneFunctions):
    """The functions of one lane, each compiled at its first call: `init`, `train`, `final_metrics` and `spectrum`.

    All are compiled and run with `pinned_numerics`, so JAX's configuration does not change their results.

    Args:
        key: The key of the program.
        platform: JAX's name of the platform that the functions are compiled for. By default the one in use.
    """

    @pinned
    def __init__(self, key: ProgramKey, platform: str | None = None) -> None:
        super().__init__(key.experiment, key.d_model, key.n_heads, key.switches, platform)
        self.key = key
        self._background_lock = threading.Lock()
        self._locks = {name: threading.Lock() for name in ("_init", "_train", "_final_metrics", "_spectrum")}
        self._background: threading.Thread | None = None
        splits = tasks.make_splits(key.experiment)
        self.data: dict[str, Any] = {
            name: (jnp.asarray(split.x), jnp.asarray(split.y))
            for name, split in [
                ("train", splits.train),
                ("validation", splits.validation),
                ("test", splits.test),
            ]
        }
        self.data["end"] = EndRule.of(key.experiment)

    @pinned
    def init(self, experiment: Experiment, hyperparameters: Hyperparameters) -> LaneState:
        """Return the state of a run before its first epoch.

        It is always computed for one lane alone, so it depends on nothing but the run.

        Raises:
            ValueError: The run needs another program.
        """
        if ProgramKey.of(experiment, hyperparameters) != self.key:
            raise ValueError(f"this run needs another program than {self.key}")
        traced = TracedHyperparameters(
            learning_rate=jnp.float32(hyperparameters.learning_rate),
            weight_decay=jnp.float32(hyperparameters.weight_decay),
            grokfast_lambda=jnp.float32(hyperparameters.grokfast_lambda),
            grokfast_alpha=jnp.float32(experiment.grokfast_alpha),
            dropout=jnp.float32(hyperparameters.dropout),
            option_values={name: jnp.float32(getattr(hyperparameters, name)) for name in self.switches.traced},
            task_mask=None if experiment.moduli is None else jnp.asarray(experiment.scored, jnp.float32),
        )
        self._ensure_compiled("_init")
        state: LaneState = self._init(jax.random.PRNGKey(experiment.seed), traced)
        return state

    @pinned
    def train(self, state: LaneState, evaluations: int) -> ChunkResult:
        """Train a lane for a number of evaluation intervals, or until its run ends.

        A run ends at an evaluation: it is solved, out of epochs, or its loss is not finite. So its end does not depend
        on how its epochs are divided into chunks.

        Args:
            state: The lane's state. It is donated, so it cannot be used afterwards.
            evaluations: The number of evaluation intervals, at most `MAX_EVALUATIONS`.

        Returns:
            The state, `MAX_EVALUATIONS` rows of the record, and the number of rows that were written. These are arrays
            on the device; the call does not wait for them.
        """
        self.compile()
        trained: ChunkResult = self._train(state, jnp.int32(min(evaluations, MAX_EVALUATIONS)), self.data)
        return trained

    @pinned
    def final_metrics(self, state: LaneState) -> dict[str, Array]:
        """Return loss and accuracy of each task on the training and test splits, for a run that has ended."""
        self._ensure_compiled("_final_metrics")
        metrics: dict[str, Array] = self._final_metrics(state.weights, state.hyperparameters.option_values, self.data)
        return metrics

    @pinned
    def spectrum(self, state: LaneState) -> Array:
        """Return the magnitude of the neurons' 2-d Fourier transform over the grid of all (x0, x1).

        It is the mean over the neurons, and the basis of Fig. 17 and Table 3.

        Returns:
            The magnitudes `[p, p // 2 + 1]`, frequency of x0 by frequency of x1. The other half is left out: the
            spectrum of real activations is symmetric.
        """
        self._ensure_compiled("_spectrum")
        spectrum: Array = self._spectrum(state.weights)
        return spectrum

    def compile(self) -> None:
        """Compile what the training of one lane needs, unless it is compiled."""
        self._ensure_compiled("_init", "_train")
        self.compile_in_background()

    def compile_all(self) -> None:
        """Compile all functions and wait for it, so that a measurement afterwards contains only training."""
        self._ensure_compiled(*self._locks)

    def compile_in_background(self) -> None:
        """Compile in a thread what the end of a run needs, so that no run waits for it."""
        with self._background_lock:
            if self._background is None:
                # Not a daemon thread, as the trainer's is: one that compiles while the interpreter exits crashes the
                # process. A thread inherits this from the one that starts it.
                functions = ("_final_metrics", "_spectrum")
                self._background = threading.Thread(target=self._ensure_compiled, args=functions, daemon=False)
                self._background.start()

    @property
    def compiled(self) -> Any:
        """The compiled `train_lane`, for its memory analysis and its text."""
        self.compile()
        return self._train

    @cached_property
    @pinned
    def abstract_state(self) -> LaneState:
        """The shapes and types of a lane's state."""
        state: LaneState = jax.eval_shape(self.initial_state, *_abstract_arguments(self.key))
        return state

    @pinned
    def _ensure_compiled(self, *functions: str) -> None:
        """Compile functions unless they are. If several threads ask for one, only one of them compiles it."""
        for name in functions:
            if name not in vars(self):
                with self._locks[name]:
                    getattr(self, name)

    @cached_property
    def _init(self) -> Any:
        return jax.jit(self.initial_state).lower(*_abstract_arguments(self.key)).compile()

    @cached_property
    def _train(self) -> Any:
        failpoints.reach("compile")
        program = jax.jit(self.train_lane, donate_argnums=0)
        return program.lower(self.abstract_state, jnp.int32(1), self.data).compile()

    @cached_property
    def _final_metrics(self) -> Any:
        def final_metrics(weights: Weights, option_values: dict[str, Array], data: Any) -> dict[str, Array]:
            values: dict[str, Array] = {}
            for split in ("train", "test"):
                loss, accuracy = self.evaluate(weights, option_values, *data[split])
                values |= {f"{split}_loss": loss, f"{split}_accuracy": accuracy}
            return values

        state = self.abstract_state
        return jax.jit(final_metrics).lower(state.weights, state.hyperparameters.option_values, self.data).compile()

    @cached_property
    def _spectrum(self) -> Any:
        p = self.experiment.p
        digits = jnp.stack(jnp.meshgrid(jnp.arange(p), jnp.arange(p), indexing="ij"), axis=-1).reshape(-1, 2)

        def spectrum(weights: Weights, digits: Array) -> Array:
            with self.matmul_precision():
                neurons = transformer_from_weights(weights)(digits)["neurons"]  # [4d, p²]
            return jnp.abs(jnp.fft.rfft2(neurons.reshape(-1, p, p))).mean(0)

        compiled = jax.jit(spectrum).lower(self.abstract_state.weights, digits).compile()
        return lambda weights: compiled(weights, digits)


def lower_lanes(program: Program, mesh: Mesh, width: int) -> Any:
    """Lower the program that trains a batch of lanes, whose axis is split over devices. Its states are donated.

    Args:
        program: The program of one lane.
        mesh: The devices, along the axis `lanes`. They may be devices of a machine that is only compiled for.
        width: The number of lanes of all devices together.
    """
    abstract: Any = jax.ShapeDtypeStruct
    by_lane, everywhere = NamedSharding(mesh, PartitionSpec("lanes")), NamedSharding(mesh, PartitionSpec())
    mapped = jax.vmap(program.train_lane, in_axes=(0, None, None))
    # Each device loops until its own lanes have ended. A plain vmap would synchronize them in each iteration.
    each = jax.shard_map(
        mapped,
        mesh=mesh,
        in_specs=(by_lane.spec, everywhere.spec, everywhere.spec),
        out_specs=by_lane.spec,
        check_vma=False,
    )
    states = jax.tree.map(
        lambda leaf: abstract((width, *leaf.shape), leaf.dtype, sharding=by_lane), program.abstract_state
    )
    data = jax.tree.map(lambda leaf: abstract(leaf.shape, leaf.dtype, sharding=everywhere), program.data)
    return jax.jit(each, donate_argnums=0).lower(states, abstract((), jnp.int32), data)


def bytes_per_lane(program: Any, lanes: int) -> int | None:
    """Return the bytes per lane of a compiled program, or None if the compiler does not tell.

    Args:
        program: The compiled program.
        lanes: The number of lanes that it trains on each device.
    """
    memory = program.memory_analysis()
    if memory is None:
        return None
    # Outputs reuse the memory of the states that are donated.
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(size + memory.temp_size_in_bytes) // lanes


def _abstract_arguments(key: ProgramKey) -> Any:
    """Return the shapes and types of the arguments of `LaneFunctions.initial_state`."""

    def arguments() -> tuple[Array, TracedHyperparameters]:
        zero = jnp.float32(0)
        mask = None if key.experiment.moduli is None else jnp.zeros(len(key.experiment.classes), jnp.float32)
        return jax.random.PRNGKey(0), TracedHyperparameters(
            zero, zero, zero, zero, zero, dict.fromkeys(key.switches.traced, zero), mask
        )

    return jax.eval_shape(arguments)
