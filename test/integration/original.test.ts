/**
 * The original pmilter's acceptance tests: its handlers, as they are shipped here with pmilter.toml, over each kind of
 * listener.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { givenIpv6 } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { sendMail } from "../support/smtp-client.ts";
import { type SmtpSink, startSmtpSink } from "../support/smtp-sink.ts";
import { describeBehindEach, type Services } from "./mail-servers.ts";
import { MESSAGE } from "./site.ts";
import { outcome, parts } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");
const KINDS = ["unix", "inet", "inet6", "fd"] as const;
type Kind = (typeof KINDS)[number];

/** pmilter.toml as it is shipped, but for where it listens: the rest of `[server]` follows the harness's own keys. */
const CONFIG = readFileSync(join(ROOT, "pmilter.toml"), "utf8")
  .replace("[server]\n", "")
  .replace(/^listen = .*\n/m, "");
const FILES = Object.fromEntries(
  readdirSync(join(ROOT, "handlers"), { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => [`handlers/${name}`, readFileSync(join(ROOT, "handlers", name), "utf8")]),
);

const hasInet6 = givenIpv6();
const kinds = KINDS.filter((kind) => kind !== "inet6" || hasInet6);

describeBehindEach("the shipped handlers", (server) => {
  let stack: AsyncDisposableStack;
  let sink: SmtpSink;
  let mta: Services;
  const servers = new Map<Kind, Pmilter>();

  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    sink = stack.use(await startSmtpSink());
    const services = await Promise.all(kinds.map(async (kind) => ({ name: kind, milters: await start(kind) })));
    mta = stack.use(await server.startServices(services, sink.port));
  });
  afterAll(async () => await stack?.disposeAsync());

  /** Starts the server on that kind of listener; gives its address. */
  async function start(kind: Kind): Promise<string> {
    const inherited = kind === "fd" ? Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } }) : undefined;
    const listen = {
      unix: {},
      inet: { listen: "inet:127.0.0.1:0" },
      inet6: { listen: "inet6:[::1]:0" },
      fd: { listen: "fd:3" },
    };
    const pmilter = stack.use(
      await startPmilter({
        ...listen[kind],
        config: CONFIG,
        files: FILES,
        ...(inherited && { inherit: [(inherited as unknown as { readonly fd: number }).fd] }),
      }),
    );
    servers.set(kind, pmilter);
    inherited?.stop();
    return inherited === undefined ? pmilter.addresses[0]! : `inet:127.0.0.1:${inherited.port}`;
  }

  async function send(kind: Kind, from: string, to: string) {
    return await sendMail({ port: mta.port(kind), from, to, message: MESSAGE });
  }

  test.each(kinds)("%s: mail passes with X-Pmilter: Enable", async (kind) => {
    const result = await send(kind, "from@example.com", "to@example.com");
    expect(outcome(result).replace(server.queueIdOf(result.last), "ID")).toBe(`end: ${server.accepted}`);
    const delivered = await sink.next();
    expect(delivered).toMatchObject({ from: "from@example.com", to: [{ address: "to@example.com" }] });
    expect(server.fieldsOf(delivered)).toEqual([
      ...server.ownFields,
      "Subject: hello",
      "From: <alice@example.test>",
      "X-Pmilter: Enable",
    ]);
    expect(parts(delivered.text).body).toBe("body\r\n");
  });

  test.each(kinds)("%s: spam-from@example.com is rejected", async (kind) => {
    const result = await send(kind, "spam-from@example.com", "to@example.com");
    expect(outcome(result)).toBe(`mail: ${server.rejected("spam-from@example.com")}`);
  });

  test.each(kinds)("%s: the sender is changed and a recipient added", async (kind) => {
    await send(kind, "change-from@example.com", "add-to@example.com");
    const delivered = await sink.next();
    expect(delivered.from).toBe("new-from@example.com");
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(["add-to@example.com", "new-to@example.com"]);
  });

  test.each(kinds)("%s: what the handlers print is the original's, from the first line to the last", async (kind) => {
    const pmilter = servers.get(kind)!;
    expect(await pmilter.stop()).toBe(0);
    const { all } = pmilter.prints;
    expect(all[0]).toBe("pmilter: configuration loaded");
    expect(all.at(-1)).toBe("pmilter: bye");
    const first = all.slice(1, all.findIndex((line) => line.startsWith("add_header")) + 1);
    expect(first.map((line) => line.replace(/^(message_id|reveive_time): .*/, "$1"))).toEqual([
      "hello pmilter handler called from pmilter",
      "client ipaddr 127.0.0.1",
      // Postfix says so where it did not look the name up.
      server.name === "Postfix" ? "client hostname [127.0.0.1]" : "client hostname localhost",
      server.name === "Postfix" ? "client daemon mx.example.test" : `client daemon ${kind}`,
      "handler phase name: connect",
      "helo hostname: client.example.test",
      "tls client issuer: ",
      "tls client subject: ",
      "tls session key size: ",
      "tls encrypt method: ",
      "tls version: ",
      "env from from args: <from@example.com>",
      "env from from symval: from@example.com",
      "SASL login name: ",
      "SASL login sender: ",
      "SASL login type: ",
      "env to from arg: <to@example.com>",
      "env to from symval: to@example.com",
      'header: {"Subject"=>"hello"}',
      'header: {"From"=>"<alice@example.test>"}',
      "body chunk; body",
      "myhostname: mx.example.test",
      "message_id",
      "reveive_time",
      "add_header(X-Pmilter:True): Enable",
    ]);
    expect(pmilter.log.text).not.toContain("[error]");
  });
});
