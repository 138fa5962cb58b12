/** Ruby handlers that remember: `Mutex` and `Cache`, over connections, workers and the life of a server. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { statusOf } from "../recovery/support.ts";
import { type Pmilter, type PmilterOptions, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { FLOODS, LIMIT, PERIODS } from "./programs.ts";

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
  expect(await pmilter.prints.next(/^/, { from: 3 })).toBe('"floods: {\\"count\\"=>3, \\"key\\"=>\\"127.0.0.1\\"}"');
});

test("a limit in a period, which begins again", async () => {
  await using pmilter = await serve({ "envrcpt.rb": PERIODS }, { workers: 2 });
  const verdicts = await Promise.all(Array.from({ length: 12 }, () => verdictFor(pmilter, "a@example.com")));
  expect(verdicts.filter((verdict) => verdict === "accept")).toHaveLength(10);
  // A line for each, and one for each refusal; the lines of the two workers come in any order.
  await pmilter.prints.next(/^/, { from: 13 });
  expect(pmilter.prints.all.filter((line) => line.includes("reject"))).toHaveLength(2);
  expect(pmilter.prints.all).toContain('"increment example.com> current: 12 threshold: 10"');
  expect(await verdictFor(pmilter, "a@example.com", "short@example.com")).toBe("accept");
  await pmilter.prints.next(/^/, { from: 15 });
  expect(pmilter.prints.all.slice(14)).toEqual([
    '"cleanup example.com>"',
    '"increment example.com> current: 1 threshold: 10"',
  ]);
});

/** Prints each expression with its value, or the exception. */
const probe = (expressions: readonly string[]) =>
  expressions.map((text) => `begin; puts((${text}).inspect); rescue => e; puts "#{e.class}: #{e.message}"; end`);

test("the methods of Cache", async () => {
  const CASES: readonly [expression: string, shown: string][] = [
    ['$c["a"]', "nil"],
    ['$c["a"] = "1"', '"1"'],
    ['$c.set("b", "2")', "nil"],
    ['[$c["a"], $c.get("b"), $c.get_by_no_lock("b")]', '["1", "2", "2"]'],
    ['Cache.new(:namespace => "one", :size_mb => 1, :min_alloc_size => 256)["a"]', '"1"'],
    ['Cache.new(:filename => "one")["a"]', "nil"],
    ['[$c.delete("a"), $c.delete("a")]', "[true, false]"],
    ['$c[1] = "1"', "TypeError: both key and value must be STRING"],
    ['$c["a"] = 1', "TypeError: both key and value must be STRING"],
    ["$c[nil]", "TypeError: expected String for the key"],
    ['$c["a"] = "x" * 70_000', "Cache::MemoryPoolFull: a value has at most 65000 bytes"],
    ['$c[""] = ""; $c[""]', '""'],
    ['$c["k" * 600 + "1"] = "long"; [$c["k" * 600 + "1"], $c["k" * 600 + "2"]]', '["long", nil]'],
    ['$c["\0"] = "nul"; $c["\0"]', '"nul"'],
    ["$c.size", "4"],
    ["$c.keys.map { |key| key.length }.sort", "[0, 1, 1, 601]"],
    ['all = {}; $c.each_pair { |key, value| all[key] = value }; [all.size, all["b"]]', '[4, "2"]'],
    ["$c.random_pair.length", "2"],
    ["$c.shm_status.keys.sort.join(',')", '"free_bytes,free_chunks,largest_chunk,total_bytes,used_bytes"'],
    ["$c.shm_status[:used_bytes]", "611"],
    ["$c.check_consistency", "true"],
    ["1200.times { |n| $d[n.to_s] = n.to_s }; $d.size", "1200"],
    ["$d.clear; [$d.size, $d.random_pair, $c.size]", "[0, nil, 4]"],
    ['Cache.drop(:namespace => "one")', "nil"],
    ["$c.size", "0"],
    ["$c.close", "nil"],
    ['$c["a"]', "Cache::MemoryPoolClosed: Pool is closed"],
    ["$c.close", "Cache::MemoryPoolClosed: Pool is closed"],
    ["Cache.new(1)", "ArgumentError: expected a Hash"],
    ["Cache.new({})", "Cache::ArgError: expected :namespace or :filename"],
    ["Cache::ArgError.superclass.superclass", "StandardError"],
  ];
  const script = ['$c = Cache.new :namespace => "one"', '$d = Cache.new :filename => "./two.lmc"'];
  await using pmilter = await serve({
    "eom.rb": [...script, ...probe(CASES.map(([text]) => text)), 'puts "end"'].join("\n"),
  });
  await sendTo(pmilter, "a@b.c");
  await pmilter.prints.next(/^end$/);
  expect(pmilter.prints.all.slice(0, -1)).toEqual(CASES.map(([, shown]) => shown));
});

test("the methods of Mutex", async () => {
  const CASES: readonly [expression: string, shown: string][] = [
    ["[$m.lock, $m.locked?, $m.try_lock, $m.unlock, $m.locked?]", "[0, true, false, 0, false]"],
    ["[$m.try_lock, $m.try_lock]", "[true, false]"],
    ["$m.lock", "RuntimeError: Mutex#lock: this script has locked it already"],
    ["[Mutex.new(:global => true).try_lock, Mutex.new.locked?]", "[true, false]"],
    ["$m.unlock; $m.unlock", "0"],
    ["[$m.try_lock_loop { puts 'in' }, $m.locked?]", "[false, true]"],
    ["[$m.try_lock_loop(1000, 5000) { puts 'never' }, $m.locked?]", "[true, true]"],
    ["$m.synchronize { 5 }", "5"],
    ["$m.locked?", "true"],
    ["$l.synchronize { raise 'no' }", "RuntimeError: no"],
    ["[$l.locked?, usleep(10), sleep(0)]", "[false, 10, 0]"],
    ["Mutex.new(:global => 1)", "RuntimeError: :global => true or false"],
  ];
  await using pmilter = await serve({
    "eom.rb": ["$m = Mutex.new :global => true", "$l = Mutex.new", ...probe(CASES.map(([text]) => text))].join("\n"),
  });
  await sendTo(pmilter, "a@b.c");
  await pmilter.prints.next(/:global => true or false/);
  const printed = CASES.flatMap(([text, shown]) => (text.includes("puts 'in'") ? ["in", shown] : [shown]));
  expect(pmilter.prints.all).toEqual(printed);
});

test("what a script has counted outlives the server", async () => {
  await using dir = await tempDir("kept");
  const counts = 'c = Cache.new :namespace => "n"\nc["n"] = (c["n"].to_i + 1).to_s\nputs c["n"]\n';
  for (const count of ["1", "2"]) {
    await using pmilter = await serve({ "helo.rb": counts }, { state: join(dir.path, "state") });
    await sendTo(pmilter, "a@b.c");
    await pmilter.prints.next(/^/);
    expect(pmilter.prints.all).toEqual([count]);
    expect(await pmilter.stop()).toBe(0);
  }
});

test("scripts share variables, classes and the state of a message where they run", async () => {
  await using pmilter = await serve(
    {
      "helo.rb": 'class Named; def name; "named"; end; end\n$helo = Pmilter::Session.new.helo_hostname\n',
      "envfrom.rb": 'Pmilter::Session.new.message_state["n"] = Cache.new(:namespace => "a").size.to_s\n',
      "eom.rb":
        'puts [$helo, Named.new.name, Pmilter::Session.new.message_state["n"].inspect].join(" ")\nh = Pmilter::Session::Headers.new\nh["X-A"] = h["subject"]\n',
      "close.rb": "puts $helo\n",
    },
    { workers: 1 },
  );
  await using one = await connect(pmilter);
  await using two = await connect(pmilter);
  const mail = { eml: "Subject: a\r\n\r\nb\r\n", to: ["a@b.c"] };
  await one.send({ ...mail, helo: "one" });
  const { modifications } = await two.send({ ...mail, helo: "two" });
  expect(modifications).toMatchObject([{ name: "X-A", value: "a" }]);
  await one.quit();
  await pmilter.prints.next(/^one$/);
  expect(pmilter.prints.all).toEqual(['one named "0"', 'two named "0"', "one"]);
});

test("errors have the script's class, message and line; a mistake in a call of the session that of TypeScript", async () => {
  await using pmilter = await serve({
    "envfrom.rb": "Cache.new(:namespace => 'a')\n\nraise 'no' if Pmilter::Session.new.envelope_from == '<bad@b.c>'\n",
    "eom.rb": 'Pmilter::Session::Headers.new["a b"] = "c"\n',
  });
  expect((await sendTo(pmilter, "a@b.c", "bad@b.c")).verdict).toBe("tempfail");
  expect(await pmilter.log.next(/handler failed/)).toContain(
    ' phase=envfrom at=envfrom.rb:3 error="RuntimeError: no" fallback=tempfail',
  );
  expect((await sendTo(pmilter, "a@b.c")).verdict).toBe("tempfail");
  expect(await pmilter.log.next(/handler failed.*phase=eom/)).toMatch(/at=eom\.rb(?::1)? error="UsageError: /);
});

test("the log names the line of a refusal, in the worker and in a thread", async () => {
  for (const [extra, line] of [
    ["", 2],
    ["Mutex.new\n", 3],
  ] as const) {
    await using pmilter = await serve({ "envrcpt.rb": `${extra}\nPmilter.status = Pmilter::SMFIS_REJECT\n` });
    expect(await verdictFor(pmilter, "a@b.c")).toBe("reject");
    expect(await pmilter.log.next(/reject recipient/)).toEndWith(` at=envrcpt.rb:${line}`);
  }
});

test("a store that does not answer raises what a script can rescue", async () => {
  await using pmilter = await startPmilter({
    server: { workers: 1 },
    config: '[handler.session]\nhelo_handler = "helo.rb"\n[store]\nurl = "redis://127.0.0.1:1"\n',
    files: {
      "helo.rb": 'begin; Cache.new(:namespace => "a")["b"]; rescue => e; puts "#{e.class} #{e.message}"; end\n',
    },
  });
  expect((await sendTo(pmilter, "a@b.c")).verdict).toBe("accept");
  expect(await pmilter.prints.next(/^RuntimeError store: /)).toContain("127.0.0.1:1");
});

test("check says that the start of a server has no store", async () => {
  await using dir = await tempDir("no-store");
  const config = '[handler.config]\npostconfig_handler = "postconfig.rb"\n';
  const configFile = await writeProject(dir.path, {
    config,
    files: { "postconfig.rb": "Cache.drop :namespace => 'a'\n" },
  });
  const { exitCode, stderr } = await runPmilter(["check", "-c", configFile]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain("postconfig.rb:1:1: Cache cannot be used at the start or the end of the server");
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
