/** `pmilter convert`: a TypeScript handler beside a Ruby handler. Opal is loaded for it. */
import { readFileSync, writeFileSync } from "node:fs";
import { basename, extname } from "node:path";
import { PHASE_NAMES } from "../protocol/phases.ts";
import { codeOf, PlainError, whyNotRead } from "../errors.ts";
import { ROLE_OF_FILE, type Role } from "../ruby/convert/names.ts";
import { ArgumentError, type ConvertArguments } from "./args.ts";

/** The command failed; the reason in words for people. */
export class ConvertError extends PlainError {
  override readonly name = "ConvertError";
}

const ROLES: readonly Role[] = [...PHASE_NAMES, "postconfig", "master_exit"];

/**
 * Writes the handler; a file that is there is kept.
 * @returns the exit code
 * @throws ArgumentError the phase of the script is not known
 * @throws LoadError it does not compile
 * @throws ConvertError it cannot be read, or the handler not written
 */
export async function convert({ file, phase }: ConvertArguments): Promise<number> {
  const role = roleOf(file, phase);
  const { convertRuby } = await import("../ruby/convert/convert.ts");
  const { code, looks } = await convertRuby(file, read(file), role);
  const target = `${file.slice(0, file.length - extname(file).length)}.ts`;
  try {
    writeFileSync(target, code, { flag: "wx" });
  } catch (error) {
    throw new ConvertError(
      codeOf(error) === "EEXIST"
        ? `${target} is there already, and is kept`
        : `${target} cannot be written: ${String(error)}`,
    );
  }
  const places = looks === 0 ? "" : `; look at ${looks === 1 ? "one place" : `${looks} places`}, marked "Look here"`;
  process.stdout.write(`${target}: written for ${role}${places}\n`);
  return 0;
}

function roleOf(file: string, phase: string | undefined): Role {
  const name = basename(file, extname(file));
  const wanted = phase ?? ROLE_OF_FILE[name] ?? name;
  const role = ROLES.find((known) => known === wanted);
  if (role !== undefined) return role;
  const hint = phase === undefined ? `the name ${name} does not say what it is for; ` : "";
  throw new ArgumentError(`${hint}--phase takes ${ROLES.join(", ")}`, "convert");
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8").replace(/^\uFEFF/, "");
  } catch (error) {
    throw new ConvertError(`${file} cannot be read: ${whyNotRead(error)}`);
  }
}
