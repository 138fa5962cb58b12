/** The transcripts of test/transcripts as streams: what the mail server sends in them, without waiting for an answer. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseTranscript, type Step } from "../transcripts/transcript.ts";
import { type Command, command } from "./commands.ts";

const CASES = join(import.meta.dir, "..", "transcripts", "cases");

export interface Recorded {
  readonly name: string;
  readonly commands: readonly Command[];
}

/** One stream each; a transcript with several connections has them one behind the other, on one. */
export function recordedStreams(): Recorded[] {
  return readdirSync(CASES)
    .filter((file) => file.endsWith(".txt"))
    .sort()
    .map((file) => ({
      name: file,
      commands: streamOf(parseTranscript(readFileSync(join(CASES, file), "utf8"), file).steps),
    }));
}

function streamOf(steps: readonly Step[]): Command[] {
  const commands: Command[] = [];
  for (const step of steps) {
    // libmilter takes a QUIT_NC behind an unknown command, wherever that comes.
    if (step.event === "connect" && commands.length > 0) commands.push(command("U", "NEXT\0"), command("K"));
    if (step.event !== "quit") commands.push(commandOf(step));
  }
  return [...commands, command("U", "NOOP\0"), command("Q")];
}

function commandOf({ event, args: [first = "", second = ""], text }: Step): Command {
  const strings = (...values: readonly string[]): string => values.map((value) => `${value}\0`).join("");
  const params = second.split(" ").filter((word) => word !== "");
  switch (event) {
    case "connect": {
      const family = second.includes(":") ? "6" : second.startsWith("/") ? "L" : "4";
      return command("C", `${first}\0${family}\x30\x39${second}\0`);
    }
    case "helo":
      return command("H", strings(first));
    case "envfrom":
      return command("M", strings(first, ...params));
    case "envrcpt":
      return command("R", strings(first, ...params));
    case "data":
      return command("T");
    case "header":
      return command("L", strings(first, [second, ...text].join("\n")));
    case "eoh":
      return command("N");
    case "body":
      return command("B", text.map((line) => `${line}\r\n`).join(""));
    case "eom":
      return command("E");
    case "abort":
      return command("A");
    case "unknown":
      return command("U", strings(first));
    case "quit":
      return command("Q");
    default:
      return event satisfies never;
  }
}
