from typing import Any


def main(request: Any) -> dict[str, int]:
    event = request.get_json()
    return {"sum": event["num1"] + event["num2"]}
