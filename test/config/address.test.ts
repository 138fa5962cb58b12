/** Listen addresses and networks: each accepted form, its canonical form, and the reason given for each refusal. */
import { describe, expect, test } from "bun:test";
import {
  AddressError,
  formatAddress,
  type ListenAddress,
  type Network,
  parseAddress,
  parseNetwork,
} from "../../src/config/address.ts";

const unix = (path: string): ListenAddress => ({ kind: "unix", path });
const tcp = (host: string, port: number, family: 4 | 6 = 4): ListenAddress => ({ kind: "tcp", host, port, family });

const ACCEPTED: readonly [text: string, address: ListenAddress, canonical: string][] = [
  ["/run/pmilter.sock", unix("/run/pmilter.sock"), "unix:/run/pmilter.sock"],
  ["./pmilter.sock", unix("./pmilter.sock"), "unix:./pmilter.sock"],
  ["../run/x", unix("../run/x"), "unix:../run/x"],
  [".hidden", unix(".hidden"), "unix:.hidden"],
  ["run/pmilter", unix("run/pmilter"), "unix:run/pmilter"],
  ["hoge.sock", unix("hoge.sock"), "unix:hoge.sock"],
  ["pmilter.socket", unix("pmilter.socket"), "unix:pmilter.socket"],
  ["/run/a:8891", unix("/run/a:8891"), "unix:/run/a:8891"],
  ["run/inet:8891", unix("run/inet:8891"), "unix:run/inet:8891"],
  ["/run/spam filter.sock", unix("/run/spam filter.sock"), "unix:/run/spam filter.sock"],
  ["unix:/run/x", unix("/run/x"), "unix:/run/x"],
  ["unix:x", unix("x"), "unix:x"],
  ["local:/run/x", unix("/run/x"), "unix:/run/x"],
  ["UNIX:/run/x", unix("/run/x"), "unix:/run/x"],
  ["unix:inet:1", unix("inet:1"), "unix:inet:1"],
  ["127.0.0.1:8891", tcp("127.0.0.1", 8891), "inet:127.0.0.1:8891"],
  ["localhost:8891", tcp("localhost", 8891), "inet:localhost:8891"],
  ["inet:127.0.0.1:8891", tcp("127.0.0.1", 8891), "inet:127.0.0.1:8891"],
  ["inet:8891@127.0.0.1", tcp("127.0.0.1", 8891), "inet:127.0.0.1:8891"],
  ["inet:8891@mx-1.example.com", tcp("mx-1.example.com", 8891), "inet:mx-1.example.com:8891"],
  ["inet:3proxy:8891", tcp("3proxy", 8891), "inet:3proxy:8891"],
  ["inet:0.0.0.0:0", tcp("0.0.0.0", 0), "inet:0.0.0.0:0"],
  ["inet:127.0.0.1:65535", tcp("127.0.0.1", 65535), "inet:127.0.0.1:65535"],
  ["[::1]:8891", tcp("::1", 8891, 6), "inet6:[::1]:8891"],
  ["inet6:[::1]:8891", tcp("::1", 8891, 6), "inet6:[::1]:8891"],
  ["inet6:[::]:0", tcp("::", 0, 6), "inet6:[::]:0"],
  ["inet6:8891@::1", tcp("::1", 8891, 6), "inet6:[::1]:8891"],
  ["inet6:8891@[::1]", tcp("::1", 8891, 6), "inet6:[::1]:8891"],
  ["inet6:[0:0::0001]:8891", tcp("::1", 8891, 6), "inet6:[::1]:8891"],
  ["inet6:[2001:DB8::A]:8891", tcp("2001:db8::a", 8891, 6), "inet6:[2001:db8::a]:8891"],
  ["inet6:[fe80::1%eth0]:8891", tcp("fe80::1%eth0", 8891, 6), "inet6:[fe80::1%eth0]:8891"],
  ["inet6:[localhost]:8891", tcp("localhost", 8891, 6), "inet6:[localhost]:8891"],
  ["inet6:localhost:8891", tcp("localhost", 8891, 6), "inet6:[localhost]:8891"],
  ["fd:3", { kind: "fd", fd: 3 }, "fd:3"],
  ["fd:12", { kind: "fd", fd: 12 }, "fd:12"],
];

const REFUSED: readonly [text: string, reason: string][] = [
  ["", "it is empty"],
  [" /run/x", "spaces around it"],
  ["/run/\u0000x", "control characters"],
  ["inet:8891", 'a host is missing; "inet:127.0.0.1:8891" is this machine'],
  ["8891", 'a host is missing; "inet:127.0.0.1:8891" is this machine'],
  ["inet:", "a host is missing"],
  ["inet6:8891", "a host is missing"],
  ["inet::8891", "a host is missing"],
  ["inet:8891@", "a host is missing"],
  ["localhost", '"localhost:8891"'],
  ["inet:localhost", "a port is missing"],
  ["inet6:[::1]", "a port is missing"],
  ["[::1]", "a port is missing"],
  ["inet:localhost:", "a port from 0 to 65535"],
  ["inet:localhost:65536", "a port from 0 to 65535"],
  ["inet:localhost:-1", "a port from 0 to 65535"],
  ["inet:localhost:smtp", 'not "smtp"'],
  ["inet:@localhost", 'not ""'],
  ["::1:8891", "in brackets"],
  ["inet6:::1:8891", "in brackets"],
  ["inet6:::1", "in brackets"],
  ["inet:::1:8891", "in brackets"],
  ["inet6:127.0.0.1:8891", '"inet:127.0.0.1:8891"'],
  ["inet:[::1]:8891", '"inet6:[::1]:8891"'],
  ["inet:8891@::1", '"inet6:[::1]:8891"'],
  ["inet:*:8891", '"0.0.0.0"'],
  ["inet:127.1:8891", "neither an IP address nor a host name"],
  ["inet:300.1.1.1:8891", "neither an IP address nor a host name"],
  ["inet:a..b:8891", "neither an IP address nor a host name"],
  ["inet:-a:8891", "neither an IP address nor a host name"],
  ["tcp:127.0.0.1:8891", "not known"],
  ["tcp://127.0.0.1:8891", "not known"],
  ["http://localhost/", "not known"],
  ["unix:", "a path is missing"],
  ["unix:/run/", "names a folder"],
  ["..", "names a folder"],
  ["/run/.", "names a folder"],
  ["~/pmilter.sock", '"~" is not expanded'],
  ["fd:", "a descriptor number"],
  ["fd:three", "a descriptor number"],
  ["fd:-3", "a descriptor number"],
  ["fd:2", "begin at descriptor 3"],
];

describe("parseAddress", () => {
  for (const [text, address, canonical] of ACCEPTED) {
    test(`reads ${text}`, () => {
      expect(parseAddress(text)).toEqual(address);
      expect(formatAddress(address)).toBe(canonical);
      // The canonical form is an address too, and stays itself.
      expect(parseAddress(canonical)).toEqual(address);
    });
  }

  for (const [text, reason] of REFUSED) {
    test(`refuses ${JSON.stringify(text)}`, () => {
      const error = thrownBy(() => parseAddress(text));
      expect(error.code).toBe("PMILTER_ERR_ADDRESS");
      expect(error.message).toStartWith(`${JSON.stringify(text)} is not a listen address: `);
      expect(error.message).toContain(reason);
    });
  }

  test("quotes a long text in part", () => {
    expect(thrownBy(() => parseAddress(`inet:${"a".repeat(5000)}`)).message.length).toBeLessThan(500);
  });
});

const NETWORKS: readonly [text: string, network: Network][] = [
  ["192.0.2.0/24", { address: "192.0.2.0", prefix: 24, family: 4 }],
  ["192.0.2.128/25", { address: "192.0.2.128", prefix: 25, family: 4 }],
  ["192.0.2.1", { address: "192.0.2.1", prefix: 32, family: 4 }],
  ["192.0.2.1/32", { address: "192.0.2.1", prefix: 32, family: 4 }],
  ["0.0.0.0/0", { address: "0.0.0.0", prefix: 0, family: 4 }],
  ["2001:db8::/32", { address: "2001:db8::", prefix: 32, family: 6 }],
  ["2001:0DB8:0::0/32", { address: "2001:db8::", prefix: 32, family: 6 }],
  ["2001:db8:8000::/33", { address: "2001:db8:8000::", prefix: 33, family: 6 }],
  ["[2001:db8::]/32", { address: "2001:db8::", prefix: 32, family: 6 }],
  ["::1", { address: "::1", prefix: 128, family: 6 }],
  ["1:2:3:4:5:6:7:8/128", { address: "1:2:3:4:5:6:7:8", prefix: 128, family: 6 }],
  ["::/0", { address: "::", prefix: 0, family: 6 }],
];

const NO_NETWORKS: readonly [text: string, reason: string][] = [
  ["", "write it as"],
  ["localhost", "write it as"],
  ["192.0.2", "write it as"],
  ["192.0.2.256", "write it as"],
  ["192.0.2.0/24/1", "a number from 0 to 32"],
  ["192.0.2.0/", "a number from 0 to 32"],
  ["192.0.2.0/33", "a number from 0 to 32"],
  ["192.0.2.0/255.255.255.0", "a number from 0 to 32"],
  ["2001:db8::/129", "a number from 0 to 128"],
  ["192.0.2.1/24", 'did you mean "192.0.2.0/24" or the single "192.0.2.1"?'],
  ["255.255.255.255/1", 'did you mean "128.0.0.0/1"'],
  ["2001:db8::1/32", 'did you mean "2001:db8::/32"'],
  ["::1/0", 'did you mean "::/0"'],
  ["fe80::1%eth0", "no zone"],
  ["::ffff:192.0.2.1", "in its own form"],
];

describe("parseNetwork", () => {
  for (const [text, network] of NETWORKS) {
    test(`reads ${text}`, () => expect(parseNetwork(text)).toEqual(network));
  }
  for (const [text, reason] of NO_NETWORKS) {
    test(`refuses ${JSON.stringify(text)}`, () => {
      expect(thrownBy(() => parseNetwork(text)).message).toContain(reason);
    });
  }
});

function thrownBy(run: () => unknown): AddressError {
  try {
    run();
  } catch (error) {
    if (error instanceof AddressError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}
