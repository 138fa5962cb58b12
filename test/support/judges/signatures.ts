/** Verifiers of DKIM and ARC by others, which say what is right of a message that was delivered. Keys are given to them, not asked for. */
import { join } from "node:path";
import { type OutsideTool, outsideTool } from "../available.ts";

/** A signature, and `pass`, or what a verifier has against it. */
export interface Judged {
  readonly a: string;
  readonly d: string;
  readonly s: string;
  readonly result: string;
}

export interface Judgement {
  /** In the order of the message. */
  readonly dkim: readonly Judged[];
  /** Of the chain: `none`, `pass`, `fail`. */
  readonly arc: string;
}

export interface SignatureJudge {
  readonly tool: OutsideTool;
  /** @param records texts of TXT records by name */
  judge(records: Readonly<Record<string, string>>, mails: readonly Uint8Array[]): Promise<readonly Judgement[]>;
}

/** Python's dkimpy, with PyNaCl for Ed25519. */
export const DKIMPY = judgeOf("dkimpy", "/usr/bin/python3", "signatures.py", ["-c", "import dkim, nacl"]);
/** Perl's Mail::DKIM, which knows no Ed25519: `invalid`. */
export const MAIL_DKIM = judgeOf("Mail::DKIM", "/usr/bin/perl", "signatures.pl", ["-MMail::DKIM", "-e", "1"]);

function judgeOf(name: string, program: string, script: string, trial: readonly string[]): SignatureJudge {
  const tool = toolOf(name, program, trial);
  return {
    tool,
    async judge(records, mails) {
      const task = { records, mails: mails.map((mail) => Buffer.from(mail).toString("base64")) };
      const child = Bun.spawn([program, join(import.meta.dir, script)], {
        stdin: Buffer.from(JSON.stringify(task)),
        stdout: "pipe",
        stderr: "pipe",
      });
      const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
      if ((await child.exited) !== 0) throw new Error(`${script}: ${stderr}`);
      return JSON.parse(stdout) as Judgement[];
    },
  };
}

function toolOf(name: string, program: string, trial: readonly string[]): OutsideTool {
  const tool = outsideTool(program, { paths: [program] });
  if (!tool.available) return tool;
  const { exitCode } = Bun.spawnSync([program, ...trial], { stdout: "ignore", stderr: "ignore" });
  return exitCode === 0 ? tool : { ...tool, name, available: false, reason: `${name} is not installed` };
}
