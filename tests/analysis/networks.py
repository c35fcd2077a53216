"""Weights to analyse: random ones, and a network that adds modulo p by construction."""

import numpy as np

from miiii_search.analysis.fourier import n_frequencies
from miiii_search.analysis.network import Floats, Weights


def random_weights(
    p: int, d_model: int, n_heads: int, n_logits: int, seed: int = 0, dtype: type[np.floating] = np.float32
) -> Weights:
    """As freshly initialised, but with scores large enough that attention is far from uniform."""
    random, d_head = np.random.default_rng(seed), d_model // n_heads

    def he_normal(fan_in: int, *shape: int) -> Floats:
        drawn: Floats = (random.normal(size=shape) * np.sqrt(2 / fan_in)).astype(dtype)
        return drawn

    return {
        "token_embedding": he_normal(d_model, p + 1, d_model),
        "position_embedding": he_normal(d_model, 3, d_model),
        "query": 5 * he_normal(d_model, d_model, n_heads, d_head),
        "key": he_normal(d_model, d_model, n_heads, d_head),
        "value": he_normal(d_model, d_model, n_heads, d_head),
        "attention_output": he_normal(d_model, n_heads, d_head, d_model),
        "feed_forward_in": he_normal(d_model, d_model, 4 * d_model),
        "feed_forward_out": he_normal(4 * d_model, 4 * d_model, d_model),
        "unembedding": he_normal(d_model, d_model, n_logits),
    }


def adder(p: int, used: int, idle: int, seed: int = 0) -> Weights:
    """A network with four heads that is right on every (x0 + x1) mod p, by one frequency.

    Head 0 brings the waves of x0 to ŷ and head 1 those of x1; heads 2 and 3 write nothing. The first half of the
    neurons are relu(cos(u + φ) + cos(v + φ)) for phases φ all around, u and v the angles of the digits at frequency
    `used`. Their Fourier series at 2φ is proportional to |cos((u − v) / 2)| · cos(u + v): its largest logit is the
    right class. The other half are the same at frequency `idle`, and nothing reads them. All other frequencies of the
    embedding are noise that nothing reads either.
    """
    d, n_heads, d_head, n_phases = 32, 4, 8, 64
    random = np.random.default_rng(seed)
    assert {used, idle} <= set(range(1, n_frequencies(p) + 1)) and used != idle

    def angles(k: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return 2 * np.pi * k * np.arange(p) / p

    # Dimensions: 0 to 3 waves of a digit, 4 to 7 noise, 8 to 10 where one stands, 11 to 14 waves of x0 and 15 to 18
    # of x1 as the heads write them, 19 and 20 cos and sin of the sum.
    weights = {
        "token_embedding": np.zeros((p + 1, d)),
        "position_embedding": np.zeros((3, d)),
        "query": np.zeros((d, n_heads, d_head)),
        "key": np.zeros((d, n_heads, d_head)),
        "value": np.zeros((d, n_heads, d_head)),
        "attention_output": np.zeros((n_heads, d_head, d)),
        "feed_forward_in": np.zeros((d, 4 * d)),
        "feed_forward_out": np.zeros((4 * d, d)),
        "unembedding": np.zeros((d, p)),
    }
    cosine_and_sine = [wave(angles(k)) for k in (used, idle) for wave in (np.cos, np.sin)]
    weights["token_embedding"][:p, :4] = np.stack(cosine_and_sine, axis=1)
    weights["token_embedding"][:p, 4:8] = random.normal(size=(p, 4))
    weights["position_embedding"][[0, 1, 2], [8, 9, 10]] = 1
    for head in (0, 1):
        weights["query"][10, head, 0] = 100 * np.sqrt(d_head)  # as good as all attention
        weights["key"][8 + head, head, 0] = 1
        for wave in range(4):
            weights["value"][wave, head, 1 + wave] = 1
            weights["attention_output"][head, 1 + wave, 11 + 4 * head + wave] = 1
    phases = 2 * np.pi * np.arange(n_phases) / n_phases
    for group in (0, 1):
        columns = slice(group * n_phases, (group + 1) * n_phases)
        for head in (0, 1):  # cos(u + φ) = cos u cos φ − sin u sin φ
            weights["feed_forward_in"][11 + 4 * head + 2 * group, columns] = np.cos(phases)
            weights["feed_forward_in"][12 + 4 * head + 2 * group, columns] = -np.sin(phases)
    weights["feed_forward_out"][:n_phases, 19] = np.cos(2 * phases)
    weights["feed_forward_out"][:n_phases, 20] = -np.sin(2 * phases)
    weights["unembedding"][19], weights["unembedding"][20] = np.cos(angles(used)), np.sin(angles(used))
    return {name: array.astype(np.float32) for name, array in weights.items()}
