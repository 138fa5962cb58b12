/** access-lists by the name of a client, as both mail servers tell it. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { outcome } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const CONFIG = `[[filter]]
use = "access-lists"

[[filter.options.lists]]
match = "client"
file = "clients.txt"
`;
const LISTS = {
  config: CONFIG,
  files: { "clients.txt": "friend.client.test allow\n.client.test reject 550 5.7.1 Not you\n" },
};

describeBehindEach("a client that is allowed by its name", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({ lists: LISTS });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("passes, and others do not", async () => {
    await site.deliver({ as: "friend" });
    expect(outcome(await site.send({ as: "foe" }))).toMatch(/^\w+: 5/);
  });
});
