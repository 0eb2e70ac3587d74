"""SGD, momentum, Nesterov and Adam against float64 NumPy (and, where it is installed, against torch's own)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gradcheck import close, fused_equals_buffered

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import DataError, UsageError

PLAN = Plan(
    [7],
    [Node("dense", [0], [0, 1]), Node("tanh", [1]), Node("dense", [2], [2, 3]), Node("mul", [3], [4], [0])],
    [Param("w", [7, 17]), Param("b", [17]), Param("v", [17, 3]), Param("c", [3]), Param("scale", [3])],
    "cross_entropy",
    4,
    4,
)
rng = np.random.default_rng(0)
PARAMS = (rng.normal(0, 0.4, PLAN.num_params)).astype(np.float32)
X, Y = rng.normal(0, 1, (43, 7)).astype(np.float32), rng.integers(0, 3, 43)
CORRECTION = rng.normal(0, 0.05, PLAN.num_params).astype(np.float32)
EXTRAS = [
    {},
    {"weight_decay": 0.05},
    {"prox_mu": 0.5},
    {"clip_norm": 0.1},
    {"weight_decay": 0.01, "prox_mu": 0.1, "clip_norm": 0.3},
    {"correction": CORRECTION},
    {"correction": CORRECTION, "weight_decay": 0.01, "prox_mu": 0.1, "clip_norm": 0.3},
]
OPTIMIZERS = [("sgd", 0.0), ("sgd", 0.9), ("nesterov", 0.9), ("adam", 0.9), ("adam", 0.5), ("adam", 0.0)]


def gradient(w, rows):
    """The mean cross entropy's, in float64."""
    x, (a, b, c, d, e) = np.float64(X[rows]), np.split(w, np.cumsum([p.size for p in PLAN.params])[:-1])
    a, c = a.reshape(7, 17), c.reshape(17, 3)
    hidden = np.tanh(x @ a + b)
    logits = hidden @ c + d
    z = logits * e
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(rows)), Y[rows]] -= 1
    dz = p / len(rows)
    dl = dz * e
    dh = dl @ c.T * (1 - hidden**2)
    return np.concatenate([(x.T @ dh).ravel(), dh.sum(0), (hidden.T @ dl).ravel(), dl.sum(0), (dz * logits).sum(0)])


def reference(optimizer, momentum, *, steps, seed, lr, weight_decay=0.0, prox_mu=0.0, clip_norm=None, correction=0):
    w = w0 = np.float64(PARAMS)
    v, s, t = np.zeros_like(w), np.zeros_like(w), 0
    beta = momentum or 0.9
    for epoch in itertools.count():
        order = _core.permutation(len(X), seed, epoch)
        for at in range(0, len(X), 10):
            if t == steps:
                return w - w0
            g, t = gradient(w, order[at : at + 10]), t + 1
            if clip_norm is not None:
                g *= min(1, clip_norm / np.linalg.norm(g))
            g += correction + weight_decay * w + prox_mu * (w - w0)  # neither is clipped
            if optimizer == "adam":
                v, s = beta * v + (1 - beta) * g, 0.999 * s + 0.001 * g * g
                w = w - lr * v / (1 - beta**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
            else:
                v = momentum * v + g
                w = w - lr * (g + momentum * v if optimizer == "nesterov" else v)


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: ",".join(extra) or "plain")
@pytest.mark.parametrize(("optimizer", "momentum"), OPTIMIZERS)
@pytest.mark.parametrize("batch", [32, 4])
def test_twenty_steps(optimizer, momentum, extra, batch):
    """With an arena for the batch, where params move node by node, and with a smaller one, where they can't."""
    options = {"lr": 0.01 if optimizer == "adam" else 0.1, "seed": 3, **extra}
    result = Trainer(PLAN, batch=batch).fit(
        PARAMS, X, Y, epochs=9, max_steps=20, batch_size=10, optimizer=optimizer, momentum=momentum, **options
    )
    assert result.steps == 20
    close(result.delta, reference(optimizer, momentum, steps=20, **options), 1e-4)


@pytest.mark.parametrize("kind", [{"nesterov": True}, {"adam": True}])
def test_fused_equals_buffered(kind):
    fused_equals_buffered(PLAN, **kind, **({"lr": 1e-3} if "adam" in kind else {}))


@pytest.mark.parametrize("extra", [{}, {"momentum": 0.0, "weight_decay": 0.0}, {"momentum": 0.0, "prox_mu": 0.0}])
@pytest.mark.parametrize("kind", [{}, {"nesterov": True}, {"adam": True, "lr": 1e-3}], ids=str)
def test_a_correction_does_the_same_in_the_fused_path(kind, extra):
    if not kind:
        extra = {"weight_decay": 0.0, "prox_mu": 0.0, **extra}  # plain SGD, and plain SGD with momentum
    fused_equals_buffered(PLAN, correction=CORRECTION, **{**kind, **extra})


def test_a_correction_is_the_gradient_of_a_linear_term():
    """One step of plain SGD on all the data moves by -lr (g + c)."""
    trainer = Trainer(PLAN, batch=len(X))
    for options in ({}, {"momentum": 0.5}):
        delta = trainer.fit(PARAMS, X, Y, batch_size="all", lr=0.25, correction=CORRECTION, **options).delta
        close(delta, -0.25 * (trainer.gradient(PARAMS, X, Y) + CORRECTION), 1e-5)
    plain = trainer.fit(PARAMS, X, Y, epochs=3).delta
    assert (trainer.fit(PARAMS, X, Y, epochs=3, correction=np.zeros_like(PARAMS)).delta == plain).all()


@pytest.mark.parametrize(
    ("correction", "text"),
    [
        (CORRECTION[1:], "correction have shape"),
        (CORRECTION * np.nan, r"correction\[0\] is NaN"),
        ("c", "real numbers"),
    ],
    ids=str,
)
def test_a_correction_is_one_number_a_param(correction, text):
    with pytest.raises(DataError, match=text):
        Trainer(PLAN).fit(PARAMS, X, Y, correction=correction)


def test_nesterov_without_momentum_is_sgd():
    plain, nesterov = (Trainer(PLAN).fit(PARAMS, X, Y, optimizer=name).delta for name in ("sgd", "nesterov"))
    assert (plain == nesterov).all()


def test_adams_first_step_is_lr_whatever_the_gradients_scale():
    delta = Trainer(PLAN).fit(PARAMS, X, Y, optimizer="adam", lr=0.01, batch_size="all").delta
    assert np.allclose(np.abs(delta), 0.01, rtol=1e-3)


def test_moments_start_anew_with_every_fit():
    trainer = Trainer(PLAN)
    first, second = (trainer.fit(PARAMS, X, Y, optimizer="adam", momentum=0.8).delta for _ in range(2))
    assert (first == second).all()


def test_an_unknown_optimizer_is_named():
    with pytest.raises(UsageError, match="unknown optimizer 'adm': did you mean 'adam'"):
        Trainer(PLAN).fit(PARAMS, X, Y, optimizer="adm")


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize(("optimizer", "momentum"), OPTIMIZERS[:5])
def test_torch_agrees(optimizer, momentum, weight_decay):
    torch = pytest.importorskip("torch")
    w = [torch.tensor(t.reshape(p.shape), requires_grad=True) for t, p in zip(
        np.split(PARAMS, np.cumsum([p.size for p in PLAN.params])[:-1]), PLAN.params, strict=True)]  # fmt: skip
    if optimizer == "adam":
        lr, theirs = 0.01, torch.optim.Adam(w, lr=0.01, betas=(momentum, 0.999), weight_decay=weight_decay)
    else:
        lr, nesterov = 0.1, optimizer == "nesterov"
        theirs = torch.optim.SGD(w, lr=0.1, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)
    for epoch in range(4):
        order = _core.permutation(len(X), 5, epoch).astype(np.int64)
        for at in range(0, len(X), 10):
            rows = order[at : at + 10]
            z = (torch.tanh(torch.tensor(X[rows]) @ w[0] + w[1]) @ w[2] + w[3]) * w[4]
            theirs.zero_grad()
            torch.nn.functional.cross_entropy(z, torch.tensor(Y[rows])).backward()
            theirs.step()
    result = Trainer(PLAN).fit(
        PARAMS, X, Y, epochs=4, batch_size=10, lr=lr, momentum=momentum, optimizer=optimizer, seed=5,
        weight_decay=weight_decay,
    )  # fmt: skip
    after = np.concatenate([t.detach().numpy().ravel() for t in w])
    close(result.delta, np.float64(after) - PARAMS, 1e-4)
