/**
 * Every message between a worker and the services thread, which owns DNS and store. A worker sends its calls in lists, with
 * one list on its way: the next goes when the thread has taken the last.
 */
import type { Answer, RecordType } from "../dns/answer.ts";
import type { Operation, Result } from "../store/operations.ts";
import type { DnsSettings } from "../dns/servers.ts";
import type { StoreSettings } from "../store/settings.ts";

export interface DnsCall {
  readonly kind: "dns";
  readonly id: number;
  readonly name: string;
  readonly type: RecordType;
}

export interface StoreCall {
  readonly kind: "store";
  readonly id: number;
  readonly operation: Operation;
}

/** Nobody waits for that call any more. */
export interface Cancellation {
  readonly kind: "cancel";
  readonly id: number;
}

export type ServiceCall = DnsCall | StoreCall | Cancellation;

/** From a worker to the thread. */
export type ToServices = readonly ServiceCall[];

/** What became of a call: a problem is one of the store's, the DNS has a status for it. */
export type ServiceResult =
  | { readonly id: number; readonly answer: Answer }
  | { readonly id: number; readonly result: Result }
  | { readonly id: number; readonly problem: string };

/** From the thread to a worker. */
export interface FromServices {
  /** The list on its way was taken. */
  readonly taken: boolean;
  readonly results: readonly ServiceResult[];
}

/** A worker's line to the thread; without a port the thread cannot be started. */
export type ServicesLine = { readonly port: MessagePort } | { readonly port: null; readonly problem: string };

/** From the main thread to the services thread: first the settings, then a port for each worker. */
export type ToServicesThread =
  | { readonly kind: "settings"; readonly dns: DnsSettings; readonly store: StoreSettings; readonly folder: string }
  | { readonly kind: "worker"; readonly port: MessagePort };

/** From the services thread to the main thread. */
export type FromServicesThread =
  | { readonly kind: "log"; readonly level: ServicesLevel; readonly text: string }
  /** Values were dropped from a store that is full. */
  | { readonly kind: "dropped"; readonly count: number };

/** Levels of what the services say. */
export type ServicesLevel = "error" | "warn" | "notice" | "info";
