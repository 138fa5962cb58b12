/**
 * A milter connection without a socket: the session and the conversation of the server as the other end of a transport.
 */
import type { Chain } from "../handler/chain.ts";
import { Conversation } from "../handler/conversation.ts";
import type { Clock } from "../handler/phase-deadline.ts";
import type { ReceivedMessage } from "../handler/message/received.ts";
import { RunningOutcomes } from "../handler/outcomes.ts";
import type { Report } from "../handler/report.ts";
import type { Services } from "../handler/services.ts";
import { testServices } from "./services.ts";
import type { JsonValue } from "../json.ts";
import { ReplyWriter } from "../protocol/encode.ts";
import { ProtocolError } from "../protocol/errors.ts";
import type { Transport } from "./transport.ts";

export interface InMemoryOptions {
  readonly chain: Chain;
  /** Measures the time limits of awaited handlers. */
  readonly clock: Clock;
  /** `session.trial`. Default false. */
  readonly isTrial?: boolean;
  /** Gets the calls of `outcome`, which are to be waited for before the filters are stopped. */
  readonly outcomes?: RunningOutcomes;
  /** DNS and store of the filters; default: no name exists, and an empty store. */
  readonly services?: Services;
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

export interface InMemory extends Transport {
  /** The results that filters left in the last message, once. */
  takeResults(): Readonly<Record<string, JsonValue>>;
}

/** Opens a connection to a chain. A failure of pmilter itself closes it with that error, as a socket would be closed. */
export function connectInMemory({
  chain,
  clock,
  isTrial = false,
  outcomes = new RunningOutcomes(),
  report,
  services = testServices(clock),
}: InMemoryOptions): InMemory {
  const writer = new ReplyWriter();
  let isClosed = false;
  /** The message of the last handler that was called with one. */
  let lastMessage: ReceivedMessage | null = null;
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
    calling() {
      lastMessage = conversation.message ?? lastMessage;
    },
    suspended() {},
    isTurnOver: false,
    isTrial,
    outcomes,
    services,
    spool: null,
    logs: () => true,
    reportsAccepted: false,
    get arrivedAt() {
      return clock.now();
    },
  });
  const transport: InMemory = {
    takeResults() {
      const results = lastMessage?.results?.all() ?? {};
      lastMessage = null;
      return results;
    },
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
