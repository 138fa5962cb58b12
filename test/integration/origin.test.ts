/** Mail of one's own clients and mail from outside with the same sender, behind both mail servers. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { sendMail } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, TO } from "./site.ts";
import { parts, type Site, startSite } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const ARCHIVE = "archive@example.org";

/** The filters that ask where a message comes from. */
function config(network: string): string {
  return `[[filter]]
use = "bcc-archive"
[filter.options]
address = "${ARCHIVE}"
sender_domains = ["example.test"]
own_networks = ["${network}"]

[[filter]]
use = "subject-tag"
[filter.options]
tag = "[external]"
origin = "outside"
own_networks = ["${network}"]
`;
}

const OWN = { subject: "Subject: hello", recipients: [ARCHIVE, TO] };
const OUTSIDE = { subject: "Subject: [external] hello", recipients: [TO] };

function subjectOf(text: string): string | undefined {
  return parts(text).fields.find((field) => field.startsWith("Subject:"));
}

describeBehindEach("the origin of a message", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      own: { config: config("127.0.0.0/8") },
      outside: { config: config("192.0.2.0/24") },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each([
    ["own", OWN],
    ["outside", OUTSIDE],
  ])("%s", async (service, { recipients, subject }) => {
    const { last } = await site.send({ service });
    const { text } = await site.delivered(last);
    expect(subjectOf(text)).toBe(subject);
    const seen = () => site.deliveriesOf(server.queueIdOf(last)).flatMap(({ to }) => to.map(({ address }) => address));
    await waitFor(() => seen().length >= recipients.length, { what: "all copies" });
    expect(seen().toSorted()).toEqual(recipients);
  });
});

describeWith(postfixTool, "the origin of a message, as Postfix alone tells it", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { local: { config: config("192.0.2.0/24") } },
      postfix: ({ local }) => ({ nonSmtpdMilters: local! }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** What the sink gets. */
  async function next() {
    const { text, to } = await site.sink.next();
    return { subject: subjectOf(text), recipients: to.map(({ address }) => address).toSorted() };
  }

  test("mail of its sendmail command is one's own", async () => {
    const message = "Subject: hello\n\nbody\n";
    expect(await site.postfix.submit({ from: FROM, to: [TO], message })).toEqual({ exitCode: 0, stderr: "" });
    expect(await next()).toEqual(OWN);
  });

  test("so is that of a client that has logged in, and of no other", async () => {
    const mail = { port: site.port(), from: FROM, to: TO, message: "Subject: hello\r\n\r\nbody\r\n" };
    await sendMail({ ...mail, xclient: { addr: "198.51.100.7", login: "jane" } });
    expect(await next()).toEqual(OWN);
    await sendMail({ ...mail, xclient: { addr: "198.51.100.7" } });
    expect(await next()).toEqual(OUTSIDE);
    await sendMail({ ...mail, xclient: { addr: "192.0.2.7" } });
    expect(await next()).toEqual(OWN);
  });
});
