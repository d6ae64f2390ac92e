"""What the XML API of Google Storage answers."""

from collections.abc import Iterator
from xml.etree import ElementTree

from etcetera.stores.gs_client import Answer

MOST_TAGS = 1 << 14
"""Of a document: it is parsed on the event loop, and each is worth some hundred bytes of memory."""


def as_xml(root: str, answer: Answer) -> ElementTree.Element:
    """Return the root of a document, all names in it without their namespaces.

    Args:
        root: What the document has to be.
        answer: Of bounded length.

    Raises:
        ValueError: It is none, or another one, or declares entities.
    """
    body = answer.body
    # Entities are how a small document becomes a large one; zeros are of encodings that hide them.
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body or b"\0" in body:
        raise ValueError("the answer declares entities")
    if body.count(b"<") > MOST_TAGS:
        raise ValueError("the answer is too long")
    try:
        element = ElementTree.fromstring(body)  # noqa: S314 - without declarations, of bounded length
    except ElementTree.ParseError as error:
        raise ValueError(f"the answer is no XML: {error}") from None
    for one in element.iter():
        one.tag = one.tag.rpartition("}")[2]
    if element.tag != root:
        raise ValueError(f"the answer is no {root}")
    return element


def text(element: ElementTree.Element, name: str) -> str:
    """Return what stands in a child.

    Raises:
        ValueError: There is none.
    """
    found = element.findtext(name)
    if found is None:
        raise ValueError(f"the answer has no {name}")
    return found


def following(page: ElementTree.Element, *names: str) -> Iterator[str]:
    """Yield the texts that say where the next page begins; nothing if this is the last one."""
    if page.findtext("IsTruncated") == "true":
        yield from (text(page, name) for name in names)


def completion(etags: dict[int, str]) -> bytes:
    """Return the body that completes a multipart upload, from the ETag of each part."""
    root = ElementTree.Element("CompleteMultipartUpload")
    for number in sorted(etags):
        part = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(part, "PartNumber").text = str(number)
        ElementTree.SubElement(part, "ETag").text = etags[number]
    return bytes(ElementTree.tostring(root, encoding="utf-8"))
