/**
 * The judges that are other programs: Python's `email`, Perl's MIME::Parser, ripmime. Python and Perl run once for all
 * mails: a mail goes to the process with its length in front (four bytes, big-endian), and a line of JSON comes back.
 */
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type OutsideTool, outsideTool } from "../available.ts";
import { tempDir } from "../temp.ts";
import { hashOf, type Judge, type JudgeSource, type Leaf } from "./judge.ts";

const PYTHON_TOOL = outsideTool("python3", { paths: ["/usr/bin/python3"] });
const PERL_TOOL = mimeParserTool();
const RIPMIME_TOOL = outsideTool("ripmime");

/** Python's `email`, with its default policy. Header and content of each part as they stand in the message. */
export const PYTHON: JudgeSource = {
  tool: PYTHON_TOOL,
  open: () => new Process("Python email", [PYTHON_TOOL.path, join(import.meta.dir, "leaves.py")]),
};

/** MIME::Parser as amavis sets it up: forwarded messages are opened, and files in uuencode. */
export const PERL: JudgeSource = {
  tool: PERL_TOOL,
  open: () => new Process("Perl MIME::Parser", [PERL_TOOL.path, join(import.meta.dir, "leaves.pl")]),
};

/** ripmime: the files that it writes, with their names and without types; texts are files as well. */
export const RIPMIME: JudgeSource = { tool: RIPMIME_TOOL, open: openRipmime };

function mimeParserTool(): OutsideTool {
  const perl = outsideTool("perl", { paths: ["/usr/bin/perl"] });
  if (!perl.available) return perl;
  const { exitCode } = Bun.spawnSync([perl.path, "-MMIME::Parser", "-e", "1"], { stdout: "ignore", stderr: "ignore" });
  return exitCode === 0 ? perl : { ...perl, available: false, reason: "Perl's MIME::Parser is not installed" };
}

class Process implements Judge {
  readonly name: string;
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncIterator<string>;
  #last: Promise<unknown> = Promise.resolve();

  constructor(name: string, command: string[]) {
    this.name = name;
    this.#process = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    this.#lines = linesOf(this.#process.stdout);
  }

  /** One mail at a time; calls wait for each other. */
  leaves(mail: Uint8Array): Promise<readonly Leaf[]> {
    const answer = this.#last.then(() => this.#ask(mail));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #ask(mail: Uint8Array): Promise<readonly Leaf[]> {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(mail.length);
    const { stdin } = this.#process;
    stdin.write(length);
    stdin.write(mail);
    await stdin.flush();
    const { done, value } = await this.#lines.next();
    if (done === true) throw new Error(`${this.name} ended with exit code ${await this.#process.exited}`);
    const leaves = JSON.parse(value) as readonly Leaf[] | { readonly error: string };
    if ("error" in leaves) throw new Error(`${this.name}: ${leaves.error}`);
    return leaves;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stdin.end();
    await this.#process.exited;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let pieces: string[] = [];
  for await (const chunk of stream) {
    const lines = decoder.decode(chunk, { stream: true }).split("\n");
    for (const line of lines.slice(0, -1)) {
      yield pieces.join("") + line;
      pieces = [];
    }
    pieces.push(lines.at(-1)!);
  }
}

function openRipmime(): Judge {
  const folder = tempDir("ripmime");
  let count = 0;
  return {
    name: "ripmime",
    async leaves(mail) {
      const out = join((await folder).path, String(count++));
      const child = Bun.spawn([RIPMIME_TOOL.path, "-i", "-", "-d", out, "-q", "--unique_names"], {
        stdin: mail,
        stdout: "ignore",
        stderr: "ignore",
      });
      await child.exited;
      const leaves = readdirSync(out)
        .toSorted()
        .map((name) => {
          const content = readFileSync(join(out, name));
          return { type: "", name, hash: hashOf(content), size: content.length, raw: "", fields: [], isBroken: false };
        });
      rmSync(out, { recursive: true });
      return leaves;
    },
    [Symbol.asyncDispose]: async () => (await folder)[Symbol.asyncDispose](),
  };
}
