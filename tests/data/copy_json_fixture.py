#!/usr/bin/env python3
"""Copy json-small to a new folder with all times moved. Standard library only.

  copy_json_fixture.py DESTINATION            the moment of capture becomes the present
  copy_json_fixture.py DESTINATION --keep     times as they were (results expire after 24 h)

Only the time fields that OmniDaemon itself writes are moved; what agents returned is left alone.
"""

import argparse
import json
import pathlib
import time

HERE = pathlib.Path(__file__).resolve().parent
TIME_KEYS = {
    "timestamp",
    "saved_at",
    "created_at",
    "expires_at",
    "start_time",
    "last_heartbeat",
    "last_updated",
    "_omnidaemon_start_time",
}


def moved(value, by, inside_result=False):
    if isinstance(value, list):
        return [moved(v, by, inside_result) for v in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, v in value.items():
        if key in TIME_KEYS and isinstance(v, (int, float)) and not isinstance(v, bool) and v > 1e9:
            out[key] = v + by
        elif inside_result and key in ("content", "result"):
            out[key] = v  # the agent's own words
        else:
            out[key] = moved(v, by, inside_result or key == "result")
    return out


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("destination")
    ap.add_argument("--keep", action="store_true")
    args = ap.parse_args()
    source = HERE / "json-small"
    supervisors = json.loads((source / "config.json").read_text("utf-8")).values()
    captured = max(
        s["last_updated"] for s in supervisors if isinstance(s, dict) and "last_updated" in s
    )
    by = 0 if args.keep else time.time() - captured
    target = pathlib.Path(args.destination)
    target.mkdir(parents=True, exist_ok=True)
    for name in ("agents.json", "results.json", "metrics.json", "config.json"):
        data = json.loads((source / name).read_text("utf-8"))
        (target / name).write_text(json.dumps(moved(data, by), indent=2), "utf-8")
    print(f"copied to {target}, times moved by {by:.0f} s")


if __name__ == "__main__":
    main()
