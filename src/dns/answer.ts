/** Answers of the DNS: records, nothing, no such name, or a failure (RFC 1034 3.6.2, RFC 2308). */

/** The types of records that can be asked for. */
export const RECORD_TYPES = ["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TLSA", "TXT"] as const;
/**
 * A type of records that can be asked for.
 * @example const type: RecordType = "TXT";
 */
export type RecordType = (typeof RECORD_TYPES)[number];

/**
 * A mail exchanger.
 * @example const { exchange, priority }: MxRecord = records[0];
 */
export interface MxRecord {
  readonly exchange: string;
  readonly priority: number;
}
/**
 * A place of a service (RFC 2782).
 * @example const { name, port }: SrvRecord = records[0];
 */
export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}
/**
 * The start of a zone (RFC 1035 3.3.13); times are seconds.
 * @example const { minttl }: SoaRecord = records[0];
 */
export interface SoaRecord {
  readonly nsname: string;
  readonly hostmaster: string;
  readonly serial: number;
  readonly refresh: number;
  readonly retry: number;
  readonly expire: number;
  readonly minttl: number;
}
/**
 * Who may issue certificates (RFC 8659).
 * @example const { tag, value }: CaaRecord = records[0];
 */
export interface CaaRecord {
  readonly critical: number;
  readonly tag: string;
  readonly value: string;
}
/**
 * A certificate of a service (RFC 6698).
 * @example const isOfKey = ({ selector }: TlsaRecord) => selector === 1;
 */
export interface TlsaRecord {
  readonly usage: number;
  readonly selector: number;
  readonly match: number;
  /** In hexadecimal. */
  readonly data: string;
}

/**
 * The form of a record by its type; texts are names without a dot at their end (the root is `""`), addresses, or the strings
 * of a TXT record joined.
 * @example const exchanger: RecordOf["MX"] = { exchange: "mx.example.com", priority: 10 };
 */
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
 * @example const isSilent = ({ code }: Answer) => code === ("ETIMEOUT" satisfies FailureCode);
 */
export type FailureCode =
  "EBADRESP" | "ECANCELLED" | "ECONNREFUSED" | "EFORMERR" | "ENOTIMP" | "EREFUSED" | "ESERVFAIL" | "ETIMEOUT";

/**
 * `found`: there are records; `empty`: the name exists, without records of the type; `missing`: the name does not exist;
 * `failed`: it is not known.
 * @example const isKnown = (status: AnswerStatus) => status !== "failed";
 */
export type AnswerStatus = "found" | "empty" | "missing" | "failed";

/**
 * An answer of the DNS.
 * @example const { status, records }: Answer<"TXT"> = await session.dns.txt("example.com");
 */
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
