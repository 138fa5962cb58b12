/**
 * Mail files that other mail programs are tested with, for oddities that real mail of one place does not have: they lie in
 * the sources of the Debian packages named here. Nothing of them is in the repository: the first test that asks gets the
 * sources with `apt-get source`, which checks them against Debian's signatures, from the mirror that this machine uses, and
 * keeps the mails below `node_modules/.cache`. It needs no root and changes nothing of the system's packages.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { type OutsideTool, outsideTool } from "./available.ts";
import type { CorpusMail } from "./corpus.ts";

/** Source packages, by the release of Debian that has them: 1,701 mails that differ, in 35 MB of sources. */
const SOURCES: Readonly<Record<string, readonly string[]>> = {
  bookworm: [
    "bogofilter",
    "commons-email",
    "flufl.bounce",
    "gmime",
    "golang-github-jhillyerd-enmime",
    "kf5-messagelib",
    "kmime",
    "libemail-folder-perl",
    "libemail-outlook-message-perl",
    "libemail-simple-perl",
    "libmail-deliverystatus-bounceparser-perl",
    "libmail-gnupg-perl",
    "libmail-mbox-messageparser-perl",
    "libmail-thread-perl",
    "libmime-explode-perl",
    "mimetic",
    "notmuch",
    "php-horde-imap-client",
    "php-horde-mime",
    "public-inbox",
    "rspamd",
  ],
  trixie: [
    "alot",
    "ciderwebmail",
    "dkimpy",
    "grepmail",
    "imap-tools",
    "libemail-mime-perl",
    "libmail-box-perl",
    "libmail-dkim-perl",
    "libmail-message-perl",
    "libmime-tools-perl",
    "mailman3",
    "mailscripts",
    "mailutils",
    "mimedefang",
    "php-mailparse",
    "pymilter",
  ],
};
/** With fewer than these, the mirror lacks too much. */
export const FEWEST_MAIL_FILES = 1500;

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const CACHE = join(import.meta.dir, "..", "..", "node_modules", ".cache");
/** Another list of sources is another folder. */
const FOLDER = join(CACHE, `mail-files-${digest(JSON.stringify(SOURCES)).slice(0, 8)}`);

/** Gathers the mails if they are not there. Without a network it is a tool that is not available. */
export function mailFilesTool(): OutsideTool {
  const name = "mail files";
  if (existsSync(FOLDER)) return { name, available: true, path: FOLDER, reason: `found at ${FOLDER}` };
  const apt = outsideTool("apt-get");
  if (!apt.available) return { ...apt, name };
  mkdirSync(CACHE, { recursive: true });
  const fresh = mkdtempSync(join(CACHE, "mail-files-"));
  try {
    const counts = gather(apt.path, fresh);
    const found = Object.values(counts).reduce((sum, count) => sum + count, 0);
    if (found < FEWEST_MAIL_FILES) throw new Error(`only ${found} mails were found: ${JSON.stringify(counts)}`);
    // Two test runs may do this at once: the first one wins.
    if (!existsSync(FOLDER)) renameSync(join(fresh, "mails"), FOLDER);
    return { name, available: true, path: FOLDER, reason: `gathered at ${FOLDER}` };
  } catch (error) {
    return {
      name,
      available: false,
      isExtra: true,
      path: "",
      reason: `mail files could not be gathered: ${String(error)}`,
    };
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

/** Every mail, in the same order each time. */
export function* mailFiles(): Generator<CorpusMail> {
  for (const source of readdirSync(FOLDER).toSorted()) {
    for (const file of readdirSync(join(FOLDER, source)).toSorted()) {
      yield { name: `${source}/${file}`, eml: readFileSync(join(FOLDER, source, file)) };
    }
  }
}

/** Gets and unpacks the sources, and writes the mails in them below `mails`. Gives their number by package. */
function gather(apt: string, folder: string): Record<string, number> {
  const env = { ...process.env, APT_CONFIG: writeAptConfig(apt, folder) };
  run([apt, "-qq", "update"], folder, env);
  const counts: Record<string, number> = {};
  const seen = new Set<string>();
  for (const [release, packages] of Object.entries(SOURCES)) {
    for (const name of packages) {
      const tars = join(folder, "tars", name);
      const files = join(folder, "files", name);
      const mails = join(folder, "mails", name);
      for (const each of [tars, files, mails]) mkdirSync(each, { recursive: true });
      // One that the mirror does not have is missing from the sum.
      spawn([apt, "-qq", "source", "--download-only", "--tar-only", `${name}/${release}`], tars, env);
      for (const tar of readdirSync(tars)) run(["tar", "-xf", join(tars, tar)], files);
      let count = 0;
      for (const [path, mail] of mailsBelow(files)) {
        const hash = digest(mail);
        if (seen.has(hash)) continue;
        seen.add(hash);
        count += 1;
        const plain = relative(files, path).replaceAll(/[^\w.-]+/g, "_");
        writeFileSync(join(mails, `${String(count).padStart(3, "0")}-${plain.slice(-80)}`), mail);
      }
      counts[name] = count;
    }
  }
  return counts;
}

/** A configuration of its own: the system's lists of packages and its sources stay as they are. */
function writeAptConfig(apt: string, folder: string): string {
  for (const each of ["state/lists/partial", "cache/archives/partial"]) {
    mkdirSync(join(folder, each), { recursive: true });
  }
  const format = "$(REPO_URI) $(ORIGIN) $(LABEL)";
  const mirror = run([apt, "indextargets", "--format", format, "Created-By: Packages"], folder)
    .split("\n")
    .find((line) => line.endsWith(" Debian Debian"))
    ?.split(" ")[0];
  if (mirror === undefined) throw new Error("apt-get knows no mirror of Debian; apt-get update may not have run");
  const sources = Object.keys(SOURCES).map((release) => `deb-src [signed-by=${KEYRING}] ${mirror} ${release} main\n`);
  writeFileSync(join(folder, "sources.list"), sources.join(""));
  const config = join(folder, "apt.conf");
  writeFileSync(
    config,
    `Dir::State "${folder}/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "${folder}/cache";
Dir::Etc::sourcelist "${folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Sandbox::User "root";
`,
  );
  return config;
}

function spawn(cmd: string[], cwd: string, env?: NodeJS.ProcessEnv) {
  return Bun.spawnSync({ cmd, cwd, ...(env === undefined ? {} : { env }) });
}

function run(cmd: string[], cwd: string, env?: NodeJS.ProcessEnv): string {
  const { exitCode, stdout, stderr } = spawn(cmd, cwd, env);
  if (exitCode !== 0) throw new Error(`${cmd.join(" ")}: ${stderr.toString().trim().split("\n").at(-1)}`);
  return stdout.toString();
}

/** The mails in all files below a folder, those of mailboxes one by one. */
function* mailsBelow(folder: string): Generator<[path: string, mail: Buffer]> {
  for (const name of readdirSync(folder).toSorted()) {
    const path = join(folder, name);
    const stat = lstatSync(path);
    if (stat.isDirectory()) yield* mailsBelow(path);
    else if (stat.isFile() && stat.size < 32 * 1024 * 1024 && !/\.(?:tt2|html?|patch|golden)$/.test(name)) {
      for (const mail of mailsIn(readFileSync(path))) if (isMail(mail)) yield [path, mail];
    }
  }
}

/** Splits a mailbox at the lines that its mails begin with; anything else is one piece. */
function mailsIn(file: Buffer): Buffer[] {
  if (!file.subarray(0, 5).equals(Buffer.from("From "))) return [file];
  // A character for each byte.
  const text = file.toString("latin1");
  const begins = [...text.matchAll(/(?:^|(?<=\n\r?\n))From \S+[^\n]*\d\d:\d\d[^\n]*\n/g)];
  const opening = /^From [^\n]*\n/.exec(text);
  const first = begins[0]?.index === 0 || opening === null ? begins : [opening, ...begins];
  return first.map((begin, index) => file.subarray(begin.index + begin[0].length, first[index + 1]?.index));
}

const COMMON = "from to cc subject date received message-id return-path mime-version content-type".split(" ");

/** It begins with a field, and at least two of the fields that mails have are in its header. */
function isMail(bytes: Buffer): boolean {
  const [header = ""] = bytes.toString("latin1", 0, 20_000).split(/\r?\n\r?\n/, 1);
  if (!/^[!-9;-~]+[ \t]*:/.test(header)) return false;
  const names = new Set(Array.from(header.matchAll(/^([\w-]+)[ \t]*:/gm), ([, name]) => name!.toLowerCase()));
  return COMMON.filter((name) => names.has(name)).length >= 2;
}

function digest(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}
