/** The Postfix of the benchmark, and the programs that send mail to it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { DISK, MailServer, memoryPlace } from "../../bench/mta/mail-server.ts";
import { smtpSource, smtpSourceOf } from "../../bench/mta/senders.ts";
import { startReal } from "../../bench/support/servers.ts";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const { signal } = new AbortController();

describeWith([postfixTool, smtpSource], "a Postfix whose filter can be exchanged", () => {
  test("takes mail without one; with one only if it is there, the last one that was given", async () => {
    await using mail = await MailServer.start(DISK);
    const send = (port: number) => smtpSourceOf(2).send(mail, port, 0, signal);
    expect((await send(mail.port)).messages).toBe(100);
    await expect(send(mail.filteredPort)).rejects.toThrow("smtp-source ended with 1");

    const options = { handlers: "eom", workers: 1, signal } as const;
    const first = await startReal(options);
    await mail.filterBy(first.socket);
    expect((await send(mail.filteredPort)).messages).toBe(100);
    await first[Symbol.asyncDispose]();
    await expect(send(mail.filteredPort)).rejects.toThrow("smtp-source ended with 1");

    await using second = await startReal(options);
    await mail.filterBy(second.socket);
    await send(mail.filteredPort);
    await mail.emptied();
    expect(await mail.taken()).toBe(300);
  });
});

test("a folder that is not in memory, or not there, is no place for a queue in memory", async () => {
  await using folder = await tempDir("bench");
  const missing = `${folder.path}/missing`;
  expect(await memoryPlace("/proc")).toBe("/proc is no tmpfs");
  expect(await memoryPlace(missing)).toContain(`${missing}: ENOENT`);
});
