#!/usr/bin/env python3
"""Load redis-small.jsonl.gz (one JSON line per key) into a Redis server. Standard library only.

  load_redis_fixture.py redis-small.jsonl.gz redis://127.0.0.1:6379/0
  load_redis_fixture.py redis-small.jsonl.gz redis://127.0.0.1:6379/0 --now --flush

--now     moves every time so that the moment of capture becomes the present: key
          expiries, stream ids, the ids kept inside values (original_id, msg_id, the
          fields of retry_counts:*), sorted-set scores, and the time fields that
          OmniDaemon itself writes. What agents returned is left alone.
--shift-ms N   the same with a shift of your choice.
--flush   FLUSHDB first. Without it a key that exists already is replaced.
--limit-results N / --prefix P   keep only N results / rename the "omni:" key prefix.

Without --now/--shift-ms the absolute expiry is kept as it was; keys whose time has
passed are then loaded without an expiry unless --drop-expired is given.
"""

import argparse
import gzip
import json
import re
import socket
import sys
import time
from urllib.parse import unquote, urlparse

TIME_KEYS = {
    "timestamp",
    "saved_at",
    "created_at",
    "failed_at",
    "expires_at",
    "start_time",
    "last_heartbeat",
    "last_updated",
}
ID_KEYS = {"original_id", "msg_id", "stream_id"}
SID = re.compile(r"^(\d{12,14})-(\d+)$")


class Conn:
    """A pipelining RESP client, just enough for this."""

    def __init__(self, url):
        u = urlparse(url)
        self.s = socket.create_connection((u.hostname or "127.0.0.1", u.port or 6379))
        self.f = self.s.makefile("rb")
        self.buf, self.n, self.errors = [], 0, []
        if u.password:
            self.cmd("AUTH", *([unquote(u.username)] if u.username else []), unquote(u.password))
        db = (u.path or "/0").strip("/") or "0"
        self.cmd("SELECT", db)
        self.flush()

    def cmd(self, *a):
        out = [b"*%d\r\n" % len(a)]
        for x in a:
            b = x if isinstance(x, bytes) else str(x).encode("utf-8", "surrogatepass")
            out.append(b"$%d\r\n%s\r\n" % (len(b), b))
        self.buf.append(b"".join(out))
        self.n += 1
        if self.n >= 500:
            self.flush()

    def flush(self):
        self.s.sendall(b"".join(self.buf))
        for _ in range(self.n):
            self._read()
        self.buf, self.n = [], 0

    def _read(self):
        line = self.f.readline().rstrip(b"\r\n")
        t, rest = line[:1], line[1:]
        if t == b"-":
            self.errors.append(rest.decode())
        elif t == b"$" and int(rest) >= 0:
            self.f.read(int(rest) + 2)
        elif t == b"*" and int(rest) > 0:
            for _ in range(int(rest)):
                self._read()


def sid(x, ms):
    m = SID.match(x)
    return f"{int(m[1]) + ms}-{m[2]}" if m else x


def bump(obj, ms, deep=False):
    """Shift the time fields OmniDaemon writes, in the record itself."""
    for k, v in obj.items():
        if k in TIME_KEYS and isinstance(v, (int, float)) and not isinstance(v, bool) and v > 1e9:
            obj[k] = v + ms / 1000
        elif k in ID_KEYS and isinstance(v, str):
            obj[k] = sid(v, ms)
    return obj


def shift_json(text, ms, key):
    try:
        d = json.loads(text)
    except ValueError:
        return text
    if key.endswith(":config:_omnidaemon_start_time") and isinstance(d, (int, float)):
        return json.dumps(d + ms / 1000)
    if not isinstance(d, dict) or (":config:" in key and ":config:supervisor:" not in key):
        return text
    bump(d, ms)
    if ":result:" in key and isinstance(d.get("result"), dict):
        bump(d["result"], ms)  # the envelope; d["result"]["result"] is what the agent returned
    if isinstance(d.get("failed_message"), dict):
        bump(d["failed_message"], ms)
    return json.dumps(d)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("file")
    ap.add_argument("url")
    ap.add_argument("--now", action="store_true")
    ap.add_argument("--shift-ms", type=int, default=0)
    ap.add_argument("--flush", action="store_true")
    ap.add_argument("--drop-expired", action="store_true")
    ap.add_argument("--limit-results", type=int)
    ap.add_argument("--prefix", default="omni")
    a = ap.parse_args()
    c = Conn(a.url)
    if a.flush:
        c.cmd("FLUSHDB")
    op = gzip.open if a.file.endswith(".gz") else open
    n = res = 0
    ms = a.shift_ms
    now = int(time.time() * 1000)
    with op(a.file, "rt", encoding="utf-8") as f:
        meta = json.loads(f.readline())["meta"]
        if a.now:
            ms = now - meta["captured_at_ms"]
        for line in f:
            d = json.loads(line)
            k, t, v, exp = d["key"], d["type"], d["value"], d["pexpireat"]
            if k.startswith("omni:"):
                if k.startswith("omni:result:"):
                    res += 1
                    if a.limit_results is not None and res > a.limit_results:
                        continue
                k = a.prefix + k[4:]
            if exp:
                exp += ms
                if exp <= now:
                    if a.drop_expired:
                        continue
                    exp = None
            c.cmd("DEL", k)
            if t == "string":
                c.cmd("SET", k, shift_json(v, ms, k) if ms else v)
            elif t == "hash":
                flat = []
                for x, y in v.items():
                    if ms and k.startswith("retry_counts:"):
                        x = sid(x, ms)
                    if ms and x == "created_at":
                        y = repr(float(y) + ms / 1000)
                    flat += [x, y]
                c.cmd("HSET", k, *flat)
            elif t == "set":
                c.cmd("SADD", k, *v)
            elif t == "zset":
                for i in range(0, len(v), 200):
                    c.cmd(
                        "ZADD", k, *[x for m, s in v[i : i + 200] for x in (repr(s + ms / 1000), m)]
                    )
            elif t == "list":
                c.cmd("RPUSH", k, *v)
            elif t == "stream":
                info = v["info"]
                for i, fl in v["entries"]:
                    c.cmd(
                        "XADD",
                        k,
                        sid(i, ms),
                        *[shift_json(x, ms, k) if ms and j % 2 else x for j, x in enumerate(fl)],
                    )
                for g in info["groups"]:
                    opt = (
                        ["ENTRIESREAD", g["entries_read"]] if g["entries_read"] is not None else []
                    )
                    c.cmd(
                        "XGROUP",
                        "CREATE",
                        k,
                        g["name"],
                        sid(g["last_delivered_id"], ms),
                        "MKSTREAM",
                        *opt,
                    )
                    for co in g["consumers"]:
                        c.cmd("XGROUP", "CREATECONSUMER", k, g["name"], co["name"])
                        for p in co["pending"]:
                            c.cmd(
                                "XCLAIM",
                                k,
                                g["name"],
                                co["name"],
                                0,
                                sid(p[0], ms),
                                "TIME",
                                p[1] + ms,
                                "RETRYCOUNT",
                                p[2],
                                "FORCE",
                                "JUSTID",
                            )
                if not v["entries"] and not info["groups"]:
                    # a stream with neither entries nor groups: make one and take it away again
                    c.cmd("XGROUP", "CREATE", k, "__load__", "0", "MKSTREAM")
                    c.cmd("XGROUP", "DESTROY", k, "__load__")
                if info["entries_added"] and info["last_generated_id"] != "0-0":
                    c.cmd(
                        "XSETID",
                        k,
                        sid(info["last_generated_id"], ms),
                        "ENTRIESADDED",
                        info["entries_added"],
                        "MAXDELETEDID",
                        sid(info["max_deleted_entry_id"], ms),
                    )
            if exp:
                c.cmd("PEXPIREAT", k, exp)
            n += 1
    c.flush()
    if c.errors:
        sys.exit(f"{len(c.errors)} redis errors, first: {c.errors[0]}")
    print(f"{n} keys loaded, shifted by {ms} ms")


if __name__ == "__main__":
    main()
