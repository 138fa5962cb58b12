/** `pmilter convert`: the examples convert, compile and do the same; what cannot be translated is left to a person. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { ORIGINAL } from "../config/original.ts";
import { runPmilter, startPmilter } from "../support/pmilter.ts";
import { type TempDir, tempDir } from "../support/temp.ts";
import { CHANGES, HANDLERS } from "./original.ts";
import { LIMIT } from "./programs.ts";

setDefaultTimeout(300_000);

const EXAMPLES = { ...HANDLERS, "handler/eom.rb": HANDLERS["handler/eom.rb"] + CHANGES };

async function write(dir: TempDir, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) await Bun.write(join(dir.path, name), text);
}

/** The errors of the type check, with the declarations that `pmilter types` gives. */
async function typeErrors(folder: string): Promise<string[]> {
  expect((await runPmilter(["types", folder])).exitCode).toBe(0);
  const child = Bun.spawn([process.execPath, "check", "--no-script", "-p", folder], { stdout: "pipe", stderr: "pipe" });
  const output = await new Response(child.stdout).text();
  const errors = `${output}${await new Response(child.stderr).text()}`;
  expect(errors).toMatch(/checked \d+ files|No type errors/);
  return errors.split("\n").filter((line) => line.includes("error TS"));
}

/** Converts one script and gives what was written. */
async function converted(script: string, phase: string, hasTypes = true): Promise<{ code: string; stdout: string }> {
  await using dir = await tempDir("convert");
  await write(dir, { "script.rb": script });
  const file = join(dir.path, "script.rb");
  const { exitCode, stdout, stderr } = await runPmilter(["convert", file, "--phase", phase]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  const code = await Bun.file(join(dir.path, "script.ts")).text();
  if (hasTypes) expect(await typeErrors(dir.path)).toEqual([]);
  return { code, stdout: stdout.replaceAll(dir.path, "DIR") };
}

test("the examples convert, compile, and behave the same on the same messages", async () => {
  await using dir = await tempDir("converted");
  await write(dir, EXAMPLES);
  for (const file of Object.keys(EXAMPLES)) {
    const { exitCode, stderr } = await runPmilter(["convert", join(dir.path, file)]);
    expect({ file, exitCode, stderr }).toEqual({ file, exitCode: 0, stderr: "" });
  }
  expect(await typeErrors(join(dir.path, "handler"))).toEqual([]);

  const names = (await readdir(join(dir.path, "handler"))).filter((name) => /^(?!pmilter\.d).*\.ts$/.test(name));
  expect(names).toHaveLength(Object.keys(EXAMPLES).length);
  const typescript = Object.fromEntries(
    await Promise.all(
      names.map(async (name) => [`handler/${name}`, await Bun.file(join(dir.path, "handler", name)).text()] as const),
    ),
  );
  const config = ORIGINAL.slice(ORIGINAL.indexOf("[handler]"));
  const results = [];
  for (const options of [
    { config, files: EXAMPLES },
    { config: config.replaceAll(".rb", ".ts"), files: typescript },
  ]) {
    await using pmilter = await startPmilter({ ...options, server: { workers: 1 } });
    const outcomes: Outcome[] = [];
    await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
    for (const [from, to] of [
      ["from@example.com", ["to@example.com"]],
      ["spam-from@example.com", ["to@example.com"]],
      ["change-from@example.com", ["to@example.com", "add-to@example.com"]],
      ["", ["add-to@example.com"]],
    ] as const) {
      outcomes.push(
        await client.send({ from, to, eml: 'From: a@b.c\nX-Odd: "q" \\b\n\nHello\nworld', macros: { i: "1" } }),
      );
    }
    await client.quit();
    expect(await pmilter.stop()).toBe(0);
    const printed = pmilter.prints.all.map((line) => line.replace(/^(reveive_time: \w{3} \w{3} \d\d ).*/, "$1"));
    const answers = outcomes.map(({ message, modifications, phases, recipients, reply, verdict }) => ({
      message,
      modifications,
      recipients,
      reply,
      verdict,
      phases: phases.map((phase) => phase.verdict),
    }));
    results.push({ answers, printed });
  }
  expect(results[0]!.printed.length).toBeGreaterThan(60);
  expect(results[1]).toEqual(results[0]!);
});

test("conditions, strings, globals, comments and blank lines are kept", async () => {
  const script = `# Who is let in.
s = Pmilter::Session.new

# trusted
if s.client_hostname.end_with?(".example.com", ".test") && !(s.client_ipaddr.start_with?("10.") or s.helo_hostname == "")
  $trusted = "yes" # remembered
elsif s.helo_hostname.downcase.include?("dynamic")
  puts "dynamic: #{s.helo_hostname} \`x\` \${y}"
  Pmilter.status = Pmilter::SMFIS_REJECT
else
  case s.client_daemon
  when "smtpd", "smtps"
    puts "daemon"
  else
    Pmilter.status = Pmilter::SMFIS_TEMPFAIL unless s.client_ipaddr.empty?
  end
end
`;
  const { code, stdout } = await converted(script, "helo");
  expect(code).toBe(`import { reject, tempfail, type Session } from "pmilter";

export default function helo(session: Session<"helo">, hostname: string) {
  // Who is let in.

  // trusted
  if ((session.client.hostname.endsWith(".example.com") || session.client.hostname.endsWith(".test")) && !(session.client.address.startsWith("10.") || hostname === "")) {
    session.state["trusted"] = "yes"; // remembered
  } else if (hostname.toLowerCase().includes("dynamic")) {
    console.log(\`dynamic: \${hostname} \\\`x\\\` \\\${y}\`);
    return reject();
  } else {
    if (session.daemonName === "smtpd" || session.daemonName === "smtps") {
      console.log("daemon");
    } else {
      if (session.client.address !== "") {
        return tempfail();
      }
    }
  }
}
`);
  expect(stdout).toBe("DIR/script.ts: written for helo\n");
});

test("a status that is set before the end is kept until then", async () => {
  const { code } = await converted(
    `Pmilter.status = Pmilter::SMFIS_REJECT
return if Pmilter::Session.new.envelope_from == "<a@b.c>"
Pmilter.status = Pmilter::SMFIS_CONTINUE
puts "on"
`,
    "envfrom",
  );
  expect(code).toBe(`import { reject, type Result, type Session } from "pmilter";

export default function envfrom(_session: Session<"envfrom">, sender: string): Result<"envfrom"> {
  let verdict: Result<"envfrom">;
  verdict = reject();
  if (sender === "<a@b.c>") {
    return verdict;
  }
  verdict = undefined;
  console.log("on");
  return verdict;
}
`);
});

test("texts and values of headers are read from the message, where it has them", async () => {
  const script = `h = Pmilter::Session::Headers.new
puts "subject: #{h.text("Subject")}, #{h["X-A"]}"
`;
  const { code } = await converted(script, "eom");
  expect(code).toContain(
    '${session.message.headers.text("Subject") ?? ""}, ${session.message.headers.get("X-A") ?? ""}',
  );
  expect((await converted(script, "envrcpt")).code).toContain("// Look here: line 2 was not translated");
});

test("log, is_local, message_state and results", async () => {
  const script = `s = Pmilter::Session.new
state = s.message_state
results = Pmilter::Session::Results.new
s.log "a message" if s.is_local
s.log("from #{s.client_ipaddr}", "warn")
state["seen"] = "yes"
results["spf"] = "pass"
puts "#{state["seen"]} #{Pmilter::Session::Results.new["spf"]}"
puts "none" if results["dkim"].nil?
`;
  const { code } = await converted(script, "envrcpt");
  expect(code).toBe(`import type { Session } from "pmilter";

export default function envrcpt(session: Session<"envrcpt">) {
  if (session.isLocal) {
    session.log("a message");
  }
  session.log.warn(\`from \${session.client.address}\`);
  session.message.state["seen"] = "yes";
  session.message.results.set("spf", "pass");
  puts(\`\${session.message.state["seen"] ?? ""} \${session.message.results.get("spf") ?? ""}\`);
  if ((session.message.results.get("dkim") ?? null) === null) {
    console.log("none");
  }
}

/** Prints a line; a line end that is there is not doubled. */
function puts(text: string): void {
  console.log(text.endsWith("\\n") ? text.slice(0, -1) : text);
}
`);
  const early = (await converted(script, "connect")).code;
  expect(early).toContain("// Look here: line 6 was not translated: there is no message at connect");
  expect(early).toContain("// Look here: line 8 was not translated: there is no message at connect");
  const unknown = (await converted('Pmilter::Session.new.log("a", Pmilter::Session.new.helo_hostname)', "data")).code;
  expect(unknown).toContain("// Look here: line 1 was not translated: the level is perhaps none of debug, info");
});

test("what cannot be translated surely stands as a comment with the Ruby lines", async () => {
  const { code, stdout } = await converted(
    `h = Pmilter::Session::Headers.new
h['X-A'] = 'b'
[1, 2].each do |n|
  puts n
end
puts "end" if Pmilter::Session.new.auth_authen
if Pmilter::Session.new.envelope_to == "<a@b.c>"
  system "date"
end
`,
    "envrcpt",
  );
  expect(code).toContain(
    '  // Look here: session.message.addHeader("X-A", "b") does nothing at envrcpt in the original; it is for eom\n',
  );
  expect(code).toContain(`  // Look here: line 3 was not translated
  //   [1, 2].each do |n|
  //     puts n
  //   end
`);
  expect(code).toContain("  // Look here: line 6 was not translated: in Ruby everything but nil and false is true\n");
  expect(code).toContain(`  if (recipient === "<a@b.c>") {
    // Look here: line 8 was not translated
    //   system "date"
  }
`);
  expect(stdout).toBe('DIR/script.ts: written for envrcpt; look at 4 places, marked "Look here"\n');
});

test("a file that is there is kept; what does not compile, or says not what it is for, is told", async () => {
  await using dir = await tempDir("convert-errors");
  await write(dir, { "eom.rb": "puts 1\n", "eom.ts": "// mine\n", "helo.rb": "puts 1\n)\n", "other.rb": "puts 1\n" });
  const run = async (...args: string[]) => {
    const { exitCode, stderr } = await runPmilter(["convert", ...args.map((arg) => arg.replace("DIR", dir.path))]);
    return { exitCode, stderr: stderr.replaceAll(dir.path, "DIR") };
  };
  expect(await run("DIR/eom.rb")).toEqual({
    exitCode: 1,
    stderr: "pmilter: DIR/eom.ts is there already, and is kept\n",
  });
  expect(await Bun.file(join(dir.path, "eom.ts")).text()).toBe("// mine\n");
  expect(await run("DIR/helo.rb")).toEqual({
    exitCode: 1,
    stderr: "pmilter: DIR/helo.rb:2: unexpected token tRPAREN\n",
  });
  expect(await run("DIR/none.rb", "--phase", "eom")).toEqual({
    exitCode: 1,
    stderr: "pmilter: DIR/none.rb cannot be read: there is no such file\n",
  });
  const unknown = await run("DIR/other.rb");
  expect(unknown.exitCode).toBe(2);
  expect(unknown.stderr).toContain("the name other does not say what it is for; --phase takes connect, helo, ");
  expect((await run("DIR/eom.txt")).exitCode).toBe(2);
  expect((await run()).exitCode).toBe(2);
});

test("local variables keep their names, but for those that TypeScript or the handler has", async () => {
  const { code } = await converted(
    `host = "h " + Pmilter::Session.new.helo_hostname
name = "x"
puts host, "#{name} #{host}"
new = host
puts new if new == "h y"
`,
    "header",
  );
  expect(code).toBe(`import type { Session } from "pmilter";

export default function header(session: Session<"header">) {
  let host;
  let name_;
  let new_;
  host = "h " + session.helo;
  name_ = "x";
  puts(String(host ?? ""));
  puts(\`\${name_ ?? ""} \${host ?? ""}\`);
  new_ = host;
  if (new_ === "h y") {
    puts(String(new_ ?? ""));
  }
}

/** Prints a line; a line end that is there is not doubled. */
function puts(text: string): void {
  console.log(text.endsWith("\\n") ? text.slice(0, -1) : text);
}
`);
});

test("a counter under a lock, in a class of its own, is one call of the store, and exact", async () => {
  const { code, stdout } = await converted(LIMIT, "envrcpt");
  expect(code).toBe(`import { reject, type Result, type Session } from "pmilter";

export default async function envrcpt(session: Session<"envrcpt">, recipient: string): Promise<Result<"envrcpt">> {
  let verdict: Result<"envrcpt">;
  let domain;
  let n;
  domain = recipient.split("@")[1];
  // The script's lock is not needed here: one call counts, and others count at the same time.
  n = await session.store.increment(\`limits:\${domain ?? ""}\`);
  if (n > 3) {
    verdict = reject();
  }
  return verdict;
}
`);
  expect(stdout).toBe("DIR/script.ts: written for envrcpt\n");
  expect(await acceptedOf(code, 12)).toBe(3);
});

test("what reads and writes under a lock keeps it: a claim in the store", async () => {
  const script = `lock = Mutex.new :global => true
seen = Cache.new :namespace => "seen"
who = Pmilter::Session.new.client_ipaddr
over = lock.try_lock_loop(50000, 9000000) do
  begin
    n = seen[who].to_i
    Pmilter.status = Pmilter::SMFIS_REJECT if n >= 4
    seen[who] = (n + 1).to_s if n < 10
    seen.delete("nobody")
  ensure
    lock.unlock
  end
end
p "no lock" if over
`;
  const { code, stdout } = await converted(script, "envrcpt");
  expect(code).toContain(`  over = !(await lock(session, 9000));
  if (!over) {
    try {
      n = integer(await session.store.get(\`seen:\${who ?? ""}\`));
      if (n >= 4) {
        verdict = reject();
      }
      if (n < 10) {
        await session.store.set(\`seen:\${who ?? ""}\`, String((n + 1)));
      }
      await session.store.delete("seen:nobody");
    } finally {
      await session.store.delete("lock");
    }
  }
  if (over) {
    console.log("\\"no lock\\"");
  }
`);
  expect(stdout).toBe("DIR/script.ts: written for envrcpt\n");
  expect(await acceptedOf(code, 12)).toBe(4);
});

test("a lock that is not surely released, and files that are more than read, are left to a person", async () => {
  const script = `lock = Mutex.new
puts "#{File.basename("/a/b")} #{File.read("list")}" if File.exist?("list")
lock.try_lock_loop(1) { puts "a" }
lock.lock
File.open("list", "a") { |file| file.puts "b" }
`;
  // The folder has no types of Node; the server's own check has.
  const { code } = await converted(script, "helo", false);
  expect(code).toStartWith(`import { existsSync, readFileSync } from "node:fs";
import { basename } from "node:path";
`);
  expect(code).toContain('if (existsSync("list")) {');
  expect(code).toContain('${basename("/a/b")} ${readFileSync("list", "utf8")}');
  expect(code).toContain("// Look here: line 3 was not translated: the lock is not released at the end of the block");
  expect(code).toContain("// Look here: line 4 was not translated");
  expect(code).toContain("// Look here: line 5 was not translated");
});

/** How many of so many recipients at once a handler of four workers accepts. */
async function acceptedOf(code: string, count: number): Promise<number> {
  await using pmilter = await startPmilter({
    server: { workers: 4 },
    config: '[handler.session]\nenvrcpt_handler = "rcpt_to.ts"\n[store]\ntimeout = "9s"\n',
    files: { "rcpt_to.ts": code },
  });
  const verdicts = await Promise.all(
    Array.from({ length: count }, async () => {
      await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
      const { recipients } = await client.send({ eml: "A: b\n\nc\n", from: "a@b.c", to: ["a@example.com"] });
      return recipients[0]!.verdict;
    }),
  );
  expect(pmilter.log.text).not.toContain("[error]");
  return verdicts.filter((verdict) => verdict === "accept").length;
}
