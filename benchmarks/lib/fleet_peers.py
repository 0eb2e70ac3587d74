"""What is timed on a round of FedAvg over simulated devices. Each runs alone in a process, on one thread:

    python fleet_peers.py NAME DATA.npz OPTIONS

OPTIONS is JSON with `devices`, `cohort`, `epochs`, `rounds`, `batch`, `lr`, and for EdgeFL `settings`, `workers` and
`test`. Prints JSON: seconds of each round but the first `WARM`, on the wall and of the processor, the seconds until the
first round's end, and the process's peak memory. Every peer trains McMahan's 2NN on the same examples in the same
split, evaluates nothing unless `test` is set, and begins with the weights of the same ONNX file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false")
os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")

import numpy as np

WARM = 2
SIZES = (784, 200, 200, 10)


class Stopwatch:
    """Notes the end of each round."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._at: list[tuple[float, float]] = []

    def __call__(self, *_: object) -> None:
        self._at.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> dict[str, Any]:
        rounds = np.diff(self._at, axis=0)[WARM:].T
        return {"wall": rounds[0].tolist(), "cpu": rounds[1].tolist(), "first": self._at[0][0] - self._began}


class Task:
    """The examples of each device, and which devices a round asks."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        with np.load(path) as data:
            self.x, self.y, self.model = data["x"], data["y"], data["model"].tobytes()
            self.x_test, self.y_test = data["x_test"], data["y_test"]
        self.options = options
        self.epochs, self.batch, self.lr = options["epochs"], options["batch"], options["lr"]

    @cached_property
    def parts(self) -> list[np.ndarray]:
        """The examples of each device, by index."""
        return np.array_split(np.random.default_rng(0).permutation(len(self.x)), self.options["devices"])

    def cohorts(self) -> Iterator[list[int]]:
        rng = np.random.default_rng(1)
        for _ in range(self.options["rounds"]):
            yield sorted(rng.choice(self.options["devices"], self.options["cohort"], replace=False).tolist())

    def weights(self) -> list[np.ndarray]:
        """W (O, I) and b (O,) by turns."""
        import onnx
        from onnx import numpy_helper

        found = onnx.ModelProto.FromString(self.model).graph.initializer
        return [np.array(numpy_helper.to_array(i)) for i in found]


def edgefl(task: Task) -> Stopwatch:
    """The product's simulator: sessions, coordinator, wire format."""
    import edgefl

    options, done = task.options, Stopwatch()
    test = {"x_test": task.x_test, "y_test": task.y_test} if options["test"] else {}
    data = edgefl.data.Dataset(task.x, task.y, **test)
    edgefl.simulate(
        edgefl.load(task.model), data, devices=options["devices"], rounds=options["rounds"],
        fraction=options["cohort"] / options["devices"], epochs=task.epochs, batch_size=task.batch, lr=task.lr,
        workers=options["workers"], partition=options["partition"], on_round=done, **options["settings"],
    )  # fmt: skip
    return done


def bare(task: Task) -> Stopwatch:
    """Nothing but Trainer.fit over the same steps: no sum, no messages, and the data of each device ready in memory."""
    import edgefl

    model, done = edgefl.load(task.model), Stopwatch()
    trainer = edgefl.Trainer(model.plan, batch=task.batch)
    shares = [(task.x[part], task.y[part]) for part in task.parts]
    for number, cohort in enumerate(task.cohorts()):
        for device in cohort:
            trainer.fit(
                model.params, *shares[device], epochs=task.epochs, batch_size=task.batch, lr=task.lr, seed=number
            )
        done()
    return done


def torch(task: Task) -> Stopwatch:
    """A plain loop: load the global weights, SGD, add up the weighted sum."""
    import torch as t

    net, fit = _torch_net(task)
    shares = [(t.from_numpy(task.x[part]), t.from_numpy(task.y[part])) for part in task.parts]
    current, done = {k: v.clone() for k, v in net.state_dict().items()}, Stopwatch()
    for cohort in task.cohorts():
        total = sum(len(task.parts[device]) for device in cohort)
        sums = {name: t.zeros_like(value) for name, value in current.items()}
        for device in cohort:
            net.load_state_dict(current)
            fit(*shares[device])
            with t.no_grad():
                for name, value in net.state_dict().items():
                    sums[name].add_(value, alpha=len(task.parts[device]) / total)
        current = sums
        done()
    return done


def _torch_net(task: Task) -> tuple[Any, Callable[..., None]]:
    """The net, and what trains it on one device's (x, y)."""
    import torch as t

    t.set_num_threads(1)
    layers = [t.nn.Linear(a, b) for a, b in pairwise(SIZES)]
    for layer, weight, bias in zip(layers, task.weights()[::2], task.weights()[1::2], strict=True):
        layer.weight.data, layer.bias.data = t.from_numpy(weight), t.from_numpy(bias)
    net = t.nn.Sequential(layers[0], t.nn.ReLU(), layers[1], t.nn.ReLU(), layers[2])
    criterion = t.nn.CrossEntropyLoss()

    def fit(x: Any, y: Any) -> None:
        optimizer = t.optim.SGD(net.parameters(), lr=task.lr)
        for _ in range(task.epochs):
            for rows in t.randperm(len(x)).split(task.batch):
                optimizer.zero_grad()
                criterion(net(x[rows]), y[rows]).backward()
                optimizer.step()

    return net, fit


def jax(task: Task) -> Stopwatch:
    """One compiled function a round: vmap over the devices, scan over their steps."""
    import jax as j
    import jax.numpy as jnp

    size = min(map(len, task.parts)) // task.batch * task.batch  # vmap wants equal sizes
    shares = np.stack([part[:size] for part in task.parts])
    x, y = jnp.array(task.x[shares]), jnp.array(task.y[shares])

    def loss(params: list, x: Any, y: Any) -> Any:
        for i in range(0, len(params), 2):
            x = x @ params[i].T + params[i + 1]
            x = x if i == len(params) - 2 else j.nn.relu(x)
        return -j.nn.log_softmax(x)[jnp.arange(len(y)), y].mean()

    def local(params: list, x: Any, y: Any, key: Any) -> list:
        keys = j.random.split(key, task.epochs)
        rows = j.vmap(lambda key: j.random.permutation(key, size))(keys).reshape(-1, task.batch)

        def step(params: list, rows: Any) -> tuple:
            gradient = j.grad(loss)(params, x[rows], y[rows])
            return [p - task.lr * g for p, g in zip(params, gradient, strict=True)], None

        return j.lax.scan(step, params, rows)[0]

    @j.jit
    def round(params: list, cohort: Any, key: Any) -> list:
        keys = j.random.split(key, task.options["cohort"])
        made = j.vmap(local, in_axes=(None, 0, 0, 0))(params, x[cohort], y[cohort], keys)
        return [p.mean(axis=0) for p in made]

    params, done = [jnp.array(w) for w in task.weights()], Stopwatch()
    for number, cohort in enumerate(task.cohorts()):
        params = j.block_until_ready(round(params, jnp.array(cohort), j.random.key(number)))
        done()
    return done


def flower(task: Task) -> Stopwatch:
    """Flower's simulation: one actor of ray, whose clients train as `torch` does."""
    from flwr.client import ClientApp
    from flwr.common import ndarrays_to_parameters
    from flwr.server import ServerApp, ServerAppComponents, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.simulation import run_simulation

    options, done, arguments = task.options, Stopwatch(), sys.argv[2:4]

    class Timed(FedAvg):
        def aggregate_fit(self, *args: Any) -> Any:
            found = super().aggregate_fit(*args)
            done()
            return found

    def server(context: Any) -> Any:
        strategy = Timed(
            fraction_fit=options["cohort"] / options["devices"], fraction_evaluate=0.0,
            min_fit_clients=options["cohort"], min_available_clients=options["devices"],
            initial_parameters=ndarrays_to_parameters(task.weights()),
        )  # fmt: skip
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=options["rounds"]))

    def client(context: Any) -> Any:
        from fleet_peers import flower_client

        return flower_client(*arguments, int(context.node_config["partition-id"]))

    run_simulation(
        ServerApp(server_fn=server), ClientApp(client_fn=client), num_supernodes=options["devices"],
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1}},
    )  # fmt: skip
    return done


def flower_client(path: str, options: str, device: int) -> Any:
    """What trains one device's share, in an actor."""
    import torch as t
    from flwr.client import NumPyClient

    task, net, fit = _actor(path, options)

    class Client(NumPyClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            names = net.state_dict().keys()
            net.load_state_dict({name: t.from_numpy(np.array(v)) for name, v in zip(names, parameters, strict=True)})
            part = task.parts[device]
            fit(t.from_numpy(task.x[part]), t.from_numpy(task.y[part]))
            return [value.numpy() for value in net.state_dict().values()], len(part), {}

    return Client().to_client()


@cache
def _actor(path: str, options: str) -> tuple[Task, Any, Callable[..., None]]:
    task = Task(path, json.loads(options))
    return task, *_torch_net(task)


def pfl(task: Task) -> Stopwatch:
    """pfl-research's simulated backend in one process."""
    import torch as t
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm import FederatedAveraging, NNAlgorithmParams
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data import get_user_sampler
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.internal.ops.selector import set_framework_module
    from pfl.model.pytorch import PyTorchModel

    set_framework_module(__import__("pfl.internal.ops.pytorch_ops", fromlist=["*"]))
    inner, _ = _torch_net(task)

    class Net(t.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = inner

        def loss(self, x: Any, y: Any, eval: bool = False) -> Any:
            return t.nn.functional.cross_entropy(self.net(t.as_tensor(x)), t.as_tensor(y))

        def metrics(self, x: Any, y: Any, eval: bool = False) -> dict[str, Any]:
            return {}

    options, done, net = task.options, Stopwatch(), Net()
    devices = list(range(options["devices"]))

    class Timed(TrainingProcessCallback):
        def after_central_iteration(self, *args: Any, **kwargs: Any) -> Any:
            done()
            return False, __import__("pfl.metrics", fromlist=["Metrics"]).Metrics()

    def share(device: int) -> Any:
        part = task.parts[device]
        return Dataset([t.from_numpy(task.x[part]), t.from_numpy(task.y[part])], user_id=str(device))

    data = FederatedDataset(share, get_user_sampler("random", devices))
    model = PyTorchModel(net, t.optim.SGD, t.optim.SGD(net.parameters(), lr=1.0))
    FederatedAveraging().run(
        NNAlgorithmParams(options["rounds"], options["rounds"] + 1, options["cohort"], 0),
        SimulatedBackend(data, data), model,
        NNTrainHyperParams(local_batch_size=task.batch, local_num_epochs=task.epochs, local_learning_rate=task.lr),
        callbacks=[Timed()], send_metrics_to_platform=False,
    )  # fmt: skip
    return done


PEERS: dict[str, Callable[[Task], Stopwatch]] = {
    "edgefl": edgefl, "bare": bare, "torch": torch, "jax": jax, "flower": flower, "pfl": pfl
}  # fmt: skip


def main(name: str, path: str, options: str) -> None:
    found = PEERS[name](Task(path, json.loads(options))).seconds()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, "rss_mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
