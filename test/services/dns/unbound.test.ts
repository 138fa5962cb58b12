/** The resolver with a name server that others wrote: each type of record, and what is missing. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { RecordType } from "../../../src/dns/answer.ts";
import { dnsOf } from "../../../src/dns/client.ts";
import type { Dns } from "../../../src/dns/types.ts";
import { Resolver } from "../../../src/services/dns/resolver.ts";
import { describeWith, outsideTool } from "../../support/available.ts";
import { freePorts, type TempDir, tempDir, waitFor } from "../../support/temp.ts";

setDefaultTimeout(60_000);

const unbound = outsideTool("unbound", { paths: ["/usr/sbin/unbound"] });
const LONG = ["a", "b", "c"].map((letter) => letter.repeat(255));

const RECORDS = [
  "example. SOA ns.example. me.example. 7 3600 600 86400 60",
  "example. NS ns.example.",
  "example. MX 20 second.example.",
  "example. MX 10 first.example.",
  'example. CAA 0 issue "ca.example"',
  "a.example. A 192.0.2.1",
  "a.example. AAAA 2001:db8::1",
  "alias.example. CNAME a.example.",
  "nomail.example. MX 0 .",
  `long.example. TXT ${LONG.map((text) => `"${text}"`).join(" ")}`,
  'odd.example. TXT "semi;colon"',
  "_sip._tcp.example. SRV 1 2 5060 a.example.",
  "_25._tcp.example. TLSA 3 1 1 abcdef",
  "1.2.0.192.in-addr.arpa. PTR a.example.",
  "2.2.0.192.in-addr.arpa. PTR elsewhere.example.",
  "elsewhere.example. A 192.0.2.99",
  "7.2.0.192.list.example. A 127.0.0.2",
  "8.2.0.192.list.example. A 127.255.255.254",
];

describeWith(unbound, "unbound", () => {
  let dir: TempDir;
  let child: ReturnType<typeof Bun.spawn>;
  let dns: Dns;

  beforeAll(async () => {
    dir = await tempDir("unbound");
    const [port] = await freePorts(1);
    const file = join(dir.path, "unbound.conf");
    await Bun.write(
      file,
      `server:
  interface: 127.0.0.1
  port: ${port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "${dir.path}"
  pidfile: "${dir.path}/pid"
  logfile: "${dir.path}/log"
  use-syslog: no
  verbosity: 1
  module-config: "iterator"
  local-zone: "example." static
  local-zone: "2.0.192.in-addr.arpa." static
${RECORDS.map((record) => `  local-data: '${record}'\n`).join("")}
remote-control:
  control-enable: no
`,
    );
    child = Bun.spawn([unbound.path, "-d", "-c", file], { stdio: ["ignore", "ignore", "inherit"] });
    const log = (): string => (existsSync(join(dir.path, "log")) ? readFileSync(join(dir.path, "log"), "utf8") : "");
    await waitFor(() => log().includes("start of service"), { what: "unbound to serve" });
    const servers = [{ address: "127.0.0.1", port: port! }];
    const resolver = new Resolver({ servers: () => servers, timeoutMs: 30_000, attempts: 1, cacheSize: 100 });
    const signal = new AbortController().signal;
    dns = dnsOf({ resolve: (name, type, asked) => resolver.resolve({ name, type }, asked) }, () => signal);
  });
  afterAll(async () => {
    child?.kill();
    await child?.exited;
    await dir?.[Symbol.asyncDispose]();
  });

  test.each([
    ["a.example", "A", ["192.0.2.1"]],
    ["A.Example", "AAAA", ["2001:db8::1"]],
    ["alias.example", "CNAME", ["a.example"]],
    ["nomail.example", "MX", [{ exchange: "", priority: 0 }]],
    ["example", "NS", ["ns.example"]],
    ["example", "CAA", [{ critical: 0, tag: "issue", value: "ca.example" }]],
    ["long.example", "TXT", [LONG.join("")]],
    ["odd.example", "TXT", ["semi;colon"]],
    ["_sip._tcp.example", "SRV", [{ name: "a.example", port: 5060, priority: 1, weight: 2 }]],
    ["_25._tcp.example", "TLSA", [{ usage: 3, selector: 1, match: 1, data: "abcdef" }]],
    ["1.2.0.192.in-addr.arpa", "PTR", ["a.example"]],
    [
      "example",
      "SOA",
      [
        {
          nsname: "ns.example",
          hostmaster: "me.example",
          serial: 7,
          refresh: 3600,
          retry: 600,
          expire: 86_400,
          minttl: 60,
        },
      ],
    ],
  ] as const)("%s %s", async (name, type, records) => {
    expect(await dns.resolve<RecordType>(name, type)).toMatchObject({ status: "found", records: [...records] });
  });

  test("what is not there: no such name, and no records of the type", async () => {
    expect(await dns.txt("missing.example")).toMatchObject({ status: "missing", records: [] });
    expect(await dns.txt("a.example")).toMatchObject({ status: "empty", records: [] });
    expect(await dns.mx("example")).toMatchObject({
      records: [
        { exchange: "first.example", priority: 10 },
        { exchange: "second.example", priority: 20 },
      ],
    });
  });

  test("names that are confirmed, and listings", async () => {
    expect(await dns.confirmedName("192.0.2.1")).toMatchObject({ status: "found", records: ["a.example"] });
    expect(await dns.confirmedName("192.0.2.2")).toMatchObject({ status: "empty" });
    expect(await dns.confirmedName("192.0.2.3")).toMatchObject({ status: "missing" });
    const listed = async (address: string) => (await dns.listed(address, "list.example")).status;
    expect(await Promise.all(["192.0.2.7", "192.0.2.8", "192.0.2.9"].map(listed))).toEqual([
      "listed",
      "failed",
      "clear",
    ]);
  });
});
