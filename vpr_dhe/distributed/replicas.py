"""Actors of the shards of an index, and calls to them that outlive failures."""

from collections.abc import Callable, Sequence
from itertools import count as counter
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeAlias

from vpr_dhe.distributed.shard_actor import ShardServer
from vpr_dhe.distributed.sharding import Shard
from vpr_dhe.errors import ShardsMissingError
from vpr_dhe.verification.verifier import Verifier

Actor: TypeAlias = Any
"""Handle of a remote `ShardServer`."""
Call: TypeAlias = Callable[[Actor], Any]
"""Function that calls an actor and returns a reference to the result."""

# Time to import PyTorch and open the segments on a busy machine.
_START_S = 120.0
# Pause between retries; calls to an actor that Ray is restarting fail immediately or within two seconds.
_PAUSE_S = 0.2
# Time for which other replicas are preferred after a failure.
_REST_S = 10.0


class NoAnswerError(Exception):
    """No replica of a shard answered."""


class Replicas:
    """Actors of one shard, called in turn; recently failed actors are called last, dead actors never.

    `arguments` are the constructor arguments of the actors; Ray does not keep them, and cannot restart an actor whose
    arguments are gone from the object store (https://github.com/ray-project/ray/issues/53727).
    """

    def __init__(self, actors: Sequence[Actor], arguments: Sequence[Any], timeout_s: float) -> None:
        self._actors, self._arguments, self._timeout_s = list(actors), arguments, timeout_s
        self._rested_at = dict.fromkeys(range(len(actors)), 0.0)
        self._turn = counter()

    def __len__(self) -> int:
        return len(self._actors)

    def start_fault(self) -> str | None:
        """Wait until all actors have opened their segments; the reason if one fails to."""
        from ray.exceptions import GetTimeoutError, RayError

        try:
            _answer([actor.open.remote() for actor in self._actors], _START_S)
        except GetTimeoutError:
            return f"no answer within {_START_S:g} s"
        except RayError as error:
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return None

    def close(self) -> None:
        """End the actors."""
        import ray

        for actor in self._actors:
            ray.kill(actor, no_restart=True)

    def call(self, call: Call) -> Any:
        """Call one actor after the other, repeatedly, until one answers.

        Raises:
            NoAnswerError: if none answers in time, or all are dead.
        """
        from ray.exceptions import ActorDiedError, RayError

        deadline = monotonic() + self._timeout_s
        alive, gone = self._in_turn(), "all its actors are dead"
        while alive:
            for number in tuple(alive):
                try:
                    return self._try(call, number, deadline)
                except ActorDiedError as error:
                    # Actors are restarted without limit, so this one was killed deliberately.
                    alive.remove(number)
                    reason = type(error).__name__
                except ShardsMissingError as error:
                    # Restarted after the index was rewritten; others still have the segments open.
                    alive.remove(number)
                    reason = gone = str(error)
                except RayError as error:
                    # Restarting, unreachable, too slow, or the result was lost with its machine.
                    reason = type(error).__name__
                self._rested_at[number] = monotonic() + _REST_S
                if monotonic() >= deadline:
                    raise NoAnswerError(f"{reason} after {self._timeout_s:g} s")
            sleep(_PAUSE_S)
        raise NoAnswerError(gone)

    def _try(self, call: Call, number: int, deadline: float) -> Any:
        """Call one actor with an equal share of the timeout, which leaves time for the others if it hangs."""
        import ray
        from ray.exceptions import GetTimeoutError

        reference = call(self._actors[number])
        left = deadline - monotonic()
        try:
            return _answer(reference, max(0.0, min(left, self._timeout_s / len(self._actors))))
        except GetTimeoutError:
            # Has no effect on a call that is already running.
            ray.cancel(reference)
            raise

    def _in_turn(self) -> list[int]:
        """Numbers of the actors in calling order, round robin."""
        first, now = next(self._turn), monotonic()
        numbers = range(len(self._actors))
        return sorted(numbers, key=lambda number: (self._rested_at[number] > now, (number - first) % len(numbers)))


def _answer(reference: Any, timeout_s: float) -> Any:
    """Wait for the result of a call, or of several; an error of an actor is raised as it was there, with a note.

    It is raised without the `RayTaskError` that holds it: each would refer to the other, and both to all frames here.
    """
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        cause = error.cause
        cause.add_note(str(error))
    try:
        raise cause
    finally:
        del cause


def start_shards(
    folder: Path, shards: Sequence[Shard], verifier: Verifier | None, replicas: int, timeout_s: float
) -> dict[str, Replicas]:
    """Start the actors: shards are distributed over the machines, replicas of a shard on different machines."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    actors_each = -(-len(shards) * replicas // max(1, len(nodes)))
    # A shard is idle most of the time, so it reserves no processor; Ray restarts it without limit.
    server = ray.remote(num_cpus=0, max_restarts=-1)(ShardServer)
    sent_verifier = ray.put(verifier)

    def start(machine: int, *arguments: Any) -> Actor:
        if not nodes:
            return server.options(scheduling_strategy="SPREAD").remote(*arguments)
        node = nodes[machine % len(nodes)]
        # Soft affinity: if its machine is gone, it is restarted on another.
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        threads = max(1, int(node["Resources"]["CPU"]) // actors_each)
        return server.options(scheduling_strategy=strategy).remote(*arguments, threads)

    started: dict[str, Replicas] = {}
    for number, shard in enumerate(shards):
        arguments = (folder, ray.put(shard), sent_verifier)
        actors = [start(number + replica, *arguments) for replica in range(replicas)]
        started[shard.name] = Replicas(actors, arguments, timeout_s)
    return started
