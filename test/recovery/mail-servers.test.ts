/** A worker that is lost, as the clients of a real Postfix and a real Sendmail see it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "../integration/mail-servers.ts";
import { TO } from "../integration/site.ts";
import { oneFilter, said } from "../integration/support.ts";
import type { SmtpClient } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { BLOCK_S } from "./support.ts";

// A busy machine starts a mail server slowly.
setDefaultTimeout(120_000);

/** Fails at the phase and in the way that the sender names: `loop-eom@example.test`. */
const SOURCE = `import { defineFilter } from "pmilter";
const ways = {
  loop() { for (;;) {} },
  native() { Bun.sleepSync(3000); },
  exit() { process.exit(3); },
};
function step(session) {
  const [way, phase] = session.message.sender.address.split("@")[0].split("-");
  if (phase === session.phase) ways[way]?.();
}
export default defineFilter({
  connect(session) { session.state.greeted = session.client.address; },
  envfrom: step, envrcpt: step, data: step, header: step, eoh: step, body: step,
  eom(session) {
    step(session);
    session.message.addHeader("X-Context", [session.state.greeted !== undefined, session.helo, session.message.sender.raw].join(" "));
  },
});
`;

const CONTENT = ["header", "eoh", "body"] as const;
/** By server: where its handler fails. Content also where it has a reply of its own. */
const PHASES = {
  deferring: ["envfrom", "envrcpt", "data", ...CONTENT, "eom"],
  answering: CONTENT,
} as const;
const FILTERS = {
  deferring: oneFilter(SOURCE, { block_timeout: BLOCK_S }),
  answering: oneFilter(SOURCE, { block_timeout: BLOCK_S, defer_content: false }),
};
const WAYS = ["loop", "native", "exit"] as const;
const MESSAGE = "Subject: hello\r\n\r\nbody\r\n";

/** One message, up to the step that is refused: that step's reply, or the reply to the end. */
async function sendOn(client: SmtpClient, from: string): Promise<string> {
  const mail = await client.mail(from);
  if (mail.code !== 250) return said(mail);
  const rcpt = await client.rcpt(TO);
  if (rcpt.code !== 250) return said(rcpt);
  return said(await client.data(MESSAGE));
}

describeBehindEach("a worker that is lost", (server) => {
  test.each(WAYS)(
    "a handler that fails by %s, at each phase: its message is tried later, no session ends",
    async (way) => {
      await using site = await server.startSite(FILTERS);
      const connect = (service: string) => site.connect(undefined, { service, helo: false });
      for (const [service, phases] of Object.entries(PHASES)) {
        await using between = await connect(service);
        await between.ehlo("between.test");
        for (const phase of phases) {
          await using within = await connect(service);
          await within.ehlo("within.test");
          await within.mail("within@example.test");
          await using guilty = await connect(service);
          await guilty.ehlo("guilty.test");

          const reply = await sendOn(guilty, `${way}-${phase}@example.test`);
          expect(reply, phase).toBe(server.tryLater);

          expect(await sendOn(between, "between@example.test"), phase).toStartWith("250 ");
          const rcpt = await within.rcpt(TO);
          // After the first loss there are further workers: it may be with one that was not lost.
          const isFirst = phase === phases[0];
          if (isFirst || rcpt.code !== 250) expect(said(rcpt), phase).toBe(server.tryLater);
          await within.rset();
          expect(await sendOn(within, "again@example.test"), phase).toStartWith("250 ");
          await guilty.rset();
          expect(await sendOn(guilty, "guilty@example.test"), phase).toStartWith("250 ");
          await guilty.quit();
          await within.quit();
        }
        await between.quit();
      }
      const expected = Object.values(PHASES)
        .flat()
        .flatMap(() => [
          "true between.test <between@example.test>",
          "true guilty.test <guilty@example.test>",
          "true within.test <again@example.test>",
        ])
        .sort();
      // Postfix delivers when it has said yes.
      await waitFor(() => site.sink.messages.length === expected.length, { what: "all mail in the sink" });
      const seen = site.sink.messages.flatMap(({ text }) => /^X-Context: (.*)\r$/m.exec(text)?.[1] ?? []).sort();
      expect(seen).toEqual(expected);
      for (const service of Object.keys(PHASES)) {
        expect(site.pmilter(service).log.text).not.toContain("connection closed");
      }
    },
  );
});
