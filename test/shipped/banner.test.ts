/** banner: which messages get it, that each form of a message has it once, and that replies lose it. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import banner from "../../handlers/banner.ts";
import { readMessage } from "../../src/index.ts";
import { runFilter } from "../../src/testing/index.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const TEXT = "CAUTION: this mail comes from outside.";
const HTML = `<div class="caution">${TEXT}</div>`;
const OPTIONS = { text: TEXT, html: HTML };
/** Of a client that has logged in. */
const USER = { macros: { auth_authen: "jane" } };
const STRIP = { strip_from_replies: true };

type Mail = Omit<Parameters<typeof runFilter>[1] & object, "eml" | "options">;

async function run(eml: string | Uint8Array, options: Record<string, unknown> = {}, mail: object = {}) {
  const outcome = await runFilter(banner, {
    from: "alice@example.net",
    to: ["bob@example.com"],
    ...(mail as Mail),
    eml,
    options: { ...OPTIONS, ...options },
  });
  expect(outcome.failures).toEqual([]);
  expect(outcome.verdict).toBe("accept");
  return outcome;
}

/** What is left of the body. */
async function bodyAfter(eml: string, options?: Record<string, unknown>, mail?: object): Promise<string> {
  const { message } = await run(eml, options, mail);
  return message.slice(message.indexOf("\r\n\r\n") + 4);
}

function html(body: string): string {
  return `Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n${body}`;
}

const PLAIN = "Content-Type: text/plain; charset=utf-8\r\n\r\nHello";
const MARKUP = "Content-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>Hello</p></body></html>";
const PICTURE = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <p>\r\n\r\niVBORw0K";

let count = 0;
function multi(type: string, ...parts: string[]): string {
  const boundary = `b${(count += 1)}`;
  const body = parts.map((part) => `--${boundary}\r\n${part}\r\n`).join("");
  return `Content-Type: multipart/${type}; boundary=${boundary}\r\n\r\npreamble\r\n${body}--${boundary}--\r\nepilogue\r\n`;
}

describe("where it goes", () => {
  test("plain text: on top, with an empty line behind it", async () => {
    expect(await bodyAfter("Subject: s\r\n\r\nHello\r\n")).toBe(`${TEXT}\r\n\r\nHello\r\n`);
  });

  test("HTML: at the beginning of the body", async () => {
    const after = await bodyAfter(
      html('<html><head><title>x</title></head><body class="a"><p>Hello</p></body></html>\r\n'),
    );
    expect(after.replaceAll("\r\n", "")).toBe(
      `<html><head><title>x</title></head><body class="a">${HTML}<p>Hello</p></body></html>`,
    );
  });

  test.each([
    ["alternative", multi("alternative", PLAIN, MARKUP), 2],
    ["alternative in mixed", multi("mixed", multi("alternative", PLAIN, MARKUP), PICTURE), 2],
    ["related in alternative", multi("alternative", PLAIN, multi("related", MARKUP, PICTURE)), 2],
    ["mixed: the first text", multi("mixed", PLAIN, PICTURE, PLAIN), 1],
    ["a report, which anyone can make", multi("report; report-type=x", PLAIN, PICTURE), 1],
  ])("%s: all other bytes stay", async (_, eml, times) => {
    const { message } = await run(`MIME-Version: 1.0\r\n${eml}`);
    const bare = message.replace(`${TEXT}\r\n\r\n`, "").replace(new RegExp(`(?:\r\n)?${HTML}\r\n`), "");
    expect(bare).toBe(`MIME-Version: 1.0\r\n${eml}`);
    expect(message.split(TEXT).length - 1).toBe(times);
  });

  test("a message without text gets a part with it, in front", async () => {
    const { message } = await run(`MIME-Version: 1.0\r\n${PICTURE}\r\n`);
    const { parts, text, flaws } = readMessage(Buffer.from(message));
    expect(parts.map(({ type }) => type)).toEqual(["text/plain", "image/png"]);
    expect(text?.trim()).toBe(TEXT);
    expect(flaws).toEqual([]);
  });

  test("a boundary that is missing does not spare a message the banner", async () => {
    const { message } = await run(
      "MIME-Version: 1.0\r\nContent-Type: multipart/mixed\r\n\r\n--b\r\n\r\nHello\r\n--b--\r\n",
    );
    expect(message).toContain(TEXT);
  });

  test("without html the text is in a box with colours of its own", async () => {
    const after = await bodyAfter(html("<p>Hello</p>\r\n"), { html: undefined, text: "A < B & ü" });
    expect(after).toMatch(
      /^<div style="[^"]*background-color:#fff4ce !important;color:#1f1f1f !important;[^"]*">A &lt; B &amp; &#252;<\/div>/,
    );
  });

  test("texts of files", async () => {
    await using dir = await tempDir("banner");
    writeFileSync(join(dir.path, "b.txt"), "one\ntwo\n");
    writeFileSync(join(dir.path, "b.html"), "<p>one\n<p>two\n");
    const files = {
      text: undefined,
      html: undefined,
      text_file: join(dir.path, "b.txt"),
      html_file: join(dir.path, "b.html"),
    };
    expect(await bodyAfter("Subject: s\r\n\r\nHello\r\n", files)).toBe("one\r\ntwo\r\n\r\nHello\r\n");
    expect(await bodyAfter(html("Hello\r\n"), files)).toStartWith("<p>one\r\n<p>two\r\n");
  });

  test.each([
    ["signed", multi('signed; protocol="application/pgp-signature"', PLAIN, PICTURE)],
    ["encrypted", "Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nAAAA\r\n"],
    ["PGP in the text", "Subject: s\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA1\r\n"],
    ["encrypted with PGP", multi("encrypted", "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", PICTURE)],
    ["an invitation", "Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR\r\n"],
    ["a piece of a message", "Content-Type: message/partial; id=1; number=1; total=2\r\n\r\nSubject: s\r\n\r\nhi\r\n"],
  ])("left alone: %s", async (_, eml) => {
    expect((await run(`MIME-Version: 1.0\r\n${eml}`)).modifications).toEqual([]);
  });

  test.each([
    ["a signature that signs nothing", "Content-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----"],
    ["a signed message in it", multi("signed", PLAIN, PICTURE)],
    ["encrypted parts", "Content-Type: application/pkcs7-mime; name=smime.p7m\r\n\r\nAAAA"],
  ])("%s behind the text does not spare a message the banner", async (_, part) => {
    const { message } = await run(`MIME-Version: 1.0\r\n${multi("mixed", PLAIN, part)}`);
    expect(message).toContain(`${TEXT}\r\n\r\nHello`);
    expect(message).toContain(part);
  });

  test("signed mail if wished, once", async () => {
    const signed = `MIME-Version: 1.0\r\n${multi("signed", PLAIN, PICTURE)}`;
    const { message } = await run(signed, { sealed: "change" });
    expect(message).toContain(`${TEXT}\r\n\r\nHello`);
    expect((await run(message, { sealed: "change" })).message.split(TEXT)).toHaveLength(2);
    const pgp = multi("encrypted", "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1", PICTURE);
    for (const encrypted of ["Content-Type: application/pkcs7-mime\r\n\r\nAAAA\r\n", pgp]) {
      expect((await run(`MIME-Version: 1.0\r\n${encrypted}`, { sealed: "change" })).modifications).toEqual([]);
    }
  });

  test("a charset that lacks its characters becomes UTF-8, each field of the part once", async () => {
    const part = "Content-Type: text/plain; charset=us-ascii\r\n\r\nHello";
    const { message } = await run(`MIME-Version: 1.0\r\n${multi("mixed", part, PICTURE)}`, { text: "Außen" });
    expect(message.match(/^content-type: text/gim)).toHaveLength(1);
    expect(message).toContain("Au=C3=9Fen\r\n\r\nHello");
    expect(readMessage(Buffer.from(message)).text).toBe("Außen\n\nHello");
  });
});

describe("which messages", () => {
  const EML = "Subject: s\r\n\r\nHello\r\n";
  test.each<[string, Record<string, unknown>, object, boolean]>([
    ["from outside", {}, {}, true],
    ["not of a user", {}, USER, false],
    ["not from one's own networks", { own_networks: ["127.0.0.0/8"] }, {}, false],
    ["of one's own clients if wished", { origin: "own" }, USER, true],
    ["of all if wished", { origin: "any" }, USER, true],
    ["with a sender in one's own domain, which may be forged", {}, { from: "boss@example.com" }, true],
    ["of an excepted sender", { except_sender_domains: ["example.net"] }, {}, false],
    ["not for other recipients", { recipient_domains: ["example.org"] }, {}, false],
    ["not for excepted recipients", { except_recipient_domains: ["example.com"] }, {}, false],
  ])("%s", async (_, options, mail, isWanted) => {
    expect((await bodyAfter(EML, options, mail)).startsWith(TEXT)).toBe(isWanted);
  });
});

describe("once", () => {
  test.each([
    ["text", "Subject: s\r\n\r\nHello\r\n"],
    ["HTML", html("<body><p>Hello</p></body>\r\n")],
    ["both", `MIME-Version: 1.0\r\n${multi("alternative", PLAIN, MARKUP)}`],
  ])("%s, and twice through the filter", async (_, eml) => {
    const once = (await run(eml)).message;
    const twice = (await run(once)).message;
    expect(twice.split(TEXT).length).toBe(once.split(TEXT).length);
  });

  test("one that nobody sees does not stand for it", async () => {
    const after = await bodyAfter(html(`<body><div style="display:none">${HTML}</div><p>Hello</p></body>\r\n`));
    expect(after.replaceAll("\r\n", "")).toBe(`<body>${HTML}<p>Hello</p></body>`);
    const commented = await bodyAfter(html(`<!-- <body>${HTML} --><p>Hello</p>\r\n`));
    expect(commented.split(HTML)).toHaveLength(3);
  });
});

describe("replies", () => {
  const REPLY = `Subject: Re: s\r\n\r\nYes.\r\n\r\n> ${TEXT}\r\n> \r\n> Hello\r\n`;
  const QUOTE = html(`<p>Yes.</p><blockquote><div class="m_caution"><b>${TEXT}</b></div><p>Hello</p></blockquote>\r\n`);

  test("keep it unless it is to be taken out", async () => {
    expect((await run(REPLY, {}, USER)).modifications).toEqual([]);
  });

  test("lose it in text", async () => {
    expect(await bodyAfter(REPLY, STRIP, USER)).toBe("Yes.\r\n\r\n> Hello\r\n");
  });

  test("lose it in HTML", async () => {
    expect(await bodyAfter(QUOTE, STRIP, USER)).toBe("<p>Yes.</p><blockquote><p>Hello</p></blockquote>\r\n");
  });

  test("from outside lose the quoted one and get one on top", async () => {
    expect(await bodyAfter(REPLY, STRIP)).toBe(`${TEXT}\r\n\r\nYes.\r\n\r\n> Hello\r\n`);
  });

  test("in all forms, encodings and charsets, while all other parts stay", async () => {
    const encoded = (type: string, text: string) =>
      `Content-Type: ${type}; charset=iso-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\n${Buffer.from(text, "latin1").toString("base64")}`;
    const eml = `MIME-Version: 1.0\r\n${multi(
      "mixed",
      multi(
        "alternative",
        encoded("text/plain", `Ja, grün\r\n> ${TEXT}\r\n`),
        encoded("text/html", `<p>Ja, grün</p>${HTML}`),
      ),
      PICTURE,
    )}`;
    const { message } = await run(eml, STRIP, USER);
    const { text, html, parts } = readMessage(Buffer.from(message));
    expect([text, html]).toEqual(["Ja, grün\n", "<p>Ja, grün</p>"]);
    expect(parts).toHaveLength(3);
    expect(message).toContain(PICTURE);
  });

  test.each([
    ["no banner", "Subject: s\r\n\r\nHello\r\n"],
    ["another text", "Subject: s\r\n\r\n> CAUTION: this mail is long.\r\n"],
    ["a signature around it", `MIME-Version: 1.0\r\n${multi("signed", `\r\n> ${TEXT}`, PICTURE)}`],
    [
      "an attached file",
      `MIME-Version: 1.0\r\n${multi("mixed", PLAIN, `Content-Disposition: attachment\r\n\r\n${TEXT}`)}`,
    ],
    ["bytes that cannot be read", `Subject: s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\udcff\r\n${TEXT}\r\n`],
  ])("with %s stay as they are", async (_, eml) => {
    const bytes = Buffer.from(eml.replace("\udcff", "\xff"), "latin1");
    expect((await run(bytes, STRIP, USER)).modifications).toEqual([]);
  });
});

test.each<[string, Record<string, unknown>, string]>([
  ["no text", { text: undefined }, "options.text: expected the banner, here or in the file that text_file names"],
  ["text twice", { text_file: import.meta.path }, 'options.text_file: expected none beside "text"'],
  ["html twice", { html_file: import.meta.path }, 'options.html_file: expected none beside "html"'],
  ["a word that is none", { origin: "inside" }, 'options.origin: expected "any", "own" or "outside", got "inside"'],
  ["a switch that is a text", { strip_from_replies: "yes" }, "options.strip_from_replies: expected true or false"],
  ["an unknown option", { strip_replies: true }, "options.strip_replies: unknown option"],
])("start refuses %s", async (_, options, message) => {
  await expect(runFilter(banner, { eml: "\n", options: { ...OPTIONS, ...options } })).rejects.toThrow(message);
});
