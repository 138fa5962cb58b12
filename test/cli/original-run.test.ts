/** The shipped configuration and handlers print what the original pmilter's did, in its README's example run. */
import { expect, test } from "bun:test";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MAIN, runPmilter, Lines } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

const ROOT = join(import.meta.dir, "..", "..");

/** The lines of that run; what differs here is said. */
const ORIGINAL: readonly (string | RegExp)[] = [
  "hello pmilter handler called from pmilter",
  "client ipaddr 192.168.123.123",
  "client hostname mx.example.net",
  "client daemon milter-test-server",
  // mruby_connect_handler there; phases have one name here.
  "handler phase name: connect",
  "helo hostname: delian",
  "tls client issuer: cert_issuer",
  "tls client subject: cert_subject",
  "tls session key size: 0",
  "tls encrypt method: 0",
  "tls version: 0",
  "env from from args: <from@example.com>",
  "env from from symval: mail_addr",
  "SASL login name: ",
  "SASL login sender: ",
  "SASL login type: ",
  "env to from arg: <to@example.com>",
  "env to from symval: <to@example.com>",
  'header: {"From"=>"<from@example.com>"}',
  'header: {"To"=>"<to@example.com>"}',
  'header: {"Subject"=>"Hello"}',
  "body chunk; Hello world!!",
  "myhostname: mail.example.com",
  "message_id: message-id",
  // Wed Nov 02 21:02:15 2016
  /^reveive_time: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \d{4}$/,
  "add_header(X-Pmilter:True): Enable",
];

/** What milter-test-server gave. */
const MACROS = {
  daemon_name: "milter-test-server",
  cert_issuer: "cert_issuer",
  cert_subject: "cert_subject",
  cipher_bits: "0",
  cipher: "0",
  tls_version: "0",
  mail_addr: "mail_addr",
  rcpt_addr: "<to@example.com>",
  i: "message-id",
};

test("pmilter.toml as shipped: the lines of the original's run", async () => {
  await using dir = await tempDir("original");
  await cp(join(ROOT, "handlers"), join(dir.path, "handlers"), { recursive: true });
  const shipped = await readFile(join(ROOT, "pmilter.toml"), "utf8");
  const configFile = join(dir.path, "pmilter.toml");
  const moved = shipped.replace(/^listen = .*$/m, 'listen = "pmilter.sock"');
  expect(moved).not.toBe(shipped);
  await writeFile(configFile, moved);

  const server = Bun.spawn([process.execPath, MAIN, "-c", configFile], { stdio: ["ignore", "pipe", "pipe"] });
  const [log, prints] = [new Lines(), new Lines()];
  void log.read(server.stderr);
  void prints.read(server.stdout);
  try {
    await log.next(/ready: listening on /);
    expect(log.all[0]).toMatch(
      /^\[\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\]\[notice\]: pmilter\/\S+ starting \(using Bun \S+\)$/,
    );
    const envelope = "--from from@example.com --to to@example.com";
    const client = "--client 192.168.123.123 --hostname mx.example.net --helo delian";
    const macros = Object.entries(MACROS).map(([name, value]) => `--macro ${name}=${value}`);
    const { exitCode, stdout, stderr } = await runPmilter([
      "send",
      "-c",
      configFile,
      join(ROOT, "test", "fixtures", "hello.eml"),
      ...[envelope, client, ...macros].join(" ").split(" "),
    ]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toMatch(/^ {2}addHeader X-Pmilter: Enable$/m);
    expect(stdout).toMatch(/^verdict: accept$/m);
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    await prints.next(/bye/);
  } finally {
    server.kill("SIGKILL");
  }
  const printed = prints.all.filter((line) => !line.startsWith("pmilter: "));
  expect(printed).toHaveLength(ORIGINAL.length);
  ORIGINAL.forEach((expected, index) => {
    if (typeof expected === "string") expect(printed[index]).toBe(expected);
    else expect(printed[index]).toMatch(expected);
  });
  // Its two other handlers, once each.
  expect(prints.all.filter((line) => line.startsWith("pmilter: "))).toEqual([
    "pmilter: configuration loaded",
    "pmilter: bye",
  ]);
}, 15_000);

test("the shipped configuration passes check", async () => {
  const { exitCode, stdout, stderr } = await runPmilter(["check", "-c", join(ROOT, "pmilter.toml")]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout).toContain("  handler: connect helo envfrom envrcpt header body eom");
});
