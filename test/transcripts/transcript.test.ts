/** The parser of transcripts, and that playing one notices each kind of difference. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { parseConfig } from "../../src/config/load.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { connectInMemory, TIMERS } from "../../src/testing/in-memory.ts";
import { loadChain } from "../../src/load/loader.ts";
import { playTranscript } from "./play.ts";
import { ClientPlayer } from "./play-client.ts";
import { parseTranscript, type Step, TranscriptError } from "./transcript.ts";

const HEAD = "A title.\n\n--- configuration\n--- session\n";
const HEAD_LINES = 4;

function steps(session: string): readonly Step[] {
  return parseTranscript(HEAD + session, "x.txt").steps;
}

function fault(text: string): string {
  try {
    parseTranscript(text, "x.txt");
  } catch (error) {
    expect(error).toBeInstanceOf(TranscriptError);
    return (error as Error).message;
  }
  throw new Error("it was taken");
}

describe("parseTranscript", () => {
  test("title, exclusions, configuration and their comments", () => {
    const text = `# about
A title.
not postfix, sendmail: no such thing there
not tcp: another reason

--- configuration
# TOML has comments of its own
[server]
workers = 2
--- session
> helo a
`;
    expect(parseTranscript(text, "x.txt")).toMatchObject({
      file: "x.txt",
      title: "A title.",
      not: new Map([
        ["postfix", "no such thing there"],
        ["sendmail", "no such thing there"],
        ["tcp", "another reason"],
      ]),
      configuration: "# TOML has comments of its own\n[server]\nworkers = 2",
      steps: [{ line: 11, event: "helo", args: ["a"] }],
    });
  });

  test("events with their arguments and texts", () => {
    const session = `> connect a.test 192.0.2.1
> envfrom <> SIZE=1 BODY=7BIT
> envrcpt <b@c.test>
> header X-A: 1
| \tfolded
> header X-Empty:
> body
| one
|
| .
> unknown FOO BAR
`;
    expect(steps(session).map(({ event, args, text }) => [event, args, text])).toEqual([
      ["connect", ["a.test", "192.0.2.1"], []],
      ["envfrom", ["<>", " SIZE=1 BODY=7BIT"], []],
      ["envrcpt", ["<b@c.test>", ""], []],
      ["header", ["X-A", " 1"], ["\tfolded"]],
      ["header", ["X-Empty", ""], []],
      ["body", [], ["one", "", "."]],
      ["unknown", ["FOO BAR"], []],
    ]);
  });

  test("answers: changes, verdict, reply, and what holds for one mail server only", () => {
    const [first, second] = steps(`> eom
< addHeader X-A: 1
| \tfolded
<postfix changeHeader 1 Subject: b
< deleteHeader 2 X-B
<sendmail accept
= delivered from <> to <a@b> <c@d>
| Subject: b
|
> eom
< tempfail
< 450-4.7.1 a
< 450 4.7.1 b
`);
    const common = ["addHeader X-A: 1\n\tfolded", "deleteHeader 2 X-B"];
    expect(first!.answers).toEqual({
      postfix: { changes: common.toSpliced(1, 0, "changeHeader 1 Subject: b"), verdict: undefined, reply: [] },
      sendmail: { changes: common, verdict: "accept", reply: [] },
    });
    expect(first!.fate).toEqual({ kind: "delivered", from: "<>", to: ["<a@b>", "<c@d>"], message: ["Subject: b", ""] });
    expect(second!.answers.postfix).toEqual({
      changes: [],
      verdict: "tempfail",
      reply: ["450-4.7.1 a", "450 4.7.1 b"],
    });
    expect(second!.fate).toBeUndefined();
  });

  test.each([
    ["--- configuration\n--- session\n> data\n", "x.txt:1: a transcript begins with a sentence: what it shows"],
    ["A.\nmore\n--- configuration\n", 'x.txt:2: expected "not TRANSPORT: REASON"'],
    ["A.\nnot udp: why\n--- configuration\n", 'x.txt:2: no transport "udp"; there are memory, unix,'],
    ["A.\n--- session\n", 'x.txt:2: expected "--- configuration", got "--- session"'],
    ["A.\n--- configuration\n[x]\n", 'x.txt:4: expected "--- session", got the end'],
    ["A.\n--- configuration\n[x\n--- session\n> data\n", "x.txt:3: no TOML: "],
    [HEAD, "x.txt:5: a session has at least one event"],
  ])("%j: %s", (text, message) => expect(fault(text)).toStartWith(message));

  test.each([
    ["> data \n", 1, "white space at the end of the line"],
    ["data\n", 1, "expected >, <, <postfix, <sendmail, = or |, and a space"],
    [">data\n", 1, "expected >, <, <postfix, <sendmail, = or |, and a space"],
    ["> data\n<exim accept\n", 2, "expected >, <, <postfix, <sendmail, = or |, and a space"],
    ["> mail <a@b>\n", 1, 'no event "mail"; there are connect, helo, '],
    ["> envfrom a@b\n", 1, 'envfrom does not take "a@b"'],
    ["> data now\n", 1, 'data does not take "now"'],
    ["> header no colon\n", 1, 'header does not take "no colon"'],
    ["< accept\n", 1, "an answer comes after an event"],
    ["| text\n", 1, "text belongs to header, body, a change or ="],
    ["> data\n| text\n", 2, "text belongs to header, body, a change or ="],
    ["> body\n< accept\n| text\n", 3, "text belongs to header, body, a change or ="],
    ["> data\n< accept\n< accept\n", 3, "a second verdict"],
    ["> data\n< 550 5.7.1 a\n", 2, "an SMTP reply comes after reject or tempfail"],
    ["> data\n< reject\n< 450 4.7.1 a\n", 3, "the code of reject begins with 5"],
    ["> data\n< tempfail\n< 550 5.7.1 a\n", 3, "the code of tempfail begins with 4"],
    ["> data\n< fine\n", 2, '"fine" is no change ('],
    ["> data\n< addHeader A: b\n", 2, "changes come at eom"],
    ["> eom\n< addHeader A\n", 2, 'addHeader does not take "A"'],
    ["> eom\n< accept\n< addHeader A: b\n", 3, "a change comes before the verdict"],
    ["> eom\n> quit\n", 1, "what becomes of the message? Expected = behind this eom"],
    ["> eom\n", 1, "what becomes of the message? Expected = behind this eom"],
    ["> data\n= nothing\n", 2, "= comes after an eom that refuses nothing"],
    ["> eom\n< reject\n= nothing\n", 3, "= comes after an eom that refuses nothing"],
    ["> eom\n= nothing\n= nothing\n", 3, "a second ="],
    ["> eom\n= nothing\n< accept\n", 3, "an answer comes before ="],
    ["> eom\n= delivered\n", 2, 'expected "delivered" or "held" from <ADDRESS> to <ADDRESS> …, or "nothing"'],
  ])("%j: line %d: %s", (session, line, message) => {
    expect(fault(HEAD + session)).toStartWith(`x.txt:${HEAD_LINES + line}: ${message}`);
  });
});

describe("playTranscript", () => {
  const SESSION = `> connect mx.client.test 192.0.2.7
> helo mx.client.test
> envfrom <refuse@example.test>
< reject
< 550 5.7.1 Not welcome here
> envfrom <alice@example.test>
> envrcpt <bob@example.org>
> data
> header Subject: a
> eoh
> eom
< addHeader X-A: 1
= delivered from <alice@example.test> to <bob@example.org>
| Subject: a
| X-A: 1
|
`;

  async function play(session: string): Promise<void> {
    const text = `T.
--- configuration
[handler.session]
envfrom_handler = "word.ts"
[[filter]]
path = "change.ts"
options = { changes = [["addHeader", "X-A", "1"]] }
--- session
${session}`;
    const transcript = parseTranscript(text, "x.txt");
    const folder = join(import.meta.dir, "filters", "pmilter.toml");
    const chain = await loadChain(parseConfig(transcript.configuration, folder));
    const open = () =>
      Promise.resolve(MilterClient.over(connectInMemory({ chain, clock: TIMERS, report() {} }), { as: "postfix" }));
    await playTranscript(transcript, new ClientPlayer("postfix", open));
  }

  test("takes what is so", () => play(SESSION));

  test.each([
    ["< reject\n< 550 5.7.1 Not welcome here\n", ""],
    ["< 550 5.7.1 Not welcome here\n", ""],
    ["Not welcome here", "Not welcome"],
    ["> envrcpt <bob@example.org>\n", "> envrcpt <bob@example.org>\n< not sent\n"],
    ["> envrcpt <bob@example.org>\n", "> envrcpt <bob@example.org>\n< reject\n"],
    ["> header Subject: a", "> header Subject: b"],
    ["< addHeader X-A: 1", "< addHeader X-A: 2"],
    ["| X-A: 1\n", ""],
    ["from <alice@", "from <bob@"],
    ["to <bob@example.org>\n", "to <bob@example.org> <carol@example.org>\n"],
    ["= delivered", "= held"],
    [SESSION.slice(SESSION.indexOf("= delivered")), "= nothing\n"],
  ])("notices %j where it is %j", async (from, to) => {
    expect(SESSION).toContain(from);
    let error: unknown;
    await play(SESSION.replace(from, to)).catch((caught: unknown) => {
      error = caught;
    });
    expect(String(error)).toContain("toEqual");
  });

  test("two sessions in one process do not see each other", async () => {
    await Promise.all([play(SESSION), play(SESSION)]);
  });
});
