/** bcc-archive: which messages get the archive as a recipient, and how. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import bccArchive from "../../handlers/bcc-archive.ts";
import { runFilter } from "../../src/testing/index.ts";

const ARCHIVE = "archive@example.com";
const ADDED = [{ kind: "addRecipient", address: `<${ARCHIVE}>`, params: ["NOTIFY=NEVER"] }];

interface Envelope {
  from?: string;
  to?: string[];
  client?: { address: string };
  macros?: Record<string, string>;
}

/** Of a client that has logged in. */
const USER: Envelope = { macros: { auth_authen: "jane" } };

async function run(
  options: Record<string, unknown>,
  { from = "a@example.net", to = ["b@example.com"], ...session }: Envelope = {},
) {
  const mail = { ...session, from, to, eml: "Subject: s\n\nbody\n", options: { address: ARCHIVE, ...options } };
  const { verdict, modifications, failures } = await runFilter(bccArchive, mail);
  expect({ verdict, failures }).toEqual({ verdict: "accept", failures: [] });
  return modifications as unknown[];
}

test.each<[string, Record<string, unknown>, Envelope, unknown[]]>([
  ["every message", {}, {}, ADDED],
  ["the archive is a recipient already", {}, { to: ["b@example.com", "Archive@EXAMPLE.com"] }, []],
  ["in another spelling", {}, { to: ["b@example.com", '"archive"@example.com.'] }, []],
  ["sender domain", { sender_domains: ["example.net"] }, USER, ADDED],
  ["sender domain, of a client that has not logged in", { sender_domains: ["example.net"] }, {}, []],
  ["the same, and any client is believed", { sender_domains: ["example.net"], check_sender: false }, {}, ADDED],
  ["another sender domain of a user", { sender_domains: ["example.com"] }, USER, []],
  [
    "sender domain, of one's own networks",
    { sender_domains: ["example.net"], own_networks: ["192.0.2.0/24"] },
    { client: { address: "192.0.2.7" } },
    ADDED,
  ],
  [
    "sender domain, of other networks",
    { sender_domains: ["example.net"], own_networks: ["192.0.2.0/24", "2001:db8::/32"] },
    { client: { address: "198.51.100.7" } },
    [],
  ],
  ["recipient domain", { recipient_domains: ["example.com"] }, {}, ADDED],
  ["one of two recipients", { recipient_domains: [".example.org"] }, { to: ["b@c.d", "x@y.example.org"] }, ADDED],
  ["either is enough", { sender_domains: ["example.net"], recipient_domains: ["example.org"] }, USER, ADDED],
  ["a recipient is enough", { sender_domains: ["example.net"], recipient_domains: ["example.com"] }, {}, ADDED],
  ["neither", { sender_domains: ["example.com"], recipient_domains: ["example.org"] }, {}, []],
  ["the null sender", {}, { from: "" }, []],
  ["the null sender, wanted", { null_sender: true }, { from: "" }, ADDED],
])("%s", async (_, options, envelope, expected) => {
  expect(await run(options, envelope)).toEqual(expected);
});

test("notify_never = false gives no ESMTP argument", async () => {
  expect(await run({ notify_never: false })).toEqual([{ kind: "addRecipient", address: `<${ARCHIVE}>`, params: [] }]);
});

test("a header says that it was archived, and not for whom", async () => {
  expect(await run({ header: "X-Archived" })).toContainEqual({ kind: "addHeader", name: "X-Archived", value: "yes" });
  const worded = await run({ header: "X-Archived", header_value: "by policy" });
  expect(worded).toContainEqual({ kind: "addHeader", name: "X-Archived", value: "by policy" });
  expect(JSON.stringify(worded)).not.toContain("b@example.com");
});

test.each<[string, Record<string, unknown>, string]>([
  ["no address", { address: undefined }, "options.address: expected one line of text, got nothing"],
  ["no address at all", { address: "archive" }, "options.address: expected an address such as archive@example.com"],
  ["two addresses", { address: "a@b.c> <d@e.f" }, "options.address: expected"],
  ["a line break", { address: "a@b.c\r\nRCPT" }, "options.address: expected one line of text"],
  ["a header value with a line break", { header: "X", header_value: "a\nb" }, "options.header_value: expected"],
  [
    "a network that is none",
    { own_networks: ["10.0.0.0/8", "10.0.0.1/8"] },
    "options.own_networks.1: expected an address or a network (10.0.0.1/8 has bits set beyond its prefix)",
  ],
  ["a switch that is a text", { null_sender: "yes" }, 'options.null_sender: expected true or false, got "yes"'],
  ["an unknown option", { adress: "x" }, 'options.adress: unknown option; did you mean "address"?'],
])("start refuses %s", async (_, options, message) => {
  const mail = { eml: "\n", options: { address: ARCHIVE, ...options } };
  await expect(runFilter(bccArchive, mail)).rejects.toThrow(message);
});

describe("docs/handlers/bcc-archive.md", () => {
  const page = readFileSync(join(import.meta.dir, "../../docs/handlers/bcc-archive.md"), "utf8");
  const [, example = ""] = /^```toml\n(.*?)^```$/ms.exec(page) ?? [];
  const { options } = (Bun.TOML.parse(example) as { filter: [{ options: Record<string, unknown> }] }).filter[0];

  test("its example starts", async () => {
    expect((await runFilter(bccArchive, { eml: "Subject: s\n\n.\n", options })).failures).toEqual([]);
  });
});
