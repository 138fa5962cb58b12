/**
 * Every message between a worker and the thread of the spool. The thread owns the files: a worker names them by numbers of
 * its own, so a message of a worker that is lost meanwhile names no file of another.
 */

/**
 * Bytes in front of each body that are left empty, for the headers: header and body are then one piece of memory. The file
 * has a hole there.
 */
export const HEADROOM = 1024 * 1024;

/** A write that failed, or a file that could not be opened or mapped. */
export interface SpoolFailure {
  /** The system's name of the error, such as `ENOSPC`. */
  readonly code: string;
  readonly message: string;
}

export type ToSpool =
  /** Append the first `length` bytes of this memory, which is transferred, to a file: a new one if it is not there. */
  | { readonly kind: "write"; readonly id: number; readonly memory: ArrayBuffer; readonly length: number }
  /** Map the file. */
  | { readonly kind: "map"; readonly id: number }
  /** The file is not needed any more: give its space back. The addresses of a mapped file stay readable. */
  | { readonly kind: "end"; readonly id: number }
  /** Nothing refers to the addresses of an ended file any more. */
  | { readonly kind: "collected"; readonly id: number };

export type FromSpool =
  /** Written, or not if the file has failed. The memory goes back. */
  | { readonly kind: "written"; readonly id: number; readonly memory: ArrayBuffer; readonly length: number }
  | { readonly kind: "failed"; readonly id: number; readonly failure: SpoolFailure }
  /** The body is at `address + HEADROOM`. */
  | { readonly kind: "mapped"; readonly id: number; readonly address: number; readonly length: number };

/** A worker's line to the thread. */
export interface SpoolLine {
  readonly port: MessagePort;
  /** For messages. */
  readonly folder: string;
}

/** The thread cannot be started: there is no line. */
export interface NoSpoolLine {
  readonly port: null;
  readonly folder: string;
  readonly failure: SpoolFailure;
}

/** From the main thread to the thread of the spool: a worker's port, the folder, and where open files are counted. */
export interface SpoolAssignment {
  readonly port: MessagePort;
  readonly folder: string;
  readonly openFiles: Int32Array;
}
