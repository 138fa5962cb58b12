/** How `src` is laid out: which folder may use which, so that a reader can start at the bottom and never has to look up. */
import { expect, test } from "bun:test";
import { dirname, join, normalize } from "node:path";
import { Glob } from "bun";

const SRC = join(import.meta.dir, "..", "src");

/** From the ground up: a room imports from rooms above it in this list only. Files of `src` itself that everyone may use are left out. */
const ROOMS = [
  "protocol",
  "admin",
  "mime",
  "dns",
  "store",
  "shipped.ts",
  "handler",
  "config",
  "options",
  "net",
  "ruby",
  "load",
  "check",
  "shared",
  "spool",
  "services",
  "testing",
  "index.ts",
  "worker",
  "server/policy.ts",
  "server/rights",
  "server/workers",
  "server/listening",
  "server/handover",
  "server/trial.ts",
  "server/files",
  "server/control",
  "server/cpu-share.ts",
  "server/sizes.ts",
  "server/coordinator.ts",
  "server/reload.ts",
  "server/server-state.ts",
  "server/watchdog.ts",
  "server/server.ts",
  "error-codes.ts",
  "cli",
  "main.ts",
];
const FOR_ALL = new Set([
  "errors.ts",
  "usage-error.ts",
  "version.ts",
  "memory.ts",
  "compiled.ts",
  "counters.ts",
  "terminal.ts",
  "quantity.ts",
  "json.ts",
  "within.ts",
  "regular-file.ts",
]);

const imports = new Map<string, string[]>();
for (const file of new Glob("**/*.ts").scanSync(SRC)) {
  const text = await Bun.file(join(SRC, file)).text();
  const found = [...text.matchAll(/(?:\bfrom|\bimport\(?) ?"(\.[^"]+\.ts)"/g)].map(([, path]) => path!);
  imports.set(
    file,
    found.map((path) => normalize(join(dirname(file), path))),
  );
}

function roomOf(file: string): string {
  const [first, second] = file.split("/");
  return first === "server" ? `server/${second}` : first!;
}

test("every file is in a room that is named here", () => {
  const unknown = [...imports.keys()].filter((file) => !FOR_ALL.has(file) && !ROOMS.includes(roomOf(file)));
  expect(unknown).toEqual([]);
});

test("no import runs back up", () => {
  const up = [...imports].flatMap(([file, paths]) =>
    paths
      .filter((path) => {
        if (FOR_ALL.has(path)) return false;
        if (FOR_ALL.has(file)) return true;
        return ROOMS.indexOf(roomOf(path)) > ROOMS.indexOf(roomOf(file));
      })
      .map((path) => `${file} imports ${path}`),
  );
  expect(up).toEqual([]);
});

test("no files import each other in a circle", () => {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, trail: readonly string[]): void => {
    if (trail.includes(file)) circles.push([...trail.slice(trail.indexOf(file)), file].join(" → "));
    if (done.has(file) || trail.includes(file)) return;
    for (const path of imports.get(file) ?? []) visit(path, [...trail, file]);
    done.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
  expect(circles).toEqual([]);
});

test("the protocol imports nothing of ours", () => {
  const foreign = [...imports].filter(
    ([file, paths]) => file.startsWith("protocol/") && paths.some((path) => !path.startsWith("protocol/")),
  );
  expect(foreign).toEqual([]);
});

test("a worker imports nothing of the main thread, and the main thread nothing of a worker", () => {
  const across = [...imports].flatMap(([file, paths]) =>
    paths
      .filter((path) => {
        const pair = [roomOf(file).split("/")[0], roomOf(path).split("/")[0]].toSorted().join(" ");
        return pair === "server worker";
      })
      .map((path) => `${file} imports ${path}`),
  );
  expect(across).toEqual([]);
});

test("a worker loads valibot only for a handler that imports pmilter/options", async () => {
  const reached = new Set<string>();
  const visit = async (file: string): Promise<void> => {
    if (reached.has(file)) return;
    reached.add(file);
    const text = await Bun.file(join(SRC, file)).text();
    const stays = [...text.matchAll(/^import (?!type\b)(?:[^;]*?from )?"([^"]+)"/gm)].map(([, path]) => path!);
    for (const path of stays) if (path.startsWith(".")) await visit(normalize(join(dirname(file), path)));
    expect(stays, file).not.toContain("valibot");
  };
  await visit("worker/entry.ts");
  expect(reached.size).toBeGreaterThan(50);
});
