"""Reads a message with Python's email: all parts, decoded. Arguments: the file, how often. Prints JSON."""

import email
import email.policy
import json
import sys
import time

with open(sys.argv[1], "rb") as file:
    message = file.read()
times = int(sys.argv[2])


def read() -> int:
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    size = 0
    for part in parsed.walk():
        if not part.is_multipart():
            part.get_filename()
            size += len(part.get_payload(decode=True))
    return size


read()
began = time.process_time()
for _ in range(times):
    size = read()
cpu = time.process_time() - began
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024
print(json.dumps({"cpuMs": cpu * 1000 / times, "peakBytes": peak, "size": size}))
