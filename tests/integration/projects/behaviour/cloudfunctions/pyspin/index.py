import asyncio


async def main_handler(event, context):
    if event.get("how") == "await":
        await asyncio.sleep(0.01)
    if event.get("how") == "polite":
        await asyncio.Event().wait()
    while True:
        pass
