"""One edge on the endpoint stream: what is sent, and when it counts as acknowledged."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudlet.gateway.envoy.subscription import Assignment, Push, Subscription

A1 = Assignment(1, ("i1",))
A2 = Assignment(2, ())


def started(*names: str) -> Subscription:
    edge = Subscription()
    edge.on_request(names, ())
    return edge


def pushed(edge: Subscription, told: dict[str, Assignment]) -> Push:
    push = edge.next_push(told)
    assert push is not None
    return push


def test_nothing_is_said_before_somebody_told() -> None:
    assert started("a").next_push({}) is None
    assert started("a").next_push({"b": A1}) is None
    assert Subscription().next_push({"a": A1}) is None


def test_an_answer_makes_it_acknowledged() -> None:
    edge = started("a")
    push = pushed(edge, {"a": A1})
    assert not edge.holds("a", 1)
    edge.on_request((), (), push.nonce)
    assert edge.holds("a", 1)
    assert not edge.holds("a", 2)
    assert edge.next_push({"a": A1}) is None


def test_changes_while_an_answer_is_due_are_sent_together_afterwards() -> None:
    edge = started("a", "b")
    first = pushed(edge, {"a": A1})
    assert edge.next_push({"a": A2, "b": A1}) is None
    edge.on_request((), (), first.nonce)
    assert edge.holds("a", 1)
    assert not edge.holds("a", 2)
    assert pushed(edge, {"a": A2, "b": A1}).assignments == {"a": A2, "b": A1}


def test_a_refusal_is_remembered_and_not_repeated() -> None:
    edge = started("a")
    edge.on_request((), (), pushed(edge, {"a": A1}).nonce, "bad")
    assert edge.rejected == {"a": (1, "bad")}
    assert not edge.holds("a", 1)
    assert edge.next_push({"a": A1}) is None
    edge.on_request((), (), pushed(edge, {"a": A2}).nonce)
    assert edge.holds("a", 2)
    assert not edge.rejected


def test_asking_again_and_sending_again_both_send_the_same_once_more() -> None:
    edge = started("a")
    edge.on_request((), (), pushed(edge, {"a": A1}).nonce)
    edge.on_request(["a"], ())
    assert not edge.holds("a", 1)
    edge.on_request((), (), pushed(edge, {"a": A1}).nonce)
    edge.again(["a"])
    assert not edge.holds("a", 1)
    assert pushed(edge, {"a": A1}).assignments == {"a": A1}


def test_an_answer_to_something_older_acknowledges_nothing() -> None:
    edge = started("a")
    push = pushed(edge, {"a": A1})
    edge.again(["a"])
    edge.on_request((), (), push.nonce)
    assert not edge.holds("a", 1)
    edge.on_request((), (), "unknown")
    assert not edge.holds("a", 1)


def test_a_cluster_that_was_left_is_not_sent() -> None:
    edge = started("a")
    edge.on_request((), ["a"])
    assert edge.next_push({"a": A1}) is None


NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), NAMES),
        st.tuples(st.just("unsubscribe"), NAMES),
        st.tuples(st.just("tell"), NAMES),
        st.tuples(st.just("again"), NAMES),
        st.tuples(st.just("answer"), NAMES),
        st.tuples(st.just("refuse"), NAMES),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_what_counts_as_acknowledged_is_what_the_edge_uses(steps: list[tuple[str, str]]) -> None:
    edge, told, used = Subscription(), dict[str, Assignment](), dict[str, Assignment]()
    due: Push | None = None
    for revision, (step, name) in enumerate(steps):
        match step:
            case "subscribe":
                edge.on_request([name], ())
            case "unsubscribe":
                edge.on_request((), [name])
                used.pop(name, None)
            case "tell":
                told[name] = Assignment(revision, ())
            case "again":
                edge.again([name])
            case "answer" | "refuse" if due is not None:
                refused = step == "refuse"
                if not refused:
                    used.update({n: a for n, a in due.assignments.items() if n in edge.names})
                edge.on_request((), (), due.nonce, "no" if refused else "")
                due = None
            case _:
                continue
        push = edge.next_push(told)
        assert push is None or due is None, "one answer at a time"
        due = push or due
        for known, acknowledged in edge.acknowledged.items():
            assert used[known].revision == acknowledged
    while due is not None:
        edge.on_request((), (), due.nonce)
        due = edge.next_push(told)
    assert all(
        edge.holds(name, told[name].revision)
        for name in edge.names
        if name in told and name not in edge.rejected
    )
