"""Work shared among the machines of a Ray cluster.

The only module that imports ray, an optional dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from amfvi.errors import InputError, UsageError
from amfvi.user_modules import send_by_value

__all__ = ["LOCAL", "Cluster", "share"]

LOCAL = "local"
"""Address of a cluster that is started on this machine alone."""

TASKS_PER_WORKER = 4
"""Tasks that are handed out ahead for each worker, so that none waits for the next."""

RETRIES = 3
"""Times that a task whose worker died is begun anew, elsewhere."""


class Cluster:
    """A Ray cluster as a pool of workers.

    It can be given as ``pool=`` to :class:`~amfvi.LogDensity` and :class:`~amfvi.Simulator`. The
    workers need amfvi and the packages that a function imports, in the same versions of Python
    and ray. A task is a pure function of its arguments; where a worker dies, it is begun anew on
    another. The connection stays until the process ends.

    Args:
        address: "auto" for the cluster that ``ray start`` has joined this machine to,
            ``ray://host:port`` from outside, or "local" for one of this machine alone.
        n_workers: of a local cluster; the number of cores if not given.

    Raises:
        UsageError: ray is not installed, or ``n_workers`` for a cluster that there is.
        InputError: there is no cluster at the address.

    Examples:
        >>> cluster = Cluster("local", n_workers=2)  # doctest: +SKIP
        >>> list(cluster.map(abs, [-1, -2]))  # doctest: +SKIP
        [1, 2]
    """

    def __init__(self, address: str = "auto", *, n_workers: int | None = None) -> None:
        self.address = address
        if n_workers is not None and address != LOCAL:
            raise UsageError(f"n_workers= goes with address='local', found {address!r}")
        self._ray = _import_ray()
        if not self._ray.is_initialized():
            self._connect(n_workers)
        self._shared: tuple[Callable[..., Any], Any] | None = None

    @property
    def size(self) -> int:
        """The number of workers that can run at once."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Begin a task; what :meth:`results` takes.

        Args:
            arguments: of the function; one that :meth:`put` gave arrives as what was put.
        """
        return self._task.remote(self._share(function), *arguments)

    def put(self, value: Any) -> Any:
        """Send a value once for several tasks."""
        return self._ray.put(value)

    def results(self, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the number and the value of each task as it ends; all others end with an error.

        Raises:
            InputError: a worker died again and again, or the cluster is gone.
            Exception: what a task raises.
        """
        number = {task: i for i, task in enumerate(tasks)}
        waiting = list(tasks)
        try:
            while waiting:
                done, waiting = self._ray.wait(waiting, num_returns=1)
                yield number[done[0]], self._value(done[0])
        except BaseException:
            for task in waiting:
                self._ray.cancel(task, force=True)
            raise

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[Any]:
        """Yield the function's value for every argument, in their order; errors as ``results``."""
        ahead = TASKS_PER_WORKER * self.size
        tasks: list[Any] = []
        try:
            for argument in arguments:
                tasks.append(self.submit(function, argument))
                if len(tasks) >= ahead:
                    yield self._value(tasks.pop(0))
            while tasks:
                yield self._value(tasks.pop(0))
        finally:
            for task in tasks:
                self._ray.cancel(task, force=True)

    def _connect(self, n_workers: int | None) -> None:
        local: dict[str, Any] = {"num_cpus": n_workers, "include_dashboard": False}
        where: dict[str, Any] = local if self.address == LOCAL else {"address": self.address}
        try:
            self._ray.init(log_to_driver=False, logging_level="error", **where)
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"no Ray cluster at {self.address!r} ({said}); start one with ray start --head, or "
                f"give cluster='local'"
            ) from None

    @property
    def _task(self) -> Any:
        """A function with its arguments as a task that is begun anew where its worker dies."""
        return self._ray.remote(num_cpus=1, max_retries=RETRIES)(_call)

    def _share(self, function: Callable[..., Any]) -> Any:
        """The function, sent once however often it is called."""
        if self._shared is None or self._shared[0] is not function:
            send_by_value(self._ray.cloudpickle)
            self._shared = function, self._ray.put(function)
        return self._shared[1]

    def _value(self, task: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(task)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(f"cluster: {type(error).__name__}: {said}") from None


class Pooled(Protocol):
    """What has workers: a :class:`~amfvi.LogDensity`, a :class:`~amfvi.Simulator`.

    Examples:
        >>> list(Pooled.__annotations__)
        ['pool']
    """

    pool: Any


def share(pooled: Pooled, address: str | None) -> None:
    """Give what has no pool the workers of a cluster, if there is one.

    Raises:
        UsageError, InputError: as :class:`Cluster`.

    Examples:
        >>> from types import SimpleNamespace
        >>> alone = SimpleNamespace(pool=None)
        >>> share(alone, address=None)
        >>> alone.pool is None
        True
    """
    if address is not None and pooled.pool is None:
        pooled.pool = Cluster(address)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    import torch

    torch.set_num_threads(1)  # a worker has one core; sums then round alike anywhere
    return function(*arguments)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"a cluster needs the package ray, which cannot be imported ({error}); install it "
            "with: pip install 'amfvi[ray]'"
        ) from error
    return ray
