"""What must hold when the example project runs on cloudlet.

Each check is a plain function of a World: it raises CheckFailed, or returns one line for people. The demo
and the acceptance test run the same ones. Checks do not depend on each other or on an empty installation.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from tests.acceptance.installation import REPOSITORY, Installation
from tests.acceptance.player import Answer, NoAnswer, Player

PROJECT = REPOSITORY / "examples" / "order-food"
FUNCTIONS = ("dishes", "init", "login", "notify", "order", "report")
USER_A, USER_B, MANAGER = "user-a", "user-b", "manager-lin"

LIMITED, LIMITED_STOCK = "xiaolongbao", 30
PLENTY = "har-gow"

STAGES = ("queue", "schedule", "sandbox", "load", "init", "handler")
"""What a cold start consists of, in order; the edge adds its own sums to these."""

BROKEN_OFF = frozenset({"FUNCTIONS_EXECUTE_FAIL", "SYS_ERR"})
"""What a call may be told whose instance was killed under it: the function failed, or nobody can say."""


class CheckFailed(AssertionError):
    """Something that must hold does not."""


@dataclass
class World:
    """A running installation with the project deployed, and its users."""

    installation: Installation
    _players: dict[str, Player] = field(default_factory=dict)

    def player(self, openid: str) -> Player:
        """The user `openid`, signed in; "" is somebody without a token."""
        if openid not in self._players:
            token = self.installation.token(openid) if openid else ""
            self._players[openid] = Player(self.installation.url, token, openid)
        return self._players[openid]

    def prepare(self, *, fresh: bool = False) -> None:
        """The menu and its stock as at first; orders stay, unless everything shall be `fresh`."""
        result = self.installation.invoke("init", {"managers": [MANAGER], "fresh": fresh})
        require(result.get("success") is True, f"init answered {result}")

    def restart(self) -> float:
        """Start again after a kill; everybody connects anew. Return the seconds it took."""
        self.close()
        return self.installation.start()

    def close(self) -> None:
        """Close all connections of all players."""
        for player in self._players.values():
            player.close()
        self._players.clear()


def require(holds: bool, otherwise: str) -> None:
    """Raise CheckFailed with `otherwise` unless it `holds`."""
    if not holds:
        raise CheckFailed(otherwise)


def same(found: object, wanted: object, what: str) -> None:
    """Raise CheckFailed unless both are equal."""
    require(found == wanted, f"{what}: found {found!r}, wanted {wanted!r}")


def deploying_again_changes_nothing(world: World) -> str:
    before = versions(world)
    same(sorted(before), sorted(FUNCTIONS), "functions deployed")
    summary = world.installation.deploy(PROJECT, "--create-collections")
    same(summary["unchanged"], len(FUNCTIONS), f"functions left alone by a second deploy ({summary})")
    same(versions(world), before, "versions after a second deploy of the same files")
    return f"{len(before)} functions keep their versions, {summary['seconds']:.1f} s"


def users_are_told_apart(world: World) -> str:
    for openid in (USER_A, USER_B, USER_A):
        answer = world.player(openid).call("login", {})
        require(answer.ok, f"login of {openid} answered {answer.word}: {answer.body}")
        same(answer.body["openid"], openid, "OPENID of getWXContext")
        same(answer.body["userInfo"]["openId"], openid, "openId of event.userInfo")
    nobody = world.player("").call("login", {})
    same(nobody.status, 401, f"status without a token ({nobody.body})")
    return f"{USER_A} and {USER_B} are themselves, nobody is refused"


def users_visits_are_counted_once(world: World) -> str:
    user = world.player(USER_A)
    before = user.call("login", {}).body["visits"]
    logins = together([(user, "login", {})] * 10)
    same(Counter(outcome(each) for each in logins), {"ok": 10}, "ten sign-ins at once")
    same(user.call("login", {}).body["visits"], before + 11, "visits after ten sign-ins at once and one more")
    return "10 sign-ins at once, 10 counted"


def the_menu_is_read(world: World) -> str:
    user = world.player(USER_A)
    dim_sum = user.call("dishes", {"action": "list", "category": "dim-sum"})
    same(
        [dish["_id"] for dish in dim_sum.body["dishes"]],
        ["xiaolongbao", "har-gow", "char-siu-bao"],
        "dim sum",
    )
    require(
        all("onSale" not in dish for dish in dim_sum.body["dishes"]), "a field that was left out came back"
    )
    same(found_by(user, "包"), ["xiaolongbao", "char-siu-bao"], "dishes with 包 in their name")
    same(found_by(user, "NOODLES"), ["dan-dan", "beef-noodles"], "search without regard to case")
    same(found_by(user, "spicy?)"), ["beef-noodles"], "search for characters that mean something in patterns")
    same(
        user.call("dishes", {"action": "detail", "id": "none"}).word,
        "no_such_dish",
        "a dish that is not there",
    )
    return "by category in order, by name, one by id"


def orders_belong_to_their_user(world: World) -> str:
    a, b = world.player(USER_A), world.player(USER_B)
    of_a, of_b = order(a, PLENTY, 2), order(b, PLENTY, 1)
    for answer, openid in ((of_a, USER_A), (of_b, USER_B)):
        require(answer.ok, f"the order of {openid} answered {answer.word}: {answer.body}")
        same(answer.body["notified"], openid, "OPENID in the function that the order calls")
    ids_a, ids_b = ids(orders_of(a)), ids(orders_of(b))
    require(
        of_a.body["orderId"] in ids_a and of_b.body["orderId"] in ids_b, "an order is not in its user's list"
    )
    require(not ids_a & ids_b, f"orders in both lists: {ids_a & ids_b}")
    for foreign in ("detail", "cancel"):
        answer = a.call("order", {"action": foreign, "id": of_b.body["orderId"]})
        same(answer.word, "no_such_order", f"A tries to {foreign} an order of B")
    return f"A sees {len(ids_a)} and B {len(ids_b)}, none of them shared"


def cancelling_gives_the_stock_back(world: World) -> str:
    user = world.player(USER_B)
    before = stock(user, PLENTY)
    placed = order(user, PLENTY, 3)
    same(stock(user, PLENTY), before - 3, "stock after an order of 3")
    cancel = {"action": "cancel", "id": placed.body["orderId"]}
    same(user.call("order", cancel).word, "ok", "cancelling")
    same(user.call("order", cancel).word, "no_such_order", "cancelling twice")
    same(stock(user, PLENTY), before, "stock after cancelling")
    return "3 taken, 3 back, and not twice"


def an_order_fails_as_a_whole(world: World) -> str:
    user = world.player(USER_A)
    before = stock(user, PLENTY), len(orders_of(user))
    items = [{"dishId": PLENTY, "count": 5}, {"dishId": "turnip-cake", "count": 1}]
    answer = user.call("order", {"action": "submit", "items": items})
    same(answer.word, "sold_out", "an order with a dish that is not on sale")
    same((stock(user, PLENTY), len(orders_of(user))), before, "stock and orders after it")
    return "the dish that could be had was put back"


def stock_is_exact_under_load(world: World) -> str:
    world.prepare()
    users = [world.player(USER_A), world.player(USER_B)]
    before = [len(orders_of(user)) for user in users]
    calls = [(users[n % 2], "order", submission(LIMITED, 1)) for n in range(50)]
    answers = together(calls)
    words = Counter(outcome(answer) for answer in answers)
    same(words, {"ok": LIMITED_STOCK, "sold_out": 50 - LIMITED_STOCK}, "50 orders at once")
    same(stock(users[0], LIMITED), 0, "stock left")
    placed = [Counter(ok_by_user(calls, answers))[user.openid] for user in users]
    after = [len(orders_of(user)) for user in users]
    same([now - then for now, then in zip(after, before, strict=True)], placed, "orders written for A and B")
    return f"50 orders at once, stock {LIMITED_STOCK}: {words['ok']} placed, {words['sold_out']} sold out"


def the_report_in_python_adds_up(world: World) -> str:
    same(world.player(USER_A).call("report", {}).word, "forbidden", "the report for a customer")
    report = world.player(MANAGER).call("report", {})
    require(report.ok, f"report answered {report.word}: {report.body}")
    placed = [
        each
        for openid in (USER_A, USER_B)
        for each in orders_of(world.player(openid))
        if each["status"] == "placed"
    ]
    found = report.body["orders"], report.body["revenue"]
    same(found, (len(placed), sum(each["total"] for each in placed)), "orders and revenue")
    return f"{found[0]} orders, ¥{found[1] / 100:.2f}"


def bad_calls_are_refused_clearly(world: World) -> str:
    user = world.player(USER_A)
    missing = user.call("no-such-function", {})
    same((missing.status, missing.word), (404, "FUNCTION_NOT_FOUND"), "a function that does not exist")
    broken = user.send("login", b'{"a":')
    require(400 <= broken.status < 500 and "code" in broken.body, f"a body that is no JSON: {broken}")
    stranger = Player(world.installation.url, "not.a.token")
    with stranger:
        same(stranger.call("login", {}).status, 401, "a forged token")
    same(user.call("init", {}).word, "forbidden", "init by a user")
    require(bool(missing.request_id), "an error without x-request-id")
    return "unknown function, broken body, forged token"


def calls_go_on_when_an_instance_is_killed(world: World) -> str:
    users = [world.player(USER_A), world.player(USER_B)]
    calls = [(users[n % 2], "order", submission(PLENTY, 1)) for n in range(120)]
    together(calls[:8])
    alive = world.installation.instances("order")
    require(bool(alive), "no instance of order is there to be killed")
    killed: list[int] = []

    def kill_one(done: int) -> None:
        if done in (20, 50, 80) and alive:
            killed.append(alive.pop())
            os.kill(killed[-1], signal.SIGKILL)

    answers = together(calls, workers=8, after_each=kill_one)
    words = Counter(outcome(answer) for answer in answers)
    broken_off = sum(words.values()) - words["ok"]
    require(set(words) <= {"ok"} | BROKEN_OFF, f"answers nobody may get: {words}")
    most = 8 * len(killed)
    require(broken_off <= most, f"{broken_off} calls suffered, at most the {most} running ones may: {words}")
    for user in users:
        acknowledged = {
            answer.body["orderId"]
            for (caller, _, _), answer in zip(calls, answers, strict=True)
            if caller is user and isinstance(answer, Answer) and answer.ok
        }
        lost = acknowledged - ids(orders_of(user))
        require(not lost, f"orders acknowledged and lost: {lost}")
    gone = f"{len(killed)} instances killed under 120 orders"
    return f"{gone}: {words['ok']} placed, {broken_off} broken off, none lost"


def documents_survive_a_kill_of_everything(world: World) -> str:
    users = [world.player(USER_A), world.player(USER_B)]
    before = {user.openid: ids(orders_of(user)) for user in users}
    killed: list[int] = []

    def kill_all(done: int) -> None:
        if done >= 40 and not killed:
            killed.append(world.installation.pid)
            world.installation.kill()

    calls = [(users[n % 2], "order", submission(PLENTY, 1)) for n in range(120)]
    answers = together(calls, workers=8, after_each=kill_all)
    acknowledged = 0
    for (user, _, _), answer in zip(calls, answers, strict=True):
        if isinstance(answer, Answer) and answer.ok:
            before[user.openid].add(answer.body["orderId"])
            acknowledged += 1
    require(
        40 <= acknowledged < len(calls), f"{acknowledged} of {len(calls)} orders placed: not in the middle"
    )
    seconds = world.restart()
    for openid, wanted in before.items():
        lost = wanted - ids(orders_of(world.player(openid)))
        require(not lost, f"orders of {openid} acknowledged and lost: {lost}")
    return f"kill -9 after {acknowledged} acknowledged orders, ready again in {seconds:.1f} s, none lost"


CHECKS: tuple[Callable[[World], str], ...] = (
    deploying_again_changes_nothing,
    users_are_told_apart,
    users_visits_are_counted_once,
    the_menu_is_read,
    orders_belong_to_their_user,
    cancelling_gives_the_stock_back,
    an_order_fails_as_a_whole,
    stock_is_exact_under_load,
    the_report_in_python_adds_up,
    bad_calls_are_refused_clearly,
    calls_go_on_when_an_instance_is_killed,
    documents_survive_a_kill_of_everything,
)


COLD: tuple[tuple[str, dict[str, Any]], ...] = (("dishes", {"action": "list"}), ("report", {}))
"""Calls that show a cold start: Node.js with an SDK of many modules, Python with none."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What a caller on this machine waits for a warm call, in milliseconds."""

    what: str
    calls: int
    p50_ms: float
    p95_ms: float


def latencies(world: World, calls: int = 100) -> list[Latency]:
    """Measure warm calls, one after the other."""
    user = world.player(USER_A)
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("a function alone", "order", {"action": "none"}),
        ("… reading documents", "dishes", {"action": "list", "category": "dim-sum"}),
        ("… placing an order", "order", submission(PLENTY, 1)),
    ]
    return [_measured(user, calls, *case) for case in cases]


def cold_start(world: World, function: str, data: dict[str, Any]) -> tuple[Answer, Answer]:
    """The manager's first call of a function that nobody has called since the start, and the next call."""
    if world.installation.instances(function):
        world.installation.kill()
        world.restart()
    user = world.player(MANAGER)
    return user.call(function, data), user.call(function, data)


def versions(world: World) -> dict[str, str]:
    """The version each function has now."""
    return {each["name"]: each["version"] for each in world.installation.json("fn", "list")["functions"]}


def submission(dish: str, count: int) -> dict[str, Any]:
    return {"action": "submit", "items": [{"dishId": dish, "count": count}]}


def order(user: Player, dish: str, count: int) -> Answer:
    return user.call("order", submission(dish, count))


def stock(user: Player, dish: str) -> int:
    return int(user.call("dishes", {"action": "detail", "id": dish}).body["dish"]["stock"])


def found_by(user: Player, keyword: str) -> list[str]:
    answer = user.call("dishes", {"action": "search", "keyword": keyword})
    require(answer.ok, f"search for {keyword!r} answered {answer.body}")
    return [dish["_id"] for dish in answer.body["dishes"]]


def orders_of(user: Player) -> list[dict[str, Any]]:
    """All orders that the user is shown, page by page, newest first."""
    orders: list[dict[str, Any]] = []
    while True:
        answer = user.call("order", {"action": "mine", "page": len(orders) // 20, "size": 20})
        require(answer.ok, f"the orders of {user.openid}: {answer.word}: {answer.body}")
        page, total = answer.body["orders"], answer.body["total"]
        orders += page
        if len(orders) >= total:
            same(len(orders), total, f"orders listed and counted for {user.openid}")
            return orders
        same(len(page), 20, f"orders on a page that is not the last, for {user.openid}")


def ids(orders: Iterable[dict[str, Any]]) -> set[str]:
    return {str(each["_id"]) for each in orders}


Call = tuple[Player, str, dict[str, Any]]


def together(
    calls: list[Call], workers: int = 0, after_each: Callable[[int], None] = lambda done: None
) -> list[Answer | NoAnswer]:
    """Make the calls at the same time (at most `workers` at once); return the answers in the order of calls.

    `after_each` is told, on this thread, how many are done.
    """
    with ThreadPoolExecutor(workers or len(calls)) as pool:
        futures = [pool.submit(_one, call) for call in calls]
        for done, _ in enumerate(as_completed(futures), start=1):
            after_each(done)
        return [_result(future) for future in futures]


def outcome(answer: Answer | NoAnswer) -> str:
    """One word for an answer, or for none."""
    return answer.word if isinstance(answer, Answer) else "no answer"


def ok_by_user(calls: list[Call], answers: list[Answer | NoAnswer]) -> list[str]:
    pairs = zip(calls, answers, strict=True)
    return [user.openid for (user, _, _), answer in pairs if isinstance(answer, Answer) and answer.ok]


def _one(call: Call) -> Answer | NoAnswer:
    player, function, data = call
    try:
        return player.call(function, data)
    except NoAnswer as exc:
        return exc


def _result(future: Future[Answer | NoAnswer]) -> Answer | NoAnswer:
    return future.result()


def _measured(user: Player, calls: int, what: str, function: str, data: dict[str, Any]) -> Latency:
    for _ in range(10):
        user.call(function, data)
    times = [user.call(function, data).elapsed_ms for _ in range(calls)]
    return Latency(what, calls, median(times), quantiles(times, n=20)[-1])
