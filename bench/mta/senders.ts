/**
 * The programs that send the mail: smtp-source, which comes with Postfix, and postal, which the original was measured with.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { outsideTool } from "../../test/support/available.ts";
import { tempDir } from "../../test/support/temp.ts";
import type { MailServer } from "./mail-server.ts";

export const smtpSource = outsideTool("smtp-source", { paths: ["/usr/sbin/smtp-source"] });
export const postal = outsideTool("postal", { paths: ["/usr/sbin/postal"] });

export const BODY_BYTES = 2048;
const SENDER = "from@example.com";
const RECIPIENT = "to@example.com";

export interface Sending {
  /** Messages that were sent. */
  readonly messages: number;
  readonly perSecond: number;
}

export interface Sender {
  readonly name: string;
  /** The command line as a user would type it. */
  readonly command: string;
  /**
   * Sends mail for about so long.
   * @throws Error if a message was refused
   */
  send(mail: MailServer, port: number, ms: number, signal: AbortSignal): Promise<Sending>;
}

/** Before it is known how many a second there will be. */
const FIRST_MESSAGES = 100;

/** So many SMTP sessions at a time, each for one message. */
export function smtpSourceOf(sessions: number): Sender {
  const args = ["-s", String(sessions), "-l", String(BODY_BYTES), "-f", SENDER, "-t", RECIPIENT];
  let rate = 0;
  return {
    name: `smtp-source, ${sessions} ${sessions === 1 ? "session" : "sessions"}`,
    command: ["smtp-source", ...args, "-m COUNT 127.0.0.1:PORT"].join(" "),
    async send(mail, port, ms, signal) {
      // All measurements send as many messages as the first sent: the sender takes a number, not a time.
      const messages = rate === 0 ? FIRST_MESSAGES : Math.ceil((rate * ms) / 1000);
      const began = performance.now();
      const child = Bun.spawn([smtpSource.path, ...args, "-m", String(messages), `127.0.0.1:${port}`], {
        stdio: ["ignore", "ignore", "pipe"],
        signal,
      });
      const [exitCode, errors] = await Promise.all([child.exited, child.stderr.text()]);
      const perSecond = (messages * 1000) / (performance.now() - began);
      // It ends with an error at the first reply it does not like, so every message was accepted.
      if (exitCode !== 0) throw new Error(`smtp-source ended with ${exitCode}: ${errors}${await mail.complaints()}`);
      if (rate === 0) rate = perSecond;
      return { messages, perSecond };
    },
  };
}

/** Of messages that postal sends before they are counted. */
const POSTAL_WARM_MS = 500;

/** A single thread, session after session, as in the original's README. */
export const postalSender: Sender = {
  name: "postal, 1 thread",
  command: "postal -t 1 -r 10000 -m 1 -M 1 -f SENDERS [127.0.0.1]PORT RECIPIENTS",
  async send(mail, port, ms, signal) {
    // It writes a log into the folder in which it runs.
    await using folder = await tempDir("bench-postal");
    await writeFile(join(folder.path, "senders"), `${SENDER}\n`);
    await writeFile(join(folder.path, "recipients"), `${RECIPIENT}\n`);
    const args = ["-t", "1", "-r", "10000", "-m", "1", "-M", "1", "-f", "senders", `[127.0.0.1]${port}`, "recipients"];
    const child = Bun.spawn([postal.path, ...args], {
      cwd: folder.path,
      stdio: ["ignore", "ignore", "pipe"],
      signal,
    });
    try {
      await Bun.sleep(POSTAL_WARM_MS);
      const before = await mail.taken();
      const began = performance.now();
      await Bun.sleep(ms);
      const messages = (await mail.taken()) - before;
      const perSecond = (messages * 1000) / (performance.now() - began);
      if (child.exitCode !== null) throw new Error(`postal ended with ${child.exitCode}: ${await child.stderr.text()}`);
      if (messages === 0) throw new Error("postal sent nothing");
      return { messages, perSecond };
    } finally {
      // It sends until it is ended, and a signal that it may handle makes it wait for ever.
      child.kill("SIGKILL");
      await child.exited;
    }
  },
};
