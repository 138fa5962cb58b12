/** access-lists: what entries match, what wrong lists say, and reloading, in memory and in the real server. */
import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { rename, rm, utimes } from "node:fs/promises";
import { join } from "node:path";
import accessLists from "../../handlers/access-lists.ts";
import { AccessFile } from "../../handlers/lib/access-file.ts";
import { NetworkTable } from "../../handlers/lib/access-networks.ts";
import { type Match, parseTable } from "../../handlers/lib/access-table.ts";
import { GivenAddress } from "../../src/handler/message/envelope-address.ts";
import { type Log, reject, tempfail } from "../../src/index.ts";
import { MilterClient, runFilter } from "../../src/testing/index.ts";
import { amountsOf, expectGrowth, NOT_AT_ALL } from "../support/growth.ts";
import { startPmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import { type TempDir, tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("access");
});
afterAll(async () => await dir?.[Symbol.asyncDispose]());

interface Mail {
  as?: "postfix" | "sendmail";
  client?: { address?: string; hostname?: string };
  macros?: Record<string, string>;
  helo?: string;
  from?: string;
  to?: string[];
}

/** Runs one mail against lists, given as match and text. */
async function run(lists: [match: Match, text: string, more?: object][], mail: Mail, options: object = {}) {
  const tables = [];
  for (const [index, [match, text, more]] of lists.entries()) {
    await Bun.write(join(dir.path, `${index}.txt`), text);
    tables.push({ match, file: `${index}.txt`, ...more });
  }
  const outcome = await runFilter(accessLists, {
    from: "a@example.net",
    to: ["b@example.com"],
    eml: "Subject: s\n\n.\n",
    ...mail,
    folder: dir.path,
    options: { ...options, lists: tables },
  });
  expect(outcome.failures).toEqual([]);
  return outcome;
}

const CLIENT = { address: "192.0.2.7", hostname: "mx.example.net" };

describe("entries", () => {
  test.each<[Match, string, Mail, "accept" | "reject"]>([
    ["client", "192.0.2.7", { client: CLIENT }, "reject"],
    ["client", "192.0.2.0/24", { client: CLIENT }, "reject"],
    ["client", "192.0.2.8", { client: CLIENT }, "accept"],
    ["client", "192.0.3.0/24", { client: CLIENT }, "accept"],
    ["client", "0.0.0.0/0", { client: CLIENT }, "reject"],
    ["client", "::/0", { client: CLIENT }, "accept"],
    ["client", "::ffff:192.0.2.7", { client: CLIENT }, "reject"],
    ["client", "2001:db8::/32", { client: { address: "2001:db8::1" } }, "reject"],
    ["client", "2001:DB8:0::1", { client: { address: "2001:db8:0:0:0:0:0:1" } }, "reject"],
    ["client", "2001:db8::/32", { client: { address: "2001:db8::1" }, as: "sendmail" }, "reject"],
    ["client", "2001:db9::/32", { client: { address: "2001:db8::1" } }, "accept"],
    ["client", "192.0.2.0/24", { client: { address: "/run/socket" } }, "accept"],
    ["client", "192.0.2.0/24", { client: { address: "", hostname: "" } }, "accept"],
    ["client", "mx.example.net", { client: CLIENT }, "reject"],
    ["client", "MX.Example.net.", { client: CLIENT }, "reject"],
    ["client", ".example.net", { client: CLIENT }, "reject"],
    ["client", ".net", { client: CLIENT }, "reject"],
    ["client", "example.net", { client: CLIENT }, "accept"],
    ["client", ".mx.example.net", { client: CLIENT }, "accept"],
    ["helo", "mx.example.net", { helo: "MX.example.net" }, "reject"],
    ["helo", ".example.net", { helo: "mx.example.net" }, "reject"],
    ["helo", "[192.0.2.7]", { helo: "[192.0.2.7]" }, "reject"],
    ["helo", "[IPv6:2001:db8::1]", { helo: "[ipv6:2001:DB8::1]" }, "reject"],
    ["helo", "localhost", { helo: "localhost.example" }, "accept"],
    ["sender", "spam@example.net", { from: "SPAM@example.NET" }, "reject"],
    ["sender", "<spam@example.net>", { from: "spam@example.net" }, "reject"],
    ["sender", "spam@example.net", { from: '"spam"@example.net' }, "reject"],
    ["sender", "spam@example.net", { from: "@relay.example,@b.example:spam@example.net" }, "reject"],
    ["sender", "spam@example.net", { from: "spam@example.net." }, "reject"],
    ["sender", "spam@example.net", { from: '"sp"am@example.net' }, "reject"],
    ["sender", "spam@example.net", { from: "example.net!spam" }, "reject"],
    ["sender", '"spam"@example.net', { from: "spam@example.net" }, "reject"],
    ["sender", "@example.net", { from: "any@example.net" }, "reject"],
    ["sender", "@example.net", { from: "any@sub.example.net" }, "accept"],
    ["sender", ".example.net", { from: "any@sub.example.net" }, "reject"],
    ["sender", ".example.net", { from: "any@example.net" }, "accept"],
    ["sender", "@xn--bcher-kva.example", { from: "a@BÜCHER.example" }, "reject"],
    ["sender", "@bücher.example", { from: "a@xn--bcher-kva.example" }, "reject"],
    ["sender", "<>", { from: "" }, "reject"],
    ["sender", "<>", { from: "postmaster" }, "accept"],
    ["sender", "@example.net", { from: "" }, "accept"],
    ["recipient", "b@example.com", { to: ["B@Example.com"] }, "reject"],
    ["recipient", "@example.com", { to: ["b@example.com"] }, "reject"],
    ["recipient", ".com", { to: ["b@example.com"] }, "reject"],
  ])("%s %s, %j: %s", async (match, entry, mail, verdict) => {
    expect((await run([[match, `${entry}\n`]], mail)).verdict).toBe(verdict);
  });

  test.each<["allow" | "block", "postfix" | "sendmail", Record<string, string>, "accept" | "reject"]>([
    ["allow", "postfix", {}, "accept"],
    ["allow", "sendmail", {}, "accept"],
    ["allow", "sendmail", { client_resolve: "FORGED" }, "reject"],
    ["allow", "sendmail", { client_resolve: "TEMP" }, "reject"],
    ["allow", "sendmail", { client_resolve: "" }, "reject"],
    ["block", "sendmail", {}, "reject"],
    ["block", "sendmail", { client_resolve: "FORGED" }, "reject"],
  ])("a client's name that leads back to its address or not: %s, %s, %j: %s", async (way, as, macros, verdict) => {
    const text = way === "allow" ? "mx.example.net allow\n0.0.0.0/0\n" : "mx.example.net\n";
    expect((await run([["client", text]], { client: CLIENT, as, macros })).verdict).toBe(verdict);
  });

  test("an address allows whatever name the client has", async () => {
    const macros = { client_resolve: "FORGED" };
    const mail: Mail = { client: CLIENT, as: "sendmail", macros };
    expect((await run([["client", "192.0.2.7 allow\nmx.example.net\n"]], mail)).verdict).toBe("accept");
  });

  test("a name of ten thousand labels is looked up at its end, and no longer than others", async () => {
    const from = `a@${"x.".repeat(10_000)}example`;
    expect((await run([["sender", ".example\n"]], { from })).verdict).toBe("reject");
    expect((await run([["sender", ".example.net\n"]], { from })).verdict).toBe("accept");
  });

  test("a refused recipient leaves the others", async () => {
    const { verdict, recipients } = await run([["recipient", "b@example.com\n"]], {
      to: ["a@example.com", "b@example.com", "c@example.com"],
    });
    expect(verdict).toBe("accept");
    expect(recipients.map((each) => each.verdict)).toEqual(["accept", "reject", "accept"]);
  });
});

describe("order and replies", () => {
  test("comments, empty lines, actions and texts of lines", async () => {
    const text = [
      "\ufeff# a comment",
      "",
      "  192.0.2.1   # and another",
      "192.0.2.2 tempfail",
      "192.0.2.3 REJECT 554 5.7.9 Not you # 1",
      "192.0.2.4 reject In words",
      "192.0.2.5 allow # friends\r",
      "192.0.2.6 tempfail Later",
      "",
    ].join("\n");
    const replies = [];
    for (const last of [1, 2, 3, 4, 5, 6]) {
      const { verdict, reply } = await run([["client", text]], { client: { address: `192.0.2.${last}` } });
      replies.push(reply === null ? verdict : `${reply.code} ${reply.enhanced} ${reply.lines.join()}`);
    }
    expect(replies).toEqual([
      "550 5.7.1 Access denied",
      "451 4.7.1 Access denied for now, try again later",
      "554 5.7.9 Not you # 1",
      "550 5.7.1 In words",
      "accept",
      "451 4.7.1 Later",
    ]);
  });

  test("texts of the list and of the filter", async () => {
    const client = { address: "192.0.2.1" };
    const ofList = { action: "tempfail", text: "450 4.7.1 From the list" };
    expect((await run([["client", "192.0.2.1\n", ofList]], { client })).reply?.lines).toEqual(["From the list"]);
    const ofFilter = { reject_text: "550 5.7.1 From the filter" };
    expect((await run([["client", "192.0.2.1\n"]], { client }, ofFilter)).reply?.lines).toEqual(["From the filter"]);
  });

  test("allow wins over block, in the same list and in another", async () => {
    const blocked: [Match, string] = ["client", "192.0.2.0/24\n.example.net\n"];
    expect((await run([blocked], { client: CLIENT })).verdict).toBe("reject");
    expect((await run([["client", "192.0.2.0/24\n192.0.2.7 allow\n"]], { client: CLIENT })).verdict).toBe("accept");
    expect(
      (await run([blocked, ["client", "mx.example.net\n", { action: "allow" }]], { client: CLIENT })).verdict,
    ).toBe("accept");
  });

  test("an allowed client is asked nothing more; an allowed HELO, sender or recipient spares its own list alone", async () => {
    const sender: [Match, string] = ["sender", "@example.net\n"];
    expect((await run([["client", "192.0.2.7 allow\n"], sender], { client: CLIENT })).verdict).toBe("accept");
    expect((await run([["helo", "localhost allow\n"], sender], {})).verdict).toBe("reject");
    expect((await run([["sender", "a@example.net allow\n@example.net\n"]], {})).verdict).toBe("accept");
    const recipient: [Match, string] = ["recipient", "@example.com\n"];
    expect((await run([["sender", "a@example.net allow\n"], recipient], {})).verdict).toBe("reject");
  });

  test("the smallest network decides, and the first of the same entries", async () => {
    const text = "192.0.2.0/24 reject 550 5.7.1 wide\n192.0.2.7 reject 550 5.7.1 one\n192.0.2.7 reject 550 5.7.1 two\n";
    expect((await run([["client", text]], { client: CLIENT })).reply?.lines).toEqual(["one"]);
  });
});

describe("what is wrong", () => {
  const DEFAULTS = { action: "reject", reject: reject(), tempfail: tempfail() } as const;
  test.each<[Match, string, string]>([
    ["client", "192.0.2.1/24", "192.0.2.1/24 has bits set beyond its prefix"],
    ["client", "192.0.2.0/33", "192.0.2.0/33: the prefix has at most 32 bits"],
    ["client", "192.0.2", "192.0.2 is no address or network"],
    ["client", "2001:db8::g", "2001:db8::g is no address or network"],
    ["client", "a..bc", '"a..bc" is no host name'],
    ["client", "192.0.2.x", '"192.0.2.x" is no address, network or host name'],
    ["client", "a\0b", "is no host name"],
    ["sender", "example.net", '"example.net" is no address, expected user@example.com'],
    ["sender", "@.example.net", "is no address"],
    ["recipient", "<>", "<> is no recipient"],
    ["helo", "x drop", '"drop" is no action, expected one of allow, reject, tempfail'],
    ["helo", "x reject 450 4.7.1 No", "reject takes a code that starts with 5"],
    ["helo", "x reject a\u0007b", "the reply text has a control character"],
  ])("in a %s list: %j", (match, line, message) => {
    expect(() => parseTable(`${line}\n`, match, DEFAULTS)).toThrow(message);
  });

  test.each<[string, object, string]>([
    ["no lists", { lists: undefined }, "options.lists: expected a list, got nothing"],
    ["no file", { lists: [{ match: "client" }] }, 'options.lists.0.file: "file" is missing'],
    ["a file that is not there", { lists: [{ match: "client", file: "none.txt" }] }, "none.txt: there is no such file"],
    [
      "a wrong match",
      { lists: [{ match: "from" }] },
      'options.lists.0.match: expected "client", "helo", "sender" or "recipient", got "from"',
    ],
    ["a wrong text", { reject_text: "No" }, "options.reject_text: expected an SMTP reply (the reply text must start"],
    [
      "a text beside allow",
      { lists: [{ match: "client", file: "there.txt", action: "allow", text: "550 x" }] },
      'options.lists.0.text: expected no text beside action = "allow"',
    ],
    [
      "an unknown option",
      { lists: [{ match: "client", file: "x", txt: "" }] },
      'options.lists.0.txt: unknown option; did you mean "text"?',
    ],
  ])("start refuses %s", async (_, options, message) => {
    await Bun.write(join(dir.path, "there.txt"), "");
    const mail = { eml: "\n", folder: dir.path, options: options as Record<string, unknown> };
    await expect(runFilter(accessLists, mail)).rejects.toThrow(message);
  });

  test("start names file and line", async () => {
    await expect(run([["client", "192.0.2.1\n\n192.0.2.300\n"]], {})).rejects.toThrow(
      `${join(dir.path, "0.txt")}:3: 192.0.2.300 is no address or network`,
    );
    await expect(run([["client", "192.0.2.1\n192.0.2.2"]], {})).rejects.toThrow("0.txt:2: has no line end");
  });
});

describe("AccessFile", () => {
  const file = () => join(dir.path, "list.txt");
  const LONG_AGO = new Date(Date.now() - 60_000);
  /** As if it had been written a minute ago, and long enough after the last look. */
  async function settle(): Promise<void> {
    await utimes(file(), LONG_AGO, LONG_AGO).catch(() => {});
    await Bun.sleep(250);
  }
  const said: string[] = [];
  const say = (text: string) => void said.push(text);
  const log: Log = Object.assign(say, { debug: say, warn: say, error: say });
  const parse = (text: string) => {
    if (text.includes("bad")) throw new Error("bad");
    return text;
  };
  beforeEach(async () => {
    await Bun.write(file(), "one\n");
  });

  test("takes a change, also by rename, and keeps the old content when the file is wrong or gone", async () => {
    const list = new AccessFile(file(), parse);
    expect(list.content(log)).toBe("one\n");
    await Bun.write(file(), "two\n");
    await settle();
    expect(list.content(log)).toBe("two\n");
    await Bun.write(file(), "bad\n");
    await settle();
    expect(list.content(log)).toBe("two\n");
    await rm(file());
    await settle();
    expect(list.content(log)).toBe("two\n");
    await Bun.write(`${file()}.new`, "three\n");
    await rename(`${file()}.new`, file());
    await settle();
    expect(list.content(log)).toBe("three\n");
    expect(said).toEqual([`${file()}: read anew`, `${file()}: bad; the old list stays`, `${file()}: read anew`]);
  });

  test("leaves a file alone that changed just now, here by a time that never gets old", async () => {
    const list = new AccessFile(file(), parse);
    await Bun.sleep(250);
    await Bun.write(file(), "two\n");
    const future = new Date(Date.now() + 3_600_000);
    await utimes(file(), future, future);
    expect(list.content(log)).toBe("one\n");
    await Bun.sleep(250);
    expect(list.content(log)).toBe("two\n");
  });

  test("bytes that are no UTF-8 are named with their line", async () => {
    await Bun.write(file(), Buffer.from("one\ntwo\xff\n", "latin1"));
    expect(() => new AccessFile(file(), parse)).toThrow("list.txt:2: is not UTF-8");
  });
});

test("NetworkTable agrees with a plain computation", () => {
  const table = new NetworkTable<number>();
  const networks = Array.from({ length: 33 }, (_, length) => {
    const bits = length === 0 ? 0 : (0xc0a8_55aa >>> (32 - length)) * 2 ** (32 - length);
    return { length, text: `${[24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join(".")}/${length}` };
  });
  for (const { length, text } of networks.toReversed()) table.add(text, length);
  for (let flipped = 0; flipped < 32; flipped++) {
    const bits = (0xc0a8_55aa ^ (2 ** (31 - flipped))) >>> 0;
    expect(table.find([24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join("."))).toBe(flipped);
  }
});

describe("100,000 entries of each kind", () => {
  const defaults = { action: "reject", reject: reject(), tempfail: tempfail() } as const;
  const range = (count: number) => Array.from({ length: count }, (_, index) => index);
  const networks = (count: number) =>
    range(count).map((index) => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`);
  const read = (count: number) => ({
    clients: parseTable(`${networks(count).join("\n")}\n`, "client", defaults),
    names: parseTable(
      range(count)
        .map((index) => `user${index}@d${index}.example\n`)
        .join(""),
      "sender",
      defaults,
    ),
  });

  test("are read in proportion", async () => {
    await expectGrowth(100_000, (count) => {
      const { clients, names } = read(count);
      expect([clients.size, names.size]).toEqual([count, count]);
    });
  });

  test("are looked up as fast as a few", async () => {
    const known = new GivenAddress("<user2000@d2000.example>", []);
    const unknown = new GivenAddress("<nobody@a.b.c.d.e.example>", []);
    const tables = new Map(amountsOf(100_000, NOT_AT_ALL).map((count) => [count, read(count)]));
    await expectGrowth(
      100_000,
      (count) => {
        const { clients, names } = tables.get(count)!;
        for (let index = 0; index < 2000; index++) {
          const found = [clients.block.client("10.0.7.208", "mx.example.net"), names.block.mailbox(known)];
          const missing = [clients.block.client("192.0.2.7", "mx.example.net"), names.block.mailbox(unknown)];
          if (found.includes(undefined) || missing.some((each) => each !== undefined))
            throw new Error("looked up wrongly");
        }
      },
      NOT_AT_ALL,
    );
  });
});

describe("in the server", () => {
  const CONFIG = `[[filter]]
path = ${JSON.stringify(join(ROOT, "handlers/access-lists.ts"))}
[[filter.options.lists]]
match = "client"
file = "clients.txt"
`;

  test("a change is there soon, a broken file keeps the old list and says so, and nothing restarts", async () => {
    const files = { "clients.txt": "192.0.2.7\n" };
    await using pmilter = await startPmilter({ config: CONFIG, files, server: { workers: 1 } });
    const file = join(pmilter.dir, "clients.txt");
    const ask = async (address: string) => {
      await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
      await client.negotiate();
      return (await client.connect({ address })).kind;
    };
    expect([await ask("192.0.2.7"), await ask("192.0.2.8")]).toEqual(["replycode", "continue"]);

    const until = (address: string, kind: string) =>
      waitFor(async () => (await ask(address)) === kind, { what: `${address} to get ${kind}` });
    // A list is looked at when somebody asks.
    const untilSaid = (line: RegExp) =>
      waitFor(async () => (await ask("192.0.2.8")) && line.test(pmilter.log.text), {
        what: String(line),
      });
    await Bun.write(file, "192.0.2.8\n");
    await until("192.0.2.7", "continue");
    expect(await ask("192.0.2.8")).toBe("replycode");

    await Bun.write(file, "192.0.2.9\n192.0.2.x\n");
    await untilSaid(/\[error\]: a handler says: .*clients\.txt:2: .*192\.0\.2\.x.*the old list stays/);
    expect([await ask("192.0.2.8"), await ask("192.0.2.9")]).toEqual(["replycode", "continue"]);

    await Bun.write(file, "192.0.2.9\n192.0.2.");
    await untilSaid(/clients\.txt:2: has no line end/);
    expect(await ask("192.0.2.8")).toBe("replycode");

    await Bun.write(file, "192.0.2.9\n");
    await until("192.0.2.8", "continue");
    expect(await ask("192.0.2.9")).toBe("replycode");
    expect(await pmilter.stop()).toBe(0);
    expect(pmilter.log.text).not.toMatch(/\[error\]: (?!a handler says: )/);
  });

  test("a list that cannot be read keeps it from starting", async () => {
    const files = { "clients.txt": "192.0.2.7\nnonsense@\n" };
    await expect(startPmilter({ config: CONFIG, files, server: { workers: 1 } })).rejects.toThrow(
      /start\(\) of filter access-lists failed: .*clients\.txt:2: /,
    );
  });
});

describe("docs/handlers/access-lists.md", () => {
  const page = readFileSync(join(import.meta.dir, "../../docs/handlers/access-lists.md"), "utf8");
  const [, example = ""] = /^```toml\n(.*?)^```$/ms.exec(page) ?? [];
  const { options } = (Bun.TOML.parse(example) as { filter: [{ options: Record<string, unknown> }] }).filter[0];

  test("its example starts, with the files it names", async () => {
    for (const [, path = ""] of example.matchAll(/^file = "(.*)"$/gm)) {
      await Bun.write(join(dir.path, path), "# none yet\n");
    }
    const mail = { eml: "Subject: s\n\n.\n", folder: dir.path, options };
    expect((await runFilter(accessLists, mail)).failures).toEqual([]);
  });

  test("its kinds of entries are taken, and no other", () => {
    const defaults = { action: "reject", reject: reject(), tempfail: tempfail() } as const;
    for (const match of ["client", "helo", "sender"] as const) {
      const [, cell = ""] = new RegExp(`^\\| \`${match}\` +\\| (.*) \\|$`, "m").exec(page) ?? [];
      const entries = [...cell.matchAll(/`([^`]+)`/g)].map((found) => found[1]!);
      expect(entries.length).toBeGreaterThan(2);
      expect(parseTable(`${entries.join("\n")}\n`, match, defaults).size).toBe(entries.length);
    }
  });
});
