/** What handlers print: on the server's standard output, unchanged, whole lines, in order. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { formatLine } from "../../src/worker/print.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { CONNECT, MAIL, OPTNEG, QUIT, RawClient, UNKNOWN } from "../server/wire.ts";

setDefaultTimeout(120_000);

describe("formatLine", () => {
  test.each<[unknown[], string]>([
    [[], ""],
    [["text"], "text"],
    [["100 %"], "100 %"],
    [["a", 1, true, null, undefined], "a 1 true null undefined"],
    [["%s is %d", "x", 5, "more"], "x is 5 more"],
    [["%s"], "%s"],
    [[{ a: [1, "b"] }], Bun.inspect({ a: [1, "b"] })],
    [[new Map([["k", 1]])], Bun.inspect(new Map([["k", 1]]))],
    [["line\nline"], "line\nline"],
  ])("%j", (args, expected) => expect(formatLine(args)).toBe(expected));
});

function start(body: string, workers = 1): Promise<Pmilter> {
  return startPmilter({
    server: { workers, stop_timeout: 0.1 },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: { "filter.ts": `import { defineFilter } from "pmilter";\nexport default defineFilter({ ${body} });\n` },
  });
}

/** Runs statements in a handler, and gives what came on standard output. */
async function printed(statements: string): Promise<string[]> {
  await using server = await start(`async envfrom() { ${statements} }, close() { console.log("end of test"); }`);
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG, CONNECT, MAIL);
  await client.send(QUIT);
  await server.prints.next(/^end of test$/);
  expect(await server.stop()).toBe(0);
  expect(server.log.text).not.toMatch(/\[error\]/);
  expect(server.prints.all.pop()).toBe("end of test");
  return server.prints.all;
}

/** The same statements as a program of their own, as Bun itself prints them. */
async function printedByBun(statements: string): Promise<string[]> {
  const child = Bun.spawn([process.execPath, "-e", statements], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  const lines = (await new Response(child.stdout).text()).split("\n");
  lines.pop();
  return lines;
}

describe("prints of handlers", () => {
  test.each([
    [
      "console.log",
      'console.log("a", 1, { b: [2] }, "100%"); console.log(); console.log("%s-%d", "x", 3); console.log("two\\nlines"); console.log({ a: { b: { c: { d: 1 } } } });',
    ],
    ["console.info and debug", 'console.info("i", new Date(0)); console.debug("d", [1, , 2]);'],
    ["console.dir", 'console.dir({ a: { b: { c: {} } } }); console.dir("text");'],
    [
      "console.table",
      'console.table([{ a: 1, b: "x" }, { a: 2 }]); console.table([{ a: 1, b: 2 }], ["b"]); console.table([1, 2]);',
    ],
    [
      "process.stdout.write",
      'process.stdout.write("half "); process.stdout.write("line\\n"); process.stdout.write(Buffer.from("bytes\\n"));',
    ],
    ["UTF-8", 'console.log("Grüße, 世界 🎉"); process.stdout.write("naïve\\n");'],
    ["console.group", 'console.group("outer"); console.log("inner"); console.groupEnd(); console.log("after");'],
    ["console.count", 'console.count(); console.count("x"); console.count("x");'],
  ])("%s as Bun prints it", async (_, statements) => {
    expect(await printed(statements)).toEqual(await printedByBun(statements));
  });

  test("console.error, console.warn and process.stderr.write go there too, not into the log", async () => {
    const lines = await printed(
      'console.error("e"); console.warn("w", 1); process.stderr.write("s\\n"); console.trace("t");',
    );
    expect(lines.slice(0, 4)).toEqual(["e", "w 1", "s", "Trace: t"]);
    expect(lines[4]).toMatch(/filter\.ts:2/);
  });

  test("a character that is split over two writes of bytes stays whole", async () => {
    const statements =
      'const b = Buffer.from("é🎉\\n"); process.stdout.write(b.subarray(0, 1)); process.stdout.write(b.subarray(1, 4)); process.stdout.write(b.subarray(4));';
    expect(await printed(statements)).toEqual(["é🎉"]);
  });

  test("process.stdout.write calls back, also when awaited", async () => {
    const statements =
      'await new Promise((done) => process.stdout.write("x\\n", () => done())); await new Promise((done) => process.stdout.write("y\\n", "utf8", done)); console.log("z");';
    expect(await printed(statements)).toEqual(["x", "y", "z"]);
  });

  test("10,000 lines arrive whole and in order", async () => {
    const lines = await printed('for (let i = 0; i < 10_000; i++) console.log("line", i, "x".repeat(i % 100));');
    expect(lines).toEqual(Array.from({ length: 10_000 }, (_, i) => `line ${i} ${"x".repeat(i % 100)}`));
  });

  test("what is printed at import, in start() and in stop()", async () => {
    await using server = await startPmilter({
      server: { workers: 1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: {
        "filter.ts":
          'console.log("import");\nexport default { unknown() {}, start() { console.log("start"); }, stop() { console.log("stop"); } };\n',
      },
    });
    expect(await server.stop()).toBe(0);
    await server.prints.next(/stop/);
    expect(server.prints.all).toEqual(["import", "start", "stop"]);
  });

  test("lines of two workers do not mix, even if they are written in pieces", async () => {
    const pieces =
      'for (const piece of ["one ", "two ", "three\\n"]) { process.stdout.write(piece); await Bun.sleep(3); }';
    await using server = await start(`async unknown() { for (let i = 0; i < 20; i++) { ${pieces} } }`, 2);
    const clients = await Promise.all([0, 1].map(() => RawClient.connect(server.addresses[0]!)));
    await Promise.all(clients.map((client) => client.ask(OPTNEG, UNKNOWN)));
    for (const client of clients) client.end();
    await server.stop();
    expect(new Set(server.prints.all)).toEqual(new Set(["one two three"]));
    expect(server.prints.all).toHaveLength(40);
  });
});
