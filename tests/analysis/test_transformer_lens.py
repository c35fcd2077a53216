"""Exported weights in HookedTransformer's form, run as its documentation says, against our network."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from miiii_search.analysis.transformer_lens import to_config, to_state_dict
from miiii_search.experiment.digits import digits
from miiii_search.experiment.spec import Experiment
from miiii_search.training.model import initial_weights, transformer_from_weights

Arrays = dict[str, NDArray[Any]]

P, D_MODEL, N_HEADS = 13, 24, 4


def make_weights(task: str) -> dict[str, NDArray[np.float32]]:
    moduli = Experiment(p=P, task=task).task_moduli
    weights = initial_weights(P, D_MODEL, N_HEADS, moduli, jax.random.PRNGKey(0))
    # Freshly initialised attention is almost uniform, and would hide an error in its scores.
    return {name: np.asarray(20 * array if name == "query" else array) for name, array in weights.items()}


def hooked_transformer(config: dict[str, Any], state: Arrays, tokens: NDArray[Any]) -> Arrays:
    """Attention pattern and logits at every position, in float64: one layer, no layer norm, head by head."""
    block = {name.removeprefix("blocks.0."): array for name, array in state.items()}
    residual = state["embed.W_E"].astype(np.float64)[tokens] + state["pos_embed.W_pos"]  # [n, pos, d]
    after, patterns = residual.copy(), []
    for head in range(config["n_heads"]):
        query, key, value = (residual @ block[f"attn.W_{x}"][head] + block[f"attn.b_{x}"][head] for x in "QKV")
        scores = query @ key.swapaxes(1, 2) / config["attn_scale"]  # [n, query, key]
        scores = np.where(block["attn.mask"], scores, block["attn.IGNORE"])
        pattern = np.exp(scores - scores.max(axis=2, keepdims=True))
        pattern /= pattern.sum(axis=2, keepdims=True)
        patterns.append(pattern)
        after += pattern @ value @ block["attn.W_O"][head]
    after += block["attn.b_O"]
    neurons = np.maximum(after @ block["mlp.W_in"] + block["mlp.b_in"], 0)
    final = after + neurons @ block["mlp.W_out"] + block["mlp.b_out"]
    return {"pattern": np.stack(patterns), "logits": final @ state["unembed.W_U"] + state["unembed.b_U"]}


@pytest.mark.parametrize("task", ["miiii", "nanda"])
def test_equal_logits_on_all_inputs(task: str) -> None:
    weights = make_weights(task)
    x = digits(P)
    tokens = np.concatenate([x, np.full((P * P, 1), P)], axis=1)  # [p², 3]: x0, x1, ŷ
    theirs = hooked_transformer(to_config(weights), to_state_dict(weights), tokens)
    ours = jax.jit(lambda w: transformer_from_weights(w)(jnp.asarray(x)))(weights)
    logits = np.asarray(ours["logits"]).T
    assert np.abs(theirs["logits"][:, -1] - logits).max() < 1e-5 * np.abs(logits).max()
    # [heads, n, 3] and [heads, 3, n]
    assert np.abs(theirs["pattern"][:, :, -1] - np.asarray(ours["attention"]).swapaxes(1, 2)).max() < 1e-5
    assert (theirs["pattern"][:, :, -1].max(axis=-1) > 0.5).mean() > 0.5  # far from uniform
    assert (theirs["pattern"][:, :, 0] == [1, 0, 0]).all()  # causal: x0 sees itself alone


def test_what_strict_loading_asks_for() -> None:
    """Names and shapes of `HookedTransformer(config).state_dict()`, as TransformerLens 2.18 lists them."""
    weights = make_weights("miiii")
    d, heads, d_head, n_logits = D_MODEL, N_HEADS, D_MODEL // N_HEADS, 2 + 3 + 5 + 7 + 11
    assert {name: array.shape for name, array in to_state_dict(weights).items()} == {
        "embed.W_E": (P + 1, d),
        "pos_embed.W_pos": (3, d),
        **{f"blocks.0.attn.W_{x}": (heads, d, d_head) for x in "QKV"},
        **{f"blocks.0.attn.b_{x}": (heads, d_head) for x in "QKV"},
        "blocks.0.attn.W_O": (heads, d_head, d),
        "blocks.0.attn.b_O": (d,),
        "blocks.0.attn.mask": (3, 3),
        "blocks.0.attn.IGNORE": (),
        "blocks.0.mlp.W_in": (d, 4 * d),
        "blocks.0.mlp.b_in": (4 * d,),
        "blocks.0.mlp.W_out": (4 * d, d),
        "blocks.0.mlp.b_out": (d,),
        "unembed.W_U": (d, n_logits),
        "unembed.b_U": (n_logits,),
    }
    config = to_config(weights)
    assert (config["d_vocab"], config["d_vocab_out"], config["n_ctx"]) == (P + 1, n_logits, 3)
    assert config["attn_scale"] == math.sqrt(d_head)
