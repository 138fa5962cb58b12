/** dkim-sign: which mail it signs, what it covers, and what it does with odd messages. Others verify it in test/integration. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, generateKeyPairSync, type KeyObject, verify } from "node:crypto";
import { chmodSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import dkimSign from "../../handlers/dkim-sign.ts";
import { isKeptByPostfix, writtenBySendmail } from "../../handlers/lib/dkim-sign/addresses.ts";
import type { Form } from "../../handlers/lib/dkim/canonical-body.ts";
import { bodyHash, canonicalField, type Field } from "../../handlers/lib/dkim-sign/canonical.ts";
import { isCarried } from "../../handlers/lib/dkim-sign/lines.ts";
import { chainOf } from "../../handlers/lib/dkim-sign/seal.ts";
import { defineFilter } from "../../src/index.ts";
import { ACTION } from "../../src/protocol/constants.ts";
import { runFilter } from "../../src/testing/index.ts";
import { tempDir, type TempDir } from "../support/temp.ts";

interface BodyHasher {
  update(bytes: Uint8Array): void;
  digest(encoding: "base64"): string;
}
const { dkimBody } = createRequire(import.meta.url)("mailauth/lib/dkim/body/index.js") as {
  readonly dkimBody: (form: Form, hash: "sha256", length: false) => BodyHasher;
};

const RSA = generateKeyPairSync("rsa", { modulusLength: 2048 });
const ED25519 = generateKeyPairSync("ed25519");
const pem = (key: KeyObject) => key.export({ type: "pkcs8", format: "pem" }).toString();

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("dkim-sign");
  const files: Record<string, string> = {
    "r.pem": pem(RSA.privateKey),
    "e.pem": pem(ED25519.privateKey),
    "short.pem": pem(generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey),
    "weak.pem": pem(generateKeyPairSync("rsa", { modulusLength: 768 }).privateKey),
    "ec.pem": pem(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey),
    "public.pem": RSA.publicKey.export({ type: "spki", format: "pem" }).toString(),
    "locked.pem": RSA.privateKey
      .export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "x" })
      .toString(),
    "text.pem": "hello\n",
    "open.pem": pem(RSA.privateKey),
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir.path, name), text, { mode: 0o600 });
  chmodSync(join(dir.path, "open.pem"), 0o644);
});
afterAll(async () => await dir?.[Symbol.asyncDispose]());

const key = (domain: string, selector = "r", file = `${selector}.pem`) => ({ domain, selector, file });
const HEAD = "From: Alice <alice@example.org>\nSubject: hi\n";

interface How {
  readonly options?: Readonly<Record<string, unknown>>;
  readonly macros?: Readonly<Record<string, string>>;
  readonly from?: string;
}

async function run(eml: string, { options, macros = { auth_authen: "alice" }, from = "alice@example.org" }: How = {}) {
  return await runFilter(dkimSign, {
    from,
    to: ["bob@example.net"],
    eml: Buffer.from(eml, "latin1"),
    macros,
    folder: dir.path,
    options: { keys: [key("example.org")], ...options },
  });
}

const NONE = { h: "" };
type Tags = Readonly<Record<"v" | "a" | "c" | "d" | "s" | "t" | "x" | "h" | "bh" | "b", string>>;

/** The tags of each signature of ours, the first one first. */
function signatures(message: string): Tags[] {
  const fields = message.split("\r\n\r\n", 1)[0]!.split(/\r\n(?![ \t])/);
  const ours = fields.filter((field) => field.startsWith("DKIM-Signature: v=1;"));
  return ours.map((field) => {
    const pairs = [...field.slice("DKIM-Signature:".length).matchAll(/\s*(\w+)=([^;]*);?/g)];
    return Object.fromEntries(pairs.map(([, name, value]) => [name, value!.replaceAll(/\s/g, "")])) as Tags;
  });
}

const signed = async (eml: string, how?: How) => {
  const { failures, message, verdict } = await run(eml, how);
  expect({ failures, verdict }).toEqual({ failures: [], verdict: "accept" });
  return signatures(message);
};
const named = async (eml: string, how?: How) => (await signed(eml, how)).map(({ d, s }) => `${s}.${d}`);

const hashed = (body: string, form: Form) => bodyHash(Buffer.from(body, "latin1"), form, new AbortController().signal);

describe("canonical forms (RFC 6376 3.4.5)", () => {
  const BODY = " C \r\nD \t E\r\n\r\n\r\n";
  const hashOf = (text: string) => createHash("sha256").update(text).digest("base64");

  test("fields", () => {
    expect(canonicalField({ name: "A", raw: " X" }, "relaxed")).toBe("a:X");
    expect(canonicalField({ name: "B", raw: " Y\t\r\n\tZ  " }, "relaxed")).toBe("b:Y Z");
    expect(canonicalField({ name: "B", raw: " Y\t\r\n\tZ  " }, "simple")).toBe("B: Y\t\r\n\tZ  ");
  });

  test.each<[string, string, string]>([
    [BODY, " C\r\nD E\r\n", " C \r\nD \t E\r\n"],
    ["", "", "\r\n"],
    ["\r\n\r\n", "", "\r\n"],
    [" \r\n\t\r\n", "", " \r\n\t\r\n"],
    ["a", "a\r\n", "a\r\n"],
    ["a ", "a\r\n", "a \r\n"],
    ["a\r\n \r\n \t", "a\r\n", "a\r\n \r\n \t\r\n"],
    ["a\n \n", "a\n \n\r\n", "a\n \n\r\n"],
    ["a\rb\r", "a\rb\r\r\n", "a\rb\r\r\n"],
    ["\t a", " a\r\n", "\t a\r\n"],
  ])("a body %j", async (body, relaxed, simple) => {
    expect(await hashed(body, "relaxed")).toBe(hashOf(relaxed));
    expect(await hashed(body, "simple")).toBe(hashOf(simple));
  });

  test("are those of mailauth, for 5,000 bodies of any white space", async () => {
    let seed = 1;
    const random = (below: number) => (seed = (seed * 48_271) % 0x7fff_ffff) % below;
    const words = ["a", "b c", " ", "\t", "  ", "\r\n", "\r\n\r\n", "\x80", "=20"];
    for (let count = 0; count < 5000; count++) {
      const body = Array.from({ length: random(12) }, () => words[random(words.length)]).join("");
      for (const form of ["relaxed", "simple"] as const) {
        const other = dkimBody(form, "sha256", false);
        other.update(Buffer.from(body, "latin1"));
        expect([body, form, await hashed(body, form)]).toEqual([body, form, other.digest("base64")]);
      }
    }
  });

  test("a large body, in pieces that end anywhere", async () => {
    const line = `${"x  y\t".repeat(100)}\r\n`;
    const relaxed = `${"x y ".repeat(100).trimEnd()}\r\n`;
    for (const body of [line.repeat(6000), `${"  ".repeat(800_000)}x\r\n`]) {
      const expected = body.startsWith("x") ? relaxed.repeat(6000) : " x\r\n";
      expect(await hashed(body, "relaxed")).toBe(hashOf(expected));
    }
  });
});

describe("whose mail", () => {
  test.each<[string, How, readonly string[]]>([
    ["a user who has logged in", {}, ["r.example.org"]],
    ["a client from outside", { macros: {} }, []],
    ["a client in own_networks", { macros: {}, options: { own_networks: ["127.0.0.1"] } }, ["r.example.org"]],
    ["a null sender of one's own", { from: "" }, ["r.example.org"]],
    ["another envelope sender", { from: "x@example.com" }, ["r.example.org"]],
  ])("%s", async (_, how, expected) => {
    expect(await named(`${HEAD}\nbody\n`, how)).toEqual([...expected]);
  });

  const RING = {
    options: {
      keys: [
        key("example.org"),
        key("example.org", "e"),
        key("mail.example.org", "e"),
        { ...key("strict.test"), subdomains: false },
        key("xn--bcher-kva.example"),
        key("Upper.Example"),
      ],
    },
  };
  test.each<[string, readonly string[]]>([
    ["a@example.org", ["r.example.org", "e.example.org"]],
    ["A <a@EXAMPLE.org>", ["r.example.org", "e.example.org"]],
    ["a@deep.below.example.org", ["r.example.org", "e.example.org"]],
    ["a@mail.example.org", ["e.mail.example.org"]],
    ["a@x.mail.example.org", ["e.mail.example.org"]],
    ["a@strict.test", ["r.strict.test"]],
    ["a@x.strict.test", []],
    ["a@xn--bcher-kva.example", ["r.xn--bcher-kva.example"]],
    ["a@b\xc3\xbccher.example", ["r.xn--bcher-kva.example"]],
    ["a@upper.example", ["r.upper.example"]],
    ["a@example.com", []],
    ["a@example.org.evil.test", []],
    ["a@notexample.org", []],
    ["a@org", []],
    ["<>", []],
    ["people:;", []],
    ["", []],
    ["people: a@example.org;", ["r.example.org", "e.example.org"]],
    ["a@example.com, b@strict.test, c@mail.example.org", ["r.strict.test", "e.mail.example.org"]],
    ['"a@example.org" <b@example.com>', []],
    ["b@example.com (a@example.org)", []],
    [`${"x".repeat(2000)}@example.org`, []],
  ])("From: %s", async (from, expected) => {
    expect(await named(`From: ${from}\nSubject: x\n\nbody\n`, RING)).toEqual([...expected]);
  });

  test.each(["", `${HEAD}From: bob@example.org\n`, `${HEAD}FROM: bob@example.org\n`, "Subject: x\n"])(
    "no From, or more than one: %j",
    async (head) => {
      const { message, notes } = await run(`${head}\nbody\n`);
      expect(signatures(message)).toEqual([]);
      expect(notes.map(({ level, text }) => `${level}: ${text}`)).toEqual([
        expect.stringMatching(/^warn: not signed: it has /),
      ]);
    },
  );
});

describe("what is covered", () => {
  const FULL = `Received: from a\nReturn-Path: <a@b>\n${HEAD}Date: d\nTo: b@example.net\nBcc: c@example.net\nX-Other: 1\nReferences: <a>\nDKIM-Signature: old\nAuthentication-Results: x; none\n`;

  test("From is never alone, Subject and what is there may have no second; trace fields and Bcc are left out", async () => {
    const [{ h } = NONE] = await signed(`${FULL}\nbody\n`);
    expect(h).toBe("References:To:Date:Subject:From:From:Subject:Date:To");
    expect((await signed("From: a@example.org\n\nbody\n"))[0]!.h).toBe("From:From:Subject");
  });

  test("the tags, and a signature that the public key verifies", async () => {
    const { message } = await run("From: a@example.org\n\nbody\n", { options: { expire: "14d" } });
    const [tags] = signatures(message);
    expect(Object.keys(tags!)).toEqual(["v", "a", "c", "d", "s", "t", "x", "h", "bh", "b"]);
    expect(Number(tags!.x) - Number(tags!.t)).toBe(14 * 24 * 3600);
    expect(tags).toMatchObject({
      v: "1",
      a: "rsa-sha256",
      c: "relaxed/relaxed",
      bh: await hashed("body\r\n", "relaxed"),
    });
    const [, field] = /^DKIM-Signature:(.*?\r\n\tb=)/s.exec(message)!;
    const own = `dkim-signature:${field!
      .replaceAll("\r\n", "")
      .replaceAll(/[ \t]+/g, " ")
      .trim()}`;
    const data = Buffer.from(`from:a@example.org\r\n${own}`);
    expect(verify("sha256", data, RSA.publicKey, Buffer.from(tags!.b!, "base64"))).toBe(true);
    for (const line of message.split("\r\n")) expect(line.length).toBeLessThanOrEqual(78);
  });

  test("both algorithms, the first key on top, in each canonicalization", async () => {
    const keys = [key("example.org", "e"), key("example.org")];
    for (const canonicalization of ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]) {
      const found = await signed(`${HEAD}\nbody\n`, { options: { keys, canonicalization } });
      expect(found.map(({ a, c }) => `${a} ${c}`)).toEqual([
        `ed25519-sha256 ${canonicalization}`,
        `rsa-sha256 ${canonicalization}`,
      ]);
    }
  });

  test("changes of the filters before", async () => {
    const change = defineFilter({
      name: "change",
      collectBody: true,
      eom({ message }) {
        message.changeHeader("Subject", "other");
        message.addHeader("Reply-To", "x@example.org");
        message.replaceBody("new\r\n");
      },
    });
    const { failures, message } = await runFilter([change, dkimSign] as never, {
      from: "a@example.org",
      to: ["b@example.net"],
      eml: `${HEAD}\nbody\n`,
      macros: { auth_authen: "a" },
      folder: dir.path,
      options: { keys: [key("example.org")] },
    });
    expect(failures).toEqual([]);
    const [tags] = signatures(message);
    expect(tags!.bh).toBe(await hashed("new\r\n", "relaxed"));
    expect(tags!.h).toBe("Reply-To:Subject:From:From:Subject:Reply-To");
  });
});

test("if a signature cannot be added, the message gets on_error, and none of the changes", async () => {
  const eml = `${HEAD}\n${"x".repeat(2000)}\n`;
  const { failures, message, verdict } = await runFilter(dkimSign, {
    from: "a@example.org",
    to: ["b@example.net"],
    eml,
    macros: { auth_authen: "a" },
    folder: dir.path,
    options: { keys: [key("example.org", "e"), key("example.org")] },
    // Bodies may be changed, headers may not be added.
    offer: { actions: ACTION.CHGBODY | ACTION.CHGHDRS },
  });
  expect(verdict).toBe("tempfail");
  expect(message).not.toContain("DKIM-Signature");
  expect(message).not.toContain("quoted-printable");
  expect(failures).toMatchObject([{ filter: "dkim-sign", message: expect.stringContaining("ADDHDRS") }]);
});

describe("hostile messages", () => {
  test("names and values of fields cannot add to the signature", async () => {
    const eml = `${HEAD}To: x@example.net\n d=evil.test; b=; h=From\nX;d=evil: 1\n\nbody\n`;
    const [tags, ...more] = await signed(eml);
    expect(more).toEqual([]);
    expect(tags).toMatchObject({ d: "example.org", h: "Subject:From:From:Subject" });
  });

  test.each<[string, string, readonly string[]]>([
    ["a lone CR in a field", `${HEAD}Reply-To: a\rX: y\n`, ["Reply-To"]],
    ["a field that is too long", `${HEAD}References: ${"<a@b>".repeat(300)}\n`, ["References"]],
    ["too many of one name", HEAD + "In-Reply-To: <a@b>\n".repeat(11), ["In-Reply-To"]],
    ["addresses that a mail server completes", `${HEAD}To: bob\n`, ["To"]],
  ])("%s is not covered, the rest is", async (_, head, left) => {
    const [{ h } = NONE] = await signed(`${head}\nbody\n`);
    expect(h).toStartWith("Subject:From:From");
    for (const name of left) expect(h).not.toContain(name);
  });

  test("a From that is too long to arrive whole is not signed", async () => {
    const { message, notes } = await run(`From: "${"x".repeat(1000)}" <a@example.org>\n\nbody\n`);
    expect(signatures(message)).toEqual([]);
    expect(notes.map(({ text }) => text)).toEqual(["not signed: From: a line of it is too long"]);
  });

  test("work grows with the size alone", () => {
    for (const text of ["a <", "a.", "a-", "(", '"', "a@", " ", "\\", ",", "a@b.c,", "<>", "a@a."]) {
      for (const end of ["", "<", "@", ")"]) {
        const value = text.repeat(60_000 / text.length) + end;
        expect(writtenBySendmail(value) === null || typeof writtenBySendmail(value) === "string").toBe(true);
        isKeptByPostfix(value);
      }
    }
  });
});

describe("bodies that mail servers carry", () => {
  test.each<[string, boolean]>([
    ["", true],
    ["a\r\n", true],
    ["a", true],
    ["\r\n\r\n", true],
    [`${"x".repeat(990)}\r\n`.repeat(3000), true],
    [`${"x".repeat(991)}\r\n`, false],
    ["x".repeat(990), true],
    ["x".repeat(991), false],
    ["a\nb\r\n", false],
    ["a\rb\r\n", false],
    ["a\r\r\n", false],
    ["a\r", false],
    ["\n", false],
    ["a\0b\r\n", false],
    [`${"x".repeat(70)}\r\n`.repeat(40_000) + "y".repeat(991), false],
  ])("%#", async (body, expected) => {
    expect(await isCarried(Buffer.from(body), new AbortController().signal)).toBe(expected);
  });
});

describe("Sendmail's form of addresses", () => {
  test.each<[string, string | null]>([
    ["a@b.test,c@d.test", "a@b.test, c@d.test"],
    ['A <a@b.test>,"B, C"  <c@d.test>', 'A <a@b.test>, "B, C" <c@d.test>'],
    ["A.B <a@b.test>", '"A.B" <a@b.test>'],
    ["O'Brien <a@b.test>", `"O'Brien" <a@b.test>`],
    ["a@b.test(Com)", "a@b.test (Com)"],
    ["=?utf-8?Q?J=C3=BC?= <a@b.test>", "=?utf-8?Q?J=C3=BC?= <a@b.test>"],
    ["undisclosed-recipients:;", "undisclosed-recipients:;"],
    ["A@x <a@b.test>", '"A@x" <a@b.test>'],
    ["bob", null],
    ["A, B <a@b.test>", null],
    ["people: a@b.test;", null],
    ["a@b.test,", null],
    ["<@r.test:a@b.test>", null],
    ["A.B<a@b.test>", null],
    ["A <a@[192.0.2.1]>", null],
  ])("%s", (value, expected) => {
    expect(writtenBySendmail(value)).toBe(expected);
  });
});

describe("seal", () => {
  const SEAL = { seal: key("sealer.test") };

  test("without results of mail-auth mail is not sealed, which the log says once", async () => {
    const { message, notes } = await run(`${HEAD}\nbody\n`, { macros: {}, options: SEAL });
    expect(message).not.toContain("ARC-");
    expect(notes.map(({ text }) => text)).toEqual([
      "not sealed: there are no results of mail-auth; put it before dkim-sign",
    ]);
  });

  const set = (instance: number | string): Field[] => [
    { name: "ARC-Seal", raw: ` i=${instance}; a=x` },
    { name: "ARC-Message-Signature", raw: ` a=x; i=${instance}` },
    { name: "arc-authentication-results", raw: ` i=${instance}; x; none` },
  ];
  test.each<[string, readonly Field[], number | null]>([
    ["none", [], 0],
    ["one set", set(1), 1],
    ["three, in any order", [...set(3), ...set(1), ...set(2)], 3],
    ["fifty", Array.from({ length: 50 }, (_, at) => set(at + 1)).flat(), 50],
    ["a gap", [...set(1), ...set(3)], null],
    ["twice the same", [...set(1), ...set(1)], null],
    ["a field is missing", set(1).slice(1), null],
    ["a field too many", [...set(1), ...set(2).slice(1)], null],
    ["no number", set("x"), null],
    ["fifty-one", Array.from({ length: 51 }, (_, at) => set(at + 1)).flat(), null],
  ])("a chain: %s", (_, fields, expected) => {
    expect(chainOf(fields)?.length ?? null).toBe(expected);
  });
});

describe("keys", () => {
  test.each<[string, unknown, string]>([
    ["none", [], "options.keys: expected at least one key"],
    ["a file that is not there", [key("example.org", "s", "nothing.pem")], "there is no such file"],
    ["others may read it", [key("example.org", "s", "open.pem")], "every user may read"],
    [
      "less than 1,024 bits",
      [key("example.org", "s", "weak.pem")],
      "expected an RSA key of at least 1024 bits, better 2048; this one has 768",
    ],
    [
      "another kind",
      [key("example.org", "s", "ec.pem")],
      "expected a private key in PEM, RSA or Ed25519; this one is ec",
    ],
    ["the public key", [key("example.org", "s", "public.pem")], "this is the public one"],
    ["a passphrase", [key("example.org", "s", "locked.pem")], "without a passphrase"],
    ["no key", [key("example.org", "s", "text.pem")], "expected a private key in PEM, RSA or Ed25519"],
    ["no domain", [key("example", "s", "r.pem")], 'expected a domain such as "example.org"'],
    ["a domain with more in it", [key("example.org; h=From", "s", "r.pem")], 'expected a domain such as "example.org"'],
    ["no selector", [key("example.org", "s 1", "r.pem")], "expected a selector"],
  ])("refused: %s", async (_, keys, message) => {
    await expect(run(`${HEAD}\n.\n`, { options: { keys } })).rejects.toThrow(message);
  });

  test("the text of a file that is no key is not in the error", async () => {
    const refused = run(`${HEAD}\n.\n`, { options: { keys: [key("example.org", "s", "text.pem")] } });
    await expect(refused).rejects.not.toThrow("hello");
  });

  test("a short key signs, with a warning", async () => {
    const { message, notes } = await run(`${HEAD}\n.\n`, { options: { keys: [key("example.org", "short")] } });
    expect(signatures(message)).toHaveLength(1);
    expect(notes.map(({ level, text }) => `${level}: ${text}`)).toEqual([
      "warn: the key short._domainkey.example.org is short",
    ]);
  });
});
