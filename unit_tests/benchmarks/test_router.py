"""The simulation of replicas behind a router: its cache, its steps, and what its policies are good for."""

import pytest

from benchmarks.router.policies import POLICIES, SLACK, least_loaded, prefix_affinity, round_robin
from benchmarks.router.replica import MOST_REQUESTS, TOKENS_OF_A_STEP, Call, PrefixCache, Replica, StepCost
from benchmarks.router.simulation import simulate
from benchmarks.router.workload import Session, Turn, Workload
from langchain_eft.diagnostics.plan import step_time
from unit_tests.diagnostics.plan.shapes import cluster, model

CALM = Workload(sessions_per_second=0.5, seconds=20, agents=2, turns=3)


class Second:
    """A replica whose every step takes a second."""

    def seconds(self, requests, positions, prompt_tokens):
        return 1.0


def replica(capacity=100_000):
    return Replica(Second(), PrefixCache(capacity))


def call(session="s", *, prefix=100, session_tokens=50, answer=3, arrival=0.0):
    return Call("agent", prefix, session, session_tokens, answer, arrival)


def run(sessions, policy="round robin", replicas=1, capacity=100_000, **settings):
    servers = [replica(capacity) for _ in range(replicas)]
    return simulate(sessions, servers, POLICIES[policy](), **settings), servers


def session(number, start, *turns, agent=0, prefix=100):
    return Session(number, start, agent, prefix, turns)


def test_a_call_reads_its_prompt_in_one_step_and_gains_a_token_in_each():
    outcome, _ = run([session(0, 5.0, Turn(50, 3, 0.0))])
    (only,) = outcome.calls
    assert (only.arrival, only.first_token, only.end) == (5.0, 6.0, 8.0)
    assert only.cached == 0


def test_a_long_prompt_is_read_in_chunks():
    outcome, _ = run([session(0, 0.0, Turn(3 * TOKENS_OF_A_STEP - 100, 2, 0.0))])
    assert outcome.calls[0].first_token == 3.0


def test_the_next_turn_finds_prompt_and_answer_cached():
    outcome, _ = run([session(0, 0.0, Turn(50, 10, 2.0), Turn(20, 5, 0.0))])
    first, second = outcome.calls
    assert second.arrival == first.end + 2.0
    assert second.prompt == first.prompt + 10 + 20
    assert second.cached == first.prompt + 10


def test_sessions_of_an_agent_share_its_beginning():
    sessions = [session(0, 0.0, Turn(50, 2, 0.0)), session(1, 50.0, Turn(60, 2, 0.0))]
    assert run(sessions)[0].calls[1].cached == 100
    assert run(sessions, shared_prefixes=False)[0].calls[1].cached == 0


def test_memory_is_given_back_and_counted_once():
    _, (server,) = run([session(n, 0.1 * n, Turn(50, 5, 1.0), Turn(30, 5, 1.0)) for n in range(4)])
    kept = 100 + 4 * (50 + 5 + 30 + 5)
    assert server.cache.used == kept
    assert not server.load


def test_what_is_unused_longest_is_forgotten_first():
    cache = PrefixCache(100)
    for name in "abc":
        assert cache.reserve(30)
        cache.keep(name, 30, 30)
    cache.pin("a", 1)
    assert cache.reserve(40), "b goes, and then c; a is in use"
    assert [cache.tokens(name) for name in "abc"] == [30, 0, 30]
    assert not cache.reserve(61)
    assert cache.used <= cache.capacity


def test_a_request_waits_for_room():
    crowded = [session(n, 0.0, Turn(50, 10, 0.0), agent=n) for n in range(2)]
    outcome, _ = run(crowded, capacity=200)
    assert outcome.calls[1].first_token > outcome.calls[0].end


def test_a_request_that_never_fits_is_an_error():
    with pytest.raises(ValueError, match="1 requests found no room"):
        run([session(0, 0.0, Turn(500, 5, 0.0))], capacity=100)


def test_steps_cost_what_the_plan_says():
    models, cards = [model(), model("tuned")], cluster(2)
    cost = StepCost(models, cards)
    assert cost.seconds(8, 8 * 500, 0) == pytest.approx(step_time(models, cards, 8, 500).seconds)
    assert cost.seconds(8, 8 * 500, 1000) > cost.seconds(8, 8 * 500, 0)


def test_a_replica_has_the_memory_of_its_plan(monkeypatch):
    monkeypatch.setattr("langchain_eft.diagnostics.plan.cluster_plan.RESERVED_BYTES", 0)
    server = Replica.of([model()], cluster(1))
    logits = MOST_REQUESTS * 10_000 * (2 + 4) + 3 * MOST_REQUESTS * 10_000 * 4
    assert server.cache.capacity == (1_840_000_000 - 240_000_000 - logits) // 8000


def test_round_robin_takes_turns_and_least_loaded_counts():
    servers = [replica() for _ in range(3)]
    policy = round_robin()
    assert [policy(call(), servers) for _ in range(4)] == [0, 1, 2, 0]
    servers[0].waiting.append(call())
    servers[1].running.append(call())
    assert least_loaded()(call(), servers) == 2


def test_affinity_follows_the_session_then_the_agent_until_a_replica_is_overloaded():
    servers, policy = [replica() for _ in range(3)], prefix_affinity()
    servers[0].waiting.append(call())
    home = policy(call("one"), servers)
    assert home == 1, "the least loaded one, since nobody has seen anything"
    servers[home].waiting.extend([call()] * SLACK)
    assert policy(call("one"), servers) == home
    assert policy(call("two"), servers) == home, "it has the agent's beginning"
    servers[home].waiting.append(call())
    elsewhere = policy(call("one"), servers)
    assert elsewhere == 2
    assert policy(call("one"), servers) == elsewhere, "the session has moved"


def test_workloads_are_equal_for_equal_seeds_only():
    assert CALM.sessions(1) == CALM.sessions(1)
    assert CALM.sessions(1) != CALM.sessions(2)
    assert all(0 <= one.start < 20 and one.turns and one.prefix > 0 for one in CALM.sessions(1))


def test_every_turn_is_answered_whatever_the_policy_and_affinity_finds_most():
    sessions = Workload(sessions_per_second=2.0, seconds=30, agents=4).sessions(3)
    shares = {}
    for policy in POLICIES:
        outcome, _ = run(sessions, policy, replicas=4, capacity=10**6)
        assert len(outcome.calls) == sum(len(each.turns) for each in sessions)
        assert all(one.arrival < one.first_token <= one.end for one in outcome.calls)
        shares[policy] = outcome.cached
    assert shares["prefix affinity"] > max(shares["round robin"], shares["least loaded"]) + 0.05
    assert run(sessions, "prefix affinity", replicas=4)[0].cached == shares["prefix affinity"], (
        "deterministic"
    )
