import os


def main_handler(event, context):
    print("pyecho called")
    return {
        "event": event,
        "openid": os.environ.get("WX_OPENID"),
        "request_id": context["request_id"],
        "function_name": context["function_name"],
    }
