/** Answers of the DNS: records, nothing, no such name, or a failure (RFC 1034 3.6.2, RFC 2308). */

/** The types of records that can be asked for. */
export const RECORD_TYPES = ["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TLSA", "TXT"] as const;
export type RecordType = (typeof RECORD_TYPES)[number];

export interface MxRecord {
  readonly exchange: string;
  readonly priority: number;
}
export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}
export interface SoaRecord {
  readonly nsname: string;
  readonly hostmaster: string;
  readonly serial: number;
  readonly refresh: number;
  readonly retry: number;
  readonly expire: number;
  readonly minttl: number;
}
export interface CaaRecord {
  readonly critical: number;
  readonly tag: string;
  readonly value: string;
}
export interface TlsaRecord {
  readonly usage: number;
  readonly selector: number;
  readonly match: number;
  /** In hexadecimal. */
  readonly data: string;
}

/** The form of a record by its type; texts are names without a dot at their end (the root is `""`), addresses, or the strings of a TXT record joined. */
export interface RecordOf {
  A: string;
  AAAA: string;
  CAA: CaaRecord;
  CNAME: string;
  MX: MxRecord;
  NS: string;
  PTR: string;
  SOA: SoaRecord;
  SRV: SrvRecord;
  TLSA: TlsaRecord;
  TXT: string;
}

/**
 * Why an answer failed, by the names of `node:dns`: no answer in time (`ETIMEOUT`), no way to the server (`ECONNREFUSED`), its
 * own error (`ESERVFAIL`, `EREFUSED`, `EFORMERR`, `ENOTIMP`), an answer that cannot be used (`EBADRESP`), or pmilter did not
 * ask (`ECANCELLED`).
 */
export type FailureCode =
  "EBADRESP" | "ECANCELLED" | "ECONNREFUSED" | "EFORMERR" | "ENOTIMP" | "EREFUSED" | "ESERVFAIL" | "ETIMEOUT";

/** `found`: there are records; `empty`: the name exists, without records of the type; `missing`: the name does not exist. */
export type AnswerStatus = "found" | "empty" | "missing" | "failed";

export interface Answer<T extends RecordType = RecordType> {
  readonly status: AnswerStatus;
  readonly records: readonly RecordOf[T][];
  /** Seconds that the answer may be kept. */
  readonly ttl: number;
  /** Why it failed; undefined otherwise. */
  readonly reason?: string;
  /** The kind of failure; undefined otherwise. */
  readonly code?: FailureCode;
}
