/** The shipped filters by their names, `use = "NAME"`, in a server that runs from its sources. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { loadConfig } from "../../src/config/load.ts";
import { shippedFilters } from "../../src/config/config.ts";
import { readSources, versionOf } from "../../src/load/sources.ts";
import { SHIPPED_NAMES } from "../../src/shipped.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { type Pmilter, ROOT, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { EXECUTABLE, USE_ALL, USE_FILES } from "./use.ts";

setDefaultTimeout(120_000);

async function send(server: Pmilter, eml: string) {
  await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
  return await client.send({ from: "a@example.com", to: ["b@example.com"], eml });
}

test("every shipped filter is used, by name and with its options", async () => {
  for (const name of SHIPPED_NAMES) expect(USE_ALL).toContain(`use = "${name}"`);
  await using server = await startPmilter({ config: USE_ALL, files: USE_FILES });
  expect(await server.log.next(/ready: /)).toEndWith(`filters: ${SHIPPED_NAMES.join(", ")}`);
  const { message } = await send(server, "Subject: hi\n\nhello\n");
  for (const text of [
    "Subject: [external] hi",
    "X-Pmilter-Disclaimer: added",
    "Date: ",
    "A banner.",
    "A disclaimer.",
  ]) {
    expect(message).toContain(text);
  }
});

test("the log names file and line of a shipped filter's source", async () => {
  const config = '[[filter]]\nuse = "attachments"\n';
  await using server = await startPmilter({ config });
  expect(await send(server, EXECUTABLE)).toMatchObject({ verdict: "reject" });
  const line = await server.log.next(/\]: reject: /);
  const [, file, number] = / at=(\S+):(\d+)/.exec(line)!;
  expect(file).toBe(`${ROOT}/handlers/attachments.ts`);
  const source = (await readFile(file!, "utf8")).split("\n");
  expect(source[Number(number) - 1]).toContain("return reject(");
});

test("beside a filter of one's own, after a reload, and switched off", async () => {
  const own = 'export default { eom({ message }) { message.addHeader("X-Own", "1"); } };\n';
  const config = '[[filter]]\npath = "own.ts"\n\n[[filter]]\nuse = "subject-tag"\nname = "tag"\noptions.tag = "[a]"\n';
  await using server = await startPmilter({ config, files: { "own.ts": own } });
  expect((await send(server, "Subject: x\n\n.\n")).message).toContain("Subject: [a] x");
  const text = await readFile(server.configFile, "utf8");
  await writeFile(server.configFile, text.replace('"[a]"', '"[b]"'));
  expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
  expect((await send(server, "Subject: x\n\n.\n")).message).toContain("Subject: [b] x");

  await writeFile(server.configFile, text.replace("options.tag", "enabled = false\noptions.tga"));
  expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
  expect((await send(server, "Subject: x\n\n.\n")).message).not.toContain("[a]");
  expect((await runPmilter(["status", "-c", server.configFile])).stdout).toMatch(
    /tag\W+switched off|switched off.*tag/,
  );
  expect((await runPmilter(["check", "-c", server.configFile])).stdout).toContain("tag: switched off");

  await writeFile(server.configFile, text.replace("options.tag", "options.tga"));
  const { exitCode, stderr, stdout } = await runPmilter(["reload", "-c", server.configFile]);
  expect(exitCode).toBe(1);
  expect(stdout + stderr).toContain('filter 2: options.tga: unknown option; did you mean "tag"?');
});

test("a configuration of shipped filters alone has code, whose version says which", async () => {
  await using dir = await tempDir("use");
  const version = async (config: string) => {
    const loaded = loadConfig(await writeProject(dir.path, { config }));
    return versionOf(readSources([], shippedFilters(loaded)));
  };
  const tag = '[[filter]]\nuse = "subject-tag"\noptions.tag = "x"\n';
  const archive = '[[filter]]\nuse = "bcc-archive"\noptions.address = "a@b.c"\n';
  const versions = [await version(tag), await version(archive), await version(tag + archive)];
  for (const each of versions) expect(each).toMatch(/^[0-9a-f]{12}$/);
  expect(new Set(versions).size).toBe(3);
  expect(await version(archive + tag)).toBe(versions[2]!);
  expect(await version("")).toBe("");
  expect(await version(tag.replace("options", "enabled = false\noptions"))).toBe("");
});
