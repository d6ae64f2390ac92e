"""What tests of ``etc doctor`` on S3 servers have in common."""

from etcetera.findings import Finding
from etcetera.settings import RepositorySettings
from etcetera.stores import open_store
from tests.stores.fake_s3 import Answer, FakeS3, Trick

MANY = 20
"""More requests of a kind than there are."""


async def examine(settings: RepositorySettings, *, write: bool = False) -> dict[str, Finding]:
    """Return what is found, by what was looked at; each has one finding."""
    async with open_store(settings) as store:
        findings = await store.examine(write=write)
    assert len({one.check for one in findings}) == len(findings)
    for one in findings:
        assert one.status in ("ok", "unknown") or one.advice, one
        assert "sesame" not in repr(one) and "testing-secret" not in repr(one)
    return {one.check: one for one in findings}


def words(found: dict[str, Finding]) -> dict[str, str]:
    """Return the status of each check."""
    return {check: one.status for check, one in found.items()}


def tricks(fake: FakeS3, operation: str, trick: Answer | Trick) -> None:
    """Answer every request of a kind so."""
    fake.tricks[operation] = [trick] * MANY
