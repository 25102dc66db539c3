"""What was sold: for managers only."""

from collections import defaultdict

import cloud


def main_handler(event, context):
    openid = event.get("userInfo", {}).get("openId")
    if not openid or not cloud.find("admins", {"_openid": openid}, limit=1):
        return {"success": False, "reason": "forbidden"}
    return {"success": True, **summary(orders_placed())}


def orders_placed():
    """All standing orders, page by page."""
    page, size = 0, 1000
    while True:
        found = cloud.find(
            "orders",
            {"status": "placed"},
            order={"_id": 1},
            offset=page * size,
            limit=size,
            projection={"lines": 1, "total": 1, "_openid": 1},
        )
        yield from found
        if len(found) < size:
            return
        page += 1


def summary(orders):
    dishes = defaultdict(lambda: {"count": 0, "revenue": 0})
    customers, count, revenue = set(), 0, 0
    for order in orders:
        count += 1
        revenue += order["total"]
        customers.add(order["_openid"])
        for line in order["lines"]:
            dishes[line["dishId"]]["count"] += line["count"]
            dishes[line["dishId"]]["revenue"] += line["count"] * line["price"]
    return {"orders": count, "revenue": revenue, "customers": len(customers), "dishes": dict(dishes)}
