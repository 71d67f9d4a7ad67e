"""The queue's choices against the plainest way to make them, and what one costs while many wait."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.group import GroupKey
from pipelines.request import Lora, TextToImage
from server.engines.held import Held
from server.engines.queue import JobQueue, Offer
from server.engines.ticket import Ticket
from tests.instructions import instructions
from tests.unit.plain_queue import PlainQueue
from tests.unit.test_queue import GROUP_PIXELS, Clock, anyio_backend, ticket

pytestmark = pytest.mark.anyio

__all__ = ["anyio_backend"]

SIDES = (256, 512, 512, 512, 640, 768, 1024, 2048)


class Traffic:
    """Requests of all kinds that come, are taken, drawn, lost and withdrawn, in two queues at once."""

    def __init__(self, seed: int, *, accounts: int, engines: int, sides: tuple[int, ...] = SIDES) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.queue = JobQueue(limit=10**6, limit_per_account=10**6, patience_s=10, clock=self.clock)
        self.plain = PlainQueue(10, self.clock)
        self.accounts = accounts
        self.sides = sides
        self.held: dict[str, list[tuple[Ticket, Ticket]]] = {str(number): [] for number in range(engines)}
        self.resident = {name: {"sd15"} for name in self.held}
        self.twins: dict[str, tuple[Ticket, Ticket]] = {}
        self.choices: list[tuple[str, str] | None] = []

    def request(self) -> TextToImage:
        loras = (Lora(name="style", scale=self.rng.choice((0.5, 0.6))),) if self.rng.random() < 0.2 else ()
        return TextToImage(
            pipeline=self.rng.choice(("sd15", "sd15", "sd15", "sdxl", "kolors", "sd3")),
            prompt="a boat",
            width=self.rng.choice(self.sides),
            height=self.rng.choice(self.sides),
            num_inference_steps=4,
            guidance_scale=5.0,
            seeds=tuple(range(self.rng.choice((1, 1, 1, 2, 4, 10)))),
            loras=loras,
        )

    def put(self) -> None:
        account = min(int(self.rng.expovariate(3 / self.accounts)), self.accounts)
        request = self.request()
        name = str(len(self.twins))
        self.twins[name] = Ticket(request, account, name), Ticket(request, account, name)
        for queue, one in zip((self.queue, self.plain), self.twins[name], strict=True):
            queue.put(one)

    def withdraw(self) -> None:
        one, other = self.rng.choice(list(self.twins.values()))
        self.queue.remove(one)
        self.plain.remove(other)

    def finish(self) -> None:
        name = self.rng.choice(list(self.held))
        if self.held[name]:
            self.held[name].pop(self.rng.randrange(len(self.held[name])))

    def lose(self) -> None:
        name = self.rng.choice(list(self.held))
        lost, self.held[name] = self.held[name], []
        self.resident[name] = {"sd15"}
        self.rng.shuffle(lost)
        for one, other in lost:
            self.queue.put_back(one)
            self.plain.put_back(other)

    def take(self) -> None:
        offers = [self.offer(name) for name in self.held]
        self.rng.shuffle(offers)
        chosen, wanted = self.queue.take(offers), self.plain.take(offers)
        self.choices.append((chosen[0].id, chosen[1]) if chosen else None)
        assert self.choices[-1] == ((wanted[0].id, wanted[1]) if wanted else None)
        assert len(self.queue) == len(self.plain)
        if chosen:
            twin = self.twins[chosen[0].id]
            self.held[chosen[1]].append(twin)
            self.resident[chosen[1]] = {twin[0].request.pipeline, *sorted(self.resident[chosen[1]])[:1]}

    def offer(self, name: str) -> Offer:
        held: Counter[GroupKey] = Counter()
        for one, _ in self.held[name]:
            held[one.key] += one.request.pixels
        return Offer(
            engine=name, group_pixels=GROUP_PIXELS, resident=frozenset(self.resident[name]), held=held
        )

    def run(self, turns: int, *, put: float, lose: float = 0.01) -> None:
        actions: dict[Callable[[], None], float] = {
            self.put: put,
            self.take: 4,
            self.finish: 3,
            self.withdraw: 0.3,
            self.lose: lose,
        }
        self.put()
        for _ in range(turns):
            self.rng.choices(list(actions), list(actions.values()))[0]()
            self.clock.now += self.rng.choice((0, 0, 0.1, 1))


@pytest.mark.parametrize("engines", [1, 3])
@pytest.mark.parametrize("accounts", [1, 4, 30])
@pytest.mark.parametrize("put", [2, 5], ids=["keeps up", "overrun"])
async def test_the_choices_are_those_of_looking_at_everything(
    accounts: int, engines: int, put: float
) -> None:
    traffic = Traffic(accounts + engines, accounts=accounts, engines=engines)
    traffic.run(1000, put=put, lose=0.05)
    taken = [choice for choice in traffic.choices if choice]
    assert len(taken) > 100
    assert len(taken) < len(traffic.choices)


async def test_the_choices_are_the_same_where_every_picture_has_a_size_of_its_own() -> None:
    traffic = Traffic(7, accounts=5, engines=2, sides=tuple(range(64, 1500, 8)))
    traffic.run(1500, put=4)


async def test_the_choices_are_the_same_after_a_queue_has_run_empty() -> None:
    traffic = Traffic(8, accounts=6, engines=2)
    for _ in range(4):
        traffic.run(300, put=3)
        for _ in range(1000):
            traffic.finish()
            traffic.take()
        assert len(traffic.queue) == 0
    assert not traffic.queue._of_pipeline
    assert not traffic.queue._of_group
    assert not traffic.queue._accounts


class Counted(int):
    """A number that counts how often such numbers are compared."""

    comparisons = 0

    def __add__(self, other: int) -> Counted:
        return Counted(int(self) + other)

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return int(self) == other

    __hash__ = int.__hash__


def line(waiting: int, accounts: int, kind: Callable[[int], dict[str, Any]]) -> JobQueue:
    queue = JobQueue(limit=10**6, limit_per_account=10**6, clock=Clock())
    queue._sequence = Counted(0)
    for number in range(waiting):
        queue.put(ticket(1 + number % accounts, **kind(number)))
    return queue


def cost_of_dispatches(queue: JobQueue, many: int = 200) -> tuple[float, float]:
    """The instructions and comparisons of one dispatch, on average; the engine is never quite full."""
    held = Held()
    offer = Offer(engine="gpu", group_pixels=GROUP_PIXELS, resident=frozenset({"sd15"}), held=held)
    assert offer.held is held
    drawn: list[Ticket] = []

    def dispatch() -> None:
        taken = queue.take([offer])
        if taken is None:
            assert drawn
            held.remove(drawn[0].key, drawn.pop(0).request.pixels)
            return
        held.add(taken[0].key, taken[0].request.pixels)
        drawn.append(taken[0])

    for _ in range(100):
        dispatch()
    Counted.comparisons = 0
    counted = instructions(lambda: [dispatch() for _ in range(many)])
    return counted / many, Counted.comparisons / many


def alike(number: int) -> dict[str, Any]:
    return {}


def mixed(number: int) -> dict[str, Any]:
    return {"pipeline": ("sd15", "sdxl", "kolors")[number % 3], "side": (512, 768, 1024)[number % 7 % 3]}


def sizes(number: int) -> dict[str, Any]:
    return {"side": 64 + number % 1999}


KINDS = pytest.mark.parametrize("kind", [alike, mixed, sizes])


@KINDS
@pytest.mark.parametrize("tickets_of_each", [1, 10])
async def test_a_dispatch_costs_nearly_the_same_at_five_hundred_and_at_ten_thousand_waiting(
    kind: Callable[[int], dict[str, Any]], tickets_of_each: int
) -> None:
    def cost(waiting: int) -> tuple[float, float]:
        return cost_of_dispatches(line(waiting, waiting // tickets_of_each, kind), 100)

    few, many = cost(500), cost(10_000)
    assert many[0] < 2 * few[0]
    assert many[1] < 2 * few[1] + 40  # of the order of twice the logarithm, by a few heaps


async def test_looking_at_all_costs_ten_times_as_much_for_ten_times_as_many() -> None:
    """The measure sees what it is to see."""
    clock = Clock()
    costs: list[int] = []
    for waiting in (30, 300):
        plain = PlainQueue(10, clock)
        for number in range(waiting):
            plain.put(ticket(number))
        offer = Offer(engine="gpu", group_pixels=GROUP_PIXELS, resident=frozenset(), held={})
        costs.append(instructions(lambda plain=plain, offer=offer: plain.take([offer])))
    assert costs[1] > 8 * costs[0]


@KINDS
async def test_what_happens_to_one_of_ten_thousand_costs_as_at_five_hundred(
    kind: Callable[[int], dict[str, Any]],
) -> None:
    def costs(waiting: int) -> list[int]:
        queue = line(waiting, waiting // 10, kind)
        tickets = list(queue._tickets.values())
        one, other = tickets[waiting // 2], tickets[waiting // 3]
        lost = ticket(3)
        queue.put(lost)
        queue.remove(lost)
        return [
            instructions(lambda: queue.remove(one)),
            instructions(lambda: queue.put(one)),
            instructions(lambda: queue.put_back(lost)),
            instructions(lambda: queue.remove(other)),
        ]

    for few, many in zip(costs(500), costs(10_000), strict=True):
        assert many < 1.5 * few + 50


async def test_a_thousand_accounts_that_are_passed_are_marked_once() -> None:
    queue = line(1000, 1000, lambda number: {"pipeline": "kolors"})
    offer = Offer(engine="gpu", group_pixels=GROUP_PIXELS, resident=frozenset({"sd15"}), held={})
    costs: list[int] = []
    for _ in range(3):
        queue.put(ticket(5000))
        costs.append(instructions(lambda: queue.take([offer])))
    assert costs[2] < costs[0] / 50


async def test_an_account_that_is_ahead_keeps_its_place_while_others_come_and_go() -> None:
    queue = JobQueue(limit=1000, limit_per_account=1000, clock=Clock())
    offer = Offer(engine="gpu", group_pixels=GROUP_PIXELS, resident=frozenset({"sd15"}), held={})
    for account in (1, 1, 1, 2, 3):
        queue.put(ticket(account))
    order: list[int] = []
    for newcomer in (4, 5, 6):
        taken = queue.take([offer])
        assert taken
        order.append(taken[0].account_id)
        queue.put(ticket(newcomer))
    while taken := queue.take([offer]):
        order.append(taken[0].account_id)
    assert order == [1, 2, 3, 4, 5, 6, 1, 1]
