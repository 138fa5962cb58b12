/**
 * Made-up sessions, for a worker that is loaded while others serve. Code that has never run is read and compiled when it
 * is first called, and of all the sessions that begin in the workers of a reload at once each would wait for that. No
 * handler of the configuration runs, and nothing is sent, logged or counted.
 */
import type { Socket } from "bun";
import type { Config } from "../config/config.ts";
import { Chain } from "../handler/chain.ts";
import { checkFilter, defineFilter } from "../handler/filter.ts";
import { Ledger } from "../ledger.ts";
import { CommandWriter } from "../protocol/commands.ts";
import { ALL_ACTIONS, ALL_PROTOCOL, COMMAND, FAMILY, VERSION } from "../protocol/constants.ts";
import { ReplyWriter } from "../protocol/encode.ts";
import { Connection, type ConnectionHome } from "./connection.ts";
import { policyOf } from "./loader.ts";

/** With fewer the first real ones are slower; more make the reload longer, and those that serve meanwhile slower. */
const SESSIONS = 60;
/** On a machine that has little time left a reload is not kept waiting for all of them. */
const MOST_MS = 60;
/** Of each. */
export const MESSAGES = 10;
const WRITER_BYTES = 64 * 1024;
const SLOT = 0;

/**
 * Takes up to {@link MOST_MS} of this thread, and lets nothing else happen in it.
 * @returns how many messages were through
 */
export function warmUp(config: Config): number {
  let messages = 0;
  // Reads what handlers read and changes what they change: so that this has run, too.
  const loaded = checkFilter(
    defineFilter({
      connect: ({ client, daemonName }) => void (client.address + client.hostname + daemonName),
      helo: ({ helo, tls }) => void (helo + tls.version),
      envfrom: ({ auth, message }) => void (auth.authen + message.sender.address),
      envrcpt: ({ macros, message }) => void [macros.get("{rcpt_addr}"), message.recipients.length],
      data() {},
      header() {},
      eoh: ({ message }) => void message.headers.get("subject"),
      body() {},
      eom({ message, queueId }) {
        message.addHeader("X-Warm-Up", queueId);
        messages += 1;
      },
      abort() {},
      close() {},
    }),
    "warm-up",
  );
  const { onError, onTimeout } = config.server;
  const filter = { index: 0, loaded, onError, onTimeout, timeoutMs: null, isObserved: false, options: {}, files: {} };
  const home: ConnectionHome = {
    row: 0,
    chain: new Chain([filter], policyOf(config)),
    writer: new ReplyWriter(WRITER_BYTES),
    ledger: Ledger.create(1, 1),
    reportsAccepted: false,
    tracesPackets: false,
    // A clock that stands: nobody else has to have a turn.
    now: () => 0,
    report() {},
    log() {},
    closed() {},
    releaseFor: null,
    released() {},
  };
  const { begin, message, quit } = madeUp();
  const end = performance.now() + MOST_MS;
  for (let session = 0; session < SESSIONS && performance.now() < end; session++) {
    home.ledger.offer(SLOT);
    const connection = new Connection(home, SLOT, "warm-up");
    connection.opened(NOWHERE);
    for (const read of begin) connection.data(read);
    for (let count = 0; count < MESSAGES; count++) for (const read of message) connection.data(read);
    connection.data(quit);
    connection.disconnected();
  }
  return messages;
}

/** Takes all that is written to it. */
const NOWHERE = {
  write: (_: Uint8Array, __: number, length: number) => length,
  shutdown() {},
  end() {},
} as unknown as Socket<Connection>;

/** The reads of a session, as a Postfix writes them. */
function madeUp(): { begin: readonly Uint8Array[]; message: readonly Uint8Array[]; quit: Uint8Array } {
  const writer = new CommandWriter();
  const read = (write: () => void) => {
    write();
    const bytes = writer.copy();
    writer.clear();
    return bytes;
  };
  const address = "ada@example.net";
  return {
    begin: [
      read(() => writer.optneg(VERSION, ALL_ACTIONS, ALL_PROTOCOL)),
      read(() => {
        writer.macro(COMMAND.CONNECT, [["{daemon_name}", "mx.example.com"]]);
        writer.connect("mail.example.net", FAMILY.INET, 25, "192.0.2.25");
      }),
      read(() => {
        writer.macro(COMMAND.HELO, [["{tls_version}", "TLSv1.3"]]);
        writer.helo("mail.example.net");
      }),
    ],
    message: [
      read(() => {
        writer.macro(COMMAND.MAIL, [["{mail_addr}", address]]);
        writer.mail(`<${address}>`, ["SIZE=1000"]);
      }),
      read(() => {
        writer.macro(COMMAND.RCPT, [["{rcpt_addr}", address]]);
        writer.rcpt(`<${address}>`);
      }),
      read(() => {
        writer.macro(COMMAND.DATA, [["i", "4ZB1C23dF0z9xQ"]]);
        writer.data();
      }),
      read(() => {
        for (const name of ["Received", "Message-ID", "Date", "From", "To", "Subject"])
          writer.header(name, ` ${address}`);
        writer.eoh();
        writer.body(Buffer.alloc(1000, "The engine weaves.\r\n"));
        writer.bodyeob();
      }),
      read(() => writer.abort()),
    ],
    quit: read(() => writer.quit()),
  };
}
