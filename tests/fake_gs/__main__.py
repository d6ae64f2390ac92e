"""Runs the fake server in a process of its own, for measuring what clients take.

python -m tests.fake_gs DIRECTORY [--bucket NAME] [--least-part BYTES]

Writes the key of a service account into the directory. Prints one line of JSON: the endpoint, the
path of that key file, and a token that is good for everything. Ends when its standard input does.
"""

import argparse
import json
import sys
from pathlib import Path

from tests.fake_gs import FakeGS, fake_gs_thread
from tests.fake_gs.model import MIB

_DAY = 24 * 3600


def main() -> int:
    """Run it; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--bucket", default="bucket")
    parser.add_argument("--least-part", type=int, default=5 * MIB)
    arguments = parser.parse_args()
    server = FakeGS(least_part=arguments.least_part)
    # Archives that were replaced would stay in memory.
    server.make_bucket(arguments.bucket, soft_delete_seconds=0)
    token = server.allow(seconds=_DAY)
    with fake_gs_thread(server):
        key = arguments.directory / "key.json"
        key.touch(0o600)
        key.write_text(json.dumps(server.add_account().info(server.endpoint)))
        told = {"endpoint": server.endpoint, "credentials": str(key), "token": token}
        print(json.dumps(told), flush=True)  # noqa: T201 - for whoever started it
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
