/**
 * `pmilter types`: writes the files that an editor needs beside handlers outside of this repository. The server reads
 * none of it: there `pmilter` is its own module.
 */
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import API_TYPES from "../check/pmilter.d.txt" with { type: "text" };
import { optionTypes } from "../check/option-types.ts";
import { codeOf, PlainError, reason, whyNotRead } from "../errors.ts";
import { VERSION } from "../version.ts";

/** A file could not be written, or is not ours to write; said to the user as it is. */
export class TypesError extends PlainError {
  override readonly name = "TypesError";
}

/** The first line of a file that may be written anew begins so. */
const MARKER = "// Written by pmilter types";

const HEAD = `${MARKER} (pmilter ${VERSION}), which writes it anew: do not edit.\n`;

/** The options by which an editor reads handlers as Bun does. No `paths` here: Bun itself would follow them. */
const COMPILER_OPTIONS = `  "compilerOptions": {
    // Handlers run in workers: console, fetch, timers, URL. For the modules of Bun and Node run
    // bun add -d @types/bun, and add "types": ["bun"] here.
    "lib": ["ESNext", "WebWorker"],
    "target": "ESNext",
    "module": "Preserve",
    "moduleResolution": "bundler",
    "allowImportingTsExtensions": true,
    "allowJs": true,
    "isolatedModules": true,
    "noEmit": true,
    "skipLibCheck": true,
    "strict": true
  }`;

const TSCONFIG = `${MARKER}, which writes it anew: delete this line to keep what you change.
{
${COMPILER_OPTIONS}
}
`;

/**
 * Writes `pmilter.d.ts` and `tsconfig.json`, and says so. A tsconfig.json that an earlier run did not write is left as
 * it is.
 * @param folder made if it is not there
 * @returns the exit code
 * @throws TypesError
 */
export async function types(folder: string): Promise<number> {
  const declarationFile = join(folder, "pmilter.d.ts");
  const configFile = join(folder, "tsconfig.json");
  makeFolder(folder);
  if (!isOurs(declarationFile)) {
    throw new TypesError(
      `${declarationFile}: is there already, and its first line does not begin with "${MARKER}": move it away first`,
    );
  }
  const mayConfigure = isOurs(configFile);
  write(declarationFile, `${HEAD}${API_TYPES}\n${await optionTypes()}`);
  if (mayConfigure) write(configFile, TSCONFIG);
  else {
    process.stdout.write(
      `left ${configFile} as it is: pmilter types did not write it. It must include pmilter.d.ts, as it does without "files" and "include", and have these options:\n${COMPILER_OPTIONS}\n`,
    );
  }
  return 0;
}

function makeFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    if (!statSync(folder).isDirectory()) throw new Error("it is a file");
  } catch (error) {
    throw new TypesError(`${folder}: expected a folder: ${reason(error)}`, { cause: error });
  }
}

/** Whether a file may be written: it is not there, or an earlier run wrote it. */
function isOurs(file: string): boolean {
  try {
    return readFileSync(file, "utf8").startsWith(MARKER);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return true;
    throw new TypesError(`${file}: cannot be read: ${whyNotRead(error)}`, { cause: error });
  }
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new TypesError(`${file}: cannot be written: ${reason(error)}`, { cause: error });
  }
  process.stdout.write(`wrote ${file}\n`);
}
