/** Ruby handlers over the life of a server: what a connection's scripts leave behind, reloads, and what goes wrong. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { expectLogged } from "../failures/support.ts";
import { statusOf } from "../recovery/support.ts";
import { type Pmilter, type PmilterOptions, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { PATIENCE_MS, tempDir } from "../support/temp.ts";
import { CHANGES, HANDLERS } from "./original.ts";

setDefaultTimeout(120_000);

const MAIL = { eml: "Subject: a\r\n\r\nb\r\n", to: ["a@b.c"] };

/** A configuration of phase files, each named by its phase; one worker. */
function project(files: Readonly<Record<string, string>>, server: PmilterOptions["server"] = {}): PmilterOptions {
  const keys = Object.keys(files).map((file) => `${file.split(".")[0]}_handler = "${file}"`);
  return {
    server: { workers: 1, stop_timeout: 0.1, ...server },
    config: `[handler.session]\n${keys.join("\n")}\n`,
    files,
  };
}

const connect = ({ addresses }: Pmilter) => MilterClient.connect(addresses[0]!, { as: "postfix" });

async function sendOne(pmilter: Pmilter): Promise<Outcome> {
  await using client = await connect(pmilter);
  return await client.send(MAIL);
}

/** Sends until the answer is that: what was saved takes its time to be in force. */
async function untilVerdict(pmilter: Pmilter, verdict: Outcome["verdict"]): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let seen = ""; seen !== verdict; seen = (await sendOne(pmilter)).verdict) {
    if (performance.now() > deadline) throw new Error(`the verdict is still ${seen}\n${pmilter.log.text}`);
  }
}

test("globals, constants and variables of self live for one connection, and for all of its scripts", async () => {
  await using pmilter = await startPmilter(
    project({
      "helo.rb": "$helo = Pmilter::Session.new.helo_hostname\n",
      "eom.rb": `$count = ($count || 0) + 1
@count ||= 0
@count += 1
FIRST = $helo unless defined?(FIRST)
"a" =~ /b/ if $count == 1
"x" =~ /x/ if $count == 2
puts [$helo, $count, @count, FIRST, $~.nil?].join(" ")
`,
    }),
  );
  await using one = await connect(pmilter);
  await using two = await connect(pmilter);
  await one.send({ ...MAIL, helo: "one" });
  await two.send({ ...MAIL, helo: "two" });
  await one.send({ ...MAIL, helo: "one" });
  await two.send({ ...MAIL, helo: "two" });
  await using three = await connect(pmilter);
  await three.send({ ...MAIL, helo: "three" });
  await pmilter.prints.next(/^three/);
  expect(pmilter.prints.all).toEqual([
    "one 1 1 one true",
    "two 1 1 two true",
    "one 2 2 one false",
    "two 2 2 two false",
    "three 1 1 three true",
  ]);
});

test("globals end with an exception as they stood", async () => {
  await using pmilter = await startPmilter(
    project({ "envfrom.rb": "$seen = 1\nraise 'no'\n", "unknown.rb": 'puts "seen #{$seen.inspect}"\n' }),
  );
  await using one = await connect(pmilter);
  await one.negotiate();
  await one.connect();
  expect(await one.envfrom("<a@b.c>")).toMatchObject({ kind: "tempfail" });
  await one.unknown("X");
  await using other = await connect(pmilter);
  await other.negotiate();
  await other.unknown("X");
  await pmilter.prints.next(/seen nil/);
  expect(pmilter.prints.all).toEqual(["seen 1", "seen nil"]);
});

test("Ruby and TypeScript handlers stand side by side", async () => {
  await using pmilter = await startPmilter(
    project({
      "envfrom.rb": 'puts "ruby #{Pmilter::Session.new.envelope_from}"\n',
      "envrcpt.ts":
        'import { reject } from "pmilter";\nexport default (_, to) => (to === "<no@b.c>" ? reject() : undefined);\n',
      "eom.rb": "Pmilter::Session::Headers.new['X-By'] = 'ruby'\n",
    }),
  );
  await using client = await connect(pmilter);
  const outcome = await client.send({ ...MAIL, from: "me@b.c", to: ["no@b.c", "a@b.c"] });
  expect(outcome.recipients.map(({ verdict }) => verdict)).toEqual(["reject", "accept"]);
  expect(outcome.modifications).toEqual([{ kind: "addHeader", name: "X-By", value: "ruby" }]);
  await pmilter.prints.next(/^ruby <me@b\.c>$/);
});

test("Opal is loaded where a Ruby file is configured, and nowhere else", async () => {
  const tell = "export default () => console.log(`Opal: ${typeof Opal}`);\n";
  await using without = await startPmilter(project({ "connect.ts": tell }));
  await sendOne(without);
  await without.prints.next(/^Opal: undefined$/);
  await using withRuby = await startPmilter(project({ "connect.ts": tell, "helo.rb": "1\n" }));
  await sendOne(withRuby);
  await withRuby.prints.next(/^Opal: (?:object|function)$/);
});

test("TypeScript beside Ruby finds JavaScript as it is", async () => {
  const tell = `export default () => {
  const keys = [];
  for (const value of [{}, [], "a", new Error(), () => {}]) for (const key in value) keys.push(key);
  const error = new (class Mine extends Error {})();
  console.log(JSON.stringify([keys, new Error().message, error.message, String(new TypeError("a")), Object.keys([1])]));
};
`;
  await using pmilter = await startPmilter(project({ "connect.ts": tell, "helo.rb": "raise 'a' rescue 1\n" }));
  await sendOne(pmilter);
  await sendOne(pmilter);
  const expected = JSON.stringify([["0"], "", "", "TypeError: a", ["0"]]);
  await pmilter.prints.next(/./, { from: 1 });
  expect(pmilter.prints.all).toEqual([expected, expected]);
});

test("saving a script takes effect; one that does not compile leaves the version before", async () => {
  await using pmilter = await startPmilter(project({ "eom.rb": "1\n" }));
  const file = join(pmilter.dir, "eom.rb");
  expect((await sendOne(pmilter)).verdict).toBe("accept");
  await writeFile(file, "Pmilter.status = Pmilter::SMFIS_REJECT\n");
  await untilVerdict(pmilter, "reject");
  await writeFile(file, "1\n2\n)\n");
  await pmilter.log.next(/reload.*eom\.rb:3: /);
  expect((await sendOne(pmilter)).verdict).toBe("reject");
  await writeFile(file, "require 'socket'\n");
  await pmilter.log.next(/reload.*eom\.rb:1:1: require cannot be used/);
  await rm(file);
  await pmilter.log.next(/reload.*eom\.rb: there is no such file/);
  expect((await sendOne(pmilter)).verdict).toBe("reject");
  await writeFile(file, "1\n");
  await untilVerdict(pmilter, "accept");
});

const BROKEN = [
  ["a syntax error", "1\n)\n", ":2: ", ":2"],
  ["what cannot run", "\n\n`date`\n", ":3:1: ", ":3"],
  ["a missing file", null, ": there is no such file", ""],
] as const;

test.each(BROKEN)(
  "broken-ruby: %s: check says so; the server starts, and each event of it gets tempfail",
  async (_, text, at, site) => {
    const files = { "helo.rb": "puts 'helo'\n", "eom.rb": text ?? "1\n" };
    await using dir = await tempDir("broken");
    const configFile = await writeProject(dir.path, project(files));
    if (text === null) await rm(join(dir.path, "eom.rb"));
    const { exitCode, stderr } = await runPmilter(["check", "-c", configFile]);
    expect(exitCode).toBe(1);
    expect(stderr).toStartWith(`pmilter: ${dir.path}/eom.rb${at}`);

    const { "eom.rb": eom, ...others } = files;
    const given = text === null ? others : { ...others, "eom.rb": eom };
    await using pmilter = await startPmilter({ ...project(files), files: given });
    for (let message = 0; message < 2; message++) expect((await sendOne(pmilter)).verdict).toBe("tempfail");
    await pmilter.prints.next(/^helo$/);
    const [loading, failing] = await expectLogged(pmilter, "broken-ruby");
    expect(loading).toContain("/eom.rb");
    expect(failing).toContain(` phase=eom at=eom.rb${site} error="LoadError: `);
    // Mended while the server runs.
    await writeFile(join(pmilter.dir, "eom.rb"), "1\n");
    await untilVerdict(pmilter, "accept");
  },
);

test("an exception gets server.on_error", async () => {
  await using pmilter = await startPmilter(project({ "envfrom.rb": "\nnil.oops\n" }, { on_error: "reject" }));
  expect((await sendOne(pmilter)).verdict).toBe("reject");
  const line = await pmilter.log.next(/handler failed/);
  expect(line).toContain(
    ' phase=envfrom at=envfrom.rb:2 error="NoMethodError: undefined method `oops\' for nil" fallback=reject',
  );
});

test("a script in an endless loop loses its worker, and the connection goes on", async () => {
  await using pmilter = await startPmilter(
    project(
      { "envfrom.rb": "loop { } if Pmilter::Session.new.envelope_from == '<loop@b.c>'\n" },
      { block_timeout: 0.5 },
    ),
  );
  await using client = await connect(pmilter);
  expect((await client.send({ ...MAIL, from: "loop@b.c" })).verdict).toBe("tempfail");
  expect((await client.send({ ...MAIL, from: "fine@b.c" })).verdict).toBe("accept");
  await pmilter.log.next(/has not returned to its event loop/);
});

test("postconfig.rb that raises keeps the server from starting; master_exit.rb is said to have failed", async () => {
  await using dir = await tempDir("postconfig");
  const config = '[handler.config]\npostconfig_handler = "postconfig.rb"\n';
  const configFile = await writeProject(dir.path, { config, files: { "postconfig.rb": "\nraise 'not today'\n" } });
  const { exitCode, stderr } = await runPmilter(["-c", configFile]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`pmilter: ${dir.path}/postconfig.rb:2:`);
  expect(stderr).toContain("not today");

  await using pmilter = await startPmilter({
    config: '[handler.config]\nmaster_exit_handler = "master_exit.rb"\n',
    files: { "master_exit.rb": "\n\nraise 'late'\n" },
  });
  await pmilter.stop();
  expect(pmilter.log.text).toMatch(/master_exit\.rb:3\b.*late/);
});

test("ten thousand messages leave nothing behind", async () => {
  const names = {
    connect: "connect",
    helo: "helo",
    envfrom: "mail_from",
    envrcpt: "rcpt_to",
    header: "header",
    body: "body",
  };
  const files = Object.fromEntries(
    Object.entries(names).map(([phase, name]) => [
      `${phase}.rb`,
      HANDLERS[`handler/${name}.rb` as keyof typeof HANDLERS],
    ]),
  );
  const eom = `${HANDLERS["handler/eom.rb"]}${CHANGES}$kept = ($kept || []) + [Pmilter::Session.new.message_id]\nBIG = "x" * 10_000\n`;
  await using pmilter = await startPmilter(project({ ...files, "eom.rb": eom }));
  const sendMany = async (count: number, perConnection: number) => {
    for (let sent = 0; sent < count; sent += perConnection) {
      await using client = await connect(pmilter);
      for (let message = 0; message < perConnection; message++) {
        const { verdict } = await client.send({ ...MAIL, from: "change-from@example.com", to: ["add-to@example.com"] });
        if (verdict !== "accept") throw new Error(`message ${sent + message}: ${verdict}\n${pmilter.log.text}`);
      }
      // The lines that were printed are not what is measured here.
      pmilter.prints.all.length = 0;
    }
  };
  await sendMany(2000, 20);
  const heap = async () => (await statusOf(pmilter)).workers[0]!.heapBytes;
  const before = await heap();
  await sendMany(10_000, 20);
  const grown = (await heap()) - before;
  expect(pmilter.log.text).not.toContain("[error]");
  // One that kept 1 kB of each message would have grown by 10 MB.
  expect(grown).toBeLessThan(6 * 2 ** 20);
}, 300_000);

test("a status that is taken back, or set where nobody hears it, is no verdict that was not returned", async () => {
  await using pmilter = await startPmilter(
    project({
      "envfrom.rb": "Pmilter.status = Pmilter::SMFIS_REJECT\nPmilter.status = Pmilter::SMFIS_CONTINUE\n",
      "envrcpt.rb": "Pmilter.status = Pmilter::SMFIS_REJECT\nPmilter.status = Pmilter::SMFIS_ACCEPT\n",
      "close.rb": "Pmilter.status = Pmilter::SMFIS_REJECT\nputs 'closed'\n",
    }),
  );
  expect((await sendOne(pmilter)).verdict).toBe("accept");
  await pmilter.prints.next(/closed/);
  expect((await statusOf(pmilter)).counters).toMatchObject({ accepted: 1, unreturned: 0 });
  expect(pmilter.log.text).not.toContain("was not returned");
});
