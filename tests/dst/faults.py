"""Faults: what happens to a federation, one kind after another, until it is healed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefl.device.events import Pause
from edgefl.machine import Stop

from .disks import DeviceDisk
from .host import SILENCE_S, Host
from .hosts import AggregatorHost, DeviceHost
from .link import Connection

if TYPE_CHECKING:
    from .world import World

DRAIN_S = 5.0
FATES = ("power lost before", "power lost after", "full", "error before", "error after")


class Faults:
    """One method a kind, named in schedule.FAULTS."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heard: list[tuple[str, bytes]] = []  # some of what devices have sent, for a replay

    def start(self) -> None:
        if self._world.schedule.faults:
            self._later()

    def _later(self) -> None:
        world = self._world
        world.clock.after(world.rng.expovariate(1 / world.schedule.fault_every_s), self._happen)

    def _happen(self) -> None:
        if self._world.healed_at is not None:
            return
        kind = self._world.rng.choice(self._world.schedule.faults)
        self._world.trace("fault", kind)
        getattr(self, "_" + kind.replace(" ", "_"))()
        self._later()

    def heal(self) -> None:
        """From now on every host that is not gone for good is up, reachable and willing."""
        world = self._world
        world.weather.heal()
        world.broker.up = True
        for host in world.hosts:
            host.partitioned_until, host.die_in = 0.0, None
            host.thaw()
            if host.connection is not None:
                host.connection.stalled_until = 0.0
            host.start()
        for aggregator in world.aggregators:
            aggregator.disk.fate = ""
        for helper in world.helpers:
            helper.disk.fate = ""
        for device in world.devices:
            device.disk.fate, device.fail_next = "", False
            device.feed(Pause(""))
        if world.schedule.lasting.heals:
            for device in world.devices:
                device.recover()

    def hear(self, topic: str, payload: bytes) -> None:
        """A device's update goes by."""
        if len(self._heard) < 200:
            self._heard.append((topic, payload))

    # Processes and disks

    def _host(self) -> Host:
        return self._world.rng.choice(self._world.hosts)

    def _aggregator(self) -> AggregatorHost:
        return self._world.rng.choice(self._world.aggregators)

    def _device(self) -> DeviceHost:
        return self._world.rng.choice(self._world.devices)

    def _kill_device(self) -> None:
        self._device().die("killed")

    def _kill_aggregator(self) -> None:
        self._aggregator().die("killed")

    def _kill_at_an_action(self) -> None:
        self._host().die_in = self._world.rng.randint(0, 8)

    def _disk_error(self) -> None:
        disks = [host.disk for host in self._world.hosts]
        self._world.rng.choice(disks).fate = self._world.rng.choice(FATES)

    def _flip_bit_on_disk(self) -> None:
        rng, device = self._world.rng, self._device()
        rng.choice([self._aggregator().disk, device.disk]).flip(rng.getrandbits(16))

    def _restored_helper(self) -> None:
        """Its disk is put back to a backup, so its operator begins the next epoch of its keys."""
        world, rng = self._world, self._world.rng
        (helper,) = world.helpers
        if not world.losses.may_lose_helper():
            return
        helper.die("its disk is put back")
        helper.disk.restore(rng.randint(1, 5))
        helper.epoch += 1
        for aggregator in world.aggregators:
            aggregator.adopt()

    def _restored_aggregator(self) -> None:
        self._world.losses.restore()

    def _lost_aggregator(self) -> None:
        self._world.losses.lose()

    def _wipe_device(self) -> None:
        device = self._device()
        device.die("its disk is gone")
        device.disk = DeviceDisk()

    def _stop_device(self) -> None:
        """SIGTERM: last words, and no will."""
        device, world = self._device(), self._world
        if device.is_frozen:
            return
        device.feed(Stop())
        starts = device.starts

        def end() -> None:
            if device.starts == starts:
                if device.connection is not None:
                    world.broker.leave(device.connection)
                device.die("was stopped")

        world.clock.after(world.rng.uniform(0, DRAIN_S), end)

    def _leave(self) -> None:
        """For ever, as long as enough devices are left for a round."""
        world = self._world
        left = [device for device in world.devices if not (device.gone or device.handicap or device.is_hostile)]
        if len(left) > max(2, world.schedule.config.min_reports) and world.rng.random() < 0.3:
            device = world.rng.choice(left)
            device.gone = True
            device.die("has left")

    def _clock_jump(self) -> None:
        host = self._host()
        if host.alive:
            host.jump(self._world.rng.choice([1.0, 30.0, 600.0]))

    def _pause(self) -> None:
        device, world = self._device(), self._world
        device.feed(Pause("on battery"))
        world.clock.after(world.rng.uniform(0, 60), lambda: device.feed(Pause("")))

    def _failed_training(self) -> None:
        self._device().fail_next = True

    def _freeze(self) -> None:
        world = self._world
        self._host().freeze(min(world.rng.expovariate(1 / 60), world.schedule.heal_at - world.clock.now))

    # Network and broker

    def _freeze_broker(self) -> None:
        """It accepts and answers nothing for a while, then goes on. A client waits for a sign of life, not longer."""
        world = self._world
        seconds = min(world.rng.expovariate(1 / 60), world.schedule.heal_at - world.clock.now)
        world.weather.frozen_until = max(world.weather.frozen_until, world.clock.now + seconds)
        for host in world.hosts:
            if host.connection is not None:
                world.clock.after(SILENCE_S, lambda c=host.connection: self._miss(c))

    def _miss(self, connection: Connection) -> None:
        if self._world.clock.now < self._world.weather.frozen_until:
            self._world.sever(connection)

    def _cut(self) -> None:
        connection = self._host().connection
        if connection is not None:
            self._world.sever(connection)

    def _partition(self) -> None:
        """What is sent waits; a long one ends the connection."""
        host, world = self._host(), self._world
        seconds = world.rng.expovariate(1 / 30)
        host.partitioned_until = world.clock.now + seconds
        if host.connection is not None:
            host.connection.stalled_until = host.partitioned_until
            if seconds > world.rng.uniform(20, 90):
                world.sever(host.connection)

    def _broker_restart(self) -> None:
        world = self._world
        if not world.broker.up:
            return
        memory = world.rng.choice(["kept", "lost", "old"])
        world.trace("broker", "dies, its memory will be %s", memory)
        for connection in world.broker.crash(memory):
            world.clock.after(world.rng.uniform(0, 1), lambda c=connection: c.client.on_closed(c))
        world.clock.after(world.rng.uniform(0.1, 20), self._broker_back)

    def _broker_back(self) -> None:
        self._world.broker.up = True

    def _snapshot(self) -> None:
        self._world.broker.snapshot()

    def _amnesia(self) -> None:
        """A broker that loses a session closes its connection."""
        host = self._host()
        self._world.broker.forget_session(host.name)
        if host.connection is not None:
            self._world.sever(host.connection)

    def _lose_retained(self) -> None:
        """It loses one of them by a restart, at the least of that connection over which it would come again."""
        world = self._world
        if world.broker.retained:
            del world.broker.retained[world.rng.choice(sorted(world.broker.retained))]
            for aggregator in world.aggregators:
                if aggregator.connection is not None:
                    world.sever(aggregator.connection)

    def _replay(self) -> None:
        """An old update once more, as a broker's restored queue would bring it."""
        for topic, payload in self._world.rng.sample(self._heard, min(3, len(self._heard))):
            self._world.broker.route(topic, payload)
