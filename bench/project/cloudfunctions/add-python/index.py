from typing import Any


def main_handler(event: dict[str, int], context: Any) -> dict[str, int]:
    return {"sum": event["num1"] + event["num2"]}
