/** Each edit of a message's parts, and what is sealed, in the mail that both mail servers deliver. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readMessage } from "../../src/index.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";

setDefaultTimeout(120_000);

/** By the value of X-Edit: statements over `mime`. */
const EDITS = {
  nothing: "",
  setText: 'mime.parts[0].setText("Grüße\\n");',
  setHtml: 'mime.parts[1].setHtml("<p>Grüße</p>\\n");',
  rewriteHtml:
    'mime.parts[1].rewriteHtml((rewriter) => rewriter.on("a", { element: (a) => a.setAttribute("href", "https://safe.example/") }));',
  setContent: 'mime.attachments[0].setContent(Buffer.from("new"), { type: "text/csv", filename: "ü.csv" });',
  replaceWith: 'mime.attachments[0].replaceWith({ text: "taken out", filename: "note.txt" });',
  remove: "mime.attachments[0].remove();",
  setHeader: 'mime.attachments[0].setHeader("Content-Description", "a picture");',
  attach:
    'mime.attach({ filename: "a.bin", type: "application/octet-stream", content: Buffer.from([0, 255, 13, 10]) });',
  banner: 'mime.banner({ text: "TOP", html: "<p>TOP</p>" });',
  footer: 'mime.footer({ text: "END", html: "<p>END</p>" });',
  "two at once": 'mime.parts[0].setText("one\\n"); mime.attachments[0].remove();',
} as const;

const FILTER = `
import { defineFilter } from "pmilter";
export default defineFilter({
  name: "edits",
  collectBody: true,
  eom({ message }) {
    const mime = message.mime();
    switch (message.headers.text("X-Edit")) {
${Object.entries(EDITS)
  .map(([name, code]) => `      case "${name}": { ${code} break; }\n`)
  .join("")}
      case "sealed": mime.parts[0].setText("broken"); break;
      case "asked": mime.parts[0].setText("broken", { breakSeal: true }); break;
    }
  },
});
`;

const PICTURE =
  "Content-Type: image/png; name=p.png\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0K\r\nGgo=";
const TEXT = "Content-Type: text/plain\r\n\r\nHello";
const HTML = 'Content-Type: text/html\r\n\r\n<p>Hello <a  href="http://x.example/">x</a></p>';

function multipart(edit: string, ...parts: readonly string[]): string {
  const body = parts.map((part) => `--m\r\n${part}\r\n`).join("");
  return `Subject: hello\r\nFrom: <alice@example.test>\r\nX-Edit: ${edit}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="m"\r\n\r\npreamble\r\n${body}--m--\r\nepilogue\r\n`;
}

/** Type, name and decoded content of each part. */
function partsOf(delivered: string): string[] {
  const { flaws, parts } = readMessage(Buffer.from(delivered, "latin1"));
  expect(flaws).toEqual([]);
  return parts.map((part) => {
    const isText = part.type.startsWith("text/");
    return `${part.type} ${part.filename ?? "-"} ${isText ? part.text().replaceAll("\r\n", "\n").trimEnd() : Buffer.from(part.bytes()).toString("base64")}`;
  });
}

const TEXT_SHOWN = "text/plain - Hello";
const HTML_SHOWN = 'text/html - <p>Hello <a  href="http://x.example/">x</a></p>';
const PICTURE_SHOWN = "image/png p.png iVBORw0KGgo=";

/** What readers see afterwards, and the parts that are still there byte for byte. */
const EXPECTED: Readonly<
  Record<keyof typeof EDITS, { readonly shown: readonly string[]; readonly kept: readonly string[] }>
> = {
  nothing: { shown: [TEXT_SHOWN, HTML_SHOWN, PICTURE_SHOWN], kept: [TEXT, HTML, PICTURE] },
  setText: { shown: ["text/plain - Grüße", HTML_SHOWN, PICTURE_SHOWN], kept: [HTML, PICTURE] },
  setHtml: { shown: [TEXT_SHOWN, "text/html - <p>Grüße</p>", PICTURE_SHOWN], kept: [TEXT, PICTURE] },
  rewriteHtml: {
    shown: [TEXT_SHOWN, 'text/html - <p>Hello <a href="https://safe.example/">x</a></p>', PICTURE_SHOWN],
    kept: [TEXT, PICTURE],
  },
  setContent: { shown: [TEXT_SHOWN, HTML_SHOWN, "text/csv ü.csv new"], kept: [TEXT, HTML] },
  replaceWith: { shown: [TEXT_SHOWN, HTML_SHOWN, "text/plain note.txt taken out"], kept: [TEXT, HTML] },
  remove: { shown: [TEXT_SHOWN, HTML_SHOWN], kept: [TEXT, HTML] },
  setHeader: { shown: [TEXT_SHOWN, HTML_SHOWN, PICTURE_SHOWN], kept: [TEXT, HTML] },
  attach: {
    shown: [TEXT_SHOWN, HTML_SHOWN, PICTURE_SHOWN, "application/octet-stream a.bin AP8NCg=="],
    kept: [TEXT, HTML, PICTURE],
  },
  // The HTML is a part of its own behind the text, no other form of it.
  banner: { shown: ["text/plain - TOP\n\nHello", HTML_SHOWN, PICTURE_SHOWN], kept: [HTML, PICTURE] },
  footer: { shown: ["text/plain - Hello\n\nEND", HTML_SHOWN, PICTURE_SHOWN], kept: [HTML, PICTURE] },
  "two at once": { shown: ["text/plain - one", HTML_SHOWN], kept: [HTML] },
};

const SEALED = (edit: string) =>
  multipart(edit, "Content-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nMIIB")
    .replace("multipart/mixed;", 'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256;')
    .replace("--m\r\n", `--m\r\n${TEXT}\r\n--m\r\n`);

describeBehindEach("edits of parts", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      edits: { config: '[[filter]]\npath = "edits.ts"\non_error = "reject"\n', files: { "edits.ts": FILTER } },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(Object.entries(EXPECTED))("%s", async (edit, { kept, shown }) => {
    const { text: delivered } = await site.deliver({ message: multipart(edit, TEXT, HTML, PICTURE) });
    expect(partsOf(delivered)).toEqual([...shown]);
    for (const part of kept) expect(delivered).toContain(`--m\r\n${part}\r\n--m`);
    expect(delivered).toContain("\r\n\r\npreamble\r\n--m\r\n");
    expect(delivered).toEndWith("\r\n--m--\r\nepilogue\r\n");
    expect(delivered.match(/^Content-Type:/gim)!.length).toBe(1 + shown.length);
  });

  test("what is signed is not edited: the filter fails, and on_error decides", async () => {
    const { last } = await site.send({ message: SEALED("sealed") });
    expect(`${last.code} ${last.text}`).toBe(server.rejectedAtEnd);
    const line = await site.pmilter().log.next(/handler failed: .*is signed or encrypted/);
    expect(line).toContain("filter=edits phase=eom");
  });

  test("with breakSeal it is", async () => {
    const { text: delivered } = await site.deliver({ message: SEALED("asked") });
    expect(partsOf(delivered)[0]).toBe("text/plain - broken");
  });
});
