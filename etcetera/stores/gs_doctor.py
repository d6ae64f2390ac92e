"""What is wrong between here and a bucket of Google Storage."""

from etcetera.findings import Finding
from etcetera.stores.gs_client import Connection


async def examine(
    connection: Connection, prefix: str, *, public: bool, write: bool
) -> list[Finding]:
    """Examine a bucket."""
    return []
