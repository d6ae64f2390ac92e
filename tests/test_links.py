"""What a link says, and what is not believed of it."""

import pytest

from etcetera.errors import EtceteraError, InvalidName, UsageError
from etcetera.links import Link, called, is_link, parse_link
from etcetera.repository import split_name
from etcetera.stores import PinnedRange
from etcetera.transfer.excerpt import Excerpt

URL = "https://host/prefix/flowers.tgz?X-Amz-Signature=SECRET%2F1"
PART = Link(
    url=URL,
    name="flow ers",
    partition="välid",
    excerpt=Excerpt(place=PinnedRange(10, 99, "d41d-2"), size=5, crc32=7),
)


def test_what_is_a_link() -> None:
    """Only http and https are; everything else is a name."""
    assert is_link("https://h/x.tgz")
    assert is_link("HTTP://h/x.tgz")
    for name in ("flowers", "lab:flowers", "https:flowers", "s3://b/x", "file:///x", None):
        assert not is_link(name)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (URL, "flowers"),
        ("https://host/flowers.tar.gz", "flowers"),
        ("https://host/flowers", "flowers"),
        ("https://host/a%20b/fl%C3%B6wer%20s.tgz?x=/y.tgz", "flöwer s"),
        ("https://host/flöwers.tgz", "flöwers"),
        ("https://host/x?id=1#name=flowers", "flowers"),
        ("https://host/#name=flow+ers", "flow ers"),
    ],
)
def test_names(url: str, name: str) -> None:
    """The last component names the dataset, unless the fragment does."""
    link = parse_link(url)
    assert link.name == name
    assert "#" not in link.url
    assert link.url.isascii()
    assert split_name(url, links=True) == (url, name)


@pytest.mark.parametrize(
    "url",
    [
        "https://host",
        "https://host/?Signature=SECRET",
        "https://host/x/",
        "https://host/.tgz",
        "https://host/..",
        "https://host/%2e%2e%2fx.tgz?SECRET",
        "https://host/a%00b.tgz",
        "https://host/x.tgz#name=..",
        "https://host/x.tgz#name=-f",
        "https://host/x.tgz#name=a%2Fb",
    ],
)
def test_bad_names(url: str) -> None:
    """What cannot be a name is refused, without the query."""
    with pytest.raises(InvalidName) as caught:
        parse_link(url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "fragment",
    ["top", "name", "a=b", "name=a&name=b", "name=a&a=b", "name=%ff", "&".join("abcdefghi")],
)
def test_unknown_fragments(fragment: str) -> None:
    """A fragment of something else is not passed over."""
    with pytest.raises(UsageError, match="cannot be understood") as caught:
        parse_link(f"{URL}#{fragment}")
    assert "SECRET" not in str(caught.value)


def test_partition_round_trip() -> None:
    """A link to a partition says all that is needed to read it."""
    assert parse_link(PART.text()) == PART
    assert Link(url=URL, name="flowers").text() == URL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("etcetera=1", "etcetera=2"),
        ("etcetera=1&", ""),
        ("&range=10-98", ""),
        ("range=10-98", "range=98-10"),
        ("range=10-98", "range=-10"),
        ("range=10-98", "range=1%D9%A1-98"),
        ("range=10-98", "range=10-98%2C100-200"),
        ("range=10-98", "range=10-98888888888888888888"),
        ("size=5", "size=-5"),
        ("size=5", "size=5.0"),
        ("size=5", "size="),
        ("crc32=7", "crc32=4294967296"),
        ("etag=d41d-2", "etag="),
        ("etag=d41d-2", "etag=a%0d%0ab"),
        ("etag=d41d-2", "etag=a%22b"),
        ("partition=v%C3%A4lid", "partition=.."),
        ("partition=v%C3%A4lid", "partition=a%2Fb"),
    ],
)
def test_altered_partition_links(old: str, new: str) -> None:
    """Nothing in the fragment is believed: numbers are numbers, names are names."""
    text = PART.text()
    assert old in text
    with pytest.raises(UsageError) as caught:
        parse_link(text.replace(old, new))
    assert "SECRET" not in str(caught.value)


def test_called_otherwise() -> None:
    """A link can be given another name, and loses nothing by it."""
    link = parse_link(called(PART.text(), "roses"))
    assert (link.name, link.excerpt, link.url) == ("roses", PART.excerpt, PART.url)
    assert parse_link(called(URL, "roses")).name == "roses"
    with pytest.raises(UsageError, match="pull flowers as it is"):
        called("flowers", "roses")
    with pytest.raises(InvalidName):
        called(URL, "../x")


def test_links_show_no_secret() -> None:
    """SE-02: no repr shows what opens an archive."""
    assert "SECRET" not in repr(PART)
    assert PART.shown == "https://host/prefix/flowers.tgz"


def test_links_where_names_are_meant() -> None:
    """What takes no link says so, without showing it."""
    errors: list[EtceteraError] = []
    for repository, links in ((None, False), ("lab", True)):
        with pytest.raises(UsageError) as caught:
            split_name(URL, repository, links=links)
        errors.append(caught.value)
    assert "can only be pulled" in str(errors[0])
    assert "needs no repository" in str(errors[1])
    assert all("SECRET" not in str(error) for error in errors)


def test_spaces_around_a_link() -> None:
    """A link that was pasted with spaces is one all the same, and stays a secret."""
    assert is_link(" https://host/a.tgz?X-Amz-Signature=secret")
    assert called(" https://host/a.tgz ", "b") == "https://host/a.tgz#name=b"
