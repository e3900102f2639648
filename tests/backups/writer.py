"""OmniDaemon's own store, written without a pause: `python -m tests.backups.writer KIND WHERE`.

Each record says twice which write it is of, so that a torn one shows. It says "ready", and at the
end of its input the number of the last write.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from omnidaemon.storage.base import BaseStore
from omnidaemon.storage.json_store import JSONStore
from omnidaemon.storage.redis_store import RedisStore

RESULTS, KEYS, AGENTS = 40, 5, 7


def body(number: int) -> dict[str, Any]:
    return {"n": number, "pad": "x" * (number % 500), "again": number}


async def write(store: BaseStore, number: int) -> None:
    one = body(number)
    await store.save_metric(one)
    await store.save_result(f"r{number % RESULTS}", one, 3600)
    await store.save_config(f"k{number % KEYS}", one)
    said = f"{number} {'x' * (number % 500)} {number}"
    await store.add_agent("t", {"name": f"a{number % AGENTS}", "description": said})


async def main(kind: str, where: str) -> None:
    store: BaseStore = JSONStore(where) if kind == "json" else RedisStore(where, "omni")
    await store.connect()
    number = 0
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    while not over.done():
        number += 1
        await write(store, number)
        if number == RESULTS:
            print("ready", flush=True)
        await asyncio.sleep(0)
    await store.close()
    print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
