"""Workers on a Ray cluster: plain actors, one for each GPU, or for each core where the sweep is on CPUs.

Nothing of Ray's own recovery is used: an actor that is lost is started again by `jobs.dispatch`, which gives its job to
another meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fastsample.bench.jobs.messages import Lost, Message, Order
from fastsample.bench.jobs.station import Station
from fastsample.bench.request import RequestError
from fastsample.bench.sampling import choose_device

try:
    import ray
except ImportError:
    raise RequestError("--ray needs the package ray: pip install ray") from None

__all__ = ["OnRay"]


class OnRay:
    """Workers on a cluster, as many as are asked for or as it has devices at the start.

    Args:
        order: for them; each has a device of the kind that is here.
        address: of the cluster; `auto` for the one at hand, or one made of this machine.
        count: of workers; None for as many as there are devices.

    Raises:
        RequestError: for a cluster that cannot be had or has no device of the kind.
    """

    def __init__(self, order: Order, address: str, count: int | None) -> None:
        kind = choose_device(order.request.device).type
        self.order = replace(order, request=order.request.model_copy(update={"device": kind}))
        self._all: dict[int, tuple[Any, Any]] = {}  # the actor, and the stream of what it says
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                ray.init(None if address == "auto" else address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:
                raise RequestError(f"no Ray cluster at {address}: {error}") from None
        gpu = kind == "cuda"
        there = int(ray.cluster_resources().get("GPU" if gpu else "CPU", 0))
        if not (count or there):
            self.close()
            raise RequestError(f"the Ray cluster has no {'GPU' if gpu else 'CPU'}; --workers N waits for N of them")
        self.count = count or there
        device = {"num_cpus": 0, "num_gpus": 1} if gpu else {"num_cpus": 1}
        self._station: Any = ray.remote(Station).options(**device, max_restarts=0, max_task_retries=0)
        for number in range(self.count):
            self.again(number)

    def give(self, number: int, job: Any) -> None:
        actor, _ = self._all[number]
        self._all[number] = actor, actor.do.options(num_returns="streaming").remote(job)

    def heard(self, seconds: float | None) -> Iterator[tuple[int, Message]]:
        numbers: dict[Any, int] = {stream: number for number, (_, stream) in self._all.items() if stream is not None}
        heard: list[Any] = ray.wait([*numbers], num_returns=1, timeout=seconds)[0]
        for stream in heard:
            number = numbers[stream]
            try:
                message: Any = ray.get(next(stream))
                yield number, message
            except StopIteration:
                self._all[number] = self._all[number][0], None
            except ray.exceptions.RayError as error:
                yield number, Lost(str(error).splitlines()[0])

    def again(self, number: int) -> None:
        if number in self._all:
            ray.kill(self._all[number][0])
        actor = self._station.remote(self.order)
        self._all[number] = actor, actor.open.options(num_returns="streaming").remote()

    def close(self) -> None:
        for actor, _ in self._all.values():
            ray.kill(actor)
        if self._mine:
            ray.shutdown()
