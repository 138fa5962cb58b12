/**
 * The last failures of handlers, and fallbacks for other reasons, from the lines of the log: `pmilter send` asks for the
 * reason of a fallback. Few and short, so that they fit into a status.
 */
import type { LogFields } from "../../admin/log.ts";

/** Why a message, or a part of it, got the fallback. */
export interface HandlerFailure {
  /** The filter of the handler; null for a limit, and where it is not known. */
  readonly filter: string | null;
  readonly phase: string | null;
  /** `error`, `timeout`, `limit`, `blocked` and so on; `lost` for a session that was only beside the handler that failed. */
  readonly cause: string;
  readonly message: string;
  /** `handlers/stamp.ts:7`; null if not known. */
  readonly place: string | null;
  /** The fallback that took its place; null for none. */
  readonly fallback: string | null;
}

export interface RecentFailure extends HandlerFailure {
  /** ISO 8601. */
  readonly at: string;
  /** `hostname [address]`. */
  readonly client: string;
  /** "" where there was none yet. */
  readonly queueId: string;
}

const MAX_KEPT = 50;
const MAX_LENGTH = 200;

export class RecentFailures {
  #kept: RecentFailure[] = [];

  /** Oldest first. */
  get all(): readonly RecentFailure[] {
    return this.#kept;
  }

  /** Notes a line of the log, if it is about a failure. */
  note(text: string, fields: LogFields): void {
    const { client, queue_id: queueId } = fields;
    const failure = failureIn(text, fields);
    if (failure === null || typeof client !== "string") return;
    this.#kept.push({
      at: new Date().toISOString(),
      client: cut(client),
      queueId: typeof queueId === "string" ? cut(queueId) : "",
      ...failure,
    });
    if (this.#kept.length > MAX_KEPT) this.#kept = this.#kept.slice(-MAX_KEPT);
  }
}

/** The failure that a line of the log is about; null if it is about none. */
export function failureIn(text: string, fields: LogFields): HandlerFailure | null {
  const { cause, error, fallback, filter, phase, reason, verdict } = fields;
  const isLoss = fallback === true && typeof reason === "string";
  if (typeof cause !== "string" && !isLoss) return null;
  const head = text.split(":", 1)[0] ?? "";
  const message = typeof error === "string" ? `${head}: ${error}` : isLoss ? String(reason) : head;
  const string = (value: unknown) => (typeof value === "string" ? cut(value) : null);
  return {
    filter: string(filter),
    phase: string(phase),
    cause: typeof cause === "string" ? cause : "lost",
    message: cut(message),
    place: string(fields["at"]),
    fallback: string(isLoss ? verdict : fallback),
  };
}

function cut(text: string): string {
  return text.length > MAX_LENGTH ? `${text.slice(0, MAX_LENGTH)}…` : text;
}
