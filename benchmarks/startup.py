"""How long the commands take that do next to nothing."""

from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.endpoint import REGION
from benchmarks.measure import measure, medians
from benchmarks.peers import etc_command
from benchmarks.transfers import environment, say

LIMIT_SECONDS = 0.150


def run(repeats: int) -> dict[str, Any]:
    """Run each command *repeats* times, each in a process of its own."""
    with data.workspace(data.MiB) as temporary:
        root = Path(temporary)
        variables = environment(root) | {"AWS_EC2_METADATA_DISABLED": "true"}
        home = root / "home"
        for name in ("one", "two"):
            (home / name / "data" / "train").mkdir(parents=True)
        config = root / "etc.toml"
        config.touch(0o600)
        config.write_text(f'url = "s3://bucket"\nregion = "{REGION}"\nhome = "{home}"\n')
        variables["ETC_CONFIG"] = str(config)
        completing = {
            "_ETC_COMPLETE": "complete_bash",
            "COMP_WORDS": "etc pu",
            "COMP_CWORD": "1",
        }
        etc = etc_command()
        commands = {
            "etc --help": ([*etc, "--help"], variables),
            "etc ls": ([*etc, "ls"], variables),
            "completion": (etc, variables | completing),
        }
        rows: dict[str, Any] = {}
        for name, (command, using) in commands.items():
            measure(command, environment=using)  # compiles what was not yet
            runs = [measure(command, environment=using)[0] for _ in range(repeats)]
            rows[name] = {"runs": [one.as_dict() for one in runs]}
            rows[name]["median"] = medians(runs).as_dict()
            say(f"  {name}: {rows[name]['median']['seconds'] * 1000:.0f} ms")
    return rows
