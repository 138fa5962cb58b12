/** `File` and `IO` in Ruby handlers: as mruby-io has them, for regular files. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { MilterClient } from "../../src/testing/index.ts";
import { runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { type TempDir, tempDir } from "../support/temp.ts";
import { type Ran, runScripts } from "./run-scripts.ts";

setDefaultTimeout(120_000);

/** Each in a folder with `lines` (three lines, the last without an end), `bytes`, `pipe`, `folder` and `link`. */
const CASES: readonly [script: string, printed: string][] = [
  ["p File.read('lines')", '"one\\ntwo\\nthree"'],
  ["p File.read('lines', 3), IO.read('lines', 3, 4)", '"one"\n"two"'],
  [
    "p File.open('lines') { |file| [file.gets, file.getc, file.read(2), file.read, file.read, file.read(1), file.gets] }",
    '["one\\n", "t", "wo", "\\nthree", "", nil, nil]',
  ],
  ["File.open('lines') { |file| file.each_line { |line| print line.upcase } }; puts", "ONE\nTWO\nTHREE"],
  ["p IO.readlines('lines').length, File.new('lines').readlines[2]", '3\n"three"'],
  ["IO.foreach('lines') { |line| p line }", '"one\\n"\n"two\\n"\n"three"'],
  [
    "File.open('new', 'w') { |file| file.puts 'a', ['b', %(c\\n)], 1; file.print 'd', 2; file << 'e'; file.printf '%03d', 7; p file.write('xyz') }; p File.read('new')",
    '3\n"a\\nb\\nc\\n1\\nd2e007xyz"',
  ],
  ["2.times { |n| File.open('log', 'a') { |file| file.puts n } }; p File.read('log')", '"0\\n1\\n"'],
  [
    "File.open('both', 'w+') { |file| file.write 'abc'; file.seek(1); file.write 'X'; file.rewind; p file.read, file.pos, file.eof? }",
    '"aXc"\n3\ntrue',
  ],
  [
    "file = File.open('lines', 'r+'); file.seek(-5, IO::SEEK_END); p file.readline, file.pos; file.close; p file.closed?",
    '"three"\n13\ntrue',
  ],
  ["p File.write('w', 'four'), File.size('w'), File.size?('empty'), File.zero?('empty')", "4\n4\nnil\ntrue"],
  [
    "p ['lines', 'folder', 'none', 'pipe', 'link'].map { |name| [File.exist?(name), File.file?(name), File.directory?(name), File.pipe?(name), File.symlink?(name)].map { |is| is ? 1 : 0 }.join }",
    '["11000", "10100", "00000", "10010", "11001"]',
  ],
  [
    "p File.basename('/a/b.rb'), File.basename('/a/b.rb', '.rb'), File.dirname('/a/b.rb'), File.extname('/a/b.rb'), File.join('a', 'b', '/c')",
    '"b.rb"\n"b"\n"/a"\n".rb"\n"a/b/c"',
  ],
  ["p File.expand_path('../b', '/a/c'), File.readlink('link')", '"/a/b"\n"lines"'],
  [
    "File.write('one', ''); File.rename('one', 'two'); p File.exist?('one'), File.delete('two'), File.exist?('two')",
    "false\n1\nfalse",
  ],
  [
    "p File.read('bytes').length; File.open('copy', 'w') { |file| file.write File.read('bytes') }; p File.size('copy')",
    "3\n3",
  ],
  ["p File.mtime('lines').to_i > 0", "true"],
  ["begin; File.open('none'); rescue Errno::ENOENT => e; puts e.class; end", "Errno::ENOENT"],
  ["begin; File.read('folder'); rescue => e; puts e.class; end", "Errno::EISDIR"],
  ["begin; File.open('pipe'); rescue IOError => e; puts e.message; end", "expected a file, got a named pipe"],
  ["begin; File.open('lines').write('a'); rescue IOError => e; puts e.message; end", "not opened for writing"],
  ["begin; File.open('log', 'a').read; rescue IOError => e; puts e.message; end", "not opened for reading"],
  [
    "begin; file = File.open('lines'); file.close; file.read; rescue IOError => e; puts e.message; end",
    "closed stream",
  ],
  ["begin; File.open('lines', 'q'); rescue ArgumentError => e; puts e.message; end", "illegal access mode q"],
  ["begin; File.open('empty').readline; rescue EOFError => e; puts e.message; end", "end of file reached"],
  ["begin; 200.times { File.open('lines') }; rescue => e; puts e.message; end", "more than 100 files are open"],
];

let dir: TempDir;
let results: Ran[];

beforeAll(async () => {
  dir = await tempDir("files");
  await Bun.write(join(dir.path, "lines"), "one\ntwo\nthree");
  await Bun.write(join(dir.path, "empty"), "");
  await Bun.write(join(dir.path, "bytes"), Uint8Array.of(0x61, 0xff, 0x00));
  await mkdir(join(dir.path, "folder"));
  await symlink("lines", join(dir.path, "link"));
  expect(await Bun.spawn(["mkfifo", join(dir.path, "pipe")]).exited).toBe(0);
  results = await runScripts(
    CASES.map(([script]) => script),
    {},
    dir.path,
  );
});
afterAll(async () => await dir[Symbol.asyncDispose]());

test.each(CASES.map(([script, printed], at) => [script, printed, at] as const))("%s", (_, printed, at) => {
  expect(results[at]).toEqual({ printed: `${printed}\n`, error: null, lines: [] });
});

test("a handler reads a list, and writes a line for each message", async () => {
  await using home = await tempDir("handler-files");
  const folder = home.path;
  await Bun.write(join(folder, "refused"), "bad@example.com\n");
  const script = `from = Pmilter::Session.new.envelope_from
File.open("${folder}/seen", "a") { |file| file.puts from }
Pmilter.status = Pmilter::SMFIS_REJECT if File.open("${folder}/refused").readlines.any? { |line| from == "<#{line.chomp}>" }
`;
  await using pmilter = await startPmilter({
    server: { workers: 1 },
    config: '[handler.session]\nenvfrom_handler = "mail_from.rb"\n',
    files: { "mail_from.rb": script },
  });
  const verdicts = [];
  for (let at = 0; at < 150; at++) {
    await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
    const from = at % 2 === 0 ? "bad@example.com" : "good@example.com";
    verdicts.push((await client.send({ eml: "A: b\n\nc\n", from, to: ["a@b.c"] })).verdict);
  }
  // What a script leaves open is closed behind it, or no file could be opened after the hundredth.
  expect(verdicts).toEqual(Array.from({ length: 150 }, (_, at) => (at % 2 === 0 ? "reject" : "accept")));
  expect((await Bun.file(join(folder, "seen")).text()).split("\n")).toHaveLength(151);
});

test("the start of a server may use files", async () => {
  await using home = await tempDir("start-files");
  const config = '[handler.config]\npostconfig_handler = "postconfig.rb"\n';
  const script = `File.open("${home.path}/started", "w") { |file| file.puts "yes" }\n`;
  await using pmilter = await startPmilter({ config, files: { "postconfig.rb": script } });
  expect(await Bun.file(join(home.path, "started")).text()).toBe("yes\n");
  const broken = await writeProject(home.path, { config, files: { "postconfig.rb": 'IO.popen "date"\n' } });
  const { exitCode, stderr } = await runPmilter(["check", "-c", broken]);
  expect({
    exitCode,
    said: stderr.includes("postconfig.rb:1:1: IO.popen cannot be used in a Ruby handler here"),
  }).toEqual({
    exitCode: 1,
    said: true,
  });
  expect(await pmilter.stop()).toBe(0);
});
