/** Banner and disclaimer in the mail that both mail servers deliver. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readMessage } from "../../src/index.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const FILTERS = `[[filter]]
use = "banner"
[filter.options]
text = "Von außen: Vorsicht!"
own_networks = ["NETWORK"]
strip_from_replies = true

[[filter]]
use = "disclaimer"
[filter.options]
text = "Außendienst & Co."
origin = "own"
own_networks = ["NETWORK"]
`;

const PICTURE = "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=";

function message(text: string, html: string): string {
  return [
    "Subject: hello",
    "From: <alice@example.test>",
    "MIME-Version: 1.0",
    'Content-Type: multipart/mixed; boundary="m"',
    "",
    "preamble",
    "--m",
    'Content-Type: multipart/alternative; boundary="a"',
    "",
    "--a",
    "Content-Type: text/plain; charset=us-ascii",
    "",
    text,
    "--a",
    "Content-Type: text/html; charset=us-ascii",
    "",
    html,
    "--a--",
    "--m",
    PICTURE,
    "--m--",
    "epilogue",
    "",
  ].join("\r\n");
}

/** Bodies as they are read, without the white space of HTML. */
function bodiesOf(delivered: string): { text: string | null; html: string | undefined } {
  const { flaws, html, text } = readMessage(Buffer.from(delivered, "latin1"));
  expect(flaws).toEqual([]);
  return { text, html: html?.replaceAll(/\n+/g, "").replace(/<div style=.*?>/, "<div>") };
}

describeBehindEach("banner and disclaimer", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      outside: { config: FILTERS.replaceAll("NETWORK", "192.0.2.0/24") },
      own: { config: FILTERS.replaceAll("NETWORK", "127.0.0.0/8") },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("mail from outside has the banner in each form, and its other parts as they were", async () => {
    const { text: delivered } = await site.deliver({
      service: "outside",
      message: message("Hello", "<body><p>Hello</p></body>"),
    });
    expect(bodiesOf(delivered)).toEqual({
      text: "Von außen: Vorsicht!\n\nHello",
      html: "<body><div>Von au&#223;en: Vorsicht!</div><p>Hello</p></body>",
    });
    expect(delivered).toContain(`\r\n--m\r\n${PICTURE}\r\n--m--\r\nepilogue\r\n`);
    expect(delivered).toContain("\r\n\r\npreamble\r\n--m\r\n");
  });

  test("the reply loses the banner, and has the disclaimer", async () => {
    const { text: delivered } = await site.deliver({
      service: "own",
      message: message(
        "Yes.\r\n\r\n> Hello",
        "<p>Yes.</p><blockquote><div>Von au&szlig;en: <b>Vorsicht!</b></div><p>Hello</p></blockquote>",
      ),
    });
    expect(bodiesOf(delivered)).toEqual({
      text: "Yes.\n\n> Hello\n\nAußendienst & Co.",
      html: "<p>Yes.</p><blockquote><p>Hello</p></blockquote><p>Au&#223;endienst &amp; Co.</p>",
    });
    expect(delivered).toContain(`\r\n--m\r\n${PICTURE}\r\n--m--\r\nepilogue\r\n`);
  });
});
