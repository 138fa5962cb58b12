/** A store on a disk that becomes full: files of this process are limited, and prints what the store said. */
import { dlopen, ptr } from "bun:ffi";
import { StoreKeeper } from "../../../src/services/store/keeper.ts";
import type { Operation } from "../../../src/store/operations.ts";

const RLIMIT_FSIZE = 1;
const SIGXFSZ = "SIGXFSZ";
const { symbols: libc } = dlopen("libc.so.6", { setrlimit: { args: ["i32", "ptr"], returns: "i32" } });
// Without a listener the signal would end the process, where a full disk gives an error.
process.on(SIGXFSZ, () => {});

function limit(bytes: bigint): void {
  const limits = new BigUint64Array([bytes, 2n ** 64n - 1n]);
  if (libc.setrlimit(RLIMIT_FSIZE, ptr(limits)) !== 0) throw new Error("setrlimit failed");
}

const keeper = new StoreKeeper(
  { url: `sqlite:${process.argv[2]!}`, timeoutMs: 500, maxBytes: 2 ** 31 },
  { folder: "/", dropped: () => {}, log: () => {} },
);
function run(operation: object): unknown {
  let said: unknown;
  keeper.run([{ filter: "f", ...operation } as Operation], (_, outcome) => {
    said = "problem" in outcome ? outcome.problem : outcome.result;
  });
  return said;
}
const set = (key: string) => run({ kind: "set", key, value: JSON.stringify("v".repeat(60_000)), ttl: null });

run({ kind: "set", key: "kept", value: "1", ttl: null });
limit(500_000n);
let failed: unknown = null;
for (let at = 0; failed === null && at < 100; at += 1) failed = set(`k${at}`);
const read = run({ kind: "get", key: "kept" });
limit(2n ** 64n - 1n);
const again = set("again");
process.stdout.write(JSON.stringify({ failed, read, again }));
process.exit();
