/** While a worker is blocked others fill the server and free it: what it is told meanwhile must not take descriptors. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IS_LINUX } from "../support/available.ts";
import { CONNECT, HELO, OPTNEG, RawClient } from "../server/wire.ts";
import { startPmilter } from "../support/pmilter.ts";

setDefaultTimeout(120_000);

const CYCLES = 300;
/** Those that the server keeps back for the start of a worker come and go. */
const SPARE = 40;

const BLOCKING = `import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineFilter } from "pmilter";
export default defineFilter({ helo() { while (!existsSync(join(import.meta.dir, "go"))); } });
`;

test.if(IS_LINUX)(
  "a server that is filled and freed time and again takes no descriptors for a blocked worker",
  async () => {
    await using server = await startPmilter({
      server: { workers: 2, max_connections: 2, block_timeout: 60 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": BLOCKING },
    });
    const descriptors = () => readdirSync(`/proc/${server.process.pid}/fd`).length;
    const address = server.addresses[0]!;
    using blocked = await RawClient.connect(address);
    await blocked.send(OPTNEG, CONNECT, HELO);
    await blocked.reply();
    const before = descriptors();
    // Each fills the server, and frees it.
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      using client = await RawClient.connect(address);
      await client.send(OPTNEG);
      await client.reply();
    }
    const after = descriptors();
    // Before anything is expected: the server does not stop while the handler is in its loop.
    writeFileSync(join(server.dir, "go"), "");
    expect(await blocked.codes(2)).toBe("cc");
    expect(after).toBeLessThan(before + SPARE);
  },
);
