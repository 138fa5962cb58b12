/** What it takes to read and to edit messages, beside mail readers by others. Each measurement is a process of its own. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { formatNumber, formatSpread, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import { MESSAGES, type SampleMessage } from "./messages.ts";
import { measureSent, SENT_EDITS, type SentEdit, type SentMeasurement } from "./sent.ts";

interface Reader {
  readonly name: string;
  readonly command: readonly string[];
}

const own = (reader: string): readonly string[] => [process.execPath, join(import.meta.dir, "read.ts"), reader];

const READERS: readonly Reader[] = [
  { name: "pmilter: structure and names", command: own("structure") },
  { name: "pmilter: all parts decoded", command: own("decoded") },
  { name: "pmilter: a footer added", command: own("footer") },
  { name: "pmilter: a part replaced", command: own("replaced") },
  { name: "mailsplit: split, nothing decoded", command: own("mailsplit") },
  { name: "postal-mime: all parts decoded", command: own("postal-mime") },
  { name: "mailparser: all parts decoded", command: own("mailparser") },
];
const PYTHON: Reader = { name: "Python's email: all parts decoded", command: [] };

/** The message of which an edit is also measured in the server. */
const LARGEST = MESSAGES.at(-1)!;
const EDITS = (Object.keys(SENT_EDITS) as SentEdit[]).map((name) => ({ name }));

interface Measurement {
  /** Of a message. */
  readonly cpuMs: number;
  /** Of the whole process. */
  readonly peakBytes: number;
}

interface Variant {
  readonly message: SampleMessage;
  readonly reader: Reader;
  readonly file: string;
}

export async function runMime(plan: Plan): Promise<SuiteResult> {
  const python = Bun.which("python3");
  const readers =
    python === null ? READERS : [...READERS, { ...PYTHON, command: [python, join(import.meta.dir, "read.py")] }];
  const folder = mkdtempSync(join(tmpdir(), "pmilter-bench-mime-"));
  try {
    const variants: Variant[] = [];
    for (const [at, message] of MESSAGES.entries()) {
      const file = join(folder, `${at}.eml`);
      writeFileSync(file, message.make());
      for (const reader of readers) variants.push({ message, reader, file });
    }
    const results = await interleave(plan, variants, async ({ file, message, reader }, round) => {
      const times = plan.isQuick ? 1 : message.times;
      const measurement = await measure([...reader.command, file, String(times)]);
      plan.note(
        `mime ${round + 1}/${plan.rounds} ${message.name}, ${reader.name}: ${formatNumber(measurement.cpuMs)} ms`,
      );
      return measurement;
    });
    const sent = await interleave(plan, EDITS, async (edit, round) => {
      const measurement = await measureSent(edit.name, LARGEST.make(), plan.isQuick ? 1 : 5);
      plan.note(
        `mime ${round + 1}/${plan.rounds} ${LARGEST.name}, sent, ${edit.name}: ${formatNumber(measurement.cpuMs)} ms`,
      );
      return measurement;
    });
    const tables = MESSAGES.map((message) => ({
      title: `mime: ${message.name}`,
      columns: ["reader", "CPU ms/message", "peak memory, MiB"],
      rows: variants
        .filter((variant) => variant.message === message)
        .map((variant) => {
          const of = (value: (measurement: Measurement) => number) =>
            formatSpread(spreadOf(results.get(variant)!.map(value)));
          return [variant.reader.name, of(({ cpuMs }) => cpuMs), of(({ peakBytes }) => peakBytes / 2 ** 20)];
        }),
      notes: [
        "memory is that of the whole process, runtime and message included",
        ...(python === null ? ["without Python: python3 is not installed"] : []),
      ],
    }));
    return {
      commands: [
        "bun bench/mime/read.ts READER message.eml TIMES",
        "bun src/main.ts -c pmilter.toml   # a filter that edits, 1 worker",
      ],
      raw: [
        ...variants.map((variant) => ({
          variant: `${variant.message.name}, ${variant.reader.name}`,
          rounds: results.get(variant),
        })),
        ...EDITS.map((edit) => ({ variant: `${LARGEST.name}, sent, ${edit.name}`, rounds: sent.get(edit) })),
      ],
      tables: [
        ...tables,
        {
          title: `mime: ${LARGEST.name}, in the server, with the sending of the new body`,
          columns: ["edit", "body sent, MB", "CPU ms", "longest turn of the event loop, ms", "memory, MiB more"],
          rows: EDITS.map((edit) => {
            const of = (value: (measurement: SentMeasurement) => number) =>
              formatSpread(spreadOf(sent.get(edit)!.map(value)));
            return [
              edit.name,
              formatNumber(sent.get(edit)![0]!.sentBytes / 1e6),
              of(({ cpuMs }) => cpuMs),
              of(({ turnMs }) => turnMs),
              of(({ grownBytes }) => grownBytes / 2 ** 20),
            ];
          }),
          notes: [
            "from the end of the message to the last reply, of all threads; the mail server's side is a loop that reads at once",
            "memory is what the process has in RAM at the most, the mapped body included",
          ],
        },
      ],
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function measure(command: readonly string[]): Promise<Measurement> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}`);
  return JSON.parse(text) as Measurement;
}
