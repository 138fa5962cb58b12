/** mail-auth: what it says of a message, what becomes of it, and what it does with hostile mail. */
import { describe, expect, test } from "bun:test";
import mailAuth from "../../handlers/mail-auth.ts";
import { runFilter, type SessionOptions, type TestDns } from "../../src/testing/index.ts";

const CLIENT = { address: "192.0.2.7", hostname: "mx.example.net" };
const EML = "From: Jane <jane@from.example>\nSubject: x\n\nHello\n";
const SPF_PASS = { "from.example TXT": ["v=spf1 ip4:192.0.2.7 -all"] };
const asks = (policy: string): TestDns => ({ "_dmarc.from.example TXT": [`v=DMARC1; p=${policy}`] });

interface Given extends SessionOptions {
  readonly from?: string;
  readonly eml?: string | Uint8Array;
  readonly client?: { readonly address: string; readonly hostname?: string };
  readonly helo?: string;
  readonly macros?: Readonly<Record<string, string>>;
}

async function run(options: Record<string, unknown>, dns: TestDns = {}, given: Given = {}) {
  const outcome = await runFilter(mailAuth, {
    client: CLIENT,
    helo: "mx.helo.example",
    from: "a@from.example",
    to: ["b@example.com"],
    eml: EML,
    dns,
    options: { authserv_id: "mx.test", ...options },
    ...given,
  });
  expect(outcome.failures).toEqual([]);
  const added = outcome.modifications.flatMap((change) =>
    change.kind === "insertHeader" && change.name === "Authentication-Results" ? [change] : [],
  );
  return { ...outcome, parts: added[0]?.value.split(";\n ") ?? [], added };
}

describe("results", () => {
  test("SPF passes, and with it DMARC; the header comes on top", async () => {
    const { added, results, verdict } = await run({}, { ...SPF_PASS, ...asks("reject") });
    expect(verdict).toBe("accept");
    expect(added).toEqual([
      {
        kind: "insertHeader",
        index: 0,
        name: "Authentication-Results",
        value: [
          "mx.test",
          "spf=pass smtp.mailfrom=from.example",
          "spf=none smtp.helo=mx.helo.example",
          "dkim=none",
          "dmarc=pass policy.dmarc=reject header.from=from.example",
          "arc=none smtp.remote-ip=192.0.2.7",
        ].join(";\n "),
      },
    ]);
    expect(results).toEqual({
      spf: {
        result: "pass",
        domain: "from.example",
        identity: "mailfrom",
        helo: { result: "none", domain: "mx.helo.example", identity: "helo" },
      },
      dkim: { result: "none", signatures: [] },
      dmarc: { result: "pass", domain: "from.example", policy: "reject", reason: "", override: "" },
      arc: { result: "none", instance: 0, sealer: "", reason: "" },
    });
  });

  test("of the null sender, HELO is checked, and counts for DMARC", async () => {
    const dns = { "mx.from.example TXT": ["v=spf1 ip4:192.0.2.7 -all"], ...asks("reject") };
    const { parts, results } = await run({}, dns, { from: "", helo: "mx.from.example" });
    expect(parts.slice(1, 4)).toEqual([
      "spf=pass smtp.helo=mx.from.example",
      "dkim=none",
      "dmarc=pass policy.dmarc=reject header.from=from.example",
    ]);
    expect(results["spf"]).toEqual({ result: "pass", domain: "mx.from.example", identity: "helo" });
  });

  test("only the checks that are wanted are told", async () => {
    const { parts, results } = await run({ checks: ["dmarc"] }, { ...SPF_PASS, ...asks("none") });
    expect(parts).toEqual(["mx.test", "dmarc=pass policy.dmarc=none header.from=from.example"]);
    expect(Object.keys(results)).toEqual(["dmarc"]);
  });
});
