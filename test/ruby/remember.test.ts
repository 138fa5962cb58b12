/** Ruby handlers that remember: `Mutex` and `Cache`, over connections, workers and the life of a server. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { statusOf } from "../recovery/support.ts";
import { type Pmilter, type PmilterOptions, startPmilter } from "../support/pmilter.ts";
import { FLOODS, LIMIT } from "./programs.ts";

setDefaultTimeout(120_000);

/** A store on a machine that is busy with tests. */
const STORE = '[store]\ntimeout = "9s"\n';

/** A server with scripts, each named by its phase. */
function serve(files: Readonly<Record<string, string>>, server: PmilterOptions["server"] = {}): Promise<Pmilter> {
  const keys = Object.keys(files).map((file) => `${file.split(".")[0]}_handler = "${file}"`);
  return startPmilter({
    server: { workers: 1, ...server },
    config: `[handler.session]\n${keys.join("\n")}\n${STORE}`,
    files,
  });
}

const connect = ({ addresses }: Pmilter) => MilterClient.connect(addresses[0]!, { as: "postfix" });

async function sendTo(pmilter: Pmilter, to: string, from = "from@example.com"): Promise<Outcome> {
  await using client = await connect(pmilter);
  return await client.send({ eml: "Subject: a\r\n\r\nb\r\n", from, to: [to] });
}

/** The verdict for the recipient of a message. */
const verdictFor = async (pmilter: Pmilter, to: string, from?: string) =>
  (await sendTo(pmilter, to, from)).recipients[0]!.verdict;

test("a limit of messages for each domain is exact, for sessions of four workers at once", async () => {
  await using pmilter = await serve({ "envrcpt.rb": LIMIT }, { workers: 4 });
  const verdicts = await Promise.all(
    Array.from({ length: 40 }, (_, at) => verdictFor(pmilter, `a@${at % 2 === 0 ? "example.com" : "example.net"}`)),
  );
  expect(verdicts.filter((verdict) => verdict === "accept")).toHaveLength(6);
  expect(verdicts.filter((verdict) => verdict === "reject")).toHaveLength(34);
  expect(pmilter.prints.text).toBe("");
  expect(await verdictFor(pmilter, "b@example.com")).toBe("reject");
  expect(await verdictFor(pmilter, "b@example.org")).toBe("accept");
});

test("a detector of floods for each address of a client", async () => {
  await using pmilter = await serve({ "connect.rb": FLOODS });
  const verdicts = [];
  for (let at = 0; at < 8; at++) verdicts.push((await sendTo(pmilter, "a@b.c")).verdict);
  // Three may connect within an hour; the next three are refused, and then it begins again.
  expect(verdicts).toEqual(["accept", "accept", "accept", "reject", "reject", "reject", "accept", "accept"]);
  expect(pmilter.prints.all[3]).toBe('"floods: {\\"count\\"=>3, \\"key\\"=>\\"127.0.0.1\\"}"');
});

test("a script that keeps its lock, or does not return, costs the others nothing", async () => {
  const script = `lock = Mutex.new :global => true
from = Pmilter::Session.new.envelope_from
if from == "<keeper@b.c>"
  lock.lock
elsif from == "<looper@b.c>"
  lock.lock
  $stdout.puts "has it"
  loop { }
elsif from == "<other@b.c>"
  puts "other"
else
  over = lock.try_lock_loop(50_000) { lock.unlock }
  puts over ? "no lock" : "had it"
end
`;
  await using pmilter = await serve({ "envfrom.rb": script }, { block_timeout: 2 });
  await using bystander = await connect(pmilter);
  const mail = { eml: "Subject: a\r\n\r\nb\r\n", to: ["a@b.c"] };
  expect((await bystander.send({ ...mail, from: "other@b.c" })).verdict).toBe("accept");

  expect((await sendTo(pmilter, "a@b.c", "keeper@b.c")).verdict).toBe("accept");
  await pmilter.log.next(/envfrom\.rb ended with a lock that it had not released: it is released now/);
  expect((await sendTo(pmilter, "a@b.c", "next@b.c")).verdict).toBe("accept");
  await pmilter.prints.next(/^had it$/);

  const looper = sendTo(pmilter, "a@b.c", "looper@b.c");
  await pmilter.prints.next(/^has it$/);
  const waiting = sendTo(pmilter, "a@b.c", "waiting@b.c");
  // The thread of the loop is ended, the session of the bystander is not moved, and nothing of it is lost.
  const others = await Promise.all([bystander.send({ ...mail, from: "other@b.c" }), waiting]);
  expect(others.map(({ verdict }) => verdict)).toEqual(["accept", "accept"]);
  expect((await looper).verdict).toBe("tempfail");
  await pmilter.log.next(
    /handler too slow: .*phase=envfrom at=envfrom\.rb.* error="TimeoutError: the script did not return in 2 s"/,
  );
  expect((await sendTo(pmilter, "a@b.c", "next@b.c")).verdict).toBe("accept");
  await pmilter.prints.next(/^had it$/, { from: pmilter.prints.all.indexOf("has it") });
  expect((await statusOf(pmilter)).counters).toMatchObject({ blocked: 0, sessionsMoved: 0, timeouts: 1 });
});
