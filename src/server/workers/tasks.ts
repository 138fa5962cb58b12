/** Work done by a worker of its own: loading handlers to check them, and the two handlers of the process's life. */
import { withCheckFolder } from "../../check/folder.ts";
import type { Judgement } from "../../check/judge.ts";
import type { Config } from "../../config/config.ts";
import { LoadError, type LoadFailure } from "../../handler/load-failure.ts";
import type { ChainSummary, FromWorker, ToWorker } from "../../shared/messages.ts";
import type { Sources } from "../../load/sources.ts";
import { unlessAborted } from "../../within.ts";
import { WorkerThread } from "./worker-thread.ts";

/** Maximum time in milliseconds for loading and starting the handlers. */
export const LOAD_TIMEOUT_MS = 30_000;

/** Maximum time in milliseconds for the `start()` of a filter, or the import of a file, in a check. */
export const START_TIMEOUT_MS = 10_000;

/**
 * The handlers were not loaded, or their filters not started, in time.
 * @param step the step that has not ended, and what has failed with it; null before the first
 */
export function notLoadedInTime({ file }: Config, step: LoadFailure | null): LoadError {
  const after = `after ${LOAD_TIMEOUT_MS / 1000} s`;
  if (step !== null) return new LoadError({ ...step, message: `${step.message}: timed out ${after}` }, undefined);
  return new LoadError({ file, line: 0, column: 0, message: `the handlers were not loaded ${after}` }, undefined);
}

/** Takes the log lines of a task, and the lines that handlers print. */
export type TaskOutput = (message: Extract<FromWorker, { kind: "log" | "print" }>) => void;

/** The limits after which a task is ended. */
export interface TaskLimits {
  readonly timeoutMs: number;
  /** If it is aborted, the task is ended, and fails with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * Loads every handler of a configuration in workers and calls none.
 * @param starts whether filters are started, and stopped again
 * @throws LoadError
 */
export async function checkHandlers(
  workerUrl: URL,
  config: Config,
  starts: boolean,
  output: TaskOutput,
): Promise<ChainSummary> {
  const { postconfig, masterExit } = config.handler;
  const limits = { timeoutMs: LOAD_TIMEOUT_MS };
  for (const file of [postconfig, masterExit]) {
    if (file !== null) await checkModule(workerUrl, file, limits, output);
  }
  const answer = await runTask(workerUrl, { kind: "check", config, starts }, config.file, limits, output);
  if (answer.kind !== "ready") throw new Error(`a check was answered with ${answer.kind}`);
  return answer.summary;
}

/**
 * Judges the handlers of a snapshot in a worker, and types in a process of their own: the main thread spends no time on it.
 * @throws LoadError if it cannot be done
 */
export async function judgeSources(
  workerUrl: URL,
  config: Config,
  sources: Sources,
  limits: TaskLimits,
  output: TaskOutput,
): Promise<Judgement> {
  return withCheckFolder(async (folder) => {
    const answer = await runTask(workerUrl, { kind: "judge", config, sources, folder }, config.file, limits, output);
    if (answer.kind !== "judged") throw new Error(`a judgement was answered with ${answer.kind}`);
    return answer.judgement;
  });
}

/**
 * Calls the default export of a module.
 * @param sources its sources as they were read before; null to read them
 * @throws LoadError also if it takes longer than `timeoutMs`
 */
export async function callHandler(
  workerUrl: URL,
  file: string,
  sources: Sources | null,
  limits: TaskLimits,
  output: TaskOutput,
): Promise<void> {
  await runTask(workerUrl, { kind: "call", file, sources, isDry: false }, file, limits, output);
}

/**
 * Loads such a module without calling it.
 * @returns its sources, for a call
 * @throws LoadError
 */
export async function checkModule(
  workerUrl: URL,
  file: string,
  limits: TaskLimits,
  output: TaskOutput,
): Promise<Sources> {
  const answer = await runTask(workerUrl, { kind: "call", file, sources: null, isDry: true }, file, limits, output);
  if (answer.kind !== "done") throw new Error(`a call was answered with ${answer.kind}`);
  return answer.sources;
}

type Answer = Extract<FromWorker, { kind: "ready" | "done" | "judged" }>;

async function runTask(
  workerUrl: URL,
  task: ToWorker,
  file: string,
  { signal, timeoutMs }: TaskLimits,
  output: TaskOutput,
): Promise<Answer> {
  const answer = Promise.withResolvers<Answer>();
  const fail = (failure: LoadFailure) => answer.reject(new LoadError(failure, undefined));
  const timedOut = (ms: number) => `timed out after ${ms / 1000} s`;
  let timer = setTimeout(() => fail({ file, line: 0, column: 0, message: timedOut(timeoutMs) }), timeoutMs);
  const thread = new WorkerThread(workerUrl, {
    message(message) {
      if (message.kind === "starting") {
        const { failure } = message;
        clearTimeout(timer);
        timer = setTimeout(
          () => fail({ ...failure, message: `${failure.message}: ${timedOut(START_TIMEOUT_MS)}` }),
          START_TIMEOUT_MS,
        );
      } else if (message.kind === "log" || message.kind === "print") output(message);
      else if (message.kind === "failed") fail(message.failure);
      else if (message.kind === "ready" || message.kind === "done" || message.kind === "judged")
        answer.resolve(message);
    },
    gone: (reason) => fail({ file, line: 0, column: 0, message: `its worker ended: ${reason}` }),
  });
  thread.post(task);
  try {
    return await (signal === undefined ? answer.promise : unlessAborted(answer.promise, signal));
  } finally {
    clearTimeout(timer);
    await thread.terminate();
  }
}
