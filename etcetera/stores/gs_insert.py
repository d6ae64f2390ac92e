"""Objects of Google Storage that are written by one request."""

import json
import secrets

from etcetera.stores import Data, Sent
from etcetera.stores.gs_checksum import encoded
from etcetera.stores.gs_client import Connection, as_json
from etcetera.stores.gs_publish import NONCE, Resource


async def insert(
    connection: Connection,
    key: str,
    data: Data,
    crc32c: int,
    nonce: str,
    condition: str | None = None,
    *,
    public: bool = False,
    sent: Sent | None = None,
    attempts: int | None = None,
) -> Resource:
    """Write an object.

    Args:
        connection: Where to write.
        key: As the bucket calls it.
        data: What it is to hold; never with a Content-Encoding, as servers would unpack it.
        crc32c: Of the data, which the server compares.
        nonce: Tells the object from any other.
        condition: The generation that its name must have, "0" for none; any by default.
        public: Whether everybody may read it.
        sent: Told of bytes as they leave.
        attempts: How often to try.

    Raises:
        Refused: The condition does not hold (412), or there is no bucket (404).
    """
    metadata = {
        "name": key,
        "contentType": "application/gzip",
        "crc32c": encoded(crc32c),
        "metadata": {NONCE: nonce},
    }
    # Nothing of this length, made up now, is in the data by chance.
    boundary = secrets.token_hex(24)
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(metadata)}\r\n--{boundary}\r\nContent-Type: application/gzip\r\n\r\n"
    )
    query = {"uploadType": "multipart"}
    if condition is not None:
        query["ifGenerationMatch"] = condition
    if public:
        query["predefinedAcl"] = "publicRead"
    return await connection.call(
        "POST",
        f"/upload{connection.list_path()}",
        as_json,
        query=query,
        headers={"Content-Type": f"multipart/related; boundary={boundary}"},
        body=(head.encode(), data, f"\r\n--{boundary}--\r\n".encode()),
        sent=sent,
        writes=True,
        expected={404, 409, 412},
        attempts=attempts,
    )
