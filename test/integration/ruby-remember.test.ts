/** Ruby handlers that count, behind a real mail server: exact over four workers, and none keeps the others waiting. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { LIMIT } from "../ruby/programs.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";

setDefaultTimeout(180_000);

/** Sendmail as it is set up here takes a few connections at a time. */
const SESSIONS = { Postfix: 40, Sendmail: 10 };
const CONFIG = '[handler.session]\nenvrcpt_handler = "rcpt_to.rb"\n[store]\ntimeout = "9s"\n';
/** As the limit, but for one sender, who never lets go. */
const KEEPER = `keeper = Pmilter::Session.new.envelope_from == "<keeper@example.com>"
lock = Mutex.new :global => true
over = lock.try_lock_loop(50_000) do
  if keeper
    puts "kept"
    loop { }
  end
  lock.unlock
end
puts "no lock" if over
`;

describeBehindEach("Ruby handlers that remember", (server) => {
  let site: MailSite;

  beforeAll(async () => {
    site = await server.startSite({
      limit: { config: CONFIG, server: { workers: 4 }, files: { "rcpt_to.rb": LIMIT } },
      keeper: { config: CONFIG, server: { workers: 4, block_timeout: 4 }, files: { "rcpt_to.rb": KEEPER } },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("the limit of a domain is exact, for many sessions at once", async () => {
    const sessions = SESSIONS[server.name];
    const { log, prints } = site.pmilter("limit");
    const sent = await Promise.all(
      Array.from({ length: sessions }, () =>
        site.send({ service: "limit", from: "a@example.com", to: "b@example.net" }),
      ),
    );
    expect(sent.filter(({ accepted }) => accepted)).toHaveLength(3);
    // Each had the lock before the time of its call was over.
    expect(prints.text).toBe("");
    expect(sent.filter(({ last }) => last.code === 550 || last.code === 554)).toHaveLength(sessions - 3);
    expect(log.text).not.toMatch(/handler (?:failed|too slow|did not return)/);
  });

  test("a handler that keeps its lock and does not return costs its own session alone", async () => {
    const { log, prints } = site.pmilter("keeper");
    const kept = site.send({ service: "keeper", from: "keeper@example.com", to: "b@example.net" });
    await prints.next(/^kept$/);
    const others = await Promise.all(
      Array.from({ length: 8 }, () => site.send({ service: "keeper", from: "a@example.com", to: "b@example.net" })),
    );
    expect(others.every(({ accepted }) => accepted)).toBe(true);
    expect((await kept).accepted).toBe(false);
    await log.next(/handler too slow: .*from=<keeper@example\.com>.* at=rcpt_to\.rb/);
    expect(log.all.filter((line) => /handler (?:failed|too slow|did not return)/.test(line))).toHaveLength(1);
    expect(log.text).not.toContain("has not returned to its event loop");
    // The lock is free again.
    expect((await site.send({ service: "keeper", from: "a@example.com", to: "b@example.net" })).accepted).toBe(true);
  });
});
