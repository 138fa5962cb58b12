"""The callbacks of bench/handlers on pymilter, which is libmilter with Python on top: they read the same values and
add the same header. No callback has a decorator, so a reply is awaited for each; SKIP the library negotiates by
itself. A benchmark's peer, not an example.

Argument: the socket's path.
"""

import sys
import time

import Milter
import milter

KEPT = 0


def keep(*values):
    global KEPT
    for value in values:
        if value is not None:
            KEPT = (KEPT + len(value)) & 0xFFFFFFFF


class Filter(Milter.Base):
    def connect(self, hostname, family, hostaddr):
        keep(hostname, hostaddr[0] if isinstance(hostaddr, tuple) else hostaddr, self.getsymval("{daemon_name}"))
        return Milter.CONTINUE

    def hello(self, hostname):
        keep(hostname)
        for name in ("{cert_issuer}", "{cert_subject}", "{cipher_bits}", "{cipher}", "{tls_version}"):
            keep(self.getsymval(name))
        return Milter.CONTINUE

    def envfrom(self, sender, *params):
        keep(sender)
        for name in ("{mail_addr}", "{auth_authen}", "{auth_author}", "{auth_type}"):
            keep(self.getsymval(name))
        return Milter.REJECT if sender == "<spam-from@example.com>" else Milter.CONTINUE

    def envrcpt(self, recipient, *params):
        keep(recipient, self.getsymval("{rcpt_addr}"))
        return Milter.CONTINUE

    def data(self):
        return Milter.CONTINUE

    def header(self, name, value):
        keep(name, value)
        return Milter.CONTINUE

    def eoh(self):
        return Milter.CONTINUE

    def body(self, chunk):
        keep(chunk.decode("utf-8", "replace"))
        return Milter.SKIP

    def eom(self):
        global KEPT
        keep(self.getsymval("j"), self.getsymval("i"))
        KEPT = (KEPT + int(time.time())) & 0xFFFFFFFF
        self.addheader("X-Pmilter", "Enable")
        return Milter.CONTINUE

    def close(self):
        return Milter.CONTINUE


if len(sys.argv) != 2:
    sys.exit("usage: pymilter.py SOCKET")
Milter.factory = Filter
Milter.set_flags(Milter.ADDHDRS)
# A unix socket with a full backlog refuses: all connections of the generator may come at once.
milter.setbacklog(512)
Milter.runmilter("bench", "unix:" + sys.argv[1])
