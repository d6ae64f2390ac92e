"""SY-01: thousands of commands beside a model, killed in every way there is."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.model import machine
from tests.model.things import counts, figures, forget_sources


@pytest.fixture(autouse=True)
def sources() -> Iterator[None]:
    """Begin to count, and delete the directories that were registered."""
    counts.clear()
    yield
    forget_sources()


def drive(
    kind: type[machine.Machine], examples: int, record: Callable[[str, object], None]
) -> None:
    """Run *examples* machines of 50 steps each, other ones each time."""
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for what, number in counts.items():
        record(what, number)
    print(f"model: {figures()}")  # noqa: T201


@pytest.mark.timeout(3600)
def test_in_memory(record_property: Callable[[str, object], None]) -> None:
    """SY-01, AS-01, CR-23: commands are cancelled, and lose their line, wherever they wait."""
    drive(machine.MemoryMachine, 150, record_property)


class FileMachine(machine.Machine):
    """One with a repository on the disk, whose commands are killed by the system."""

    def __init__(self) -> None:
        super().__init__()
        (self.directory / "bucket").mkdir()
        self.zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.long.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        """Where the repository is."""
        return f"file://{self.directory}/bucket"

    def teardown(self) -> None:
        """Leave no process behind."""
        self.zygote.communicate()
        super().teardown()

    @rule(data=st.data(), what=machine.commands, step=st.integers(1, 60), again=st.booleans())
    def is_killed(self, data: st.DataObject, what: str, step: int, again: bool) -> None:
        """The process of a command is killed where it changes something for the n-th time."""
        call, repeat = self.any_call(data, what)
        if call.error is None and call.local is not None:
            # On its way to its place, what is new passes where what is old is kept.
            self.maybe_kept.append((call.home, call.local.tree))

        def killed() -> bool:
            config = self.configs[call.home]
            order = [call.function, call.arguments, config.url, str(config.home), step]
            assert self.zygote.stdin is not None
            assert self.zygote.stdout is not None
            self.zygote.stdin.write(f"{json.dumps(order)}\n")
            self.zygote.stdin.flush()
            status = int(self.zygote.stdout.readline())
            assert status in (0, -9) or (status == 1 and call.may_fail), status
            return status == 0

        self.kill(call, killed, repeat if again else None)


@pytest.mark.timeout(3600)
def test_on_a_disk(record_property: Callable[[str, object], None]) -> None:
    """SY-01, CR-03, CR-23: commands are killed by SIGKILL at any change they make to a disk."""
    drive(FileMachine, 50, record_property)
