"""Pulls through a server or a line that fails: installed whole and checked, or not at all."""

from collections.abc import Callable

import anyio
import pytest

import etcetera as etc
from etcetera.errors import (
    ArchiveError,
    DatasetNotFound,
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NotAllowed,
    RemoteChanged,
    RepositoryNotFound,
    StoreError,
    TruncatedArchive,
)
from etcetera.stores import patience
from tests.datasets import snapshot
from tests.fault_proxy import (
    ALWAYS,
    Fault,
    Rule,
    after,
    answer,
    broken_body,
    edit,
    lose_reply,
    slowly,
    stall,
)
from tests.fault_site import Site, assert_readable
from tests.stores.fake_s3 import Answer
from tests.test_cancellation import without_index

STEP = 1 << 16


async def pulled(site: Site) -> None:
    """Pull, and see that all of it has come."""
    result = await site.pull()
    assert snapshot(result.path) == snapshot(site.source)
    site.assert_clean()


async def refused(site: Site, kind: type[EtceteraError]) -> EtceteraError:
    """Pull what has to fail, over an older dataset, which has to stay."""
    older = await etc.acreate("set", config=site.config())
    (older["train"] / "old").write_text("old")
    before = snapshot(older.root)
    with pytest.raises(kind) as caught:
        await site.pull(force=True)
    assert_readable(caught.value)
    assert snapshot(older.root) == before
    site.assert_clean()
    return caught.value


@pytest.fixture(params=["index", "no index"])
def data(archive: bytes, request: pytest.FixtureRequest) -> bytes:
    """An archive that is read by its index, and one that is read from front to back."""
    return archive if request.param == "index" else without_index(archive)


# Bodies that break off


@pytest.mark.parametrize("reset", [False, True])
async def test_every_body_breaks_off(site: Site, data: bytes, reset: bool) -> None:
    """DN-05: where each answer ends after 64 KiB, the next one begins exactly there."""
    site.put(data)
    site.proxy.plan(Rule("get", broken_body(STEP, reset=reset), times=ALWAYS))
    await pulled(site)
    ranges = [one.headers["range"] for one in site.proxy.seen if one.operation == "get"]
    assert len(set(ranges)) == len(ranges) >= len(data) // STEP


@pytest.mark.parametrize("stop", [0, 1, 1000])
async def test_body_without_a_length(site: Site, archive: bytes, stop: int) -> None:
    """DN-06: a body that tells no length, cut short, is not taken for whole."""
    site.put(archive)
    site.proxy.plan(Rule("get", broken_body(stop, chunked=True), times=3))
    await pulled(site)


@pytest.mark.parametrize(
    "fault",
    [
        lose_reply(),
        lose_reply(reset=False),
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        stall(),
        stall(stop=STEP + 1),
    ],
)
async def test_passing_trouble(
    site: Site, archive: bytes, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DN-05, DN-08: a request that fails in passing, or falls silent, is made again."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 1.0)
    site.put(archive)
    site.proxy.plan(Rule("get", fault), Rule("get", fault, skip=2))
    await pulled(site)


async def test_body_that_comes_slowly(
    site: Site, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DN-08: what comes slowly, but comes, is not asked for again."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 2.0)
    site.put(archive)
    site.proxy.plan(Rule("get", slowly(STEP, 0.1), times=3))
    await pulled(site)
    starts = [one.headers["range"] for one in site.proxy.seen if one.operation == "get"]
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("fault", [broken_body(0), stall(stop=10), answer(503, "SlowDown")])
async def test_one_range_never_comes(
    site: Site, archive: bytes, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DN-09: a range that always fails ends the pull after a number of attempts."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(patience, "ATTEMPTS", 4)
    site.put(archive)
    site.proxy.plan(Rule("get", fault, skip=1, times=ALWAYS))
    with anyio.fail_after(30):
        await refused(site, NetworkError)
    assert site.proxy.count("get") <= 1 + 3 * 4


# Wrong answers


def header(name: str, change: Callable[[str], str]) -> Fault:
    """Say something else in one header."""

    def fault(told: Answer) -> None:
        told.headers[name] = change(told.headers[name])

    return edit(fault)


def everything(data: bytes) -> Fault:
    """Ignore the range."""

    def fault(told: Answer) -> None:
        told.status, told.body, told.length = 200, data, len(data)
        told.headers.pop("content-range")

    return edit(fault)


@pytest.mark.parametrize("page", [b"", b"<html>a proxy says hello</html>"])
async def test_ranges_ignored(site: Site, archive: bytes, page: bytes) -> None:
    """DN-03: a server that always sends everything is refused, and nothing is shifted."""
    site.put(archive)
    site.proxy.plan(Rule("get", everything(page or archive), times=ALWAYS))
    error = await refused(site, StoreError)
    assert "ignores byte ranges" in str(error)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda told: told.replace("bytes ", "bytes 1"), NetworkError),
        (lambda told: told.replace("bytes ", "octets "), StoreError),
        (lambda told: told + "0", RemoteChanged),
        (lambda told: told[:-1], TruncatedArchive),
    ],
    ids=["start", "unit", "longer", "shorter"],
)
async def test_wrong_content_range(
    site: Site, archive: bytes, change: Callable[[str], str], kind: type[EtceteraError]
) -> None:
    """DN-04: other bytes than were asked for, or of another object, are never taken."""
    site.put(archive)
    site.proxy.plan(Rule("get", header("content-range", change), skip=1, times=ALWAYS))
    await refused(site, kind)


async def test_wrong_etag(site: Site, archive: bytes) -> None:
    """DN-12: an answer that names another version ends the pull, whatever its bytes are."""
    site.put(archive)
    site.proxy.plan(Rule("get", header("etag", lambda _: '"another"'), skip=1, times=ALWAYS))
    await refused(site, RemoteChanged)


@pytest.mark.parametrize("conditions", [True, False])
async def test_replaced_between_ranges(site: Site, data: bytes, conditions: bool) -> None:
    """DN-12: an archive that is replaced between two ranges is not mixed with the new one."""
    site.put(data)
    other = bytearray(data)
    other[len(other) // 2] ^= 1

    async def replace() -> None:
        site.put(bytes(other))

    site.proxy.ignored = () if conditions else ("if-match",)
    site.proxy.plan(Rule("get", after(replace), skip=1))
    await refused(site, RemoteChanged)


async def test_deleted_between_ranges(site: Site, data: bytes) -> None:
    """DN-12: an archive that is deleted meanwhile ends the pull."""

    async def delete() -> None:
        site.ask("DELETE", "/set.tgz")

    site.put(data)
    site.proxy.plan(Rule("get", after(delete), skip=1))
    await refused(site, RemoteChanged)


@pytest.mark.parametrize("change", [-1, 1])
async def test_other_size_than_told(site: Site, archive: bytes, change: int) -> None:
    """DN-18: a size that is not that of what comes is an error."""

    def lie(told: Answer) -> None:
        told.length = (told.length or 0) + change

    site.put(archive)
    site.proxy.plan(Rule("head", edit(lie)))
    await refused(site, EtceteraError)


async def test_flipped_bytes(site: Site, data: bytes) -> None:
    """DN-07: one byte that arrives as another one is never installed, wherever it is."""
    site.put(data)
    for part in range(8):
        site.proxy.rules.clear()
        position = (len(data) - 1) * part // 7

        def flip(told: Answer, position: int = position) -> None:
            start = int(told.headers["content-range"][6:].partition("-")[0])
            if start <= position < start + len(told.body):
                body = bytearray(told.body)
                body[position - start] ^= 1
                told.body = bytes(body)

        site.proxy.plan(Rule("get", edit(flip), times=ALWAYS))
        with pytest.raises(ArchiveError) as caught:
            await site.pull()
        assert_readable(caught.value)
        assert not (site.home / "set").exists()
        site.assert_clean()


async def test_encoding_is_not_believed(site: Site, data: bytes) -> None:
    """DN-13, DN-14: what a server calls the encoding of an archive changes nothing."""

    def label(told: Answer) -> None:
        told.headers["content-encoding"] = "gzip"

    site.put(data)
    site.proxy.plan(Rule("any", edit(label), times=ALWAYS))
    await pulled(site)
    assert {one.headers["accept-encoding"] for one in site.proxy.seen} == {"identity"}
    assert not any("partnumber" in str(one.query).lower() for one in site.proxy.seen)


# Refusals


async def test_three_kinds_of_absence(site: Site) -> None:
    """DN-10: no such dataset, no such bucket and no access are told apart."""
    with pytest.raises(DatasetNotFound) as absent:
        await site.pull()
    site.proxy.plan(Rule("head", answer(403)), Rule("list", answer(403, "AccessDenied")))
    with pytest.raises(NotAllowed) as forbidden:
        await site.pull()
    bucket, site.bucket = site.bucket, "no-such-bucket"
    with pytest.raises(RepositoryNotFound) as missing:
        await site.pull()
    site.bucket = bucket
    for caught in (absent, forbidden, missing):
        assert_readable(caught.value)
    assert len({str(caught.value) for caught in (absent, forbidden, missing)}) == 3
    site.assert_clean()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (answer(400, "ExpiredToken"), ExpiredCredentials),
        (answer(403, "AccessDenied"), NotAllowed),
        (answer(403, "RequestTimeTooSkewed"), NotAllowed),
        (answer(412, "PreconditionFailed"), RemoteChanged),
        (answer(416, "InvalidRange"), TruncatedArchive),
    ],
)
async def test_refused_in_the_middle(
    site: Site, archive: bytes, fault: Fault, kind: type[EtceteraError]
) -> None:
    """DN-11: what asking again cannot cure ends the pull at once, with a hint."""
    site.put(archive)
    site.proxy.plan(Rule("get", fault, skip=2, times=ALWAYS))
    await refused(site, kind)
    assert site.proxy.count("get") <= 2 + 3


# A part, and going on


async def test_part_of_a_dataset(site: Site, archive: bytes) -> None:
    """DN-05: a partial pull is as stubborn, and its rest, too."""
    site.put(archive)
    site.proxy.plan(
        Rule("get", broken_body(100, reset=True), times=2),
        Rule("get", answer(503, "SlowDown"), times=2),
        Rule("head", lose_reply()),
    )
    result = await site.pull(include=["data/train/000001.bin"])
    assert result.partial
    name = "data/train/000001.bin"
    assert (result.path / name).read_bytes() == (site.source / name).read_bytes()
    await pulled(site)


async def test_goes_on(site: Site, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-09: what came before the line died is left to the next pull, which goes on."""
    monkeypatch.setattr("etcetera.pulling._WORTH_KEEPING", STEP)
    site.put(archive)
    site.proxy.plan(Rule("get", lose_reply(), skip=2, times=ALWAYS))
    with pytest.raises(NetworkError) as caught:
        await site.pull()
    assert_readable(caught.value)
    assert any("pull it again to go on" in note for note in caught.value.__notes__)
    site.proxy.check()
    site.proxy.rules.clear()
    await pulled(site)
