"""The section [model] of agent.toml: the trained model as files on the device."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Command = Annotated[list[str], Meta(max_length=64)]


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The trained model as files for this device's own programs."""

    file: Annotated[
        str | None,
        Meta(
            description="Replace this ONNX file whenever the aggregator has accepted a model.",
            examples=["/var/lib/edgefl/model.onnx"],
        ),
    ] = None
    personal_file: Annotated[
        str | None,
        Meta(
            description="Replace this ONNX file, beside `file`, when a round brings a model, with the one that the "
            "device keeps for itself: its own, or the received one, whichever is better on examples that it holds out.",
            examples=["/var/lib/edgefl/personal.onnx"],
        ),
    ] = None
    params_file: Annotated[
        str | None,
        Meta(
            description="The same as a NumPy file of float32 numbers, for programs that compute with edgefl.",
            examples=["/var/lib/edgefl/params.npy"],
        ),
    ] = None
    plan_file: Annotated[
        str | None,
        Meta(
            description="The plan that belongs to params_file, a few kB of JSON.",
            examples=["/var/lib/edgefl/plan.json"],
        ),
    ] = None
    every_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1e8,
            description="Seconds between two downloads for these files alone. A model that is fetched for a round is "
            "written at once, without another download.",
        ),
    ] = 3600.0
    only: Annotated[bool, Meta(description="Take models, and train nothing: [data] is not read.")] = False
    mode: Annotated[
        Literal["umask", "0600", "0640", "0644"],
        Meta(description="Permissions of these files; umask: what the agent's process leaves."),
    ] = "umask"
    command: Annotated[
        Command,
        Meta(
            description="A program and its arguments, run without a shell after the files were replaced.",
            examples=[["/usr/bin/systemctl", "reload", "my-app"]],
        ),
    ] = []
    command_s: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds after which that program is killed, with all it has started.")
    ] = 30.0
    pid_file: Annotated[
        str | None,
        Meta(
            description="Send a signal to the process whose number is in this file, after the files were replaced.",
            examples=["/run/my-app.pid"],
        ),
    ] = None
    signal: Annotated[Literal["HUP", "USR1", "USR2", "TERM"], Meta(description="Which signal that process gets.")] = (
        "HUP"
    )

    @property
    def wants_files(self) -> bool:
        return bool(self.file or self.params_file)
