/** `pmilter dkim`: the keys that it makes, and what it says of records. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { compare, textOfRecord } from "../../src/cli/dkim/record.ts";
import { startNameServer, type TestNameServer } from "../services/dns/server.ts";
import { makeKeys } from "../shipped/dkim-keys.ts";
import { givenRoot } from "../support/available.ts";
import { runPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir, type TempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const RSA = generateKeyPairSync("rsa", { modulusLength: 2048 });
const SHORT = generateKeyPairSync("rsa", { modulusLength: 1024 });
const ED25519 = generateKeyPairSync("ed25519");

describe("a record against its key", () => {
  const RIGHT = textOfRecord(RSA.privateKey);
  const P = RIGHT.slice(RIGHT.indexOf("p=") + 2);
  const pkcs1 = RSA.publicKey.export({ type: "pkcs1", format: "der" }).toString("base64");

  test.each<[string, readonly string[], string]>([
    ["as it is made", [RIGHT], ""],
    ["in the form of PKCS #1", [`v=DKIM1; p=${pkcs1}`], ""],
    ["without v= and k=", [`p=${P}`], ""],
    [
      "with white space, and tags of others",
      [`v=DKIM1 ; n=a note ; k=rsa; s=email; t=s; p=${P.slice(0, 60)} ${P.slice(60)};`],
      "",
    ],
    ["another key", [textOfRecord(SHORT.privateKey)], "the record has another key"],
    ["revoked", ["v=DKIM1; k=rsa; p="], "the key is revoked (p= is empty): each signature fails"],
    ["cut", [RIGHT.slice(0, 255)], "p= is no RSA key: it may have been cut"],
    ["no base64", ["v=DKIM1; p=a-b_c"], "p= is no base64"],
    [
      "of another kind",
      [textOfRecord(ED25519.privateKey)],
      "the record is for another kind of key: expected k=rsa, got k=ed25519",
    ],
    ["two of them", [RIGHT, RIGHT], "there are 2 records, expected one: which of them a receiver takes is not certain"],
    ["no p=", ["v=DKIM1; k=rsa"], "the record has a wrong form: p=, the key, is missing"],
    [
      "v= at another place",
      [`k=rsa; v=DKIM1; p=${P}`],
      "the record has a wrong form: expected v=DKIM1 at its beginning",
    ],
    ["another v=", [`v=DKIM2; p=${P}`], "the record has a wrong form: expected v=DKIM1 at its beginning"],
    ["a tag twice", [`v=DKIM1; p=; p=${P}`], "the record has a wrong form: p= is there twice"],
    ["no tags", ["v=spf1 -all"], "the record has a wrong form: expected v=DKIM1 at its beginning"],
    ["no tags at all", ["\u001b[31mhello"], "the record has a wrong form: expected name=value, got"],
    ["sha1 only", [`v=DKIM1; h=sha1; p=${P}`], 'the record does not allow sha256: expected no h=, got "h=sha1"'],
    ["not for mail", [`v=DKIM1; s=tlsrpt; p=${P}`], 'the record is not for mail: expected no s=, got "s=tlsrpt"'],
  ])("%s", (_, records, problem) => {
    const { problems, warnings } = compare(records, RSA.privateKey);
    expect(warnings).toEqual([]);
    if (problem === "") expect(problems).toEqual([]);
    else expect(problems).toEqual([expect.stringContaining(problem)]);
    // oxlint-disable-next-line no-control-regex
    expect(problems.join("")).not.toMatch(/[\0-\x1f]/);
  });

  test("Ed25519", () => {
    const right = textOfRecord(ED25519.privateKey);
    expect(compare([right], ED25519.privateKey).problems).toEqual([]);
    const framed = ED25519.publicKey.export({ type: "spki", format: "der" }).toString("base64");
    expect(compare([`v=DKIM1; k=ed25519; p=${framed}`], ED25519.privateKey).problems).toEqual([
      "p= has 44 bytes, expected the 32 of an Ed25519 key",
    ]);
  });

  test("warnings: a test, a short key", () => {
    const { problems, warnings } = compare(
      [textOfRecord(SHORT.privateKey).replace("k=", "t=y:s; k=")],
      SHORT.privateKey,
    );
    expect(problems).toEqual([]);
    expect(warnings).toEqual([
      "the record says that it is a test (t=y): receivers treat the mail as unsigned",
      "the key has 1024 bits, expected at least 2048",
    ]);
  });
});

describe("dkim new", () => {
  let dir: TempDir;
  beforeAll(async () => {
    dir = await tempDir("dkim");
  });
  afterAll(async () => await dir?.[Symbol.asyncDispose]());
  const run = (...args: string[]) => runPmilter(["dkim", "new", "-c", join(dir.path, "pmilter.toml"), ...args]);

  test("an RSA key, its record, and the lines of the configuration", async () => {
    const { exitCode, stderr, stdout } = await run("Example.ORG", "S1");
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const file = join(dir.path, "keys", "example.org.s1.pem");
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const pem = readFileSync(file, "utf8");
    const key = createPrivateKey(pem);
    expect(key.asymmetricKeyDetails?.modulusLength).toBe(2048);
    const [, strings] = /^s1\._domainkey\.example\.org\. IN TXT (.*)$/m.exec(stdout)!;
    const texts = [...strings!.matchAll(/"([^"]*)"/g)].map(([, text]) => text!);
    expect(texts.map(({ length }) => length <= 255)).toEqual([true, true]);
    expect(texts.join("")).toBe(textOfRecord(key));
    expect(stdout).toContain(
      '[[filter.options.keys]]\ndomain = "example.org"\nselector = "s1"\nfile = "keys/example.org.s1.pem"\n',
    );

    const again = await run("example.org", "s1");
    expect(again.exitCode).toBe(1);
    expect(again.stderr).toContain("is there already, and is kept");
    expect(readFileSync(file, "utf8")).toBe(pem);
  });

  test("an Ed25519 key of an international domain, with a selector of its own", async () => {
    const { exitCode, stdout } = await run("bücher.example", "--ed25519");
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(
      /^e\d{6}\._domainkey\.xn--bcher-kva\.example\. IN TXT "v=DKIM1; k=ed25519; p=[\w+/]{43}="$/m,
    );
  });

  test.if(givenRoot("the owner of a key"))(
    "started as root, the key is of server.user, which may reach it",
    async () => {
      await using own = await tempDir("dkim-owner");
      await writeFile(join(own.path, "pmilter.toml"), '[server]\nuser = "nobody"\n');
      await runPmilter(["dkim", "new", "example.org", "s1", "-c", join(own.path, "pmilter.toml")]);
      const { mode, uid } = statSync(join(own.path, "keys", "example.org.s1.pem"));
      expect({ mode: mode & 0o777, uid }).toEqual({ mode: 0o600, uid: 65534 });
      expect(statSync(join(own.path, "keys")).mode & 0o777).toBe(0o755);
    },
  );

  test.each([
    ["../../x.org"],
    ["a/b.org"],
    ["localhost"],
    ["-a.org"],
    [`${"a".repeat(70)}.org`],
    ["a.org s/1"],
    ["a.org .."],
  ])("wrong usage, and nothing is written: %s", async (words) => {
    const { exitCode, stderr } = await run("--", ...words.split(" "));
    expect({ exitCode, stderr }).toEqual({ exitCode: 2, stderr: expect.stringContaining("Try: pmilter help dkim") });
  });
});

describe("dkim check", () => {
  const KEYS = makeKeys("example.org");
  const OTHER = makeKeys("example.net");
  const FAILING = makeKeys("failing.example");
  let server: TestNameServer;
  let dir: TempDir;
  let configFile: string;
  beforeAll(async () => {
    const records: Record<string, readonly string[]> = {
      // In two strings.
      "r._domainkey.example.org": KEYS.records["r._domainkey.example.org"]!.match(/.{1,255}/g)!,
      "e._domainkey.example.org": [KEYS.records["e._domainkey.example.org"]!],
      "r._domainkey.example.net": [KEYS.records["e._domainkey.example.org"]!],
    };
    server = await startNameServer((name, type) => {
      if (name.endsWith(".failing.example")) return { rcode: 2 };
      const data = type === "TXT" ? records[name] : undefined;
      return data === undefined ? { rcode: 3 } : { answers: [{ name, type: "TXT", ttl: 60, data }] };
    });
    dir = await tempDir("dkim-check");
    const filter = '[[filter]]\nuse = "dkim-sign"\n';
    const others = Object.fromEntries(Object.entries(OTHER.files).map(([name, text]) => [`other/${name}`, text]));
    configFile = await writeProject(dir.path, {
      config: `[dns]\nservers = ["127.0.0.1:${server.port}"]\ntimeout = "5s"\n${filter}${KEYS.toml}
${filter}${OTHER.toml.replaceAll('file = "', 'file = "other/')}
[filter.options.seal]\ndomain = "seal.example"\nselector = "a"\nfile = "r.pem"\n
${filter}${FAILING.toml}`,
      files: { ...KEYS.files, ...others },
    });
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await dir?.[Symbol.asyncDispose]();
  });
  const run = async (...args: string[]) => {
    const { exitCode, stderr, stdout } = await runPmilter(["dkim", "check", ...args, "-c", configFile]);
    return { exitCode, stderr, stdout };
  };

  test("both keys of a domain are right", async () => {
    expect(await run("example.org")).toEqual({
      exitCode: 0,
      stderr: "",
      stdout:
        "r._domainkey.example.org: ok, the record has the key\ne._domainkey.example.org: ok, the record has the key\n",
    });
  });

  test("one is another's, the other is not there: the expected records are printed", async () => {
    const { exitCode, stdout } = await run("example.net");
    expect(exitCode).toBe(1);
    expect(stdout).toContain("r._domainkey.example.net: the record is for another kind of key");
    expect(stdout).toContain(
      "e._domainkey.example.net: there is no record\nexpected:\ne._domainkey.example.net. IN TXT ",
    );
  });

  test("pmilter check warns of filters behind that may change what is signed", async () => {
    await using own = await tempDir("dkim-behind");
    const others = '[[filter]]\nuse = "greylist"\n[[filter]]\nuse = "disclaimer"\noptions.text = "x"\n';
    const observed = '[[filter]]\nuse = "subject-tag"\nmode = "observe"\noptions.tag = "x"\n';
    const tables = `${others}[[filter]]\nuse = "dkim-sign"\n${KEYS.toml}${others}${observed}`;
    const file = await writeProject(own.path, { config: tables, files: KEYS.files });
    const { exitCode, stdout } = await runPmilter(["check", "--no-types", "-c", file]);
    expect(exitCode).toBe(0);
    expect(stdout.match(/^warning: .*/gm)).toEqual([
      "warning: the filter disclaimer runs behind dkim-sign: what it changes breaks the signatures; put dkim-sign last",
    ]);
  });

  test("the key of seal, and a selector", async () => {
    expect((await run("seal.example")).stdout).toStartWith("a._domainkey.seal.example: there is no record\n");
    expect((await run("example.net", "e")).stdout).not.toContain("r._domainkey");
  });

  test("a domain without a key, a name server that fails, and a key that others may read", async () => {
    const none = await run("example.com");
    expect(none).toMatchObject({ exitCode: 1, stderr: expect.stringContaining("has a key for example.com") });
    const failed = await run("failing.example");
    expect(failed.exitCode).toBe(1);
    expect(failed.stdout).toStartWith("r._domainkey.failing.example: the DNS does not answer: ");
    expect(failed.stdout).not.toContain("expected:");
    await chmod(join(dir.path, "other", "e.pem"), 0o644);
    const open = await run("example.net");
    expect(open).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("options.keys.1.file: every user may read"),
    });
  });
});
