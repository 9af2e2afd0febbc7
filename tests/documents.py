"""Builders of documents for tests: small ones of every kind, and hostile ones. PDFium draws the images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from email.message import EmailMessage

import pypdfium2

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


# ---------------------------------------------------------------- PDF


def pdf(pages: Sequence[str], *, title: str = "") -> bytes:
    """A PDF with a line of text for each line of each page; an empty page is blank."""
    return _assemble([_text_page(text) for text in pages], title=title)


def scanned_pdf(pages: Sequence[str], *, turned_degrees: int = 0) -> bytes:
    """A PDF whose pages are images of text."""
    return _assemble([_image_page(text, turned_degrees) for text in pages])


def mixed_pdf(pages: Sequence[tuple[str, bool]]) -> bytes:
    """A PDF of text pages and scans: a page is its text and whether it is a scan."""
    return _assemble([_image_page(text, 0) if scanned else _text_page(text) for text, scanned in pages])


def encrypted_pdf(text: str = "secret words", user_password: bytes = b"secret") -> bytes:
    """A PDF encrypted with 40-bit RC4 (revision 2). With an empty password every reader opens it."""
    return _assemble([_text_page(text)], user_password=user_password)


def _text_page(text: str) -> tuple[bytes, bytes, bytes]:
    """Dictionary entries of the page, its content stream, and the object it refers to."""
    lines = [line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in text.splitlines()]
    shown = "".join(f"1 0 0 1 72 {720 - 20 * index} Tm ({line}) Tj " for index, line in enumerate(lines))
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    stream = f"BT /F1 14 Tf {shown}ET".encode("cp1252") if lines else b""
    return b"/Resources << /Font << /F1 %d 0 R >> >>", stream, font


def _image_page(text: str, turned_degrees: int) -> tuple[bytes, bytes, bytes]:
    width, height, pixels = rendered(text, turned_degrees=turned_degrees)
    data = zlib.compress(pixels)
    image = (
        b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 8 "
        b"/Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (width, height, len(data), data)
    )
    return b"/Resources << /XObject << /I1 %d 0 R >> >>", b"q 612 0 0 792 0 0 cm /I1 Do Q", image


def _assemble(
    pages: Sequence[tuple[bytes, bytes, bytes]], *, title: str = "", user_password: bytes | None = None
) -> bytes:
    kids = b" ".join(b"%d 0 R" % (4 + 3 * index) for index in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%b] >>" % (len(pages), kids),
        b"<< /Title (%b) >>" % title.encode("cp1252"),
    ]
    identity, encryption = b"0123456789abcdef", b""
    key = b""
    if user_password is not None:
        key, encryption = _rc4_encryption(user_password, identity)
    for index, (entries, stream, resource) in enumerate(pages):
        number = 4 + 3 * index
        if key:
            stream = _rc4(hashlib.md5(key + struct.pack("<I", number + 1)[:3] + b"\0\0").digest()[:10], stream)
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R %b >>"
            % (number + 1, entries % (number + 2)),
            b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
            resource,
        ]
    if encryption:
        objects.append(encryption)
    out = io.BytesIO(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%b\nendobj\n" % (number, content))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
    extra = b"/Encrypt %d 0 R /ID [<%b> <%b>]" % (len(objects), *(2 * (identity.hex().encode(),)))
    out.write(
        b"trailer\n<< /Size %d /Root 1 0 R /Info 3 0 R %b >>\nstartxref\n%d\n%%%%EOF\n"
        % (len(objects) + 1, extra if encryption else b"", start)
    )
    return out.getvalue()


def _rc4_encryption(user_password: bytes, identity: bytes) -> tuple[bytes, bytes]:
    """The file key and the encryption dictionary (ISO 32000, algorithms 2 to 4 at revision 2)."""
    owner = _rc4(hashlib.md5((b"owner" + PADDING)[:32]).digest()[:5], (user_password + PADDING)[:32])
    permissions = struct.pack("<i", -4)
    key = hashlib.md5((user_password + PADDING)[:32] + owner + permissions + identity).digest()[:5]
    user = _rc4(key, PADDING)
    entries = b"<< /Filter /Standard /V 1 /R 2 /Length 40 /P -4 /O <%b> /U <%b> >>"
    return key, entries % (owner.hex().encode(), user.hex().encode())


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


# ---------------------------------------------------------------- images


def rendered(text: str, *, turned_degrees: int = 0, dpi: int = 150) -> tuple[int, int, bytes]:
    """Width, height and grey pixels of a page with this text."""
    with pypdfium2.PdfDocument(_assemble([_text_page(text)])) as document:
        bitmap = document[0].render(scale=dpi / 72, rotation=turned_degrees, grayscale=True)
        pixels = bytes(bitmap.buffer)
        rows = (pixels[y * bitmap.stride :][: bitmap.width] for y in range(bitmap.height))
        return bitmap.width, bitmap.height, b"".join(rows)


def png(text: str, *, turned_degrees: int = 0) -> bytes:
    """An image of text."""
    width, height, pixels = rendered(text, turned_degrees=turned_degrees)
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    return _png(width, height, zlib.compress(rows))


def _png(width: int, height: int, packed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def pgm(text: str) -> bytes:
    """An image of text in a format without compression."""
    width, height, pixels = rendered(text)
    return b"P5\n%d %d\n255\n%b" % (width, height, pixels)


def tiff(pages: Sequence[str]) -> bytes:
    """A fax: an image of text a page."""
    out, link = bytearray(b"II*\0\0\0\0\0"), 4
    for text in pages:
        width, height, pixels = rendered(text)
        start = len(out)
        out += pixels + bytes(len(pixels) % 2)
        struct.pack_into("<I", out, link, len(out))
        long, values = 4, ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, start), (277, 1))
        tags = [(tag, long, 1, value) for tag, value in (*values, (278, height), (279, len(pixels)))]
        out += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(out)
        out += bytes(4)
    return bytes(out)


# ---------------------------------------------------------------- ZIP containers


def zipped(members: Mapping[str, str | bytes], *, stored: Sequence[str] = ()) -> bytes:
    """A ZIP archive of these members; those of `stored` are not compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            how = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), content, how)
    return buffer.getvalue()


def without(container: bytes, name: str) -> bytes:
    """The container without this one of its members."""
    with zipfile.ZipFile(io.BytesIO(container)) as archive:
        return zipped({each: archive.read(each) for each in archive.namelist() if each != name})


def _relations(*targets: tuple[str, str]) -> str:
    entries = "".join(
        f'<Relationship Id="rId{index}" Type="{OFFICE}/{kind}" Target="{target}"/>'
        for index, (kind, target) in enumerate(targets, 1)
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{entries}</Relationships>'


def _types(parts: Mapping[str, str]) -> str:
    main = "application/vnd.openxmlformats-officedocument."
    entries = "".join(f'<Override PartName="/{part}" ContentType="{main}{kind}+xml"/>' for part, kind in parts.items())
    return (
        f'<?xml version="1.0"?><Types xmlns="{PACKAGE}/content-types"><Default Extension="xml" '
        'ContentType="application/xml"/><Default Extension="png" ContentType="image/png"/>'
        '<Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>{entries}</Types>'
    )


def docx(text: str, *, body: str | None = None, prologue: str = "", image: bytes = b"") -> bytes:
    """A Word document with a paragraph a line, and a PNG image.

    `body` replaces the paragraphs by markup, `prologue` precedes the root element.
    """
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    paragraphs = body or "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in text.splitlines())
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _types({"word/document.xml": "wordprocessingml.document.main"}),
        "_rels/.rels": _relations(("officeDocument", "word/document.xml")),
        "word/document.xml": f'<?xml version="1.0"?>{prologue}<w:document xmlns:w="{word}"><w:body>'
        f"{paragraphs}{_DRAWING if image else ''}</w:body></w:document>",
    }
    if image:
        members["word/_rels/document.xml.rels"] = _relations(("image", "media/image1.png"))
        members["word/media/image1.png"] = image
    return zipped(members)


_DRAW = "http://schemas.openxmlformats.org/drawingml/2006"
_DRAWING = (
    f'<w:p><w:r><w:drawing><wp:inline xmlns:wp="{_DRAW}/wordprocessingDrawing"><wp:extent cx="5000000" cy="6000000"/>'
    f'<wp:docPr id="1" name="Picture 1"/><a:graphic xmlns:a="{_DRAW}/main"><a:graphicData uri="{_DRAW}/picture">'
    f'<pic:pic xmlns:pic="{_DRAW}/picture"><pic:nvPicPr><pic:cNvPr id="1" name="Picture 1"/><pic:cNvPicPr/>'
    f'</pic:nvPicPr><pic:blipFill><a:blip xmlns:r="{OFFICE}" r:embed="rId1"/></pic:blipFill><pic:spPr/></pic:pic>'
    "</a:graphicData></a:graphic></wp:inline></w:drawing></w:r></w:p>"
)


def xlsx(rows: Sequence[Sequence[str]]) -> bytes:
    """A workbook with one sheet."""
    cells = "".join(
        f'<row r="{y}">'
        + "".join(f'<c r="{chr(64 + x)}{y}" t="inlineStr"><is><t>{cell}</t></is></c>' for x, cell in enumerate(row, 1))
        + "</row>"
        for y, row in enumerate(rows, 1)
    )
    return _workbook(cells)


def sparse_xlsx(rows: Sequence[str]) -> bytes:
    """A workbook with a sheet that uses the first column and the very last one, of a row in 900."""
    return _workbook(
        "".join(
            f'<row r="{y}"><c r="A{y}" t="inlineStr"><is><t>{text}</t></is></c>'
            f'<c r="XFD{y}" t="inlineStr"><is><t>x</t></is></c></row>'
            for y, text in zip(range(1, 1 << 20, 900), rows, strict=False)
        )
    )


def _workbook(cells: str) -> bytes:
    sheet = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return zipped(
        {
            "[Content_Types].xml": _types(
                {
                    "xl/workbook.xml": "spreadsheetml.sheet.main",
                    "xl/worksheets/sheet1.xml": "spreadsheetml.worksheet",
                }
            ),
            "_rels/.rels": _relations(("officeDocument", "xl/workbook.xml")),
            "xl/_rels/workbook.xml.rels": _relations(("worksheet", "worksheets/sheet1.xml")),
            "xl/workbook.xml": f'<?xml version="1.0"?><workbook xmlns="{sheet}" xmlns:r="{OFFICE}"><sheets>'
            '<sheet name="Figures" sheetId="1" r:id="rId1"/></sheets></workbook>',
            "xl/worksheets/sheet1.xml": f'<?xml version="1.0"?><worksheet xmlns="{sheet}"><sheetData>{cells}'
            "</sheetData></worksheet>",
        }
    )


def pptx(slides: Sequence[str]) -> bytes:
    """A presentation with a text box a slide."""
    show = "http://schemas.openxmlformats.org/presentationml/2006/main"
    draw = "http://schemas.openxmlformats.org/drawingml/2006/main"
    names = {f"ppt/slides/slide{number}.xml": "presentationml.slide" for number in range(1, len(slides) + 1)}
    links = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in range(1, len(slides) + 1))
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": _types({"ppt/presentation.xml": "presentationml.presentation.main", **names}),
        "_rels/.rels": _relations(("officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f'<?xml version="1.0"?><p:presentation xmlns:p="{show}" xmlns:r="{OFFICE}">'
        f"<p:sldIdLst>{links}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": _relations(*(("slide", name.removeprefix("ppt/")) for name in names)),
    }
    for name, text in zip(names, slides, strict=True):
        members[name] = (
            f'<?xml version="1.0"?><p:sld xmlns:p="{show}" xmlns:a="{draw}"><p:cSld><p:spTree><p:nvGrpSpPr>'
            '<p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/><p:sp><p:nvSpPr>'
            '<p:cNvPr id="2" name="Text"/><p:cNvSpPr/><p:nvPr/></p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/>'
            f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp></p:spTree></p:cSld></p:sld>"
        )
    return zipped(members)


def odt(text: str) -> bytes:
    """A text document of OpenOffice."""
    mimetype = "application/vnd.oasis.opendocument.text"
    names = "urn:oasis:names:tc:opendocument:xmlns"
    paragraphs = "".join(f"<text:p>{line}</text:p>" for line in text.splitlines())
    return zipped(
        {
            "mimetype": mimetype,
            "content.xml": f'<?xml version="1.0"?><office:document-content xmlns:office="{names}:office:1.0" '
            f'xmlns:text="{names}:text:1.0" office:version="1.2"><office:body><office:text>{paragraphs}'
            "</office:text></office:body></office:document-content>",
            "META-INF/manifest.xml": f'<?xml version="1.0"?><manifest:manifest xmlns:manifest="{names}:manifest:1.0">'
            f'<manifest:file-entry manifest:full-path="/" manifest:media-type="{mimetype}"/></manifest:manifest>',
        },
        stored=("mimetype",),
    )


def epub(chapters: Sequence[str], *, title: str = "A Book") -> bytes:
    """A book with a heading and a paragraph a chapter."""
    names = [f"chapter{number}.xhtml" for number in range(1, len(chapters) + 1)]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<?xml version="1.0"?><container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>',
        "book.opf": '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
        'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">1'
        f"</dc:identifier><dc:title>{title}</dc:title><dc:language>en</dc:language></metadata><manifest>{items}"
        f"</manifest><spine>{spine}</spine></package>",
    }
    for number, (name, text) in enumerate(zip(names, chapters, strict=True), 1):
        members[name] = (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>Chapter</title></head>'
            f"<body><h1>Chapter {number}</h1><p>{text}</p></body></html>"
        )
    return zipped(members, stored=("mimetype",))


# ---------------------------------------------------------------- text formats


def html(text: str, *, title: str = "A page", charset: str = "utf-8") -> bytes:
    """A page that declares its encoding."""
    return (
        f'<!DOCTYPE html><html><head><meta charset="{charset}"><title>{title}</title></head>'
        f"<body><h1>{title}</h1><p>{text}</p></body></html>"
    ).encode(charset)


def rtf(text: str) -> bytes:
    escaped = "".join(char if char.isascii() else rf"\u{ord(char)}?" for char in text)
    return rb"{\rtf1\ansi\deff0{\fonttbl{\f0 Helvetica;}}\f0\fs24 " + escaped.encode("ascii") + rb"\par}"


def eml(text: str, *, subject: str = "A subject", attachments: Mapping[str, bytes] | None = None) -> bytes:
    message = EmailMessage()
    message["From"] = "Ann Sender <ann@example.com>"
    message["To"] = "bob@example.com"
    message["Subject"] = subject
    message["Date"] = "Mon, 01 Jan 2024 10:00:00 +0000"
    message["Message-ID"] = "<1@example.com>"
    message.set_content(text)
    for name, content in (attachments or {}).items():
        message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    return bytes(message)


def mbox(texts: Sequence[str]) -> bytes:
    start = b"From ann@example.com Mon Jan  1 10:00:00 2024\n"
    return b"".join(start + eml(text, subject=f"Mail {index}") + b"\n" for index, text in enumerate(texts, 1))


def ipynb(cells: Sequence[tuple[str, str]]) -> bytes:
    """A notebook; a cell is its kind (`markdown` or `code`) and its source."""
    made: list[dict[str, object]] = [
        {"cell_type": kind, "metadata": {}, "source": source}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for kind, source in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def svg(text: str) -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="100">'
        f'<title>Drawing</title><text x="10" y="50">{text}</text></svg>'
    ).encode()


def tar(members: Mapping[str, bytes], *, kinds: Mapping[str, bytes] | None = None) -> bytes:
    """An archive of these members; those in `kinds` are of that type (`tarfile.SYMTYPE`) instead of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.type = (kinds or {}).get(name, tarfile.REGTYPE)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def sevenz(members: Mapping[str, str | bytes]) -> bytes:
    """An archive of 7-Zip in which the members are stored as they are, one after the other in one folder."""
    contents = [content.encode() if isinstance(content, str) else content for content in members.values()]
    packed, number = b"".join(contents), _sevenz_number
    sizes = b"".join(number(len(content)) for content in contents[:-1])  # the last one is the rest
    checksums = b"".join(struct.pack("<I", zlib.crc32(content)) for content in contents)
    names = b"\0" + "".join(f"{name}\0" for name in members).encode("utf-16-le")
    streams = b"\x06" + number(0) + number(1) + b"\x09" + number(len(packed)) + b"\0"
    folder = b"\x07\x0b" + number(1) + b"\0" + b"\x01\x01\x00" + b"\x0c" + number(len(packed)) + b"\0"
    substreams = (
        b"\x08\x0d" + number(len(contents)) + (b"\x09" + sizes if sizes else b"") + b"\x0a\x01" + checksums + b"\0"
    )
    files = b"\x05" + number(len(contents)) + b"\x11" + number(len(names)) + names + b"\0"
    header = b"\x01\x04" + streams + folder + substreams + b"\0" + files + b"\0"
    start = struct.pack("<QQI", len(packed), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\0\x04" + struct.pack("<I", zlib.crc32(start)) + start + packed + header


def _sevenz_number(value: int) -> bytes:
    """A number in its longest form: all bits of the first byte tell that eight bytes follow."""
    return b"\xff" + struct.pack("<Q", value)


# ---------------------------------------------------------------- hostile documents

ENTITIES = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10))
LAUGHS = f'<!DOCTYPE bomb [<!ENTITY l0 "laughter ">{ENTITIES}]>'
"""A declaration by which `&l9;` stands for 10⁹ words."""


def entity_bomb_svg() -> bytes:
    return f'<?xml version="1.0"?>{LAUGHS}<svg xmlns="http://www.w3.org/2000/svg"><text>&l9;</text></svg>'.encode()


def entity_bomb_html() -> bytes:
    return f'<?xml version="1.0"?>{LAUGHS}<html><body><p>&l9;</p></body></html>'.encode()


def entity_bomb_xml() -> bytes:
    return f'<?xml version="1.0"?>{LAUGHS}<report><p>&l9;</p></report>'.encode()


def entity_bomb_docx() -> bytes:
    return docx("", body="<w:p><w:r><w:t>&l9;</w:t></w:r></w:p>", prologue=LAUGHS)


def zip_bomb_docx(unpacked_mib: int = 3072) -> bytes:
    """A Word document of which one part unpacks to this size; its directory says so."""
    return _bomb_docx(unpacked_mib, declared_bytes=None)


def lying_zip_bomb_docx(unpacked_mib: int = 1024) -> bytes:
    """The same, but the directory declares a kilobyte."""
    return _bomb_docx(unpacked_mib, declared_bytes=1024)


def _bomb_docx(unpacked_mib: int, declared_bytes: int | None) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    mebibyte = b" " * (1 << 20)
    block = packer.compress(mebibyte) + packer.flush(zlib.Z_FULL_FLUSH)  # on its own, so it can be repeated
    crc = 0
    for _ in range(unpacked_mib):
        crc = zlib.crc32(mebibyte, crc)
    packed = block * unpacked_mib + packer.flush()
    declared = unpacked_mib << 20 if declared_bytes is None else declared_bytes
    return _with_raw_member(docx("words"), "word/styles.xml", packed, crc, declared)


def _with_raw_member(container: bytes, name: str, packed: bytes, crc: int, declared: int) -> bytes:
    """Append a deflated member whose header fields are given, truthful or not."""
    end = container.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", container, end + 10)
    encoded = name.encode()
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x5821, crc, len(packed), declared, len(encoded), 0)
    local = b"PK\x03\x04" + fields + encoded + packed
    central = b"PK\x01\x02\x14\0" + fields + struct.pack("<HHHII", 0, 0, 0, 0, start) + encoded
    tail = struct.pack("<HHHHIIH", 0, 0, count + 1, count + 1, size + len(central), start + len(local), 0)
    return container[:start] + local + container[start : start + size] + central + b"PK\x05\x06" + tail


def encrypted_zip() -> bytes:
    """An archive whose only member is marked as encrypted."""
    return partly_encrypted(zipped({"secret.txt": "secret words"}), "secret.txt")


def partly_encrypted(container: bytes, name: str) -> bytes:
    """The container with this one of its members marked as encrypted."""
    content = bytearray(container)
    for signature, flags, named in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        at = content.index(signature)
        while not content.startswith(name.encode(), at + named):
            at = content.index(signature, at + 1)
        content[at + flags] |= 1
    return bytes(content)


def lzma_zip(properties: bytes) -> bytes:
    """An archive of one member, `mimetype`, whose LZMA header holds these five bytes in place of the right ones."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("mimetype", "lost words")
    content = buffer.getvalue()
    start = content.index(b"\x09\x04\x05\0") + 4  # the version of the LZMA SDK and the size of the properties
    return content[:start] + properties + content[start + 5 :]


def zip_with_nameless_member(members: Mapping[str, str | bytes]) -> bytes:
    """An archive with one more member, whose name is empty."""
    return _with_raw_member(zipped(members), "", zlib.compress(b"words", wbits=-15), zlib.crc32(b"words"), 5)


def crowded_zip(members: int) -> bytes:
    """An archive whose directory lists the same empty member this many times."""
    container = zipped({"a": b""})
    end = container.rindex(b"PK\x05\x06")
    start = container.index(b"PK\x01\x02")
    directory = container[start:end] * members
    return container[:start] + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), start, 0)


def zip_with_wrong_checksum(members: Mapping[str, str | bytes]) -> bytes:
    """An archive with one more member, `bad.txt`, which is damaged."""
    return _with_raw_member(zipped(members), "bad.txt", zlib.compress(b"words", wbits=-15), 0, 5)


def zip_with_unknown_method(members: Mapping[str, str | bytes]) -> bytes:
    """An archive with one more member, `bad.txt`, packed by deflate64."""
    content = bytearray(zip_with_wrong_checksum(members))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", content, content.rindex(signature) + offset, 9)
    return bytes(content)


def zip_with_huge_member(members: Mapping[str, str | bytes]) -> bytes:
    """An archive with one more member, `bad.txt`, that declares 300 MiB."""
    return _with_raw_member(zipped(members), "bad.txt", b"\x03\0", 0, 300 << 20)


def tar_with_huge_member(members: Mapping[str, bytes]) -> bytes:
    """An archive that begins with a sparse file, `bad.txt`, of 300 MiB without a byte stored."""
    huge = tarfile.TarInfo("bad.txt")
    huge.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(300 << 20)}
    first = huge.tobuf(tarfile.PAX_FORMAT)
    return first + tar(members)


def huge_png() -> bytes:
    """An image of 30,000 by 30,000 pixels, almost all of them missing."""
    return _png(30_000, 30_000, zlib.compress(bytes(1000)))


def deep_html(text: str, depth: int = 5000) -> bytes:
    """A page with the text at the bottom of nested elements."""
    return b"<!doctype html><html><body>" + b"<div>" * depth + text.encode() + b"</div>" * depth + b"</body></html>"


def compound_file(streams: Mapping[str, bytes]) -> bytes:
    """An OLE2 container (what Word, Excel and Outlook wrote before 2007) with these streams, each padded to 4 KiB."""
    sector = 512
    chains, body, directory = [], b"", []
    for name, content in streams.items():
        padded = content.ljust(max(4096, -(-len(content) // sector) * sector), b"\0")
        directory.append(_directory_entry(name, 2, len(body) // sector, len(padded)))
        chains.append(len(padded) // sector)
        body += padded
    first_directory = len(body) // sector
    entries = _directory_entry("Root Entry", 5, 0xFFFFFFFE, 0, child=1 if directory else 0xFFFFFFFF)
    for index, entry in enumerate(directory, 1):  # a degenerate tree: each entry is the right one of the last
        right = index + 1 if index < len(directory) else 0xFFFFFFFF
        entries += entry[:72] + struct.pack("<I", right) + entry[76:]
    entries = entries.ljust(-(-len(entries) // sector) * sector, b"\0")
    chains.append(len(entries) // sector)
    body += entries
    table: list[int] = []
    for length in chains:
        table += [*range(len(table) + 1, len(table) + length), 0xFFFFFFFE]
    sectors = -(-(len(table) + 1) // 128)
    first_table = len(table)
    table += [0xFFFFFFFD] * sectors
    table += [0xFFFFFFFF] * (-len(table) % 128)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<IIIIIIIII", 0, sectors, first_directory, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
    numbers = [first_table + index for index in range(sectors)] + [0xFFFFFFFF] * (109 - sectors)
    return header + struct.pack("<109I", *numbers) + body + struct.pack(f"<{len(table)}I", *table)


def _directory_entry(name: str, kind: int, start: int, size: int, child: int = 0xFFFFFFFF) -> bytes:
    encoded = (name + "\0").encode("utf-16-le")
    return (
        encoded.ljust(64, b"\0")
        + struct.pack("<HBBIII", len(encoded), kind, 1, 0xFFFFFFFF, 0xFFFFFFFF, child)
        + bytes(36)
        + struct.pack("<IQ", start, size)
    )


def truncated(content: bytes, share: float = 0.5) -> bytes:
    """The first part of a document, as a broken transfer leaves it."""
    return content[: int(len(content) * share)]
