"""Parts that fail, stall or are refused on their way, and pushes that go on or give up."""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

import etcetera as etc
from etcetera.errors import (
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NotAllowed,
    StoreError,
)
from etcetera.stores import patience, s3_client
from etcetera.transfer.journal import Journal
from tests.datasets import settle, snapshot
from tests.fault_proxy import (
    ALWAYS,
    Fault,
    Rule,
    after,
    answer,
    broken_body,
    damage_upload,
    edit,
    lose_reply,
    reset_upload,
    stall,
)
from tests.fault_site import PART, Site
from tests.faults.test_push import INTERNAL, refused
from tests.servers import RCLONE_BUCKET, S3Server
from tests.stores.fake_s3 import Answer


@pytest.mark.parametrize(
    "fault",
    [
        reset_upload(PART // 2),
        reset_upload(PART),
        lose_reply(),
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        answer(408),
        answer(400, "RequestTimeout"),
        answer(400, "BadDigest"),
    ],
)
async def test_part_is_sent_again(site: Site, archive: bytes, fault: Fault) -> None:
    """UP-06: a part that fails in passing is sent again, the same bytes, once."""
    site.proxy.plan(Rule("part", fault, skip=3))
    await site.push()
    parts: dict[str, set[bytes]] = {}
    for request in site.proxy.seen:
        if request.operation == "part" and len(request.body) == PART:
            parts.setdefault(request.query["partNumber"][0], set()).add(request.body)
    assert {len(bodies) for bodies in parts.values()} == {1}
    assert site.proxy.count("part") == 6
    assert site.proxy.count("complete") == 1
    site.assert_clean()
    assert site.content() == archive


async def test_stalled_part(site: Site, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-06: a part that is not answered for long is sent again."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 1.0)
    site.proxy.plan(Rule("part", stall(), skip=3))
    await site.push()
    assert site.content() == archive
    site.assert_clean()


async def test_slow_server(site: Site, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-29: a server that takes its time, but less than is silence, gets each part once."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 5.0)

    async def wait() -> None:
        await anyio.sleep(0.2)

    site.proxy.plan(Rule("part", after(wait), times=5))
    await site.push()
    assert site.proxy.count("part") == 5
    assert site.content() == archive


async def test_trouble_that_passes(site: Site, archive: bytes) -> None:
    """UP-30: a server that refuses everything for a while is waited for."""
    site.proxy.plan(Rule("any", answer(503, "SlowDown"), skip=3, times=6))
    await site.push()
    assert site.content() == archive
    site.assert_clean()


async def test_trouble_for_ever(site: Site) -> None:
    """UP-10, UP-30: trouble without end is given up, after a number of requests that is bounded."""
    site.proxy.plan(Rule("any", answer(503, "SlowDown"), skip=3, times=ALWAYS))
    error = await refused(site, NetworkError)
    (note,) = error.__notes__
    assert "aws s3api abort-multipart-upload" in note
    workers = 3
    assert site.proxy.count("part") <= 1 + workers * patience.ATTEMPTS
    assert site.proxy.count("abort") <= patience.ATTEMPTS
    assert site.proxy.count("complete") == 0
    site.assert_clean(uploads=1)


async def test_line_dies(site: Site) -> None:
    """UP-10, UP-25: once nothing comes through, the error names the upload that is left."""
    site.proxy.plan(Rule("any", reset_upload(0), skip=4, times=ALWAYS))
    error = await refused(site, NetworkError)
    assert "reset by peer" in str(error)
    (note,) = error.__notes__
    assert "the upload" in note
    assert "is left" in note
    site.assert_clean(uploads=1)


async def test_silence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-29: a server that falls silent for good is noticed at each attempt, and given up."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(patience, "ATTEMPTS", 3)
    site.proxy.plan(Rule("part", stall(), skip=1, times=ALWAYS))
    with anyio.fail_after(20):
        error = await refused(site, NetworkError)
    assert "does not answer in time" in str(error)
    site.assert_clean()


async def test_continue_is_neither_asked_for_nor_waited_for(
    site: Site, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UP-06: no server that never says "100 Continue" can hang a push, even if it were asked to."""
    await site.push()
    assert site.content() == archive
    assert not any("expect" in request.headers for request in site.proxy.seen)

    def keep(request: object, **_: object) -> None:
        """Let aiohttp wait, as it does without a timeout."""

    monkeypatch.setattr(s3_client, "_drop_expect", keep)
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 0.7)
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    with anyio.fail_after(20), pytest.raises(NetworkError, match="does not answer in time"):
        await site.push(force=True)
    assert any("expect" in request.headers for request in site.proxy.seen)
    assert site.content() == archive
    site.assert_clean()


async def test_damaged_on_the_way(
    site: Site, archive: bytes, rclone: S3Server, rclone_directory: Path
) -> None:
    """UP-07: a part that arrives damaged is refused for its checksum, and sent again."""
    checking = Site(
        proxy=site.proxy, server=rclone, home=site.home, source=site.source, bucket=RCLONE_BUCKET
    )
    url = urlsplit(rclone.endpoint)
    site.proxy.upstream = url.hostname or "", url.port or 0
    keys: dict[str, Any] = {"aws_access_key_id": rclone.key, "aws_secret_access_key": rclone.secret}
    site.proxy.plan(Rule("part", damage_upload(1000), skip=2))
    await checking.push(**keys)
    assert site.proxy.count("part") == 6
    assert (rclone_directory / RCLONE_BUCKET / "set.tgz").read_bytes() == archive


async def test_wrong_etag(site: Site) -> None:
    """UP-07: a part that the server has under another ETag than it said is never published."""

    def other(told: Answer) -> None:
        told.headers["etag"] = '"0123456789abcdef0123456789abcdef"'

    site.proxy.plan(Rule("part", edit(other), skip=2))
    error = await refused(site, StoreError)
    assert "InvalidPart" in str(error)
    assert site.proxy.count("complete") == 1
    site.assert_clean()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (answer(403, "AccessDenied"), NotAllowed),
        (answer(400, "ExpiredToken"), ExpiredCredentials),
        (answer(400, "EntityTooLarge"), StoreError),
        (answer(404, "NoSuchUpload"), StoreError),
    ],
)
async def test_refused_part(site: Site, fault: Fault, kind: type[EtceteraError]) -> None:
    """UP-24, AU-09: a part that is refused ends the push at once, and the upload is removed."""
    site.proxy.plan(Rule("part", fault, skip=3))
    error = await refused(site, kind)
    assert not hasattr(error, "__notes__")
    assert site.proxy.count("part") <= 5
    assert site.proxy.count("complete") == 0
    site.assert_clean()


async def test_expired_for_good(site: Site) -> None:
    """AU-09: expired in the middle, not even the upload can be removed: its id is told."""
    site.proxy.plan(Rule("any", answer(400, "ExpiredToken"), skip=5, times=ALWAYS))
    error = await refused(site, ExpiredCredentials)
    (note,) = error.__notes__
    assert "--upload-id" in note
    assert site.proxy.count("abort") == 1
    site.assert_clean(uploads=1)


@pytest.mark.parametrize("fault", [reset_upload(0), answer(400, "ExpiredToken")])
async def test_goes_on(
    site: Site, archive: bytes, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UP-06, AU-09: what a journal keeps is gone on with, and no part that is there sent again."""
    monkeypatch.setattr(Journal.__init__, "__defaults__", (PART,))

    async def saved() -> None:
        while not list(site.home.glob(".etcetera/journals/*/checkpoint")):  # noqa: ASYNC110
            await anyio.sleep(0.01)

    site.proxy.plan(Rule("part", after(saved, fault), where="partNumber=4", times=ALWAYS))
    with pytest.raises((NetworkError, ExpiredCredentials)) as caught:
        await site.push()
    assert any("give the same command again" in note for note in caught.value.__notes__)
    site.assert_clean(uploads=1)
    site.proxy.check()
    site.proxy.rules.clear()
    site.proxy.seen.clear()
    result = await site.push()
    assert result.resumed >= PART
    assert site.proxy.count("part") == 5 - result.resumed // PART
    assert site.content() == archive
    site.assert_clean()


# Updates


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("copy", answer(200, body=INTERNAL)),
        ("copy", lose_reply()),
        ("copy", answer(503, "SlowDown")),
        ("copy", answer(501, "NotImplemented")),
        ("get", broken_body(1000, reset=True)),
        ("parts", answer(500, "InternalError")),
    ],
)
async def test_update(
    site: Site, operation: str, fault: Fault, tmp_path: Path, archive: bytes
) -> None:
    """UP-24: an update whose copies or listings fail ends in the new archive, or sends it all."""
    site.put(archive)
    newer = tmp_path / "newer"
    shutil.copytree(site.source, newer)
    (newer / "data" / "train" / "new.bin").write_bytes(b"new")
    settle(newer)
    await etc.aregister(newer, "set", config=site.config())
    # Nothing is copied from what nobody here has checked.
    assert (await etc.averify("set", True, site.config())).problem is None
    site.proxy.plan(Rule(operation, fault))
    result = await etc.apush("set", force=True, config=site.config())
    assert (result.copied > 0) == (result.why_whole is None)
    site.assert_clean()
    pulled = await site.pull(force=True)
    assert snapshot(pulled.path) == snapshot(newer)
