/** JSON, TOML, YAML and text files as the modules that Bun makes of them, with the place of their errors. */
import { parse as parseToml, TomlError } from "smol-toml";

export type DataLoader = "json" | "toml" | "yaml" | "text";

/**
 * The value, and its members by name.
 * @throws SyntaxError with a `position`, as Bun's own errors have
 */
export function dataModule(path: string, loader: DataLoader, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parse(loader, text);
  } catch (error) {
    const place = { line: 0, column: 0, ...placeOf(error, loader, text) };
    const message = error instanceof TomlError ? error.message.split("\n")[0] : (error as Error).message;
    throw Object.assign(new SyntaxError(message), { position: { file: path, ...place } });
  }
  const members = typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
  return { ...members, default: value };
}

function parse(loader: DataLoader, text: string): unknown {
  switch (loader) {
    case "json":
      return JSON.parse(text);
    case "toml":
      return parseToml(text);
    case "yaml":
      return Bun.YAML.parse(text);
    case "text":
      return text;
    default:
      return loader satisfies never;
  }
}

function placeOf(error: unknown, loader: DataLoader, text: string): { line: number; column: number } | null {
  if (error instanceof TomlError) return { line: error.line, column: error.column };
  if (loader !== "json") return null;
  // JSON.parse does not say where. It is where no token of JSON begins, or else where no expression goes on.
  const odd = text.length - text.replace(JSON_TOKENS, "").length;
  if (odd < text.length) {
    const before = text.slice(0, odd).split("\n");
    return { line: before.length, column: before.at(-1)!.length + 1 };
  }
  try {
    new Bun.Transpiler({ loader: "js" }).scan(`(\n${text}\n)`);
    return null;
  } catch (cause) {
    const first: unknown = cause instanceof AggregateError ? cause.errors[0] : cause;
    const position = (first as { position?: { line: number; column: number } | null }).position;
    return position === null || position === undefined ? null : { line: position.line - 1, column: position.column };
  }
}

/** As many tokens of JSON as there are from the beginning on. */
const JSON_TOKENS =
  // oxlint-disable-next-line no-control-regex
  /^(?:\s+|"(?:[^"\\\u0000-\u001f]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:])*/;
