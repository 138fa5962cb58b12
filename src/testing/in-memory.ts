/**
 * A milter connection without a socket: the session and the conversation of the server as the other end of a transport.
 * `runFilter` uses it.
 */
import type { Chain } from "../handler/chain.ts";
import { Conversation } from "../handler/conversation.ts";
import type { Clock } from "../handler/phase-deadline.ts";
import type { Report } from "../handler/report.ts";
import { ReplyWriter } from "../protocol/encode.ts";
import { ProtocolError } from "../protocol/errors.ts";
import type { Transport } from "./transport.ts";

export interface InMemoryOptions {
  readonly chain: Chain;
  /** Measures the time limits of awaited handlers. */
  readonly clock: Clock;
  report(report: Report): void;
}

/** The clock of the process. */
export const TIMERS: Clock = {
  now: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/** Opens a connection to a chain. A failure of pmilter itself closes it with that error, as a socket would be closed. */
export function connectInMemory({ chain, clock, report }: InMemoryOptions): Transport {
  const writer = new ReplyWriter();
  let isClosed = false;
  const flush = () => {
    if (writer.length === 0) return;
    const bytes = writer.copy();
    writer.clear();
    transport.onData(bytes);
  };
  const close = (error?: Error) => {
    if (isClosed) return;
    isClosed = true;
    conversation.hangUp();
    writer.clear();
    transport.onClose(error);
  };
  const work = () => {
    try {
      conversation.pump();
    } catch (error) {
      flush();
      close(error instanceof ProtocolError ? undefined : (error as Error));
      return;
    }
    flush();
    if (conversation.isOver) close();
  };
  const conversation = new Conversation(chain, writer, {
    resume: () => (isClosed ? conversation.pump() : work()),
    flush,
    failed: (error) => close(error instanceof Error ? error : new Error(String(error))),
    after: (ms, callback) => clock.after(ms, callback),
    now: () => clock.now(),
    report,
    count() {},
    calling() {},
    suspended() {},
    isTurnOver: false,
    isTrial: false,
    logs: () => true,
    reportsAccepted: false,
    get arrivedAt() {
      return clock.now();
    },
  });
  const transport: Transport = {
    send(bytes) {
      if (isClosed) return;
      conversation.session.push(Buffer.from(bytes));
      if (conversation.isWaiting) conversation.session.survey();
      else work();
      if (conversation.isWaiting) conversation.foresee(false);
    },
    onData() {},
    onClose() {},
    close: () => close(),
  };
  return transport;
}
