/** The benchmark's own command line: peers, the results page, comparisons. */
import { expect, test } from "bun:test";
import { BenchUsageError, COMPARED, HELP, parseBenchArguments, PEERS, SUITES } from "../../bench/args.ts";

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
  [["--fail-on-slower"], "--fail-on-slower goes with --compare"],
  [["--compare", "HEAD", "--results", "page.md"], "--results does not go with --compare"],
  [["mta", "--compare", "HEAD"], "--compare measures micro and wire, not mta"],
])("%j is wrong usage", (args, message) => {
  expect(() => parseBenchArguments(args)).toThrow(BenchUsageError);
  expect(() => parseBenchArguments(args)).toThrow(message);
});

test("suites run in the order of the table, without a name all of them", () => {
  expect(parseBenchArguments(["scale", "micro"]).suites).toEqual(["micro", "scale"]);
  expect(parseBenchArguments([]).suites).toEqual(SUITES);
});

test("--help names every suite and every peer", () => {
  for (const suite of SUITES) expect(HELP).toContain(`[${suite}]`);
  for (const peer of PEERS) expect(HELP).toContain(peer);
});

test("--compare: another revision, in the suites that can; nothing fails because something is slower unless told to", () => {
  expect(parseBenchArguments([])).toMatchObject({ compare: null, results: null, seed: null, suites: SUITES });
  expect(parseBenchArguments(["--compare", "HEAD~1"])).toMatchObject({
    compare: "HEAD~1",
    failsOnSlower: false,
    suites: COMPARED,
  });
  expect(parseBenchArguments(["micro", "--compare=main", "--fail-on-slower", "--seed", "7"])).toMatchObject({
    compare: "main",
    failsOnSlower: true,
    suites: ["micro"],
    seed: 7,
  });
});
