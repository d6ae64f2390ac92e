"""Pushes through a server or a line that fails: published whole, or not at all, and told so."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etcetera.errors import (
    AlreadyExists,
    EtceteraError,
    NetworkError,
    StoreError,
)
from etcetera.stores import open_store, patience, s3_publish
from tests.fault_proxy import (
    ALWAYS,
    Fault,
    Rule,
    after,
    answer,
    edit,
    lose_reply,
    reset_upload,
)
from tests.fault_site import Site, assert_readable
from tests.stores.fake_s3 import Answer

INTERNAL = b" \n\n <Error><Code>InternalError</Code><Message>again</Message></Error>"
OLD = b"an older archive"


async def refused(site: Site, kind: type[EtceteraError], **more: Any) -> EtceteraError:
    """Push what has to fail, with an older archive in its place, which has to stay."""
    etag = site.put(OLD)
    with pytest.raises(kind) as caught:
        await site.push(force=True, **more)
    assert_readable(caught.value)
    assert site.stored() == etag
    return caught.value


# Publishing


def say(body: bytes, status: int = 200) -> Fault:
    """Let the server do it, and answer something else."""

    def change(told: Answer) -> None:
        told.status, told.body, told.length = status, body, None

    return edit(change)


@pytest.mark.parametrize(
    "fault",
    [
        answer(200, body=INTERNAL),
        say(INTERNAL),
        answer(200, body=b""),
        say(b""),
        answer(200, body=b"<CompleteMultipartUploadResult><ETa"),
        say(b"<CompleteMultipartUploadResult><ETa"),
        answer(503, "SlowDown"),
        say(b"<Error><Code>NoSuchUpload</Code></Error>", 404),
        lose_reply(),
        reset_upload(10),
    ],
)
async def test_complete_without_a_sensible_answer(site: Site, archive: bytes, fault: Fault) -> None:
    """UP-01, UP-02: whatever Complete answers, looking tells what became of it."""
    site.put(OLD)
    site.proxy.plan(Rule("complete", fault))
    result = await site.push(force=True)
    assert site.stored().strip('"') == result.etag
    assert site.proxy.count("complete") <= 2
    site.assert_clean()
    assert site.content() == archive


async def test_complete_never_works(site: Site) -> None:
    """UP-01, UP-24: an error inside each answer of 200 is never taken for success."""
    site.proxy.plan(Rule("complete", answer(200, body=INTERNAL), times=ALWAYS))
    await refused(site, NetworkError)
    assert site.proxy.count("complete") == s3_publish.ATTEMPTS
    site.assert_clean()


@pytest.mark.parametrize("force", [False, True])
async def test_lost_reply_and_somebody_else(site: Site, archive: bytes, force: bool) -> None:
    """UP-02: what somebody else put there meanwhile is not taken for ours."""

    async def replace() -> None:
        site.put(b"somebody else's")

    site.proxy.plan(Rule("complete", after(replace, answer(500, "InternalError"))))
    if force:
        await site.push(force=True)
        assert site.content() == archive
    else:
        with pytest.raises(AlreadyExists) as caught:
            await site.push()
        assert_readable(caught.value)
        assert site.content() == b"somebody else's"
    site.assert_clean()


@pytest.mark.parametrize(
    ("status", "code"), [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")]
)
async def test_refused_condition(site: Site, status: int, code: str) -> None:
    """UP-19, UP-21: a refused condition ends the push; Complete is not sent again."""
    site.proxy.plan(Rule("complete", answer(status, code)))
    with pytest.raises(AlreadyExists if status == 412 else StoreError) as caught:
        await site.push()
    assert_readable(caught.value)
    assert site.proxy.count("complete") == 1
    assert site.stored() == ""
    site.assert_clean()


async def test_conditions_not_implemented(site: Site, archive: bytes) -> None:
    """UP-22: a server that knows no conditions is asked without one, after another look."""
    site.proxy.plan(Rule("complete", answer(501, "NotImplemented")))
    await site.push()
    assert site.proxy.count("complete") == 2
    assert site.content() == archive
    site.assert_clean()


async def test_cut_afterwards(site: Site) -> None:
    """UP-26: an archive that is shorter than what was sent is told, not taken for published."""

    def shorten(told: Answer) -> None:
        told.length = (told.length or 0) - 1

    site.proxy.plan(Rule("head", edit(shorten), skip=1, times=ALWAYS))
    with pytest.raises(StoreError, match="push it again with --force") as caught:
        await site.push()
    assert_readable(caught.value)
    site.assert_clean()


async def test_etags_that_are_no_md5(site: Site) -> None:
    """UP-27: an ETag is compared with nothing but itself."""

    def rename(told: Answer) -> None:
        if "etag" in told.headers:
            told.headers["etag"] = '"an/encrypted+one=="'

    site.proxy.plan(Rule("head", edit(rename), times=ALWAYS))
    assert (await site.push()).etag == "an/encrypted+one=="
    site.assert_clean()


# Beginning


async def test_lost_upload(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """UP-05: an upload whose reply is lost is told of, and the push goes on with another."""
    site.proxy.plan(Rule("create", lose_reply()))
    await site.push()
    site.assert_clean(uploads=1)
    assert "may be left; look with: aws s3api list-multipart-uploads" in caplog.text
    async with open_store(site.settings) as store:
        soon = datetime.now(UTC) + timedelta(minutes=1)
        (left,) = [one async for one in store.unfinished(soon)]
        await store.abandon(left.key, left.id)
    site.assert_clean()


async def test_upload_never_begins(site: Site) -> None:
    """UP-05: where no reply ever comes, the error says what may be left."""
    site.proxy.plan(Rule("create", lose_reply(), times=ALWAYS))
    error = await refused(site, NetworkError)
    assert any("list-multipart-uploads" in note for note in error.__notes__)
    site.assert_clean(uploads=site.proxy.count("create"))
    assert site.proxy.count("create") == patience.ATTEMPTS
