"""A real OmniDaemon runner, as a process: `python -m tests.runner`, in OmniDaemon's environment.

Two agents, one that always fails. Each line on standard input publishes so many tasks to each; the
end of the input stops it cleanly. It says "ready" and "stopped".
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from omnidaemon import AgentConfig, EventEnvelope, OmniDaemonSDK, PayloadBase, SubscriptionConfig


async def answers(message: dict[str, Any]) -> dict[str, Any]:
    return {"echo": message.get("content")}


async def fails(message: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("no <b>good</b>")


async def main() -> None:
    sdk = OmniDaemonSDK()
    await sdk.start()
    for name, callback in (("echo", answers), ("fuse", fails)):
        config = SubscriptionConfig(consumer_count=1, dlq_retry_limit=1, reclaim_idle_ms=60_000)
        await sdk.register_agent(
            AgentConfig(name=name, topic=f"live.{name}", callback=callback, config=config)
        )
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for number in range(int(line)):
            for name in ("echo", "fuse"):
                payload = PayloadBase(content={"number": number})
                await sdk.publish_task(EventEnvelope(topic=f"live.{name}", payload=payload))
    await sdk.shutdown()
    print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
