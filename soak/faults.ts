/** The faults of handlers in the soak, with the right replies: the plans choose from this table, the judge reads it. */
import { isOfMessage as isPhaseOfMessage, PHASE_NAMES, PHASES, type Phase } from "../src/protocol/phases.ts";
import type { FaultSet } from "./args.ts";

interface FaultInfo {
  /** Its worker is lost to it, and with it whatever the worker's other sessions were about. */
  readonly losesWorker: boolean;
  /**
   * The verdict that is right: the fallback, the handler's own verdict as if it had not failed, or (where time decides)
   * either.
   */
  readonly outcome: "fallback" | "right" | "either";
  /** How long the mail server waits for it: not at all, for the worker to be taken, for the handler's deadline. */
  readonly wait: "none" | "block" | "deadline";
  /** The server's counter that tells of it. */
  readonly counter: "errors" | "timeouts" | "late" | null;
}

export const FAULTS = {
  throws: { losesWorker: false, outcome: "fallback", wait: "none", counter: "errors" },
  rejects: { losesWorker: false, outcome: "fallback", wait: "none", counter: "errors" },
  /** It returns a value that throws when it is read, at once or in the end. */
  odd: { losesWorker: false, outcome: "fallback", wait: "none", counter: "errors" },
  oddLater: { losesWorker: false, outcome: "fallback", wait: "none", counter: "errors" },
  /** A promise that is not awaited rejects, at the time of the verdict or after it. */
  floats: { losesWorker: false, outcome: "right", wait: "none", counter: "late" },
  /** A timer throws after the verdict. */
  timer: { losesWorker: false, outcome: "right", wait: "none", counter: "late" },
  never: { losesWorker: false, outcome: "fallback", wait: "deadline", counter: "timeouts" },
  /** It rejects after its time was over. */
  tardy: { losesWorker: false, outcome: "fallback", wait: "deadline", counter: "timeouts" },
  loops: { losesWorker: true, outcome: "fallback", wait: "block", counter: null },
  /** It loops after an await. */
  loopsLater: { losesWorker: true, outcome: "fallback", wait: "block", counter: null },
  /** A native call that the end of its worker does not end. */
  blocks: { losesWorker: true, outcome: "fallback", wait: "block", counter: null },
  exits: { losesWorker: true, outcome: "fallback", wait: "block", counter: null },
  /** 300 MB for about a second. */
  eats: { losesWorker: true, outcome: "either", wait: "block", counter: null },
} as const satisfies Record<string, FaultInfo>;
export type FaultKind = keyof typeof FAULTS;

export interface Fault {
  readonly kind: FaultKind;
  readonly phase: Phase;
}

const KINDS = Object.keys(FAULTS) as FaultKind[];
/** Memory is the worker's, whatever the phase: a few are enough, and leave more of the run to measure memory in. */
const PHASES_THAT_EAT: readonly Phase[] = ["envfrom", "body", "eom", "unknown"];

/** Every kind at every phase: of the faults that lose their worker, or of the rest. */
export function faultsOf(losesWorker: boolean): Fault[] {
  return KINDS.filter((kind) => FAULTS[kind].losesWorker === losesWorker).flatMap((kind) =>
    (kind === "eats" ? PHASES_THAT_EAT : PHASE_NAMES).map((phase) => ({ kind, phase })),
  );
}

export function includesHandlers(set: FaultSet): boolean {
  return set !== "none";
}

export function includesWorkers(set: FaultSet): boolean {
  return set === "all";
}

/** A phase between the first and the last command of a message. */
export function isOfMessage(phase: Phase): boolean {
  return isPhaseOfMessage(PHASES[phase]);
}
