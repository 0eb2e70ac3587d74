"""Personal models in float64, written from their papers as plainly as possible, over a net of two layers.

A device is its examples x, y and what it keeps, `own`; each function makes the device's next `own` and its delta of the
model w, (P,) float64, in `steps` steps of full-batch gradient descent.
"""

from __future__ import annotations

import numpy as np

SIZES = (4, 6, 3)


def split(w: np.ndarray) -> list[np.ndarray]:
    inputs, hidden, outputs = SIZES
    ends = np.cumsum([hidden * inputs, hidden, outputs * hidden, outputs])
    first, bias1, second, bias2 = np.split(w, ends[:-1])
    return [first.reshape(inputs, hidden), bias1, second.reshape(hidden, outputs), bias2]


HEAD = np.arange(SIZES[1] * (SIZES[0] + 1), SIZES[1] * (SIZES[0] + 1) + SIZES[2] * (SIZES[1] + 1))
BODY = np.arange(HEAD[0])


def gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the mean cross-entropy of softmax(relu(x W1 + b1) W2 + b2)."""
    first, bias1, second, bias2 = split(w)
    before = x @ first + bias1
    hidden = np.maximum(before, 0)
    logits = hidden @ second + bias2
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    shares /= len(y)
    back = (shares @ second.T) * (before > 0)
    return np.concatenate([(x.T @ back).ravel(), back.sum(0), (hidden.T @ shares).ravel(), shares.sum(0)])


def descend(w, x, y, *, lr, steps, where=slice(None), pull=lambda w: 0.0):
    w = w.copy()
    for _ in range(steps):
        move = gradient(w, x, y) + pull(w)
        w[where] -= lr * move[where]
    return w


def fedper(w, own, x, y, *, lr, steps):
    start = w.copy()
    start[HEAD] = w[HEAD] if own is None else own
    end = descend(start, x, y, lr=lr, steps=steps)
    return end[HEAD], end - w


def fedrep(w, own, x, y, *, lr, steps, head_steps):
    start = w.copy()
    start[HEAD] = w[HEAD] if own is None else own
    with_head = descend(start, x, y, lr=lr, steps=head_steps, where=HEAD)
    end = descend(with_head, x, y, lr=lr, steps=steps, where=BODY)
    return end[HEAD], end - w


def ditto(w, own, x, y, *, lr, steps, lam):
    v = w if own is None else own
    own = descend(v, x, y, lr=lr, steps=steps, pull=lambda v: lam * (v - w))
    return own, descend(w, x, y, lr=lr, steps=steps) - w


def apfl(w, own, x, y, *, lr, steps, alpha, adapt):
    v, alpha = (w.copy(), alpha) if own is None else (own[:-1].copy(), own[-1])
    local = w.copy()
    for step in range(steps):
        of_mixed = gradient(alpha * v + (1 - alpha) * local, x, y)
        learned = np.clip(alpha - lr * (v - local) @ of_mixed, 0, 1) if adapt and step == 0 else alpha
        local = local - lr * gradient(local, x, y)
        v = v - lr * alpha * of_mixed
        alpha = learned
    return np.append(v, alpha), local - w
