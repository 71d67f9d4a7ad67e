"""Who waits, who goes next, and to which engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from pipelines.group import GroupKey
from pipelines.request import TextToImage
from server import errors
from server.engines.queue import GROUPS_PER_ENGINE, JobQueue, Offer, Ticket

pytestmark = pytest.mark.anyio

GROUP_PIXELS = 16 * 512 * 512


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def ticket(account_id: int = 1, pipeline: str = "sd15", side: int = 512, pictures: int = 1) -> Ticket:
    request = TextToImage(
        pipeline=pipeline,
        prompt="a boat",
        width=side,
        height=side,
        num_inference_steps=4,
        guidance_scale=5.0,
        seeds=tuple(range(pictures)),
    )
    return Ticket(request, account_id)


def waiting_room(*, limit: int = 1000, limit_per_account: int = 1000, clock: Clock | None = None) -> JobQueue:
    return JobQueue(limit=limit, limit_per_account=limit_per_account, clock=clock or Clock())


def offer(
    engine: str = "gpu", *, resident: str = "sd15", held: Mapping[GroupKey, int] | None = None
) -> Offer:
    return Offer(
        engine=engine,
        group_pixels=GROUP_PIXELS,
        resident=frozenset(resident.split()),
        held=held or {},
    )


def line_up(queue: JobQueue, *tickets: Ticket) -> None:
    for one in tickets:
        queue.put(one)


def take_all(queue: JobQueue, engine: Offer) -> list[Ticket]:
    order: list[Ticket] = []
    while taken := queue.take([engine]):
        order.append(taken[0])
    return order


async def test_tickets_of_one_account_go_in_the_order_in_which_they_came() -> None:
    queue, tickets = waiting_room(), [ticket() for _ in range(5)]
    line_up(queue, *tickets)
    assert take_all(queue, offer()) == tickets
    assert len(queue) == 0


async def test_an_account_with_one_request_goes_second_behind_an_account_with_a_hundred() -> None:
    queue = waiting_room()
    line_up(queue, *(ticket(1) for _ in range(100)))
    line_up(queue, small := ticket(2))
    assert small in take_all(queue, offer())[:2]


async def test_accounts_take_turns() -> None:
    queue = waiting_room()
    line_up(queue, *(ticket(1) for _ in range(3)), *(ticket(2) for _ in range(3)), ticket(3))
    assert [one.account_id for one in take_all(queue, offer())] == [1, 2, 3, 1, 2, 1, 2]


async def test_an_account_that_asks_again_and_again_does_not_overtake_one_that_waits() -> None:
    queue = waiting_room()
    line_up(queue, ticket(1), ticket(1), ticket(2))
    order: list[int] = []
    for _ in range(4):
        taken = queue.take([offer()])
        assert taken is not None
        order.append(taken[0].account_id)
        if taken[0].account_id == 2:
            queue.put(ticket(2))
    assert order.count(1) == 2


async def test_an_account_that_cancelled_its_backlog_is_not_behind_for_it() -> None:
    queue = waiting_room()
    backlog = [ticket(1) for _ in range(50)]
    line_up(queue, *backlog, *(ticket(2) for _ in range(3)))
    for one in backlog:
        queue.remove(one)
    line_up(queue, again := ticket(1))
    assert again in take_all(queue, offer())[:2]


async def test_the_server_refuses_when_all_places_are_taken() -> None:
    queue = waiting_room(limit=2)
    line_up(queue, ticket(1), ticket(2))
    with pytest.raises(errors.QueueFull) as refusal:
        queue.put(ticket(3))
    assert 1 <= refusal.value.retry_after_s <= 60
    assert len(queue) == 2


async def test_one_account_fills_its_own_places_only() -> None:
    queue = waiting_room(limit_per_account=2)
    line_up(queue, ticket(1), ticket(1))
    with pytest.raises(errors.QueueFull):
        queue.refuse_if_full(1)
    queue.put(ticket(2))
    assert len(queue) == 3


async def test_what_was_accepted_before_a_restart_is_taken_beyond_the_bound() -> None:
    queue = waiting_room(limit=1)
    queue.put(ticket())
    queue.put(ticket(), bounded=False)
    assert len(queue) == 2


async def test_a_slow_queue_tells_callers_to_come_back_later_than_a_fast_one() -> None:
    async def told(seconds_per_ticket: float) -> int:
        clock = Clock()
        queue = waiting_room(limit=100, clock=clock)
        line_up(queue, *(ticket() for _ in range(100)))
        for _ in range(50):
            clock.now += seconds_per_ticket
            queue.take([offer()])
            queue.put(ticket())
        with pytest.raises(errors.QueueFull) as refusal:
            queue.put(ticket())
        return refusal.value.retry_after_s

    assert await told(0.05) == 1
    assert 40 <= await told(5.0) <= 60


async def test_removing_a_ticket_touches_no_other() -> None:
    queue, tickets = waiting_room(), [ticket() for _ in range(3)]
    line_up(queue, *tickets)
    queue.remove(tickets[1])
    queue.remove(tickets[1])
    assert take_all(queue, offer()) == [tickets[0], tickets[2]]


async def test_a_waiter_that_is_cancelled_leaves_the_queue() -> None:
    queue, first, second = waiting_room(), ticket(), ticket()
    line_up(queue, first, second)
    waiter = asyncio.create_task(queue.turn(first, 60))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert take_all(queue, offer()) == [second]


async def test_a_waiter_is_told_its_engine() -> None:
    queue, one = waiting_room(), ticket()
    queue.put(one)
    waiter = asyncio.create_task(queue.turn(one, 60))
    queue.take([offer("gpu 7")])
    assert await waiter == "gpu 7"


async def test_a_ticket_that_waited_too_long_is_told_so_and_leaves() -> None:
    queue, late, other = waiting_room(), ticket(), ticket()
    line_up(queue, late, other)
    with pytest.raises(errors.QueueTimeout):
        await queue.turn(late, 0.01)
    assert take_all(queue, offer()) == [other]


async def test_refusing_all_tells_every_waiter_why() -> None:
    queue, tickets = waiting_room(), [ticket(1), ticket(2)]
    line_up(queue, *tickets)
    queue.refuse_all("the device is lost")
    for one in tickets:
        with pytest.raises(errors.Unavailable, match="the device is lost"):
            await queue.turn(one, 60)
    assert len(queue) == 0


async def test_a_ticket_that_is_put_back_goes_before_all_others() -> None:
    queue, lost, others = waiting_room(), ticket(), [ticket(2), ticket(3)]
    line_up(queue, lost, *others)
    queue.take([offer()])
    queue.put_back(lost)
    assert take_all(queue, offer())[0] is lost


async def test_a_resident_pipeline_goes_before_one_that_must_be_loaded() -> None:
    queue = waiting_room()
    line_up(queue, costly := ticket(pipeline="kolors"), cheap := ticket())
    assert take_all(queue, offer()) == [cheap, costly]


async def test_a_running_group_is_joined_before_another_one_is_begun() -> None:
    queue = waiting_room()
    line_up(queue, other := ticket(1, side=768), joining := ticket(2))
    running = offer(held={ticket().key: 512 * 512})
    assert take_all(queue, running) == [joining, other]


async def test_joining_a_group_does_not_win_over_another_accounts_turn() -> None:
    queue = waiting_room()
    line_up(queue, *(ticket(1) for _ in range(9)), other := ticket(2, side=768))
    assert other in take_all(queue, offer(held={ticket().key: 512 * 512}))[:2]


async def test_a_ticket_goes_to_the_engine_that_has_its_pipeline() -> None:
    queue, one = waiting_room(), ticket(pipeline="kolors")
    queue.put(one)
    assert queue.take([offer("a"), offer("b", resident="kolors")]) == (one, "b")


async def test_a_ticket_goes_to_a_free_engine_rather_than_wait_for_the_one_with_its_pipeline() -> None:
    queue, one = waiting_room(), ticket(pipeline="kolors")
    queue.put(one)
    full = offer("b", resident="kolors", held={one.key: GROUP_PIXELS})
    assert queue.take([offer("a"), full]) == (one, "a")


async def test_a_free_engine_is_taken_before_a_busy_one() -> None:
    queue, one = waiting_room(), ticket()
    queue.put(one)
    assert queue.take([offer("a", held={one.key: 512 * 512}), offer("b")]) == (one, "b")


async def test_among_busy_engines_the_one_that_runs_the_same_group_is_taken() -> None:
    queue, one = waiting_room(), ticket()
    queue.put(one)
    apart, same = {ticket(side=768).key: 768 * 768}, {one.key: GROUP_PIXELS // 2}
    assert queue.take([offer("a", held=apart), offer("b", held=same)]) == (one, "b")


async def test_a_full_engine_takes_nothing() -> None:
    queue = waiting_room()
    queue.put(ticket())
    full = {GroupKey("kolors", "denoise", 1024, 1024): GROUPS_PER_ENGINE * GROUP_PIXELS}
    assert queue.take([offer(held=full)]) is None
    assert queue.take([]) is None
    assert len(queue) == 1


async def test_an_engine_without_work_takes_a_request_larger_than_its_group() -> None:
    queue, huge = waiting_room(), ticket(side=2048, pictures=10)
    queue.put(huge)
    assert huge.request.pixels > GROUPS_PER_ENGINE * GROUP_PIXELS
    assert take_all(queue, offer()) == [huge]


async def test_beside_a_full_group_a_request_for_another_pipeline_finds_room() -> None:
    queue = waiting_room()
    line_up(queue, same := ticket(1), other := ticket(2, pipeline="kolors"))
    full_group = offer(resident="sd15 kolors", held={same.key: GROUP_PIXELS})
    assert take_all(queue, full_group) == [other]


async def test_a_ticket_that_does_not_fit_lets_others_past() -> None:
    queue = waiting_room()
    line_up(queue, huge := ticket(1, side=2048, pictures=4), small := ticket(2))
    busy = offer(held={small.key: 512 * 512})
    assert take_all(queue, busy) == [small]
    assert take_all(queue, offer()) == [huge]


async def test_a_ticket_that_was_passed_for_too_long_has_an_engine_emptied_for_it() -> None:
    clock = Clock()
    queue = waiting_room(clock=clock)
    line_up(queue, huge := ticket(1, side=2048, pictures=4), ticket(2))
    busy = offer(held={ticket().key: 512 * 512})
    assert queue.take([busy]) is not None
    clock.now += 60
    line_up(queue, small := ticket(2))
    assert queue.take([busy]) is None
    assert take_all(queue, offer()) == [huge, small]


async def test_only_the_emptiest_engine_is_kept_free_for_an_overdue_ticket() -> None:
    clock = Clock()
    queue = waiting_room(clock=clock)
    line_up(queue, ticket(1, side=2048, pictures=4), ticket(2))
    emptier, fuller = (
        offer("a", held={ticket().key: 512 * 512}),
        offer("b", held={ticket().key: 2 * 512 * 512}),
    )
    queue.take([emptier])
    clock.now += 60
    line_up(queue, small := ticket(2))
    assert queue.take([emptier, fuller]) == (small, "b")


async def test_a_pipeline_that_must_be_loaded_is_not_passed_for_ever() -> None:
    clock = Clock()
    queue = waiting_room(clock=clock)
    line_up(queue, costly := ticket(1, pipeline="kolors"))
    for _ in range(100):
        queue.put(ticket(2))
        clock.now += 1
        taken = queue.take([offer()])
        assert taken is not None
        if taken[0] is costly:
            break
    assert costly.taken.done()
    assert clock.now <= 12


async def test_who_waits_for_places_in_its_own_group_does_not_hold_up_other_groups() -> None:
    clock = Clock()
    queue = waiting_room(clock=clock)
    full = offer(resident="sd15 kolors", held={ticket().key: GROUP_PIXELS})
    line_up(queue, ticket(1), ticket(2, pipeline="kolors"))
    assert queue.take([full]) is not None
    clock.now += 60
    line_up(queue, other := ticket(2, pipeline="kolors"))
    assert queue.take([full]) == (other, "gpu")
