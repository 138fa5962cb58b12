"""Reads mails from standard input, each with its length in front, and writes the leaves of each as a line of JSON."""

import email
import email.header
import email.policy
import hashlib
import json
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


def leaf(part):
    payload = part.get_payload(decode=True)
    if payload is None:
        payload = b""
    stored = part.get_payload()
    header = "".join("%s:%s\n" % item for item in part.raw_items())
    return {
        "type": part.get_content_type(),
        "name": printable(decoded(part.get_filename() or "")),
        "hash": digest(payload),
        "size": len(payload),
        "raw": digest(raw_bytes(header) + b"\n" + raw_bytes(stored if isinstance(stored, str) else "")),
        "fields": [name.lower() for name, _ in part.raw_items()],
    }


def main():
    source, target = sys.stdin.buffer, sys.stdout
    while len(length := source.read(4)) == 4:
        mail = source.read(struct.unpack(">I", length)[0])
        try:
            # compat32 never fails on a header, and keeps each as it stands.
            message = email.message_from_bytes(mail, policy=email.policy.compat32)
            answer = [leaf(part) for part in message.walk() if not part.is_multipart()]
        except Exception as error:
            answer = {"error": repr(error)}
        target.write(json.dumps(answer) + "\n")
        target.flush()


main()
