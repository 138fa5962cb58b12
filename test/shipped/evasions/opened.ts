/** Which programs open the file of an evasion: mail readers by others, and programs that unpack archives. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type OutsideTool, outsideTool } from "../../support/available.ts";
import { hashOf, type Judge, type JudgeSource, PERL, POSTAL_MIME, PYTHON, RIPMIME } from "../../support/judges.ts";
import { tempDir } from "../../support/temp.ts";
import { type ArchiveEvasion, type Evasion, isTheFile } from "./all.ts";
import { ZIP } from "./encodings.ts";
import { INNER } from "./nesting.ts";

export const READERS: readonly JudgeSource[] = [PYTHON, PERL, RIPMIME, POSTAL_MIME];

const UNPACKERS: readonly { readonly tool: OutsideTool; command(archive: string, folder: string): string[] }[] = [
  { tool: outsideTool("7z"), command: (archive, folder) => ["x", "-y", "-p", `-o${folder}`, archive] },
  { tool: outsideTool("unzip"), command: (archive, folder) => ["-o", "-qq", "-P", "", archive, "-d", folder] },
  { tool: outsideTool("bsdtar"), command: (archive, folder) => ["-xf", archive, "-C", folder] },
];

export const TOOLS: readonly OutsideTool[] = [...READERS, ...UNPACKERS].map(({ tool }) => tool);

/** Contents that count as the file: with the line end that some readers leave, or without. */
const CONTENTS = new Set(
  [ZIP, Buffer.from(INNER, "latin1")].flatMap((content) => [
    hashOf(content),
    hashOf(Buffer.concat([content, Buffer.from("\r\n")])),
    hashOf(Buffer.concat([content, Buffer.from("\n")])),
  ]),
);

/** The names of the programs that open it: of an archive those that unpack, of other messages those that read mail. */
export async function programsThatOpen(evasions: readonly Evasion[]): Promise<ReadonlyMap<Evasion, string[]>> {
  const archives = evasions.filter((evasion): evasion is ArchiveEvasion => "archive" in evasion);
  const others = evasions.filter((evasion) => !("archive" in evasion));
  return new Map([...(await readersThatOpen(others)), ...(await unpackersThatOpen(archives))]);
}

/** The names of the readers that show or save the file. One that fails with the message does not. */
async function readersThatOpen(evasions: readonly Evasion[]): Promise<ReadonlyMap<Evasion, string[]>> {
  const opened = new Map(evasions.map((evasion): [Evasion, string[]] => [evasion, []]));
  for (const source of READERS) {
    await using judge = source.open();
    for (const evasion of evasions) if (await opens(judge, evasion)) opened.get(evasion)!.push(judge.name);
  }
  return opened;
}

async function opens(judge: Judge, { eml }: Evasion): Promise<boolean> {
  let leaves;
  try {
    leaves = await judge.leaves(eml);
  } catch (error) {
    if (error instanceof Error && error.message.includes("ended with exit code")) throw error;
    return false;
  }
  return leaves.some(({ name, hash }) => isTheFile(name) || CONTENTS.has(hash));
}

/** The names of the programs that unpack the file. */
async function unpackersThatOpen(evasions: readonly ArchiveEvasion[]): Promise<ReadonlyMap<Evasion, string[]>> {
  await using folder = await tempDir("evasions");
  const opened = new Map<Evasion, string[]>();
  for (const [index, evasion] of evasions.entries()) {
    const names: string[] = [];
    for (const { tool, command } of UNPACKERS) {
      const place = join(folder.path, `${index}-${tool.name}`);
      mkdirSync(place);
      writeFileSync(join(place, evasion.archiveName), evasion.archive);
      if (unpacks(tool.path, command, join(place, evasion.archiveName), LEVELS)) names.push(tool.name);
      rmSync(place, { recursive: true, force: true });
    }
    opened.set(evasion, names);
  }
  return opened;
}

/** So many archives in each other are unpacked. */
const LEVELS = 12;
/** What lies beside more files than these is no archive in an archive. */
const FEW = 5;

function unpacks(
  program: string,
  command: (archive: string, folder: string) => string[],
  archive: string,
  levels: number,
): boolean {
  // Beside the archive, in a name of its own: that of the archive may be as long as names can be.
  const folder = mkdtempSync(join(dirname(archive), "unpacked-"));
  Bun.spawnSync([program, ...command(archive, folder)], { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => isFile(join(folder, name)));
  if (files.some(isTheFile)) return true;
  if (levels === 0 || files.length > FEW) return false;
  return files.some((name) => unpacks(program, command, join(folder, name), levels - 1));
}

/** A link to something that is not there is none. */
function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}
