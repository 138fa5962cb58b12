/** `session.dns.promises` against `node:dns/promises`: the same records and errors from the same name server. */
import { expect, test } from "bun:test";
import { Resolver as NodeResolver } from "node:dns/promises";
import { dnsOf } from "../../../src/dns/client.ts";
import { Resolver } from "../../../src/services/dns/resolver.ts";
import { startNameServer, type TestAnswer, type TestNameServer } from "./server.ts";

const record = (type: string, data: unknown, name = "x.example") => ({ type, name, ttl: 60, data });

const ZONE: Readonly<Record<string, TestAnswer>> = {
  "x.example A": { answers: [record("A", "192.0.2.1"), record("A", "192.0.2.2")] },
  "x.example AAAA": { answers: [record("AAAA", "2001:db8::1")] },
  "x.example CAA": {
    answers: [record("CAA", { flags: 128, issuerCritical: true, tag: "issue", value: "ca.example" })],
  },
  "alias.example CNAME": { answers: [record("CNAME", "x.example", "alias.example")] },
  "x.example MX": { answers: [record("MX", { preference: 10, exchange: "mx.example" })] },
  "none.example MX": { answers: [record("MX", { preference: 0, exchange: "." }, "none.example")] },
  "x.example NS": { answers: [record("NS", "ns.example")] },
  "1.2.0.192.in-addr.arpa PTR": { answers: [record("PTR", "x.example", "1.2.0.192.in-addr.arpa")] },
  "x.example SOA": {
    answers: [record("SOA", { mname: "ns", rname: "me", serial: 7, refresh: 1, retry: 2, expire: 3, minimum: 4 })],
  },
  "x.example SRV": { answers: [record("SRV", { priority: 1, weight: 2, port: 25, target: "mx.example" })] },
  "x.example TXT": { answers: [record("TXT", ["v=spf1 -all"]), record("TXT", ["other"])] },
  "missing.example A": { rcode: 3 },
  "refused.example A": { rcode: 5 },
  "broken.example A": { rcode: 2 },
};

function ours({ address, port }: TestNameServer, signal = new AbortController().signal) {
  const resolver = new Resolver({ servers: () => [{ address, port }], timeoutMs: 60_000, attempts: 1, cacheSize: 100 });
  return dnsOf({ resolve: (name, type, asked) => resolver.resolve({ name, type }, asked) }, () => signal).promises;
}

const zone = (name: string, type: string): TestAnswer => ZONE[`${name} ${type}`] ?? {};

/** Records, or what says how it failed. */
async function settled(answer: Promise<unknown>): Promise<unknown> {
  try {
    return await answer;
  } catch (error) {
    const { code, hostname, message, syscall } = error as NodeJS.ErrnoException & { hostname: string };
    return { code, hostname, message, syscall };
  }
}

const QUESTIONS: readonly (readonly [method: string, ...args: string[]])[] = [
  ["resolve", "x.example"],
  ["resolve", "x.example", "MX"],
  ["resolve4", "x.example"],
  ["resolve4", "missing.example"],
  ["resolve4", "refused.example"],
  ["resolve4", "broken.example"],
  ["resolve6", "x.example"],
  ["resolveCaa", "x.example"],
  ["resolveCname", "alias.example"],
  ["resolveMx", "x.example"],
  ["resolveMx", "none.example"],
  ["resolveNs", "x.example"],
  ["resolvePtr", "1.2.0.192.in-addr.arpa"],
  ["resolveSoa", "x.example"],
  ["resolveSrv", "x.example"],
  ["resolveTxt", "x.example"],
  ["reverse", "192.0.2.1"],
];

test.each(QUESTIONS)("%s %s", async (method, ...args) => {
  await using server = await startNameServer(zone);
  const node = new NodeResolver({ timeout: 5000, tries: 1 });
  node.setServers([`${server.address}:${server.port}`]);
  const ask = (dns: object) =>
    settled((dns as Record<string, (...all: string[]) => Promise<unknown>>)[method]!(...args));
  const [own, theirs] = await Promise.all([ask(ours(server)), ask(node)]);
  expect(own).toEqual(theirs);
});

/** Bun's own says ENOTFOUND here; this is what Node 24 says. */
test("a name without records of the type is ENODATA", async () => {
  await using server = await startNameServer(zone);
  expect(await settled(ours(server).resolveTxt("empty.example"))).toEqual({
    code: "ENODATA",
    hostname: "empty.example",
    message: "queryTxt ENODATA empty.example",
    syscall: "queryTxt",
  });
});

test("a TXT record of several strings is one", async () => {
  const strings = ["a".repeat(255), "b".repeat(255), "c".repeat(255)];
  await using server = await startNameServer(() => ({ answers: [record("TXT", strings)] }));
  expect(await ours(server).resolveTxt("x.example")).toEqual([[strings.join("")]]);
});

test("TLSA: the certificate's data is an ArrayBuffer", async () => {
  const data = { usage: 3, selector: 1, matchingType: 1, certificate: Buffer.from([0xab, 0xcd]) };
  await using server = await startNameServer((name) => ({ answers: [record("TLSA", data, name)] }));
  const [tlsa] = await ours(server).resolveTlsa("_25._tcp.x.example");
  expect({ ...tlsa, data: [...new Uint8Array(tlsa!.data)] }).toEqual({
    certUsage: 3,
    selector: 1,
    match: 1,
    data: [0xab, 0xcd],
  });
});

test("at the end of the call it rejects with the signal's reason", async () => {
  await using server = await startNameServer(() => ({ isSilent: true }));
  const call = new AbortController();
  const answer = ours(server, call.signal).resolveTxt("x.example");
  call.abort(new Error("over"));
  await expect(answer).rejects.toThrow("over");
});

test("an unknown type of records is an error of the call", async () => {
  await using server = await startNameServer(zone);
  await expect(ours(server).resolve("x.example", "ANY" as "A")).rejects.toThrow("one of A, AAAA");
});

test("what is no address has no names", async () => {
  await using server = await startNameServer(zone);
  expect(await settled(ours(server).reverse("x.example"))).toMatchObject({ code: "EINVAL", syscall: "getHostByAddr" });
});
