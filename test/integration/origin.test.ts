/** Mail of one's own clients and mail from outside with the same sender, behind both mail servers. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
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

describeWith(postfixTool, "the origin of mail from Postfix's sendmail command", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { local: { config: config("192.0.2.0/24") } },
      postfix: ({ local }) => ({ nonSmtpdMilters: local! }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("is one's own", async () => {
    const message = "Subject: hello\n\nbody\n";
    expect(await site.postfix.submit({ from: FROM, to: [TO], message })).toEqual({ exitCode: 0, stderr: "" });
    const { text, to } = await site.sink.next();
    expect({ subject: subjectOf(text), recipients: to.map(({ address }) => address).toSorted() }).toEqual(OWN);
  });
});
