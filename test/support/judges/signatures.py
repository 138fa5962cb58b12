"""Verifies the DKIM signatures and the ARC chain of mails with dkimpy. Standard input: {"records": {name: text}, "mails":
[base64]}; standard output: for each mail {"dkim": [{"a", "d", "s", "result"}], "arc": "pass" | "fail" | "none"}, signatures in their order."""

import base64
import json
import sys

import dkim

task = json.load(sys.stdin)
records = {name.lower(): text.encode() for name, text in task["records"].items()}


def lookup(name, timeout=5):
    return records.get(name.decode().rstrip(".").lower())


def verify(message, index):
    signer = dkim.DKIM(message)
    fields = [value for name, value in signer.headers if name.lower() == b"dkim-signature"]
    tags = dkim.util.parse_tag_value(fields[index])
    try:
        result = "pass" if signer.verify(index, dnsfunc=lookup) else "fail"
    except dkim.DKIMException as error:
        result = f"error: {error}"
    return {name: tags[name.encode()].decode() for name in ("a", "d", "s")} | {"result": result}


def judge(text):
    message = base64.b64decode(text)
    fields = [name.lower() for name, _ in dkim.DKIM(message).headers]
    chain, _, _ = dkim.arc_verify(message, dnsfunc=lookup)
    return {
        "dkim": [verify(message, index) for index in range(fields.count(b"dkim-signature"))],
        "arc": chain.decode(),
    }


json.dump([judge(text) for text in task["mails"]], sys.stdout)
