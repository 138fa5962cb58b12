/** The benchmark's own command line: peers and the results page. */
import { expect, test } from "bun:test";
import { BenchUsageError, HELP, parseBenchArguments, PEERS } from "../../bench/args.ts";

test("--peers: all that can be had by default, some, or none; in the order of the table", () => {
  expect(parseBenchArguments([]).peers).toBeNull();
  expect(parseBenchArguments(["--peers", "go,libmilter"]).peers).toEqual(["libmilter", "go"]);
  expect(parseBenchArguments(["wire", "--peers=none"]).peers).toEqual([]);
});

test.each([
  [["--peers"], "--peers needs a value"],
  [["--peers="], "--peers needs a value"],
  [["--peers", "--quick"], "--peers needs a value"],
  [["--peers", "libmilter,rust"], `there is no peer "rust", expected ${PEERS.join(", ")} or none`],
  [["--peers", "go,"], 'there is no peer ""'],
  [["--peers", "none,go"], "none goes with no other"],
  [["--results"], "--results needs a value"],
  [["--seed", "0"], '--seed is a number from 1 to 4294967295, got "0"'],
])("%j is wrong usage", (args, message) => {
  expect(() => parseBenchArguments(args)).toThrow(BenchUsageError);
  expect(() => parseBenchArguments(args)).toThrow(message);
});

test("--help names every peer", () => {
  for (const peer of PEERS) expect(HELP).toContain(peer);
});
