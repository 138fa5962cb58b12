/** Shipped filters by name, `use = "NAME"`, behind both mail servers. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { EXECUTABLE, USE_ALL, USE_FILES } from "../shipped/use.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { outcome, parts } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

describeBehindEach("shipped filters by name", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({ all: { config: USE_ALL, files: USE_FILES } });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("a message gets the changes of all of them, and the archive a copy", async () => {
    const { last } = await site.send({ message: "From: <a@example.net>\r\nSubject: hi\r\n\r\nhello\r\n" });
    const { text } = await site.delivered(last);
    const { body } = parts(text);
    expect(text).toContain("\nSubject: [external] hi\r\n");
    expect(text).toContain("\nX-Pmilter-Disclaimer: added\r\n");
    expect(body).toBe("A banner.\r\n\r\nhello\r\n\r\nA disclaimer.\r\n");
    // Sendmail may deliver to each recipient by itself, one after the other.
    const recipients = () =>
      site.deliveriesOf(server.queueIdOf(last)).flatMap(({ to }) => to.map(({ address }) => address));
    await waitFor(() => recipients().length === 2, { what: "the archive's copy" });
    expect(recipients().toSorted()).toEqual(["archive@example.com", "bob@example.org"]);
  });

  test("what one of them refuses is refused, with its text and with the line of its source in the log", async () => {
    expect(outcome(await site.send({ from: "spam@example.com" }))).toMatch(/^mail: 550 5\.7\.1 .*Not you$/);
    const message = EXECUTABLE.replaceAll("\n", "\r\n");
    expect(outcome(await site.send({ message }))).toMatch(/^end: 550 5\.7\.1 Attachment "setup\.exe" is not accepted/);
    const line = await site.pmilter().log.next(/\]: reject: .* filter=attachments /);
    expect(line).toMatch(/ at=(?:"[^"]*|\S*)handlers\/attachments\.ts:\d+/);
  });
});
