"""The fast reading of a listing says what boto3's own says, whatever a server writes; or it leaves it to boto3."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import boto3.session
import botocore.awsrequest
import botocore.config
import pytest

from daemon.errors import ConvertdError, TransientError
from daemon.s3 import listing
from daemon.s3.listing import Page, pages, read_fast

DIGEST = "d41d8cd98f00b204e9800998ecf8427e"
OTHER = "9e107d9d372bb6826bd81d3542a419d6-12"
OPENING = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
HEAD = "<Name>b</Name><Prefix>in/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>"
URL = "<EncodingType>url</EncodingType>"
WHOLE = "<IsTruncated>false</IsTruncated>"
CLOSING = "</ListBucketResult>"


class Canned:
    """A client of boto3 that is given its answers, in turn; no connection is ever made."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.bodies: list[bytes] = []
        self.asked: list[str] = []
        client.meta.events.register("before-send.s3.ListObjectsV2", self._answer)

    def _answer(self, request: Any, **_: Any) -> Any:
        self.asked.append(request.url)
        body = self.bodies.pop(0)
        headers = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
        return botocore.awsrequest.AWSResponse(request.url, 200, headers, _Raw(body))


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def new_client() -> Canned:
    config = botocore.config.Config(
        signature_version=botocore.UNSIGNED, s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}
    )
    client = boto3.session.Session().client(
        "s3", endpoint_url="http://nobody.invalid", region_name="us-east-1", config=config
    )
    return Canned(client)


@dataclass
class Both:
    """The same answers, read by boto3 alone and the fast way."""

    slow: Canned
    fast: Canned

    def pages(self, *bodies: str | bytes) -> list[Page]:
        """The pages that both make of these answers: the same, or the test fails."""
        raw = [body.encode() if isinstance(body, str) else body for body in bodies]
        slow, fast = _read(self.slow, raw), _read(self.fast, raw)
        if isinstance(slow, ConvertdError):
            assert type(fast) is type(slow)
            raise slow
        assert fast == slow
        return slow

    def page(self, body: str | bytes) -> Page:
        (page,) = self.pages(body)
        return page


def _read(canned: Canned, bodies: Sequence[bytes]) -> list[Page] | ConvertdError:
    """The pages, or the error that is raised."""
    canned.bodies = list(bodies)
    try:
        return list(pages(canned.client, "b", "in/"))
    except ConvertdError as error:
        return error


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    slow, fast = new_client(), new_client()
    read_fast(fast.client)
    read_fast(fast.client)  # as at every listing
    yield Both(slow, fast)
    slow.client.close()
    fast.client.close()


def is_fast(body: str | bytes) -> bool:
    """Whether boto3 need not read the objects of this answer."""
    return listing._objects(body.encode() if isinstance(body, str) else body) is not None


def aws(key: str, etag: str = DIGEST, size: int = 7, more: str = "", before: str = "") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag>{before}<Size>{size}</Size>{more}"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def reply(*objects: str, rest: str = WHOLE + URL) -> str:
    return OPENING + HEAD + rest + "".join(objects) + CLOSING


# ---------------------------------------------------------------- replies of real servers


def test_amazon(both: Both) -> None:
    body = reply(aws("in/a%2Bb+c.txt"), aws("in/%C3%BC%26%3C.pdf", OTHER, 123456789012))
    assert both.page(body) == Page([("in/a+b c.txt", DIGEST, 7), ("in/ü&<.pdf", OTHER, 123456789012)], None)
    assert is_fast(body)


OWNER = "<Owner><ID>75aa57f09aa0c8caeab4f8c24e99d10f</ID><DisplayName>x</DisplayName></Owner>"
RESTORED = "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>"
CHECKSUM = "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"


def test_amazon_with_owners_checksums_and_restored_objects(both: Both) -> None:
    body = reply(
        aws("in/a", before=CHECKSUM, more=OWNER + RESTORED), aws("in/b", more=OWNER), aws("in/c", more=RESTORED)
    )
    assert both.page(body).entries == [("in/a", DIGEST, 7), ("in/b", DIGEST, 7), ("in/c", DIGEST, 7)]
    assert is_fast(body)


def test_seaweedfs(both: Both) -> None:
    body = (
        f"{OPENING}<Name>t</Name><Prefix>in/</Prefix><MaxKeys>3</MaxKeys><IsTruncated>false</IsTruncated><Contents>"
        f"<Key>in/%0D+cr</Key><ETag>&#34;{DIGEST}&#34;</ETag><Size>8</Size><StorageClass>STANDARD</StorageClass>"
        "<LastModified>2026-11-25T01:07:53Z</LastModified></Contents><Contents><Key>in/tr/</Key>"
        f"<ETag>&#34;{DIGEST}&#34;</ETag><Size>0</Size><StorageClass>STANDARD</StorageClass><LastModified>"
        f"2026-11-25T01:07:53Z</LastModified></Contents>{URL}<KeyCount>2</KeyCount></ListBucketResult>"
    )
    assert both.page(body) == Page([("in/\r cr", DIGEST, 8), ("in/tr/", DIGEST, 0)], None)
    assert is_fast(body)


def test_minio(both: Both) -> None:
    body = (
        f"{OPENING}<Name>t</Name><Prefix>in%2F</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false"
        "</IsTruncated><Contents><Key>in%2Fa+b%2Bc.txt</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>"
        f"<ETag>&#34;{DIGEST}&#34;</ETag><Size>6</Size><Owner><ID>02d6176db174dc93cb1b899f7c6078f08654445fe8cf1b6ce98d"
        f"8855f66bdbf4</ID><DisplayName>minio</DisplayName></Owner><StorageClass>STANDARD</StorageClass></Contents>{URL}"
        "</ListBucketResult>"
    )
    assert both.page(body) == Page([("in/a b+c.txt", DIGEST, 6)], None)
    assert is_fast(body)


def test_moto(both: Both) -> None:
    body = (
        f"{OPENING}<IsTruncated>false</IsTruncated><Contents><Key>in/a%20b%2Bc.txt</Key><LastModified>2026-01-02T03:04:"
        f'05.000Z</LastModified><ETag>"{DIGEST}"</ETag><Size>6</Size><StorageClass>STANDARD</StorageClass></Contents>'
        f"<Name>t</Name><Prefix>in/</Prefix><MaxKeys>3</MaxKeys>{URL}<KeyCount>1</KeyCount></ListBucketResult>"
    )
    assert both.page(body) == Page([("in/a b+c.txt", DIGEST, 6)], None)
    assert is_fast(body)


# ---------------------------------------------------------------- what may stand in them


def test_an_empty_page_is_no_error_and_has_a_successor_where_it_says_so(both: Both) -> None:
    first = reply(rest=f"<IsTruncated>true</IsTruncated><NextContinuationToken>a+b/=&amp;</NextContinuationToken>{URL}")
    assert both.pages(first, reply(aws("in/a"))) == [Page([], "a+b/=&"), Page([("in/a", DIGEST, 7)], None)]
    for canned in (both.slow, both.fast):
        assert "continuation-token=a%2Bb%2F%3D%26" in canned.asked[-1]
        assert "continuation-token" not in canned.asked[-2]
        assert all("encoding-type=url" in url for url in canned.asked[-2:])


def test_a_token_that_leads_nowhere_is_not_followed(both: Both) -> None:
    body = reply(aws("in/a"), rest=f"{WHOLE}<NextContinuationToken>next</NextContinuationToken>{URL}")
    assert both.page(body).next_token is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        OPENING.encode() + HEAD.encode() + CLOSING.encode(),
        reply(aws("in/a"), rest=URL).encode(),
        reply(aws("in/a"), rest=f"<IsTruncated>true</IsTruncated>{URL}").encode(),
        reply(aws("in/a"), aws("in/b")).encode()[:-1],
        reply(aws("in/a"), aws("in/b")).encode()[:-30],
        reply(aws("in/a"), aws("in/b")).encode()[:-400],
        reply(aws("in/a")).encode()[:40],
        b"<html><body>Welcome to this network. Please sign in.</body></html>",
        b"no XML at all",
        b"<Contents></Contents>",
        b"\x00\xff",
    ],
)
def test_what_is_no_whole_listing_is_an_error_and_never_a_shorter_one(both: Both, body: bytes) -> None:
    with pytest.raises(TransientError):
        both.pages(body)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("a&amp;b&lt;&gt;&quot;&apos;", "a&b<>\"'"),
        ("&#252;&#xfc;&#xFC;&#x1F600;", "üüü\U0001f600"),
        ("ü 日本", "ü 日本"),
        ("a+b%20c", "a+b%20c"),
        ("&amp;lt;&amp;#65;", "&lt;&#65;"),
        ("a&#13;b&#10;c&#9;d", "a\rb\nc\td"),
        ("  a  ", "  a  "),
    ],
)
def test_keys_that_are_not_url_encoded(both: Both, raw: str, key: str) -> None:
    body = reply(aws(f"in/{raw}"), rest=WHOLE)
    assert both.page(body).entries == [(f"in/{key}", DIGEST, 7)]
    assert is_fast(body)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("%26%3C%3E%22%27", "&<>\"'"),
        ("%2e%2E%2f", "../"),
        ("a%252Fb", "a%2Fb"),
        ("%00%01%1F%7F", "\0\x01\x1f\x7f"),
        ("%0D%0A", "\r\n"),
        ("%F0%9F%98%80+%E2%88%95", "\U0001f600 \u2215"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("ü+ü", "ü ü"),
        ("&amp;%26", "&&"),
        ("&#37;41", "A"),
    ],
)
def test_keys_that_are_url_encoded(both: Both, raw: str, key: str) -> None:
    body = reply(aws(f"in/{raw}"))
    assert both.page(body).entries == [(f"in/{key}", DIGEST, 7)]
    assert is_fast(body)


@pytest.mark.parametrize("raw", ["%FF", "%ED%A0%80", "ok%C3", "%E2%88", "a%F4%90%80%80"])
def test_keys_that_are_not_utf_8_are_counted(both: Both, raw: str) -> None:
    body = reply(aws("in/a"), aws(f"in/{raw}"), aws("in/b"))
    assert both.page(body) == Page([("in/a", DIGEST, 7), ("in/b", DIGEST, 7)], None, unnamed=1)
    assert is_fast(body)


@pytest.mark.parametrize(
    "etag", [DIGEST, f'"{DIGEST}"', f"&quot;{DIGEST}&quot;", f"&#34;{DIGEST}&#34;", f"&#x22;{DIGEST}&#x22;"]
)
def test_quotes_of_etags_are_of_any_kind(both: Both, etag: str) -> None:
    body = reply(f"<Contents><Key>a</Key><ETag>{etag}</ETag><Size>7</Size></Contents>")
    assert both.page(body).entries == [("a", DIGEST, 7)]
    assert is_fast(body)


@pytest.mark.parametrize(
    "etag",
    [
        "",
        "&quot;",
        "&quot;&quot;",
        '"',
        'a"',
        '"a',
        "a&amp;b",
        "&quot;a&quot;&quot;",
        "W/&quot;a&quot;",
        "&#34;a&quot;",
    ],
)
def test_odd_etags_are_read_alike(both: Both, etag: str) -> None:
    both.page(reply(f"<Contents><Key>a</Key><ETag>{etag}</ETag><Size>7</Size></Contents>", aws("b")))


def test_pretty_printed(both: Both) -> None:
    body = reply(aws("in/a"), aws("in/b", more=OWNER)).replace("><", ">\n    <")
    assert both.page(body).entries == [("in/a", DIGEST, 7), ("in/b", DIGEST, 7)]
    assert is_fast(body)
    assert both.page(body.replace("\n", "\r\n")).entries == [("in/a", DIGEST, 7), ("in/b", DIGEST, 7)]


ODD = {
    "size before etag": "<Contents><Key>in/a</Key><Size>7</Size><ETag>x</ETag></Contents>",
    "etag before key": "<Contents><ETag>x</ETag><Key>in/a</Key><Size>7</Size></Contents>",
    "no etag": "<Contents><Key>in/a</Key><Size>7</Size></Contents>",
    "no size": "<Contents><Key>in/a</Key><ETag>x</ETag></Contents>",
    "empty etag": "<Contents><Key>in/a</Key><ETag/><Size>7</Size></Contents>",
    "empty key": "<Contents><Key/><ETag>x</ETag><Size>7</Size></Contents>",
    "a size far too large": "<Contents><Key>in/a</Key><ETag>x</ETag><Size>1234567890123456789</Size></Contents>",
    "space around the size": "<Contents><Key>in/a</Key><ETag>x</ETag><Size> 7 </Size></Contents>",
    "CDATA": "<Contents><Key><![CDATA[in/a<b>&c]]></Key><ETag>x</ETag><Size>7</Size></Contents>",
    "a comment": "<Contents><!-- <Key>no</Key> --><Key>in/a</Key><ETag>x</ETag><Size>7</Size></Contents>",
    "a whole object in a comment": "<!--" + aws("no") + "-->" + aws("yes"),
    "an attribute of an object": '<Contents x="y"><Key>in/a</Key><ETag>x</ETag><Size>7</Size></Contents>',
    "an attribute of a key": '<Contents><Key x="y">in/a</Key><ETag>x</ETag><Size>7</Size></Contents>',
    "an own namespace": '<s:Contents xmlns:s="urn:s"><s:Key>a</s:Key><s:Size>1</s:Size></s:Contents>',
    "a bare CR": "<Contents><Key>a\rb</Key><ETag>x</ETag><Size>7</Size></Contents>",
}


@pytest.mark.parametrize("where", ["alone", "first", "between", "last"])
@pytest.mark.parametrize("what", sorted(ODD))
def test_what_is_not_as_expected_is_left_to_boto3(both: Both, what: str, where: str) -> None:
    """An odd object neither disappears nor takes a neighbour's etag or size."""
    objects = {
        "alone": [ODD[what]],
        "first": [ODD[what], aws("in/b", OTHER, 8)],
        "between": [aws("in/b", OTHER, 8), ODD[what], aws("in/c", OTHER, 9)],
        "last": [aws("in/b", OTHER, 8), ODD[what]],
    }[where]
    body = reply(*objects, rest=WHOLE)
    entries = both.page(body).entries
    assert [entry for entry in entries if entry[0] == "in/b"] == [("in/b", OTHER, 8)] * (where != "alone")
    assert len(entries) == len(objects)


@pytest.mark.parametrize("entity", ["&#9999999;", "&#xFFFFFF;", "&#xD800;", "&#x110000;"])
def test_a_character_that_there_is_not_is_no_reason_to_die(both: Both, entity: str) -> None:
    with pytest.raises(TransientError):
        both.page(reply(aws(f"in/{entity}"), rest=WHOLE))
    with pytest.raises(TransientError):
        both.page(reply(aws("in/a", etag=entity)))


def test_bytes_that_are_no_utf_8_never_become_a_key(both: Both) -> None:
    body = reply(aws("in/a"), aws("in/KEY"), rest=WHOLE).encode().replace(b"KEY", b"\xff\xfe")
    with pytest.raises(TransientError):
        both.page(body)
    assert not is_fast(body)


# ---------------------------------------------------------------- anything

ALPHABET = [*"aAzZ09-_.~!*'()/ +%&<>\"#;:=?@[]{}|\\^`\u00fc\u65e5\u2215\u202e\u2028\U0001f600", "%2F", "&amp;"]
CONTROLS = ["\0", "\x01", "\t", "\n", "\r", "\x1b", "\x7f", "\x85"]
ENCODERS: list[Callable[[str], str]] = [
    lambda key: quote_plus(key, safe="/"),
    lambda key: quote_plus(key, safe=""),
    quote,
    lambda key: quote(key, safe="/~!*'()").lower() if key.isascii() and key == key.lower() else quote(key),
]


class Server:
    """Writes listings in a style of its own, chosen by chance; the objects' elements stand in the usual order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.url_encoded = chance.random() < 0.7
        self.encode = chance.choice(ENCODERS)
        self.quotes = chance.choice(["&quot;", "&#34;", "&#x22;", '"', ""])
        self.gap = chance.choice(["", "", "\n", "\n  ", "\t"])
        self.order = chance.choice([("LastModified", "Key"), ("Key", "LastModified")])
        self.extras = chance.sample([OWNER, RESTORED, CHECKSUM, "<StorageClass>STANDARD</StorageClass>"], 2)

    def key(self) -> str:
        pool = ALPHABET + (CONTROLS if self.url_encoded else [])
        return "in/" + "".join(self.chance.choices(pool, k=self.chance.randint(1, 30)))

    def written(self, key: str) -> str:
        return escape(
            self.encode(key) if self.url_encoded else key, {'"': self.chance.choice(["&quot;", "&#34;", '"'])}
        )

    def listing(self, objects: Sequence[tuple[str, str, int]]) -> str:
        lines = [OPENING, HEAD, WHOLE]
        for key, etag, size in objects:
            elements = {
                "Key": f"<Key>{self.written(key)}</Key>",
                "LastModified": "<LastModified>2026-01-02T03:04:05.000Z</LastModified>",
            }
            lines += ["<Contents>", *(elements[name] for name in self.order)]
            lines += [f"<ETag>{self.quotes}{etag}{self.quotes}</ETag>"]
            before, after = self.extras if self.chance.random() < 0.5 else ("", "")
            lines += [before, f"<Size>{size}</Size>", after, "</Contents>"]
        lines += [URL] if self.url_encoded else []
        return self.gap.join([*lines, CLOSING])


@pytest.mark.parametrize("seed", range(60))
def test_any_server_is_read_fast_and_right(both: Both, seed: int) -> None:
    chance = random.Random(seed)
    server = Server(chance)
    keys = list(dict.fromkeys(server.key() for _ in range(chance.randint(1, 40))))
    objects = [(key, f"{chance.getrandbits(128):032x}", chance.randrange(10**12)) for key in keys]
    body = server.listing(objects)
    assert both.page(body) == Page(objects, None)
    assert is_fast(body)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_befalls_a_listing_on_its_way_both_say_the_same(both: Both, seed: int) -> None:
    """A few bytes of it are lost, doubled or swapped. Where boto3 can read what is left, the fast way reads the same;
    it may make sense of what boto3 cannot read, but it does not raise anything else."""
    chance = random.Random(seed)
    body = Server(chance).listing([(f"in/{number}", DIGEST, number) for number in range(4)]).encode()
    for _ in range(20):
        start, length = chance.randrange(len(body)), chance.randint(1, 60)
        part = body[start : start + length]
        damaged = chance.choice(
            [
                body[:start] + body[start + length :],
                body[:start] + part + part + body[start + length :],
                body[:start] + part[::-1] + body[start + length :],
                body[:start],
            ]
        )
        slow, fast = _read(both.slow, [damaged]), _read(both.fast, [damaged])
        assert fast == slow or isinstance(slow, TransientError)
