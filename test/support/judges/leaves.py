"""Reads mails from standard input, each with its length in front, and writes the leaves of each as a line of JSON."""

import base64
import codecs
import email
import email.header
import email.policy
import hashlib
import json
import quopri
import re
import struct
import sys


def digest(data):
    return hashlib.sha256(data).hexdigest()


def raw_bytes(text):
    """The bytes that Python keeps as text, surrogates for those beyond ASCII."""
    return text.encode("utf-8", "surrogateescape")


def decoded(name):
    """Encoded words (RFC 2047) in a name, which the standard forbids and mail programs read."""
    try:
        return str(email.header.make_header(email.header.decode_header(name)))
    except Exception:
        return name


def printable(text):
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_broken(stored, encoding):
    """Whether readers may decode it differently: characters that the encoding does not have, or an unknown encoding."""
    if encoding == "base64":
        digits = re.sub(r"\s+", "", stored)
        return len(digits) % 4 != 0 or not re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", digits)
    if encoding == "quoted-printable":
        return bool(re.search(r"=(?![0-9A-Fa-f]{2}|\r?\n)|[ \t]+(\r?\n|$)|[^\t\r\n -~]", stored))
    return encoding not in ("", "7bit", "8bit", "binary")


def text_of(part, payload):
    """Content of a text in its charset. What is not in the charset, or has none, becomes U+FFFD."""
    if part.get_content_maintype() != "text" and not part.get_content_type().endswith("html+xml"):
        return ""
    charset = part.get_content_charset("")
    if re.fullmatch(r"|(us-)?ascii|ansi_x3\.4-1968", charset) or not is_charset(charset):
        try:
            return payload.decode("utf-8")
        except UnicodeDecodeError:
            charset = "cp1252"
    # Mail programs read ISO 8859-1 as windows-1252.
    if codecs.lookup(charset).name == "iso8859-1":
        charset = "cp1252"
    return payload.decode(charset, "replace")


def is_charset(name):
    try:
        return codecs.lookup(name)._is_text_encoding
    except (LookupError, UnicodeError, ValueError):
        return False


def leaf(part):
    stored = part.get_payload()
    if not isinstance(stored, str):
        # Python reads the groups of a delivery status as messages; what stood between them is lost.
        stored = "".join(sub.as_string() for sub in stored)
    payload = part.get_payload(decode=True)
    if payload is None:
        payload = raw_bytes(stored)
    header = "".join("%s:%s\n" % item for item in part.raw_items())
    # With white space behind it, Python knows no encoding.
    encoding = str(part.get("Content-Transfer-Encoding", "")).lower()
    return {
        "type": part.get_content_type(),
        "name": printable(decoded(part.get_filename() or "")),
        "hash": digest(payload),
        "size": len(payload),
        "text": text_of(part, payload),
        "raw": digest(raw_bytes(header) + b"\n" + raw_bytes(stored)),
        "fields": [name.lower() for name, _ in part.raw_items()],
        "isBroken": part.is_multipart() or is_broken(stored, encoding),
    }


def leaves(part):
    """A multipart gives its parts, and a forwarded message those of the message."""
    if not part.is_multipart():
        return [leaf(part)]
    if part.get_content_maintype() == "multipart":
        return [found for sub in part.get_payload() for found in leaves(sub)]
    if part.get_content_type() not in ("message/rfc822", "message/global"):
        return [leaf(part)]
    inner = part.get_payload(0)
    encoding = str(part.get("Content-Transfer-Encoding", "")).strip().lower()
    # Python reads the message without decoding it.
    if encoding == "base64":
        inner = read(base64.b64decode(stored_bytes(inner)))
    elif encoding == "quoted-printable":
        inner = read(quopri.decodestring(stored_bytes(inner)))
    return leaves(inner)


def stored_bytes(message):
    return message.as_bytes(policy=email.policy.compat32.clone(max_line_length=None))


def read(mail):
    # compat32 never fails on a header, and keeps each as it stands.
    return email.message_from_bytes(mail, policy=email.policy.compat32)


def main():
    source, target = sys.stdin.buffer, sys.stdout
    while len(length := source.read(4)) == 4:
        mail = source.read(struct.unpack(">I", length)[0])
        try:
            answer = leaves(read(mail))
        except Exception as error:
            answer = {"error": repr(error)}
        target.write(json.dumps(answer) + "\n")
        target.flush()


main()
