"""Objects behind URLs: ranges or one stream, pinned, redirected, refused."""

import asyncio
import random
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from etcetera.errors import (
    ConfigError,
    DatasetNotFound,
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NotAllowed,
    RemoteChanged,
    StoreError,
    TruncatedArchive,
    UsageError,
)
from etcetera.stores import PinnedRange, RemoteObject, open_url
from etcetera.stores.http import REDIRECTS
from tests.http_server import Reply, Trick, WebServer, certify, changing, cut, redirect, web_server

DATA = random.Random(1).randbytes(300_000)
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
LAST_MODIFIED = "Wed, 01 Oct 2025 10:00:00 GMT"
LATER = "Wed, 01 Oct 2025 10:01:00 GMT"
TOO_SOON = "Wed, 01 Oct 2025 10:00:59 GMT"


@pytest.fixture
def server() -> Iterator[WebServer]:
    """Run a server with one file."""
    with web_server() as running:
        running.files["/set.tgz"] = DATA
        yield running


async def read_in_pieces(remote: RemoteObject, piece: int = 70_000) -> bytes:
    """Read an object as a pull does: several reads at once, begun in order."""
    starts = range(0, remote.info.size, piece)
    found = await asyncio.gather(
        *(remote.read(start, min(start + piece, remote.info.size)) for start in starts)
    )
    return b"".join(found)


async def read(url: str, part: PinnedRange | None = None) -> bytes:
    """Open and read everything."""
    async with open_url(url, part) as remote:
        return await read_in_pieces(remote)


async def refusal(url: str, part: PinnedRange | None = None) -> EtceteraError:
    """Return the error, in which nowhere a secret stands."""
    with pytest.raises(EtceteraError) as caught:
        await read(url, part)
    told = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in told
    assert "Signature" not in told
    return caught.value


async def test_ranges(server: WebServer) -> None:
    """Where there are ranges, each read is one, pinned to the version that was opened."""
    async with open_url(server.url("/set.tgz")) as remote:
        assert remote.info.size == len(DATA)
        assert await remote.read(100, 200) == DATA[100:200]
        assert await remote.read(299_000, 300_000) == DATA[299_000:]
        assert await remote.read(7, 7) == b""
    asked = [(one.headers["range"], one.headers.get("if-match")) for one in server.seen]
    etag = f'"{remote.info.etag.strip(chr(34))}"'
    assert asked == [
        ("bytes=0-0", None), ("bytes=100-199", etag), ("bytes=299000-299999", etag)
    ]  # fmt: skip
    for one in server.seen:
        assert one.headers["accept-encoding"] == "identity"
        assert not {"cookie", "authorization"} & one.headers.keys()
        assert one.target == "/set.tgz?X-Amz-Signature=SECRET%2F1"  # to the letter


async def test_reads_at_once(server: WebServer) -> None:
    """Ranges can be read at once."""
    assert await read(server.url("/set.tgz")) == DATA


@pytest.mark.usefixtures("hasty")
async def test_ranges_go_on_where_they_broke(server: WebServer) -> None:
    """A range that breaks is asked for from there on."""
    server.tricks = [None, cut(1000), cut(100_000), None]
    async with open_url(server.url("/set.tgz")) as remote:
        assert await remote.read(0, len(DATA)) == DATA
    asked = [one.headers["range"] for one in server.seen]
    assert asked[1:3] == ["bytes=0-299999", "bytes=1000-299999"]
    assert asked[3] == "bytes=101000-299999"


async def test_without_ranges_one_stream(server: WebServer) -> None:
    """A server without ranges is asked once, and read from front to back."""
    server.ranges = False
    assert await read(server.url("/set.tgz")) == DATA
    assert len(server.seen) == 1


async def test_stream_is_read_in_order(server: WebServer) -> None:
    """A stream cannot go back."""
    server.ranges = False
    async with open_url(server.url("/set.tgz")) as remote:
        await remote.read(0, 10)
        with pytest.raises(ValueError, match="stands at 10"):
            await remote.read(0, 10)


@pytest.mark.usefixtures("hasty")
async def test_broken_stream_skips_what_was_read(server: WebServer) -> None:
    """A stream that breaks begins again, and goes on where it was."""
    server.ranges = False
    server.tricks = [cut(150_000), cut(10), Reply(503), None]
    assert await read(server.url("/set.tgz")) == DATA
    assert len(server.seen) == 4


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("trick", [changing(ETag='"other"'), Reply(412)])
async def test_replaced_object(server: WebServer, ranges: bool, trick: Trick | Reply) -> None:
    """Another version is noticed, whether the server looks at the condition or not."""
    server.ranges = ranges
    server.tricks = [None if ranges else cut(100), trick]
    assert type(await refusal(server.url("/set.tgz"))) is RemoteChanged


@pytest.mark.parametrize("ranges", [True, False])
async def test_pinned_by_time(server: WebServer, ranges: bool) -> None:
    """Without an ETag the time of the last change tells versions apart."""
    server.ranges = ranges
    server.headers = {"ETag": "", "Last-Modified": LAST_MODIFIED, "Date": LATER}
    assert await read(server.url("/set.tgz")) == DATA
    if ranges:
        assert server.seen[1].headers["if-unmodified-since"] == LAST_MODIFIED
        server.tricks = [None, changing(Last_Modified=LAST_MODIFIED.replace("01", "02"))]
        assert type(await refusal(server.url("/set.tgz"))) is RemoteChanged


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"1"'},
        {"Last-Modified": LAST_MODIFIED},
        {"Last-Modified": LAST_MODIFIED, "Date": TOO_SOON},
    ],
)
async def test_versions_that_look_alike(server: WebServer, headers: dict[str, str]) -> None:
    """Where nothing surely tells versions apart, one answer brings all: DN-05, RFC 9110, 8.8."""
    server.headers = {"ETag": ""} | headers
    # The whole of it comes without a range, as from any server that is not asked for one.
    assert await read(server.url("/set.tgz")) == DATA
    assert [one.headers.get("range") for one in server.seen] == ["bytes=0-0", None]
    server.tricks = [None, cut(100_000)]
    assert type(await refusal(server.url("/set.tgz"))) is RemoteChanged


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0 x\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 9999 x\r\n\r\n"],
)
async def test_no_http(answer: bytes) -> None:
    """What is no HTTP is not told as a status that nobody sent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        error = await refusal(f"http://127.0.0.1:{port}/set.tgz?X-Amz-Signature=SECRET")
    assert type(error) is NetworkError
    assert f"what http://127.0.0.1:{port} answers cannot be understood" in str(error)
    assert "400" not in str(error).replace(str(port), "")


@pytest.mark.usefixtures("hasty")
async def test_damaged_chunk(server: WebServer) -> None:
    """Nor is what breaks off within a body."""
    server.ranges = False
    server.tricks = [cut(0)] * 20
    error = await refusal(server.url("/set.tgz"))
    assert "the answer is not whole, or damaged" in str(error)
    assert "400" not in str(error).partition("broke off")[2]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        ("http://me:SECRET@127.0.0.1:1", NetworkError),
        ("me:SECRET@127.0.0.1:1", NetworkError),
        ("http://me:SEC%52ET@127.0.0.1:1", NetworkError),
        ("http://me:SECRET/x@127.0.0.1:1", ConfigError),
        ("http://me:x/SECRET@127.0.0.1:1", ConfigError),
        ("http://me:a SECRET@127.0.0.1:1", ConfigError),
        ("http://me:SECRET@[::1", ConfigError),
        ("http://me:SECRET@host:99999", ConfigError),
        ("socks5://me:SECRET@127.0.0.1:1", ConfigError),
    ],
)
async def test_password_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: str, kind: type[EtceteraError]
) -> None:
    """SE-02: neither a proxy that cannot be used nor one that cannot be reached is shown."""
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    error = await refusal("http://nowhere.invalid/set.tgz")
    assert type(error) is kind
    assert str(error).startswith("the proxy ")


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "deflate", "br"])
@pytest.mark.parametrize("ranges", [True, False])
async def test_nothing_is_inflated(server: WebServer, label: str, ranges: bool) -> None:
    """What a server calls the encoding of an archive changes nothing."""
    server.ranges = ranges
    server.headers = {"Content-Encoding": label}
    assert await read(server.url("/set.tgz")) == DATA


@pytest.mark.parametrize("ranges", [True, False])
async def test_redirects(server: WebServer, ranges: bool) -> None:
    """Redirects are followed, absolute or not, each time anew."""
    server.ranges = ranges
    hops = [redirect("/a?X-Amz-Signature=SECRET"), redirect(server.url("/set.tgz"), 307)]
    server.tricks = [*hops, None, *hops, None]
    async with open_url(server.url("/first")) as remote:
        assert await remote.read(0, 100) == DATA[:100]
    assert [one.target.partition("?")[0] for one in server.seen[:3]] == ["/first", "/a", "/set.tgz"]
    assert all("range" in one.headers for one in server.seen)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/again?X-Amz-Signature=SECRET", "more than"),
        ("ftp://host/x", "no URL"),
        ("http://user:SECRET@host/x", "a user in it"),
        ("http://host:99999/x?Signature=SECRET", "no URL"),
        ("http://[bad/x", "no URL"),
        ("", "more than"),
    ],
)
async def test_bad_redirects(server: WebServer, target: str, reason: str) -> None:
    """Circles, other schemes and passwords are refused."""
    server.tricks = [redirect(target)] * (REDIRECTS + 1)
    error = await refusal(server.url("/first"))
    assert type(error) is StoreError
    assert reason in str(error)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("reply", "expected", "reason"),
    [
        (Reply(403, body=EXPIRED), ExpiredCredentials, "has expired"),
        (Reply(400, body=b"<Code>ExpiredToken</Code>"), ExpiredCredentials, "has expired"),
        (Reply(403, body=b"SECRET no"), NotAllowed, "whole"),
        (Reply(401), NotAllowed, "new one"),
        (Reply(404), DatasetNotFound, "nothing at"),
        (Reply(410), DatasetNotFound, "nothing at"),
        (Reply(500), NetworkError, "status 500"),
        (Reply(429), NetworkError, "later"),
        (Reply(501), StoreError, "status 501"),
        (Reply(204), StoreError, "status 204"),
        (Reply(206, {"Content-Range": "bytes 0-0/*"}, b"x"), StoreError, "how large"),
        (Reply(206, {"Content-Range": "bytes 5-5/9"}, b"x"), StoreError, "how large"),
        (Reply(200, {"Content-Length": ""}, b"x"), StoreError, "how large"),
    ],
)
async def test_refusals(
    server: WebServer, reply: Reply, expected: type[EtceteraError], reason: str
) -> None:
    """Each refusal has its error, which says what to do."""
    server.tricks = [reply] * 20
    error = await refusal(server.url("/set.tgz"))
    assert type(error) is expected
    assert reason in str(error)


async def test_trouble_passes(server: WebServer, hasty: None) -> None:
    """A server in trouble is asked again."""
    server.tricks = [Reply(503), Reply(500), None, Reply(502)]
    assert await read(server.url("/set.tgz")) == DATA


@pytest.mark.parametrize("query", ["SECRET", "(a)&Signature=SECRET", "a=%22x%22&b=SECRET"])
@pytest.mark.parametrize("header", ["Content-Length", "X-Long"])
async def test_nonsense_shows_no_query(
    server: WebServer, query: str, header: str, hasty: None
) -> None:
    """However strange the query, an answer that is none brings it into no message."""
    server.tricks = [Reply(200, {header: "x" * 10_000})] * 20
    url = server.url("/set.tgz").partition("?")[0] + f"?{query}"
    assert type(await refusal(url)) is NetworkError


async def test_proxy_with_a_password(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    """A proxy that refuses is named without its password."""
    monkeypatch.setenv("http_proxy", f"http://user:SECRET@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "localhost")
    server.tricks = [Reply(407)] * 20
    await refusal("http://far.invalid/far.tgz")


async def test_nothing_listens(server: WebServer, hasty: None) -> None:
    """Nobody there is a network error."""
    url = server.url("/set.tgz")
    server.server_close()
    assert "cannot be reached" in str(await refusal(url))


async def test_nonsense_answer(server: WebServer, hasty: None) -> None:
    """What is no HTTP is a network error, and shows no signature."""
    server.tricks = [Reply(200, {"Content-Length": "many"})] * 20
    assert type(await refusal(server.url("/set.tgz"))) is NetworkError


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("bytes 0-69999/100000", TruncatedArchive),
        ("bytes 0-69999/400000", RemoteChanged),
        ("bytes 1-70000/300000", NetworkError),
        ("bytes 0-299999/300000", NetworkError),
        ("items 0-1/2", StoreError),
    ],
)
async def test_content_range_is_checked(
    server: WebServer, told: str, expected: type[EtceteraError]
) -> None:
    """The server has to send what was asked for."""
    server.tricks = [None, *[changing(Content_Range=told)] * 20]
    async with open_url(server.url("/set.tgz")) as remote:
        with pytest.raises(expected):
            await remote.read(0, 70_000)


async def test_empty_object(server: WebServer) -> None:
    """An empty one is one of no bytes."""
    server.files["/set.tgz"] = b""
    assert await read(server.url("/set.tgz")) == b""


async def test_part(server: WebServer, hasty: None) -> None:
    """A part is fetched with exactly one range and condition, again and again if it breaks."""
    async with open_url(server.url("/set.tgz")) as remote:
        etag = remote.info.etag.strip('"')
    server.seen.clear()
    server.tricks = [cut(100_000), cut(50), None]
    part = PinnedRange(1000, 251_000, etag)
    assert await read(server.url("/set.tgz"), part) == DATA[1000:251_000]
    asked = {(one.headers["range"], one.headers["if-match"]) for one in server.seen}
    assert asked == {("bytes=1000-250999", f'"{etag}"')}
    assert len(server.seen) == 3


async def test_part_of_another_version(server: WebServer) -> None:
    """A part of what has been replaced is refused."""
    error = await refusal(server.url("/set.tgz"), PinnedRange(0, 10, "other"))
    assert type(error) is RemoteChanged
    assert "since the link was made" in str(error)


async def test_part_must_be_the_part(server: WebServer) -> None:
    """A server that sends more, or less, is refused."""
    async with open_url(server.url("/set.tgz")) as remote:
        part = PinnedRange(10, 20, remote.info.etag.strip('"'))
    for trick in (
        changing(Content_Range="bytes 10-18/300000"),
        Reply(200, body=DATA),
        Reply(416),
    ):
        server.tricks = [trick]
        assert type(await refusal(server.url("/set.tgz"), part)) is StoreError


@pytest.mark.parametrize(
    "url",
    [
        "https://user:SECRET@host/x.tgz",
        "https:///x.tgz?Signature=SECRET",
        "https://host:port/x.tgz?Signature=SECRET",
        "ftp://host/x.tgz?Signature=SECRET",
        "https://host/a b.tgz?Signature=SECRET",
        "https://host/\x1b.tgz?Signature=SECRET",
    ],
)
async def test_bad_urls(url: str) -> None:
    """What is no URL is wrong usage."""
    assert isinstance(await refusal(url), UsageError)


async def test_proxy(server: WebServer, monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    """The proxy of the environment is used, and the exceptions from it."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "localhost")
    server.files["/far.tgz"] = DATA
    assert await read("http://far.invalid/far.tgz") == DATA
    assert server.seen[0].target == "http://far.invalid/far.tgz"
    monkeypatch.setenv("no_proxy", "far.invalid")
    assert type(await refusal("http://far.invalid/far.tgz")) is NetworkError


async def test_encryption(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    """Certificates are checked, and no redirect leads out of what is encrypted."""
    encryption, trust = certify(tmp_path)
    with web_server(encryption) as encrypted:
        encrypted.files["/set.tgz"] = DATA
        assert "cannot be trusted" in str(await refusal(encrypted.url("/set.tgz")))
        connector = partial(aiohttp.TCPConnector, ssl=trust)
        monkeypatch.setattr("etcetera.stores.http.aiohttp.TCPConnector", connector)
        assert await read(encrypted.url("/set.tgz")) == DATA
        encrypted.tricks = [redirect(server.url("/set.tgz"))]
        error = await refusal(encrypted.url("/first"))
        assert "not encrypted" in str(error)
        assert server.seen == []
        server.tricks = [redirect(encrypted.url("/set.tgz")), redirect(encrypted.url("/set.tgz"))]
        async with open_url(server.url("/first")) as remote:
            assert await remote.read(0, 9) == DATA[:9]


async def test_cancelled_stream_gives_the_connection_up(server: WebServer) -> None:
    """A reader that is cancelled leaves nothing open."""
    server.ranges = False
    server.files["/set.tgz"] = bytes(50 << 20)
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            async with open_url(server.url("/set.tgz")) as remote:
                await remote.read(0, 1000)
                raise asyncio.CancelledError
